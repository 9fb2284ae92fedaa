//! What was written through the API server, by its own audit log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Kubernetes;

/// Who kube-controller-manager is.
pub(super) const CONTROLLERS: &str = "system:kube-controller-manager";
const POLICY: &str = "audit-policy.yaml";
const LOG: &str = "audit.log";
/// A line for every write, once it is answered. What the control plane does by itself is nobody's write.
const RULES: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - {level: None, users: ['system:apiserver', 'system:kube-controller-manager', 'system:kube-scheduler']}
  - {level: None, userGroups: ['system:nodes']}
  - {level: None, verbs: [get, list, watch]}
  - {level: Metadata}
";

/// A request that is not `get`, `list` or `watch`, as the API server answered it. Refused ones are here too, and so are those that
/// only ask by creating something (`selfsubjectaccessreviews`, `tokenreviews`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiWrite {
    /// When it was answered.
    pub at: Timestamp,
    /// `system:serviceaccount:<namespace>:<name>`, or the name in the token file.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The plural: `configmaps`. Empty if it is not about a resource.
    pub resource: String,
    /// `status`; empty without one.
    pub subresource: String,
    /// Empty where the resource has none.
    pub namespace: String,
    /// Empty if it is about several, or if the API server was to choose it.
    pub name: String,
    /// The HTTP status.
    pub status_code: u16,
    /// Whether nothing was to be stored (`dryRun=All`).
    pub dry_run: bool,
}

/// A place in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritesMark(u64);

impl Kubernetes {
    /// Now, for [`Self::writes_since`].
    pub fn mark_writes(&self) -> WritesMark {
        let length = log(&self.directory).metadata().map(|log| log.len());
        WritesMark(length.unwrap_or_default())
    }

    /// What was written since `mark` by anyone but the control plane itself, in the order in which it was answered. Whoever has an
    /// answer in full finds it here: it is noted first. Fails if the API server was told to keep its log elsewhere.
    pub fn writes_since(&self, mark: WritesMark) -> Result<Vec<ApiWrite>> {
        let log = log(&self.directory);
        let lines = complete_lines_since(&log, mark)
            .with_context(|| format!("{} cannot be read", log.display()))?;
        let writes = lines.lines().map(ApiWrite::read);
        writes.filter_map(Result::transpose).collect()
    }
}

/// Makes the API server keep the log below `directory`.
pub(super) fn keep(command: &mut Command, directory: &Path) -> Result<()> {
    let policy = directory.join(POLICY);
    std::fs::write(&policy, RULES)
        .with_context(|| format!("{} cannot be written", policy.display()))?;
    command
        .arg(format!("--audit-policy-file={POLICY}"))
        .arg(format!("--audit-log-path={LOG}"))
        .arg("--audit-log-format=json")
        // A request's line is written before its answer ends, and never into another file.
        .arg("--audit-log-mode=blocking")
        .arg("--audit-log-maxsize=0");
    Ok(())
}

fn log(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

fn complete_lines_since(log: &Path, WritesMark(begin): WritesMark) -> std::io::Result<String> {
    let mut log = File::open(log)?;
    // One byte more tells whether the mark was set while a line was being written: that one began before it.
    log.seek(SeekFrom::Start(begin.saturating_sub(1)))?;
    let mut text = String::new();
    log.read_to_string(&mut text)?;
    if begin > 0 {
        text = text
            .split_once('\n')
            .map_or("", |(_, rest)| rest)
            .to_owned();
    }
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    Ok(text)
}

impl ApiWrite {
    /// `None` for what another policy than ours put into the log.
    fn read(line: &str) -> Result<Option<Self>> {
        let event: Event = serde_json::from_str(line)
            .with_context(|| format!("this is no entry of an audit log: {line}"))?;
        let answered = ["ResponseComplete", "Panic"].contains(&event.stage.as_str());
        if !answered || ["get", "list", "watch"].contains(&event.verb.as_str()) {
            return Ok(None);
        }
        let query = event
            .request_uri
            .split_once('?')
            .map_or("", |(_, query)| query);
        let dry_run = form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "dryRun");
        Ok(Some(Self {
            at: event.stage_timestamp,
            user: event.user.username,
            verb: event.verb,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            status_code: event.response_status.code,
            dry_run,
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    stage_timestamp: Timestamp,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_the_mark_on_once_they_are_complete() {
        let log = std::env::temp_dir().join(format!("audit-{}", fastrand::u64(..)));
        std::fs::write(&log, "first\nsecond\nthird\nfou").unwrap();
        for (mark, expected) in [
            (0, "first\nsecond\nthird\n"),
            (6, "second\nthird\n"),
            // Set while the second was being written.
            (8, "third\n"),
            (13, "third\n"),
            (19, ""),
            (22, ""),
        ] {
            let lines = complete_lines_since(&log, WritesMark(mark)).unwrap();
            assert_eq!(lines, expected, "{mark}");
        }
        std::fs::remove_file(&log).unwrap();
        assert!(complete_lines_since(&log, WritesMark(0)).is_err());
    }

    #[test]
    fn an_entry_is_a_write_once_it_is_answered() {
        let line = |stage: &str, verb: &str, uri: &str, more: &str| {
            format!(
                r#"{{"kind":"Event","level":"Metadata","stage":"{stage}","requestURI":"{uri}","verb":"{verb}",
                "user":{{"username":"admin","groups":["system:masters"]}},{more}
                "requestReceivedTimestamp":"2026-01-02T03:04:05.000001Z","stageTimestamp":"2026-01-02T03:04:05.123456Z"}}"#
            )
        };
        let of = |stage, verb, uri, more| ApiWrite::read(&line(stage, verb, uri, more)).unwrap();
        let set = r#""objectRef":{"resource":"alarmsets","namespace":"vsu","name":"golden","apiGroup":"campanile.dev",
            "apiVersion":"v1alpha1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"#;
        let write = ApiWrite {
            at: "2026-01-02T03:04:05.123456Z".parse().unwrap(),
            user: "admin".to_owned(),
            verb: "patch".to_owned(),
            resource: "alarmsets".to_owned(),
            subresource: "status".to_owned(),
            namespace: "vsu".to_owned(),
            name: "golden".to_owned(),
            status_code: 200,
            dry_run: false,
        };
        let uri =
            "/apis/campanile.dev/v1alpha1/namespaces/vsu/alarmsets/golden/status?fieldManager=a";
        assert_eq!(
            of("ResponseComplete", "patch", uri, set),
            Some(write.clone())
        );
        assert_eq!(of("Panic", "patch", uri, set), Some(write.clone()));
        for (stage, verb) in [
            ("RequestReceived", "patch"),
            ("ResponseStarted", "patch"),
            ("ResponseComplete", "get"),
            ("ResponseComplete", "list"),
            ("ResponseComplete", "watch"),
        ] {
            assert_eq!(of(stage, verb, uri, set), None, "{stage} {verb}");
        }
        let tried = format!("{uri}&dryRun=All");
        let tried = of("ResponseComplete", "patch", &tried, set).unwrap();
        assert!(tried.dry_run);
        // About no resource at all.
        let other = of("ResponseComplete", "post", "/reset", "").unwrap();
        assert_eq!((other.resource.as_str(), other.status_code), ("", 0));
        assert!(ApiWrite::read("{}").is_err());
    }
}
