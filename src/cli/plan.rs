//! `campanile plan`: what would change outside. It goes the way of the controller, without a gate.

mod files;
mod finding;
mod schema;
mod text;
mod yaml;

use super::{InstallationArgs, print};
use crate::{
    api::{self, AlarmSet, DeletionPolicy, FINALIZER, SlackChannel, TenantObservability},
    clients::{aws::Request, kubernetes, secret::Digester},
    controller::digest_key,
    engine::{
        error::{Class, Error, Result},
        informer::{Consistency, Polling, ReadOptions},
        limits::Priority,
        scope_pool::ScopePools,
    },
    kinds::{
        self, Kind, Status,
        cluster_view::{ClusterView, Purpose},
        overlay::ObjectKey,
        system::RunContext,
    },
    telemetry::{self, LogFormat, Output},
};
use clap::{Args, ValueEnum};
use files::{Definitions, Files};
use finding::{Finding, Tally};
use futures::{StreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode, sync::Arc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many objects are looked at at once.
const AT_ONCE: usize = 8;

/// How many objects the API server lists at once.
const PAGE: u32 = 500;

/// Options of `campanile plan`.
#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    installation: InstallationArgs,

    /// The namespace. Left out: that of the current context.
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,

    /// All namespaces. The tags of alarms, which are read one by one, are not looked at.
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Plan the objects of this file as if they had been applied (repeatable): YAML or JSON, a directory
    /// of such files, or - for standard input. Secrets and Namespaces there are taken into account.
    #[arg(short, long = "filename", value_name = "FILE")]
    files: Vec<String>,

    /// How the plan is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,

    /// Only these objects: `tobs/vsu`, `alarmset/golden-signals`. Left out: all of all kinds.
    #[arg(value_name = "KIND/NAME", conflicts_with = "all_namespaces", value_parser = object)]
    objects: Vec<Wanted>,
}

/// How a plan is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For machines: one document.
    Json,
}

/// An object that was named on the command line.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    kind: String,
    name: String,
}

fn object(text: &str) -> std::result::Result<Wanted, String> {
    let parts = text.split_once('/').filter(|(_, name)| !name.is_empty());
    let (kind, name) = parts.ok_or("use KIND/NAME, as in alarmset/golden-signals")?;
    let mut known = Vec::new();
    for CustomResourceDefinition { spec, .. } in api::crds() {
        let names = spec.names;
        let (short, one) = (
            names.short_names.unwrap_or_default().concat(),
            names.singular,
        );
        let one = one.unwrap_or_default();
        if [&short, &one, &names.plural]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(kind))
        {
            let (kind, name) = (names.kind, name.to_owned());
            return Ok(Wanted { kind, name });
        }
        known.push(format!("{short} ({one})"));
    }
    Err(format!("{kind} is not one of {}", known.join(", ")))
}

/// What all kinds are planned with.
struct Scene<'a> {
    client: &'a Client,
    namespace: &'a str,
    files: &'a Files,
    cluster: ClusterView<'a>,
    /// To the end, so that each scope is opened and read once.
    systems: ScopePools,
    consistency: Consistency,
    since: Instant,
}

/// An object to look at, as it is in the cluster; without one, as it is in a file.
type Subject<K> = (ObjectKey, Option<K>);

/// A plan for machines.
#[derive(Serialize)]
struct Document<'a> {
    objects: &'a [Finding],
    summary: &'a Tally,
}

/// What has been found so far.
struct Findings {
    format: Format,
    /// What is printed at the end.
    kept: Vec<Finding>,
    tally: Tally,
}

