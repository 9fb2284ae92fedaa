//! `campanile plan -f`: the objects that files hold, read as strictly as the API server would where that
//! can be told from here.

use super::{
    schema,
    yaml::{self, Unreadable},
};
use crate::{
    api::{self, AlarmSet, GROUP, SlackChannel, TenantObservability},
    engine::error::{Error, Result},
    kinds::{
        Kind,
        overlay::{ObjectKey, Overlay},
    },
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace as KubeNamespace, Secret as KubeSecret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::core::PartialObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, stdin},
    path::{Path, PathBuf},
};

/// What stands for standard input on the command line.
const STDIN: &str = "-";

/// The most bytes that one file may have.
const LIMIT: u64 = 64 << 20;

/// What the files hold.
#[derive(Default)]
pub struct Files {
    /// What is taken instead of what is in the cluster.
    pub overlay: Overlay,
    /// The objects of Campanile's kinds.
    pub objects: Vec<ObjectKey>,
    /// How many objects of other kinds there are.
    pub others: usize,
    /// Where each object stands.
    sources: BTreeMap<ObjectKey, String>,
}

impl Files {
    /// Reads files, directories (what ends in `.yaml`, `.yml` or `.json`, not what is below) and standard
    /// input. Objects without a namespace are in `namespace`.
    pub fn read(paths: &[String], namespace: &str) -> Result<Self> {
        let definitions = Definitions::new();
        let mut files = Self::default();
        for path in paths {
            for (file, text) in texts(path)? {
                files.add_text(&file, &text, namespace, &definitions)?;
            }
        }
        Ok(files)
    }

    fn add_text(
        &mut self,
        file: &str,
        text: &str,
        namespace: &str,
        definitions: &Definitions,
    ) -> Result<()> {
        for document in documents(file, text)? {
            self.add(file, document, namespace, definitions)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: &str,
        document: Json,
        namespace: &str,
        definitions: &Definitions,
    ) -> Result<()> {
        let Json::Object(mut object) = document else {
            return Err(Error::invalid(format!(
                "{file}: there is a document that is not an object"
            )));
        };
        let word = |name: &str| object.get(name).and_then(Json::as_str).unwrap_or_default();
        let (version, kind) = (word("apiVersion").to_owned(), word("kind").to_owned());
        if kind.ends_with("List")
            && let Some(Json::Array(items)) = object.remove("items")
        {
            for item in items {
                self.add(file, item, namespace, definitions)?;
            }
            return Ok(());
        }
        let is_ours = version.split('/').next() == Some(GROUP);
        let is_core = version == "v1" && matches!(kind.as_str(), "Secret" | "Namespace");
        if !is_ours && !is_core {
            self.others += 1;
            return Ok(());
        }
        let metadata = object.get_key_value("metadata").into_iter();
        let metadata = metadata.map(|(name, value)| (name.clone(), value.clone()));
        let named = read::<PartialObjectMeta<KubeNamespace>>(metadata.collect());
        let named = named.map_err(|error| Error::invalid(format!("{file}: {kind}: {error}")))?;
        let is_told = |text: &String| !text.is_empty();
        let name =
            named.metadata.name.filter(is_told).ok_or_else(|| {
                Error::invalid(format!("{file}: {kind}: metadata.name: is missing"))
            })?;
        let own = named.metadata.namespace.filter(is_told);
        let namespace = match kind.as_str() {
            "Namespace" => String::new(),
            _ => own.unwrap_or_else(|| namespace.to_owned()),
        };
        let key = ObjectKey {
            kind,
            namespace,
            name,
        };
        let invalid = |what: String| Error::invalid(format!("{file}: {key}: {what}"));
        for (field, value) in [("name", &key.name), ("namespace", &key.namespace)] {
            if !value.is_empty() && !is_subdomain(value) {
                // It would stand in the paths of requests.
                return Err(invalid(format!(
                    "metadata.{field}: use small letters, digits, - and ., a letter or a digit first and last"
                )));
            }
        }
        let read = match key.kind.as_str() {
            "Secret" if is_core => secret(object),
            "Namespace" if is_core => typed::<PartialObjectMeta<KubeNamespace>>(object),
            kind => definitions.check(&version, kind, object),
        };
        let mut object = read.map_err(invalid)?;
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        if !self.overlay.add(key.clone(), object) {
            let known = self.sources.get(&key).map_or("", String::as_str);
            return Err(invalid(format!("it is in {known} too: which one is it?")));
        }
        self.sources.insert(key.clone(), file.to_owned());
        if is_ours {
            self.objects.push(key);
        }
        Ok(())
    }
}

/// The files that a path stands for, with what they hold.
fn texts(path: &str) -> Result<Vec<(String, String)>> {
    if path == STDIN {
        let file = "standard input".to_owned();
        let text = text(&file, stdin().lock())?;
        return Ok(vec![(file, text)]);
    }
    let failed =
        |path: &Path, error: std::io::Error| Error::invalid(format!("{}: {error}", path.display()));
    let open = |path: &Path| -> Result<(String, String)> {
        let file = File::open(path).map_err(|error| failed(path, error))?;
        let name = path.display().to_string();
        let text = text(&name, file)?;
        Ok((name, text))
    };
    let path = Path::new(path);
    if !path.is_dir() {
        return Ok(vec![open(path)?]);
    }
    let entries = path.read_dir().map_err(|error| failed(path, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let file: PathBuf = entry.map_err(|error| failed(path, error))?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(format!(
            "{}: there is no .yaml, .yml or .json file in this directory",
            path.display()
        )));
    }
    files.sort();
    files.iter().map(|file| open(file)).collect()
}

fn text(file: &str, from: impl Read) -> Result<String> {
    let mut text = String::new();
    let read = from.take(LIMIT + 1).read_to_string(&mut text);
    read.map_err(|error| Error::invalid(format!("{file}: {error}")))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LIMIT) {
        return Err(Error::invalid(format!(
            "{file}: is larger than {} MiB",
            LIMIT >> 20
        )));
    }
    Ok(text)
}

