//! `campanile plan` of files, of a fleet, for machines, and by somebody who may write nowhere.

use crate::support::{
    CLUSTER, Planned, REGION, Tenant, alarm, errors, eventually, paged, plan, plan_as,
    slack::{SCOPES, spec, workspace},
    test, version, with,
};
use campanile::api::{ACCOUNT_BINDING, AlarmSet, SlackChannel};
use campanile_world::{
    World,
    aws::Trust,
    kubernetes::{ServiceAccount, client},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

const CANARY: &str = "canary0ff1ce00000000000000000043";

/// Who may read what a plan needs, and nothing else.
const PLANNER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: campanile-plan}
rules:
  - {apiGroups: [campanile.dev], resources: [tenantobservabilities, alarmsets, slackchannels], verbs: [get, list]}
  - {apiGroups: [''], resources: [namespaces, secrets], verbs: [get]}
";

/// A new directory below the world's own.
fn directory(world: &World, name: &str) -> PathBuf {
    let directory = world.run_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// The kubeconfig file of somebody new who has this role.
async fn identity(world: &World, name: &'static str, role: &str) -> String {
    let path = directory(world, "plans").join(format!("{name}.yaml"));
    std::fs::write(&path, role).unwrap();
    let account = ServiceAccount {
        namespace: "plan-readers",
        name,
    };
    let kubeconfig = world.kubernetes.identity(account, &[path]).await.unwrap();
    kubeconfig.display().to_string()
}

/// A file with these objects, and its path.
fn file(world: &World, name: &str, objects: &[Value]) -> String {
    let texts: Vec<_> = objects.iter().map(|object| format!("{object:#}")).collect();
    let path = directory(world, "plans").join(name);
    std::fs::write(&path, texts.join("\n---\n")).unwrap();
    path.display().to_string()
}

fn manifest(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "campanile.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn set(tenant: &str, alarms: &Value) -> Value {
    json!({"tenantRef": {"name": tenant}, "environments": ["prod"], "alarms": alarms})
}

fn parsed(planned: &Planned) -> Value {
    serde_json::from_str(&planned.out)
        .unwrap_or_else(|error| panic!("{error}: {}{}", planned.out, planned.err))
}

/// The steps of all objects of a plan: object, verb and name.
fn steps(plan: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let objects = plan["objects"].as_array().unwrap().iter();
    let steps = objects.flat_map(|object| {
        let steps = object["steps"].as_array().unwrap().iter();
        steps.map(|step| {
            (
                text(&object["name"]),
                text(&step["verb"]),
                text(&step["name"]),
            )
        })
    });
    steps.collect()
}

/// Stops an operator that has carried out the tenant and its set.
async fn carried_out(tenant: &Tenant, set: &str) {
    let operator = tenant.operator().await;
    tenant.tenant_is("Applied").await;
    tenant.ready::<AlarmSet>(set, "Applied").await;
    operator.stop(Duration::from_secs(10)).await.unwrap();
}

#[test]
fn files_are_planned_for_a_namespace_that_does_not_exist() {
    test(|world| async move {
        // Only for an account of its own: the plan is about another namespace.
        let home = Tenant::new(world, "plan-new-home").await;
        let namespace = "plan-new";
        let trust = Trust::external_id(format!("{CLUSTER}/{namespace}"));
        home.trust(trust);
        let spec = paged(home.usual_spec());
        let binding = |account: &str| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "annotations": {ACCOUNT_BINDING: account}}})
        };
        let alarms = json!([
            alarm("errors", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]);
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
        let objects = [
            other,
            binding(&home.account),
            manifest("AlarmSet", "golden", &set("vsu", &alarms)),
            manifest("TenantObservability", "vsu", &spec),
        ];
        let files = file(world, "new.yaml", &objects);
        let args = ["-n", namespace, "-o", "json", "-f", &files];
        let mark = world.aws.mark();
        let planned = plan(&home, &args).await;
        assert_eq!(planned.code, 2, "{}{}", planned.out, planned.err);
        assert!(
            planned.err.contains("of other kinds and were left out: 1"),
            "{}",
            planned.err
        );
        let found = parsed(&planned);
        assert_eq!(
            found["summary"],
            json!({"create": 4, "update": 0, "delete": 0, "conflict": 0, "drift": 0, "problems": 0, "waits": 1, "objects": 2})
        );
        let [tenant, set] = &found["objects"].as_array().unwrap()[..] else {
            panic!("{found:#}")
        };
        assert_eq!(
            [
                &tenant["kind"],
                &tenant["namespace"],
                &tenant["account"],
                &tenant["region"]
            ],
            ["TenantObservability", namespace, &home.account, REGION]
        );
        let wait = &tenant["waits"][0]["message"];
        assert!(
            wait.as_str()
                .unwrap()
                .starts_with("Secret plan-new/pager does not exist: create it"),
            "{wait}"
        );
        // The alarms tell the topics that are still to come.
        let topic = tenant["steps"][0]["name"].as_str().unwrap();
        assert!(topic.starts_with("campanile_vsu_critical_"), "{topic}");
        let fields = set["steps"][0]["fields"].as_array().unwrap();
        let actions = fields
            .iter()
            .find(|field| field["name"] == "alarmActions")
            .unwrap();
        assert_eq!(actions["from"], Value::Null);
        assert_eq!(
            actions["to"],
            format!("arn:aws:sns:{REGION}:{}:{topic}", home.account)
        );

        // The same for people.
        let planned = plan(&home, &["-n", namespace, "-f", &files]).await;
        assert_eq!(planned.code, 2);
        for text in [
            "  … critical https PagerDuty primary waits for: Secret plan-new/pager does not exist",
            "      policy.Statement[0].Principal: {\"Service\":\"cloudwatch.amazonaws.com\"}\n",
            "\n4 to create, 0 to change, 0 to delete, 0 in conflict, 1 to wait, 0 problems in 2 objects.\n",
        ] {
            assert!(planned.out.contains(text), "{text}: {}", planned.out);
        }

        // With its Secret, on standard input, the subscription is planned, and nobody can read its key.
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pager"}, "stringData": {"key": CANARY}});
        let args = ["-n", namespace, "-o", "json", "-f", &files, "-f", "-"];
        let planned = plan_as(world, &[], &args, &secret.to_string()).await;
        assert_eq!(planned.code, 2, "{}", planned.err);
        let found = parsed(&planned);
        assert_eq!(found["summary"]["create"], 5);
        let subscriptions: Vec<_> = steps(&found)
            .into_iter()
            .filter(|(_, _, name)| name.starts_with("critical http hmac:"))
            .collect();
        assert_eq!(subscriptions.len(), 1, "{found:#}");
        assert!(!format!("{}{}", planned.out, planned.err).contains(CANARY));

        // One of them alone is planned as if the others were there.
        let planned = plan(&home, &["-n", namespace, "-f", &files, "aset/golden"]).await;
        assert_eq!(planned.code, 2);
        assert!(
            planned.out.contains("2 to create") && planned.out.ends_with("in 1 object.\n"),
            "{}",
            planned.out
        );

        // A binding to another account counts as if it was there.
        let others = file(
            world,
            "bound.yaml",
            &[
                binding("111122223333"),
                manifest("TenantObservability", "vsu", &spec),
            ],
        );
        let planned = plan(&home, &["-n", namespace, "-o", "json", "-f", &others]).await;
        assert_eq!(planned.code, 1, "{}", planned.err);
        let problem = &parsed(&planned)["objects"][0]["problems"][0];
        assert_eq!(problem["class"], "denied");
        assert!(
            problem["message"]
                .as_str()
                .unwrap()
                .contains(ACCOUNT_BINDING),
            "{problem}"
        );

        // A tenant that is nowhere is an error.
        let alone = file(
            world,
            "alone.yaml",
            &[manifest("AlarmSet", "golden", &self::set("vsu", &alarms))],
        );
        let planned = plan(&home, &["-n", namespace, "-f", &alone]).await;
        assert_eq!(planned.code, 1);
        assert!(
            planned
                .out
                .contains("? TenantObservability plan-new/vsu does not exist"),
            "{}",
            planned.out
        );
        assert_eq!(home.writes_since(mark), []);
    });
}

