//! `campanile plan`: what would change outside. It goes the way of the controller, without a gate.

use super::InstallationArgs;
use crate::{
    api::{AlarmSet, TenantObservability},
    clients::{aws::Accounts, kubernetes},
    controller::secrets,
    error::{Error, Result},
    kind::{self, Kind, Outcome, Purpose, Surroundings},
    plan::Verb,
    secret::Digester,
    telemetry::{self, LogFormat, Output},
};
use clap::Args;
use kube::{Api, Client, ResourceExt, api::ListParams};
use std::{collections::BTreeMap, fmt, process::ExitCode, sync::Arc};

/// Options of `campanile plan`.
#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    installation: InstallationArgs,

    /// The namespace. Left out: that of the current context.
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,

    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Only these objects: `tobs/vsu`, `alarmset/golden-signals`. Left out: all of both kinds.
    #[arg(value_name = "KIND/NAME", conflicts_with = "all_namespaces", value_parser = object)]
    objects: Vec<Wanted>,
}

/// An object that was named on the command line.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    kind: &'static str,
    name: String,
}

fn object(text: &str) -> std::result::Result<Wanted, String> {
    let (kind, name) = text
        .split_once('/')
        .ok_or("use KIND/NAME, as in alarmset/golden-signals")?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "tobs" | "tenantobservability" | "tenantobservabilities" => TenantObservability::KIND,
        "aset" | "alarmset" | "alarmsets" => AlarmSet::KIND,
        other => {
            return Err(format!(
                "{other} is not one of tobs (tenantobservability) and aset (alarmset)"
            ));
        }
    };
    if name.is_empty() {
        return Err("the name is missing: use KIND/NAME".into());
    }
    Ok(Wanted {
        kind,
        name: name.to_owned(),
    })
}

/// What was found over all objects.
#[derive(Default)]
struct Tally {
    verbs: BTreeMap<Verb, usize>,
    objects: usize,
    problems: usize,
}

impl Plan {
    /// Prints the plan.
    pub async fn execute(self) -> Result<ExitCode> {
        telemetry::init_logs(LogFormat::Text, Output::Stderr)?;
        let client = kubernetes::client().await?;
        let namespace = &self.installation.operator_namespace;
        // Without the key no digest can be told from another, but nothing has been subscribed either.
        let digester =
            match secrets::digester(&client, namespace, &self.installation.cluster_name).await? {
                Some(digester) => digester,
                None => Digester::new(format!("{:032x}", fastrand::u128(..)).as_bytes())
                    .ok_or_else(|| Error::failing("no key for digests"))?,
            };
        let installation = self.installation.installation(&client, digester).await?;
        let accounts =
            Accounts::from_environment(&installation.cluster.name, Arc::new(|_| {})).await;
        let around = Surroundings::new(&client, &installation, Purpose::Plan);
        let mut tally = Tally::default();
        self.kind::<TenantObservability>(&client, &around, &accounts, &mut tally)
            .await?;
        self.kind::<AlarmSet>(&client, &around, &accounts, &mut tally)
            .await?;
        println!("{tally}");
        Ok(match tally {
            Tally { problems: 1.., .. } => ExitCode::from(1),
            Tally { verbs, .. } if !verbs.is_empty() => ExitCode::from(2),
            Tally { .. } => ExitCode::SUCCESS,
        })
    }