/// The documents of a YAML or JSON stream.
fn documents(file: &str, text: &str) -> Result<Vec<Json>> {
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter();
        if let Ok(documents) = stream.collect::<std::result::Result<Vec<_>, _>>() {
            return Ok(documents.into_iter().map(yaml::whole).collect());
        }
    }
    yaml::documents(text).map_err(|Unreadable { line, what }| {
        // What is said may quote what stands there.
        let what = match text.contains("Secret") {
            true => String::new(),
            false => format!(": {what}"),
        };
        Error::invalid(format!("{file}: is not YAML at line {line}{what}"))
    })
}

/// Reads an object of this type. The error says in which field what is wrong.
fn read<K: DeserializeOwned>(
    object: Map<String, Json>,
) -> Result<K, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(Json::Object(object))
}

/// An object as its type has it.
fn typed<K: Serialize + DeserializeOwned>(object: Map<String, Json>) -> Result<Json, String> {
    let object = read::<K>(object).map_err(|error| error.to_string())?;
    serde_json::to_value(object).map_err(|error| error.to_string())
}

/// A Secret as the API server would keep it. Says where something is wrong, and not what is there.
fn secret(object: Map<String, Json>) -> Result<Json, String> {
    let mut secret = read::<KubeSecret>(object).map_err(|error| {
        format!(
            "{}: must be a text: in data as base64, in stringData as it is, in quotes",
            error.path()
        )
    })?;
    let texts = secret.string_data.take().into_iter().flatten();
    let texts = texts.map(|(name, text)| (name, ByteString(text.into_bytes())));
    secret.data.get_or_insert_default().extend(texts);
    serde_json::to_value(secret).map_err(|error| error.to_string())
}

/// Whether the API server would take it for a name: a DNS subdomain (RFC 1123).
fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.bytes().all(|byte| inner(byte) || byte == b'-')
            && label.bytes().next().is_some_and(inner)
            && label.bytes().last().is_some_and(inner)
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Removes what is written and said to be nothing.
fn prune(value: &mut Json) {
    match value {
        Json::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune);
        }
        Json::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// What the CustomResourceDefinitions say.
pub struct Definitions(BTreeMap<String, Definition>);

struct Definition {
    version: String,
    /// Of the spec.
    schema: Json,
}

impl Definitions {
    /// Those of this version of Campanile.
    pub fn new() -> Self {
        let crds = api::crds().into_iter();
        let all = crds.filter_map(|CustomResourceDefinition { spec, .. }| {
            let version = spec.versions.into_iter().next()?;
            let schema = serde_json::to_value(version.schema?.open_api_v3_schema?).ok()?;
            let definition = Definition {
                version: format!("{}/{}", spec.group, version.name),
                schema: schema.pointer("/properties/spec")?.clone(),
            };
            Some((spec.names.kind, definition))
        });
        Self(all.collect())
    }