#[test]
fn a_file_is_planned_over_what_is_there() {
    test(|world| async move {
        let tenant = Tenant::new(world, "plan-over").await;
        tenant.usual_tenant().await;
        let alarms =
            |threshold: f64| json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
        tenant.golden(alarms(10.0)).await;
        carried_out(&tenant, "golden").await;
        let of = |name: &str, objects: &[Value]| file(world, &format!("over-{name}.yaml"), objects);
        let set =
            |threshold: f64| manifest("AlarmSet", "golden", &set("plan-over", &alarms(threshold)));
        let owner = |spec: &Value| manifest("TenantObservability", "plan-over", spec);
        let with_file = async |name: &str, objects: &[Value], more: &[&str]| {
            let file = of(name, objects);
            let args: Vec<_> = ["-n", "plan-over", "-f", &file]
                .into_iter()
                .chain(more.iter().copied())
                .collect();
            plan(&tenant, &args).await
        };

        // What is there already is nothing new; what was made is known by the status that is there.
        let planned = with_file("same", &[set(10.0), owner(&tenant.usual_spec())], &[]).await;
        assert_eq!(
            (planned.code, planned.out.as_str()),
            (0, "Nothing would change: 2 objects are as declared.\n")
        );
        let planned = with_file(
            "edit",
            &[set(25.5), owner(&tenant.usual_spec())],
            &["aset/golden"],
        )
        .await;
        assert_eq!(planned.code, 2);
        assert_eq!(
            planned.out,
            format!(
                "AlarmSet plan-over/golden  (account {}, us-east-2)\n  ~ alarm campanile/it/plan-over/critical/golden/errors@prod\n      threshold: 10 → 25.5\n\n0 to create, 1 to change, 0 to delete, 0 in conflict, 0 problems in 1 object.\n",
                tenant.account
            )
        );

        // An edit of the tenant reaches its set.
        let mut without = tenant.usual_spec();
        without["notify"] = json!({"warning": {}});
        let planned = with_file("both", &[set(10.0), owner(&without)], &["-o", "json"]).await;
        let found = parsed(&planned);
        assert_eq!(planned.code, 2, "{found:#}");
        let mut verbs: Vec<_> = steps(&found)
            .into_iter()
            .map(|(object, verb, _)| (object, verb))
            .collect();
        verbs.sort();
        assert_eq!(
            verbs,
            [
                ("golden".into(), "update".into()),
                ("plan-over".to_owned(), "delete".to_owned())
            ]
        );
        let fields = found["objects"][1]["steps"][0]["fields"]
            .as_array()
            .unwrap();
        let names: Vec<_> = fields
            .iter()
            .map(|field| field["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["alarmActions", "okActions"]);
        assert!(fields.iter().all(|field| field["to"] == ""), "{found:#}");

        // What the API server would refuse is refused here.
        let mut moved = tenant.usual_spec();
        moved["aws"]["accountId"] = json!("111122223333");
        let mut misspelt = set(1.0);
        misspelt["spec"]["alarms"][0]["treshold"] = json!(5);
        for (name, objects, more, out, text) in [
            (
                "moved",
                owner(&moved),
                vec![],
                true,
                "spec.aws.accountId: accountId cannot be changed",
            ),
            (
                "misspelt",
                misspelt,
                vec![],
                false,
                "over-misspelt.yaml: AlarmSet plan-over/golden: spec.alarms[0].treshold: there is no such field",
            ),
            (
                "named",
                set(1.0),
                vec!["aset/other"],
                false,
                "AlarmSet other is not in the files",
            ),
        ] {
            let planned = with_file(name, &[objects], &more).await;
            assert_eq!(planned.code, 1, "{name}: {}", planned.out);
            let said = if out { &planned.out } else { &planned.err };
            assert!(
                said.contains(text),
                "{name}: {}{}",
                planned.out,
                planned.err
            );
        }
        for (args, text) in [
            (["-f", "/nowhere/at/all.yaml"], "/nowhere/at/all.yaml: "),
            (["-f", ""], "campanile: "),
        ] {
            let planned = plan(&tenant, &args).await;
            assert_eq!((planned.code, planned.out.as_str()), (1, ""));
            assert!(planned.err.contains(text), "{}", planned.err);
        }
    });
}

#[test]
fn what_came_about_outside_and_what_would_not_be_done_is_told() {
    test(|world| async move {
        let tenant = Tenant::new(world, "plan-drift").await;
        let in_namespace = ["-n", "plan-drift"];
        tenant.usual_tenant().await;
        let alarms = errors();
        let golden = tenant.golden(alarms.clone()).await;
        carried_out(&tenant, "golden").await;

        let name = "campanile/it/plan-drift/critical/golden/errors@prod";
        let disabled = tenant
            .cloudwatch()
            .disable_alarm_actions()
            .alarm_names(name)
            .send();
        disabled.await.unwrap();
        let topics = tenant.topics().await;
        let topic = topics
            .iter()
            .find(|topic| topic.contains("_critical_"))
            .unwrap();
        let attributes = tenant
            .sns()
            .get_topic_attributes()
            .topic_arn(topic)
            .send()
            .await
            .unwrap();
        let policy = attributes.attributes().unwrap()["Policy"].replace(
            &format!(r#""aws:SourceAccount":"{}""#, tenant.account),
            r#""aws:SourceAccount":"999999999999""#,
        );
        assert!(policy.contains("999999999999"), "{policy}");
        let changed = tenant
            .sns()
            .set_topic_attributes()
            .topic_arn(topic)
            .attribute_name("Policy");
        changed.attribute_value(policy).send().await.unwrap();

        let planned = plan(&tenant, &in_namespace).await;
        assert_eq!(planned.code, 2, "{}", planned.out);
        let drift = "came about outside since it was applied: would be repaired";
        for text in [
            format!("  ~ alarm {name}\n      {drift}\n      actionsEnabled: false → true\n"),
            format!(
                "      {drift}\n      policy.Statement[0].Condition.StringEquals.aws:SourceAccount: 999999999999 → {}\n",
                tenant.account
            ),
        ] {
            assert!(planned.out.contains(&text), "{text}: {}", planned.out);
        }
        let found = parsed(&plan(&tenant, &["-n", "plan-drift", "-o", "json"]).await);
        assert_eq!(
            (&found["summary"]["update"], &found["summary"]["drift"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(found["objects"][1]["steps"][0]["repaired"], true);

        // With other policies: what is only reported is no change.
        let edited = |name: &str, more: Value| {
            let spec = with(set("plan-drift", &alarms), more);
            file(
                world,
                &format!("drift-{name}.json"),
                &[manifest("AlarmSet", "golden", &spec)],
            )
        };
        let report = edited("report", json!({"driftPolicy": "Report"}));
        let planned = plan(&tenant, &["-n", "plan-drift", "-f", &report]).await;
        assert_eq!(planned.code, 0, "{}{}", planned.out, planned.err);
        assert!(
            planned
                .out
                .contains("would only be reported (driftPolicy Report)\n"),
            "{}",
            planned.out
        );
        assert!(
            planned
                .out
                .ends_with("\nNothing would change in 1 object: 1 only reported.\n"),
            "{}",
            planned.out
        );
        let found =
            parsed(&plan(&tenant, &["-n", "plan-drift", "-o", "json", "-f", &report]).await);
        assert_eq!(
            (&found["summary"]["update"], &found["summary"]["drift"]),
            (&json!(0), &json!(1))
        );
        let suspend = edited("suspend", json!({"suspend": true}));
        let planned = plan(&tenant, &["-n", "plan-drift", "-f", &suspend]).await;
        assert_eq!(
            (planned.code, planned.out.as_str()),
            (
                0,
                "AlarmSet plan-drift/golden\n  suspended: nothing would be done\n\nNothing would change in 1 object: 1 suspended.\n"
            )
        );

        // Being deleted: it takes with it what it made, or lets go of it.
        tenant.delete::<AlarmSet>("golden").await;
        let going = ["-n", "plan-drift", "aset/golden"];
        let planned = plan(&tenant, &going).await;
        assert_eq!(planned.code, 2);
        assert!(
            planned
                .out
                .contains("being deleted\n  - alarm campanile/it/"),
            "{}",
            planned.out
        );
        let mut spec = serde_json::to_value(&golden.spec).unwrap();
        spec["deletionPolicy"] = json!("Orphan");
        tenant.apply::<AlarmSet>("golden", spec).await;
        let planned = plan(&tenant, &going).await;
        assert_eq!(planned.code, 0);
        assert!(
            planned.out.contains(
                "would be let go of (deletionPolicy Orphan): what it made stays (account"
            ),
            "{}",
            planned.out
        );
        let found =
            parsed(&plan(&tenant, &["-n", "plan-drift", "-o", "json", "aset/golden"]).await);
        assert_eq!(
            (
                &found["objects"][0]["deleting"],
                &found["objects"][0]["orphaning"]
            ),
            (&json!(true), &json!(true))
        );
    });
}

#[test]
fn a_fleet_is_planned_whatever_becomes_of_one_of_it() {
    test(|world| async move {
        let planner = identity(world, "fleet-planner", PLANNER).await;
        // An installation of its own, so that what others are at stays out of its reach.
        let cluster = "fleet";
        let mut fleet = Vec::new();
        for name in ["plan-fleet-a", "plan-fleet-b", "plan-fleet-c"] {
            let tenant = Tenant::new(world, name).await;
            tenant.trust(Trust::external_id(format!("{cluster}/{name}")).read_only());
            tenant.usual_tenant().await;
            for set in ["one", "two", "three"] {
                tenant.set(set, json!(["prod"]), errors()).await;
            }
            fleet.push(tenant);
        }
        world.aws.remove_role(&fleet[1].role());
        let mark = world.aws.mark();
        let home = fleet[0].namespace.as_str();
        let args = [
            "-A",
            "-o",
            "json",
            "--cluster-name",
            cluster,
            "--operator-namespace",
            home,
        ];
        let planned = plan_as(world, &[("KUBECONFIG", &planner)], &args, "").await;
        // Other tests' objects are there too, and their roles do not let this installation in.
        assert_eq!(planned.code, 1, "{}", planned.err);
        let found = parsed(&planned);
        let objects: Vec<_> = found["objects"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|object| {
                object["namespace"]
                    .as_str()
                    .unwrap()
                    .starts_with("plan-fleet-")
            })
            .collect();
        let names: Vec<_> = objects
            .iter()
            .map(|object| {
                [&object["namespace"], &object["name"]].map(|text| text.as_str().unwrap())
            })
            .collect();
        let mut expected: Vec<_> = fleet
            .iter()
            .map(|tenant| [tenant.namespace.as_str(), tenant.namespace.as_str()])
            .collect();
        for tenant in &fleet {
            expected.extend(["one", "three", "two"].map(|set| [tenant.namespace.as_str(), set]));
        }
        assert_eq!(names, expected, "the order is always the same");
        for object in objects {
            let is_broken = object["namespace"] == "plan-fleet-b";
            let steps = object["steps"].as_array().unwrap().len();
            let problems = object["problems"].as_array().unwrap();
            assert_eq!(steps == 0, is_broken, "{object:#}");
            assert_eq!(problems.len(), usize::from(is_broken), "{object:#}");
            assert!(
                problems.iter().all(|problem| problem["class"] == "denied"),
                "{object:#}"
            );
        }
        for tenant in [&fleet[0], &fleet[2]] {
            let reads = tenant.asked_since(mark, "DescribeAlarms");
            assert_eq!(reads, 1, "three sets of one scope are read once");
            assert_eq!(tenant.writes_since(mark), []);
        }
    });
}

/// The same without Secrets.
const BLIND: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: campanile-plan-blind}
rules:
  - {apiGroups: [campanile.dev], resources: [tenantobservabilities, alarmsets, slackchannels], verbs: [get, list]}
  - {apiGroups: [''], resources: [namespaces], verbs: [get]}
";

#[test]
fn a_plan_needs_no_right_to_write_anywhere() {
    test(|world| async move {
        let tenant = Tenant::new(world, "plan-reader").await;
        tenant.secret("pager", "key", CANARY).await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("hooked");
        let webhook = slack.webhook("hooked");
        tenant.secret("hook", "url", &webhook).await;
        let runs = spec("plan_runs", json!({"topic": "Runs"}));
        tenant.apply::<SlackChannel>("runs", runs).await;
        let hooked = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
        tenant.apply::<SlackChannel>("hooked", hooked).await;
        let role = world.aws.events_role(&tenant.account).await.unwrap();
        let by_slack = json!({"invokeRoleArn": role});
        let channel = |name: &str| json!({"channelRef": {"name": name}});
        let mut usual = paged(tenant.usual_spec());
        usual["eventBridge"] = by_slack.clone();
        usual["notify"]["critical"]["slack"] = json!([channel("runs"), channel("hooked")]);
        tenant.tenant(usual).await;
        let alarms = |threshold: f64| {
            json!([
                alarm("errors", "critical", json!({"threshold": threshold})),
                alarm("slow", "warning", json!({}))
            ])
        };
        tenant.golden(alarms(10.0)).await;
        carried_out(&tenant, "golden").await;

        let planner = identity(world, "planner", PLANNER).await;
        let blind = identity(world, "blind", BLIND).await;
        tenant.trust(Trust::external_id(format!("{CLUSTER}/plan-reader")).read_only());
        let before = version::<AlarmSet>(&tenant, "golden").await;
        let (calls, writes) = (world.aws.mark(), world.kubernetes.mark_writes());
        let asked = slack.mark();
        let as_reader = async |args: &[&str]| {
            let args = [args, &["--allow-private-endpoints"]].concat();
            plan_as(world, &[("KUBECONFIG", &planner)], &args, "").await
        };

        let in_namespace = ["-n", "plan-reader"];
        let planned = as_reader(&in_namespace).await;
        assert_eq!(
            (planned.code, planned.err.as_str(), planned.out.as_str()),
            (0, "", "Nothing would change: 4 objects are as declared.\n")
        );
        // There is something of each sort to make, to change and to remove, and a namespace that is not there.
        let edit = [
            manifest(
                "AlarmSet",
                "golden",
                &set(
                    "plan-reader",
                    &json!([
                        alarm("errors", "critical", json!({"threshold": 11})),
                        alarm("new", "info", json!({}))
                    ]),
                ),
            ),
            manifest(
                "TenantObservability",
                "plan-reader",
                &json!({
                    "environments": [{"name": "prod"}], "aws": {"accountId": tenant.account, "region": REGION},
                    "eventBridge": by_slack,
                    "notify": {
                        "critical": {"emails": ["oncall@vsu.example"]},
                        "info": {"slack": [channel("runs")]}
                    }
                }),
            ),
            manifest(
                "SlackChannel",
                "runs",
                &spec("plan_runs", json!({"topic": "All"})),
            ),
        ];
        let file = file(world, "reader.yaml", &edit);
        let planned = as_reader(&["-n", "plan-reader", "-o", "json", "-f", &file]).await;
        assert_eq!(
            (planned.code, planned.err.as_str()),
            (2, ""),
            "{}",
            planned.out
        );
        let found = parsed(&planned);
        for verb in ["create", "update", "delete"] {
            assert!(
                found["summary"][verb].as_u64().unwrap() >= 1,
                "{verb}: {found:#}"
            );
        }
        assert_eq!(found["summary"]["problems"], 0);
        assert!(!planned.out.contains(CANARY));
        let planned = as_reader(&["-n", "plan-reader-nowhere", "-f", &file, "aset/golden"]).await;
        assert_eq!(planned.code, 1, "there is no tenant there: {}", planned.out);
        // Nobody wrote anything, or tried to.
        let user = "system:serviceaccount:plan-readers:planner";
        let tried = world.kubernetes.writes_since(writes).unwrap();
        assert_eq!(
            tried
                .iter()
                .filter(|write| write.user == user)
                .collect::<Vec<_>>(),
            Vec::<&_>::new()
        );
        assert_eq!(tenant.writes_since(calls), []);
        assert_eq!(version::<AlarmSet>(&tenant, "golden").await, before);
        let asked = slack.all_calls_since(asked).into_iter();
        let asked: BTreeSet<_> = asked.map(|call| call.method).collect();
        let reads = ["auth.test", "conversations.info", "conversations.list"];
        assert!(asked.iter().all(|it| reads.contains(&&**it)), "{asked:?}");
        assert_eq!(slack.channel("plan_runs").unwrap().topic, "Runs");
        // It could not have, either.
        let reader = client(planner.as_ref()).await.unwrap();
        let api = Api::<AlarmSet>::namespaced(reader, "plan-reader");
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
        let refused = api.patch("golden", &PatchParams::default(), &patch).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.is_forbidden()));
        eventually("the refusal in the audit log", || async {
            let tried = world.kubernetes.writes_since(writes).unwrap();
            match tried.iter().any(|write| write.user == user) {
                true => Ok(()),
                false => Err(format!("{tried:?}")),
            }
        })
        .await;

        // Without the key of the digests a plan would be wrong, so there is none.
        let planned = plan_as(world, &[("KUBECONFIG", &blind)], &in_namespace, "").await;
        assert_eq!((planned.code, planned.out.as_str()), (1, ""));
        let needed = "A plan needs get on Secret campanile-system/campanile-digest-key";
        assert!(planned.err.contains(needed), "{}", planned.err);
    });
}