impl Plan {
    /// Prints the plan.
    pub async fn execute(self) -> Result<ExitCode> {
        telemetry::init_logs(LogFormat::Text, Output::Stderr)?;
        let client = kubernetes::client().await?;
        let namespace = self.namespace.as_deref();
        let namespace = namespace.unwrap_or_else(|| client.default_namespace());
        let files = Files::read(&self.files, namespace)?;
        if files.others > 0 {
            eprintln!(
                "campanile: objects in the files that are of other kinds and were left out: {}",
                files.others
            );
        }
        let digester = self.digester(&client).await?;
        let installation = self.installation.installation(&client, digester).await?;
        let (polling, observer) = (Polling::none(), Arc::new(|_: Request<'_>| {}));
        let opened = self.installation.open(&installation, &polling, observer);
        let (_, systems) = opened.await?;
        let cluster = ClusterView::new(&client, &installation, Purpose::Plan);
        let scene = Scene {
            client: &client,
            namespace,
            files: &files,
            cluster: cluster.with(&files.overlay),
            systems,
            consistency: if self.all_namespaces {
                Consistency::Known
            } else {
                Consistency::Now
            },
            since: Instant::now(),
        };
        let mut findings = Findings {
            format: self.output,
            kept: Vec::new(),
            tally: Tally::default(),
        };
        self.kind::<SlackChannel>(&scene, &mut findings).await?;
        self.kind::<TenantObservability>(&scene, &mut findings)
            .await?;
        self.kind::<AlarmSet>(&scene, &mut findings).await?;
        findings.end(if self.files.is_empty() {
            " Choose a namespace by -n, or all by -A."
        } else {
            " The files hold none of Campanile's kinds."
        })
    }

    /// The digests of this installation.
    async fn digester(&self, client: &Client) -> Result<Digester> {
        let InstallationArgs {
            operator_namespace,
            cluster_name,
            ..
        } = &self.installation;
        let found = digest_key::digester(client, operator_namespace, cluster_name).await;
        let found = found.map_err(|error| match error.class {
            // Any other key would tell of subscriptions that come and go.
            Class::Denied => Error::new(
                Class::Denied,
                format!(
                    "{}. A plan needs get on Secret {operator_namespace}/{}: only with the key in it can subscriptions be told apart",
                    error.message,
                    digest_key::NAME
                ),
            ),
            _ => error,
        })?;
        match found {
            Some(digester) => Ok(digester),
            // Without the key no digest can be told from another, but nothing has been subscribed either.
            None => Digester::new(format!("{:032x}", fastrand::u128(..)).as_bytes())
                .ok_or_else(|| Error::failing("no key for digests")),
        }
    }

    async fn kind<K: Kind>(&self, scene: &Scene<'_>, findings: &mut Findings) -> Result<()> {
        let subjects = self.subjects::<K>(scene).await?;
        let looks = stream::iter(subjects).map(|subject| scene.look(subject));
        // In the order of the objects, whichever is ready first.
        let mut looks = looks.buffered(AT_ONCE);
        while let Some(finding) = looks.next().await {
            findings.add(finding)?;
        }
        Ok(())
    }

    /// The objects of a kind that are to be planned, by namespace and name.
    async fn subjects<K: Kind>(&self, scene: &Scene<'_>) -> Result<Vec<Subject<K>>> {
        let named = || self.objects.iter().filter(|wanted| wanted.kind == K::KIND);
        if !self.files.is_empty() {
            let keys = scene.files.objects.iter();
            let mut keys: Vec<_> = keys.filter(|key| key.kind == K::KIND).cloned().collect();
            if let Some(missing) =
                named().find(|wanted| keys.iter().all(|key| key.name != wanted.name))
            {
                return Err(Error::invalid(format!(
                    "{} {} is not in the files",
                    missing.kind, missing.name
                )));
            }
            if !self.objects.is_empty() {
                keys.retain(|key| named().any(|wanted| wanted.name == key.name));
            }
            keys.sort();
            return Ok(keys.into_iter().map(|key| (key, None)).collect());
        }
        let mut found = Vec::new();
        if self.objects.is_empty() {
            found = self.list::<K>(scene).await?;
        }
        for wanted in named() {
            let object = scene.cluster.read::<K>(scene.namespace, &wanted.name).await;
            found.push(object?.ok_or_else(|| {
                Error::invalid(format!(
                    "{} {} does not exist in namespace {} (-n)",
                    K::KIND,
                    wanted.name,
                    scene.namespace
                ))
            })?);
        }
        let keyed = found.into_iter().map(|object| {
            let namespace = object.namespace().unwrap_or_default();
            let key = ObjectKey::of::<K>(&namespace, &object.name_any());
            (key, Some(object))
        });
        let mut subjects: Vec<_> = keyed.collect();
        subjects.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(subjects)
    }

    /// All objects of a kind, page by page.
    async fn list<K: Kind>(&self, scene: &Scene<'_>) -> Result<Vec<K>> {
        let api: Api<K> = if self.all_namespaces {
            Api::all(scene.client.clone())
        } else {
            Api::namespaced(scene.client.clone(), scene.namespace)
        };
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&params);
            let doing = match self.all_namespaces {
                true => format!("listing {} everywhere", K::KIND),
                false => format!("listing {} in {}", K::KIND, scene.namespace),
            };
            let page = kubernetes::call(&doing, page).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }
}

impl Scene<'_> {
    /// What would become of an object.
    async fn look<K: Kind>(&self, (key, object): Subject<K>) -> Finding {
        let object = match object {
            Some(object) => Ok(object),
            None => self.applied::<K>(&key).await,
        };
        match object {
            Ok(object) => self.plan(key, &object).await,
            Err(error) => Finding::problem(key, &error),
        }
    }