    /// Why a spec cannot become another, if it cannot.
    pub fn frozen(&self, kind: &str, was: &Json, is: &Json) -> Option<String> {
        let Definition { schema, .. } = self.0.get(kind)?;
        schema::frozen(schema, was, is, "spec")
    }

    fn check(
        &self,
        version: &str,
        kind: &str,
        mut object: Map<String, Json>,
    ) -> Result<Json, String> {
        let Some(definition) = self.0.get(kind) else {
            let kinds: Vec<_> = self.0.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no such kind in {GROUP}: use one of {}",
                kinds.join(", ")
            ));
        };
        if version != definition.version {
            return Err(format!(
                "apiVersion: must be {}, not {version}",
                definition.version
            ));
        }
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{name}: there is no such field"));
        }
        object.remove("status");
        let Some(spec) = object.get_mut("spec").filter(|spec| !spec.is_null()) else {
            return Err("spec: is missing".into());
        };
        schema::check(&definition.schema, spec, "spec")?;
        prune(spec);
        match kind {
            TenantObservability::KIND => typed::<TenantObservability>(object),
            AlarmSet::KIND => typed::<AlarmSet>(object),
            SlackChannel::KIND => typed::<SlackChannel>(object),
            // A kind that is defined and not known here cannot be planned either.
            kind => Err(format!("{kind} cannot be planned")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "
apiVersion: campanile.dev/v1alpha1
kind: AlarmSet
metadata: {name: golden}
spec:
  tenantRef: {name: vsu}
  suspend: null
  alarms:
    - {name: a, severity: info, namespace: App, metricName: m, statistic: Sum, period: 60, evaluationPeriods: 1, comparisonOperator: GreaterThanThreshold, threshold: 1}
";

    fn read(texts: &[&str]) -> Result<Files> {
        let mut files = Files::default();
        for (number, text) in texts.iter().enumerate() {
            files.add_text(&format!("{number}.yaml"), text, "here", &Definitions::new())?;
        }
        Ok(files)
    }

    #[test]
    fn names_are_such_as_may_stand_in_a_path() {
        for (text, fits) in [
            ("vsu", true),
            ("a.b-c.0", true),
            ("../../x", false),
            ("Gold/x", false),
            ("a..b", false),
            ("-a", false),
            ("x y", false),
            ("", false),
        ] {
            assert_eq!(is_subdomain(text), fits, "{text}");
        }
    }

    /// `threshold: 010` is 8 to the API server, `6e1` a whole number, and `no` no text.
    #[test]
    fn numbers_are_read_as_the_api_server_does() {
        let read = |from: &str, to: &str| {
            let files = read(&[&SET.replace(from, to)])?;
            let golden = key("AlarmSet", "here", "golden");
            let set = files.overlay.applied::<AlarmSet>(&golden, None)?;
            Ok::<_, Error>(set.unwrap().spec.alarms.remove(0))
        };
        assert_eq!(
            read("threshold: 1", "threshold: 010").unwrap().threshold,
            8.0
        );
        assert_eq!(read("period: 60", "period: 6e1").unwrap().period, 60);
        assert_eq!(read("period: 60", "period: 0x3C").unwrap().period, 60);
        for (name, value) in [("no", "false"), ("010", "8"), ("0o17", "15")] {
            let wrong = read("metricName: m", &format!("metricName: {name}")).unwrap_err();
            let says = format!("metricName: must be of type string, not {value}: put it in quotes");
            assert!(wrong.message.contains(&says), "{wrong}");
        }
        let json = r#"{"apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet", "metadata": {"name": "json"}, "spec":
            {"tenantRef": {"name": "vsu"}, "alarms": [{"name": "a", "severity": "info", "namespace": "App", "metricName": "m",
            "statistic": "Sum", "period": 60.0, "evaluationPeriods": 1, "comparisonOperator": "GreaterThanThreshold", "threshold": 1}]}}"#;
        assert_eq!(super::tests::read(&[json]).unwrap().objects.len(), 1);
    }

    fn key(kind: &str, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn objects_of_all_documents_are_found() {
        let more = "
# nothing but a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: vsu, namespace: ignored}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: vsu}
data: {a: YQ==, b: YQ==}
stringData: {b: plain}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
---
- some: values
";
        let files = read(&[SET, more.rsplit_once("---").unwrap().0]).unwrap();
        assert_eq!(files.objects, [key("AlarmSet", "here", "golden")]);
        assert_eq!(files.others, 1);
        let keys: Vec<_> = files.overlay.keys().cloned().collect();
        assert_eq!(
            keys,
            [
                key("AlarmSet", "here", "golden"),
                key("Namespace", "", "vsu"),
                key("Secret", "vsu", "s")
            ]
        );
        let secret = files.overlay.manifest(&keys[2]).unwrap();
        assert_eq!(secret["data"], json!({"a": "YQ==", "b": "cGxhaW4="}));
        let set = files.overlay.manifest(&keys[0]).unwrap();
        assert_eq!(set["metadata"]["namespace"], "here");

        let error = read(&[more]).err().unwrap();
        assert!(error.message.contains("not an object"), "{error}");
    }

    #[test]
    fn lists_and_json_are_read() {
        let set: Json = serde_saphyr::from_str(SET).unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [set]});
        let tabs = serde_json::to_string(&list).unwrap().replace(',', ",\t");
        for text in [list.to_string(), tabs, format!("{list}\n{{}}")] {
            let files = read(&[&text]).unwrap();
            assert_eq!(files.objects, [key("AlarmSet", "here", "golden")], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_file_object_and_field() {
        for (text, message) in [
            (
                SET.replace("threshold: 1", "threshold: high"),
                "0.yaml: AlarmSet here/golden: spec.alarms[0].threshold: must be of type number, not \"high\"",
            ),
            (
                SET.replace("v1alpha1", "v9"),
                "0.yaml: AlarmSet here/golden: apiVersion: must be campanile.dev/v1alpha1, not campanile.dev/v9",
            ),
            (
                SET.replace("kind: AlarmSet", "kind: AlarmSets"),
                "0.yaml: AlarmSets here/golden: there is no such kind in campanile.dev: use one of AlarmSet, SlackChannel, TenantObservability",
            ),
            (
                SET.replace("{name: golden}", "{generateName: golden}"),
                "0.yaml: AlarmSet: metadata.name: is missing",
            ),
            (
                SET.replace("spec:", "specs:"),
                "0.yaml: AlarmSet here/golden: specs: there is no such field",
            ),
            (
                format!("{SET}---{SET}"),
                "0.yaml: AlarmSet here/golden: it is in 0.yaml too: which one is it?",
            ),
        ] {
            assert_eq!(read(&[&text]).err().unwrap().message, message);
        }
        let error = read(&[SET, "a: [1\nb: 2"]).err().unwrap();
        assert!(
            error.message.starts_with("1.yaml: is not YAML at line "),
            "{error}"
        );
    }

    #[test]
    fn no_value_of_a_secret_is_told() {
        let secret =
            |rest: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{rest}");
        for (rest, message) in [
            (
                "stringData: {key: 4711}",
                "0.yaml: Secret here/s: stringData.key: must be a text: in data as base64, in stringData as it is, in quotes",
            ),
            (
                "data: {key: 'can*ary'}",
                "0.yaml: Secret here/s: data.key: must be a text: in data as base64, in stringData as it is, in quotes",
            ),
            (
                "data: [canary]",
                "0.yaml: Secret here/s: data: must be a text: in data as base64, in stringData as it is, in quotes",
            ),
            (
                "data:\n  key: canary\n bad",
                "0.yaml: is not YAML at line 6",
            ),
        ] {
            let told = read(&[&secret(rest)]).err().unwrap().message;
            assert_eq!(told, message);
        }
    }

    #[test]
    fn paths_are_files_and_directories() {
        let directory = std::env::temp_dir().join(format!("campanile-{:x}", fastrand::u128(..)));
        std::fs::create_dir_all(directory.join("below.yaml")).unwrap();
        let path = directory.display().to_string();
        let told = |path: &str| texts(path).unwrap_err().message;
        assert!(told(&path).contains("there is no .yaml, .yml or .json file"));
        assert!(told(&format!("{path}/nowhere.yaml")).starts_with(&path));
        for name in ["b.yml", "a.yaml", "c.json", "d.txt"] {
            std::fs::write(directory.join(name), name).unwrap();
        }
        let found = texts(&path).unwrap();
        let found: Vec<_> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(found, ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(texts(&format!("{path}/d.txt")).unwrap().len(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
