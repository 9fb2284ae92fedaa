//! The command line: what `plan` prints and how it exits, and that it writes nothing.

use crate::support::{Tenant, alarm, binary, plan, test, version};
use campanile::api::AlarmSet;
use serde_json::json;
use std::{process::Command, time::Duration};

pub use crate::support::plan_as;

#[test]
fn a_plan_says_what_would_change_and_changes_nothing() {
    test(|world| async move {
        let tenant = Tenant::new(world, "cli-plan").await;
        let in_namespace = ["-n", "cli-plan"];
        tenant.usual_tenant().await;
        let alarms = |threshold: f64| {
            json!([
                alarm("errors", "critical", json!({"threshold": threshold})),
                alarm("slow", "warning", json!({}))
            ])
        };
        tenant.golden(alarms(10.0)).await;

        // Before anything has been carried out: all of it, the topics that are still to come included.
        let mark = world.aws.mark();
        let before = version::<AlarmSet>(&tenant, "golden").await;
        let planned = plan(&tenant, &in_namespace).await;
        assert_eq!((planned.code, planned.err.as_str()), (2, ""));
        assert!(
            planned.out.ends_with(
                "4 to create, 0 to change, 0 to delete, 0 in conflict, 0 problems in 2 objects.\n"
            ),
            "{}",
            planned.out
        );
        assert!(
            planned.out.contains("+ topic campanile_cli-plan_critical_"),
            "{}",
            planned.out
        );
        assert!(
            planned
                .out
                .contains("+ alarm campanile/it/cli-plan/critical/golden/errors@prod"),
            "{}",
            planned.out
        );
        assert!(
            planned
                .out
                .contains("    alarmActions: arn:aws:sns:us-east-2:"),
            "{}",
            planned.out
        );
        assert_eq!(tenant.writes_since(mark), []);
        assert_eq!(version::<AlarmSet>(&tenant, "golden").await, before);

        let operator = tenant.operator().await;
        tenant.both_are("Applied").await;
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let planned = plan(&tenant, &in_namespace).await;
        assert_eq!(
            (planned.code, planned.out.as_str()),
            (0, "Nothing would change: 2 objects are as declared.\n")
        );

        // One edit is one change, with the field.
        tenant.golden(alarms(25.5)).await;
        let planned = plan(&tenant, &["-n", "cli-plan", "aset/golden"]).await;
        assert_eq!(planned.code, 2);
        let expected = format!(
            "AlarmSet cli-plan/golden  (account {}, us-east-2)\n  ~ alarm campanile/it/cli-plan/critical/golden/errors@prod\n      threshold: 10 → 25.5\n\n0 to create, 1 to change, 0 to delete, 0 in conflict, 0 problems in 1 object.\n",
            tenant.account
        );
        assert_eq!(planned.out, expected);
        let planned = plan(&tenant, &["-n", "cli-plan", "tobs/cli-plan"]).await;
        assert_eq!(planned.code, 0);
        // What cannot be planned is an error, and says so.
        for (args, text) in [
            (
                vec!["-n", "cli-plan", "aset/nobody"],
                "AlarmSet nobody does not exist in namespace cli-plan",
            ),
            (vec!["-n", "cli-plan", "pod/x"], "pod is not one of tobs"),
            (vec!["-A", "aset/golden"], "cannot be used with"),
            (vec!["--al"], "unexpected argument '--al'"),
            (vec!["-o", "yaml"], "invalid value 'yaml'"),
            (vec!["-n"], "a value is required"),
        ] {
            let planned = plan(&tenant, &args).await;
            assert_eq!(planned.code, 1, "{}", planned.out);
            assert!(planned.err.contains(text), "{}", planned.err);
        }
        assert_eq!(plan(&tenant, &["--help"]).await.code, 0);
        world.aws.remove_role(&tenant.role());
        let planned = plan(&tenant, &in_namespace).await;
        assert_eq!(planned.code, 1);
        assert!(planned.out.contains("? cannot assume"), "{}", planned.out);
    });
}

#[test]
fn the_name_of_the_cluster_is_required() {
    let output = Command::new(binary())
        .arg("run")
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--cluster-name")
    );
}

#[test]
fn an_installation_keeps_its_name() {
    test(|world| async move {
        let tenant = Tenant::new(world, "cli-renamed").await;
        // Its Secret says what this installation was called when it began.
        let first = tenant.operator().await;
        tenant.usual_tenant().await;
        tenant.tenant_is("Applied").await;
        first.stop(Duration::from_secs(10)).await.unwrap();
        let renamed = tenant.operator_with(&["--cluster-name", "other"]).await;
        assert_eq!(renamed.wait_exit().await.unwrap().code(), Some(1));
        assert!(
            renamed
                .log_tail(5)
                .contains("this installation is called it"),
            "{}",
            renamed.log_tail(5)
        );
        let planned = plan(&tenant, &["--cluster-name", "other", "-n", "cli-renamed"]).await;
        assert_eq!(planned.code, 1);
    });
}