    /// An object as it would be in the cluster if its file was applied.
    async fn applied<K: Kind>(&self, key: &ObjectKey) -> Result<K> {
        let ObjectKey {
            namespace, name, ..
        } = key;
        let there = self.cluster.read::<K>(namespace, name).await?;
        let object = self.cluster.get::<K>(namespace, name).await?;
        let object =
            object.ok_or_else(|| Error::invalid(format!("{} {name} is in no file", K::KIND)))?;
        let spec = |object: &K| {
            let object = serde_json::to_value(object).unwrap_or_default();
            object.get("spec").cloned().unwrap_or_default()
        };
        let frozen = there
            .as_ref()
            .and_then(|there| Definitions::new().frozen(K::KIND, &spec(there), &spec(&object)));
        match frozen {
            None => Ok(object),
            Some(why) => Err(Error::new(
                Class::Rejected,
                format!("the API server would refuse this: {why}"),
            )),
        }
    }

    async fn plan<K: Kind>(&self, key: ObjectKey, object: &K) -> Finding {
        let status = object.status().cloned().unwrap_or_default();
        let deleting = object.meta().deletion_timestamp.is_some();
        // As the controller does.
        if deleting && !object.finalizers().iter().any(|name| name == FINALIZER) {
            return Finding::of(key, deleting);
        }
        let policies = object.policies();
        if deleting && policies.deletion == DeletionPolicy::Orphan {
            return Finding::orphaning(key, status.places());
        }
        if policies.suspend && !deleting {
            return Finding {
                suspended: true,
                ..Finding::of(key, deleting)
            };
        }
        let uid = object.uid();
        let options = ReadOptions {
            uid: uid.unwrap_or_else(|| format!("{}/{}/{}", key.kind, key.namespace, key.name)),
            priority: Priority::Edit,
            consistency: self.consistency,
            since: self.since,
            superseded: CancellationToken::new(),
        };
        let run_context = RunContext {
            systems: &self.systems,
            cluster: &self.cluster,
            gate: None,
            options,
            held_back: BTreeMap::new(),
        };
        let outcome = kinds::run(object, &status, run_context).await;
        Finding::of_outcome(key, object, &outcome)
    }
}

impl Findings {
    fn add(&mut self, finding: Finding) -> Result<()> {
        self.tally.add(&finding);
        match self.format {
            Format::Text => print(&text::finding(&finding)),
            Format::Json => {
                self.kept.push(finding);
                Ok(())
            }
        }
    }

    /// Prints what is left to print. `nothing` is added where there was nothing to look at.
    fn end(self, nothing: &str) -> Result<ExitCode> {
        let nothing = if self.tally.objects == 0 { nothing } else { "" };
        match self.format {
            Format::Text => print(&format!("{}{nothing}\n", self.tally))?,
            Format::Json => {
                let document = Document {
                    objects: &self.kept,
                    summary: &self.tally,
                };
                let text = serde_json::to_string_pretty(&document);
                let text = text.map_err(|error| Error::failing(format!("JSON: {error}")))?;
                print(&format!("{text}\n"))?;
            }
        }
        Ok(ExitCode::from(self.tally.exit_code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_kubectl_does() {
        for text in ["aset/golden", "AlarmSet/golden", "alarmsets/golden"] {
            assert_eq!(
                object(text),
                Ok(Wanted {
                    kind: "AlarmSet".into(),
                    name: "golden".into()
                })
            );
        }
        assert_eq!(object("tobs/vsu").unwrap().kind, "TenantObservability");
        assert_eq!(object("slc/alerts").unwrap().kind, "SlackChannel");
        for text in ["golden", "aset/", "pod/x"] {
            assert!(object(text).is_err(), "{text}");
        }
    }
}