    async fn kind<K: Kind>(
        &self,
        client: &Client,
        around: &Surroundings<'_>,
        accounts: &Accounts,
        tally: &mut Tally,
    ) -> Result<()> {
        for object in self.objects::<K>(client).await? {
            let title = format!(
                "{} {}/{}",
                K::KIND,
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            let prepared = kind::prepare(&object, around).await;
            let status = object.status().cloned().unwrap_or_default();
            let outcome = kind::carry_out(&object, prepared, &status, accounts, around, None).await;
            tally.objects += 1;
            print(&title, &object, &outcome, tally);
        }
        Ok(())
    }

    async fn objects<K: Kind>(&self, client: &Client) -> Result<Vec<K>> {
        let api: Api<K> = match &self.namespace {
            _ if self.all_namespaces => Api::all(client.clone()),
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::default_namespaced(client.clone()),
        };
        if self.objects.is_empty() {
            let listed = kubernetes::call(
                &format!("listing {}", K::KIND),
                api.list(&ListParams::default()),
            )
            .await?;
            return Ok(listed.items);
        }
        let mut named = Vec::new();
        for wanted in self.objects.iter().filter(|wanted| wanted.kind == K::KIND) {
            let found = kubernetes::call(
                &format!("reading {} {}", K::KIND, wanted.name),
                api.get_opt(&wanted.name),
            )
            .await?;
            named.push(found.ok_or_else(|| {
                Error::invalid(format!(
                    "{} {} does not exist in that namespace (-n)",
                    K::KIND,
                    wanted.name
                ))
            })?);
        }
        Ok(named)
    }
}

/// Prints what would be done to one object; nothing, if nothing would.
fn print<K: Kind>(title: &str, object: &K, outcome: &Outcome<K>, tally: &mut Tally) {
    let mut lines = Vec::new();
    for place in &outcome.places {
        for step in &place.report.planned {
            *tally.verbs.entry(step.verb).or_default() += 1;
            lines.push(
                step.to_string()
                    .lines()
                    .map(|line| format!("  {line}"))
                    .collect::<Vec<_>>()
                    .join("\n"),
            );
        }
    }
    for (key, error) in outcome.failures() {
        // The steps have said so already.
        if error.class == crate::error::Class::Conflict {
            continue;
        }
        tally.problems += 1;
        lines.push(format!(
            "  ? {}{}",
            key.map(|key| format!("{key}: ")).unwrap_or_default(),
            error.message
        ));
    }
    if lines.is_empty() {
        return;
    }
    let place = outcome
        .places
        .first()
        .map(|place| format!("  ({})", place.target))
        .unwrap_or_default();
    let going = if object.meta().deletion_timestamp.is_some() {
        "  being deleted"
    } else {
        ""
    };
    println!("{title}{place}{going}\n{}\n", lines.join("\n"));
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |verb| self.verbs.get(&verb).copied().unwrap_or_default();
        if self.verbs.is_empty() && self.problems == 0 {
            return match self.objects {
                0 => f.write_str(
                    "There are no objects here: choose a namespace by -n, or all by -A.",
                ),
                1 => f.write_str("Nothing would change: 1 object is as declared."),
                n => write!(f, "Nothing would change: {n} objects are as declared."),
            };
        }
        write!(
            f,
            "{} to create, {} to change, {} to delete, {} in conflict, {} problems in {} object{}.",
            count(Verb::Create),
            count(Verb::Update),
            count(Verb::Delete),
            count(Verb::Conflict),
            self.problems,
            self.objects,
            if self.objects == 1 { "" } else { "s" }
        )
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
                    kind: "AlarmSet",
                    name: "golden".into()
                })
            );
        }
        assert_eq!(object("tobs/vsu").unwrap().kind, "TenantObservability");
        for text in ["golden", "aset/", "pod/x"] {
            assert!(object(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_line_sums_up() {
        let nothing = Tally {
            objects: 3,
            ..Tally::default()
        };
        assert_eq!(
            nothing.to_string(),
            "Nothing would change: 3 objects are as declared."
        );
        assert!(Tally::default().to_string().contains("choose a namespace"));
        let some = Tally {
            verbs: [(Verb::Create, 2), (Verb::Delete, 1)].into(),
            objects: 1,
            problems: 0,
        };
        assert_eq!(
            some.to_string(),
            "2 to create, 0 to change, 1 to delete, 0 in conflict, 0 problems in 1 object."
        );
    }
}
