//! What the operator shows of itself: logs, probes, metrics, a clean end; and what it never shows.

use crate::support::{CLUSTER, Conditions, Tenant, alarm, binary, eventually, test};
use campanile::api::{AlarmSet, TenantObservability};
use campanile_world::process::Process;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: campanile\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

async fn answers(address: &str, path: &str, status: u16) -> String {
    eventually(&format!("{path} to answer {status}"), || async {
        match get(address, path).await {
            Some((found, body)) if found == status => Ok(body),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn log(operator: &Process) -> String {
    tokio::fs::read_to_string(operator.log_path())
        .await
        .unwrap()
}

#[test]
fn probes_metrics_logs_and_a_clean_end() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face").await;
        let canary = "canaryc0ffee00000000000000000042";
        tenant.secret("pager", "key", canary).await;
        let mut spec = tenant.usual_spec();
        spec["notify"]["critical"] = json!({"pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}]});
        tenant.tenant(spec).await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let port = campanile_world::port::free().unwrap();
        let address = format!("127.0.0.1:{port}");
        let operator = tenant.operator_with(&["--metrics-addr", &address]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let well = tenant
            .until::<TenantObservability>(&tenant.namespace, "delivering", |tenant| {
                tenant.holds("DeliveryReady")
            })
            .await;

        assert_eq!(answers(&address, "/livez", 200).await, "ok\n");
        assert_eq!(answers(&address, "/readyz", 200).await, "ok\n");
        answers(&address, "/", 404).await;
        let metrics = answers(&address, "/metrics", 200).await;
        for series in [
            r#"campanile_reconciles_total{kind="AlarmSet",outcome="ok"}"#,
            r#"campanile_reconcile_duration_seconds_count{kind="TenantObservability"}"#,
            r#"campanile_outside_requests_total{service="cloudwatch",operation="PutMetricAlarm",outcome="ok"} 1"#,
            r#"campanile_outside_requests_total{service="sns",operation="CreateTopic",outcome="ok"} 2"#,
            r#"campanile_objects{kind="AlarmSet",ready="Applied"} 1"#,
            r#"campanile_alarms{state="INSUFFICIENT_DATA"}"#,
        ] {
            assert!(metrics.contains(series), "{series} in:\n{metrics}");
        }
        assert!(
            !metrics.contains(&tenant.namespace) && !metrics.contains(&tenant.account),
            "no label may grow with the fleet"
        );

        let lines: Vec<Value> = log(&operator)
            .await
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect();
        let reconciled = lines
            .iter()
            .find(|line| line["message"] == "reconciled" && line["span"]["kind"] == "AlarmSet")
            .expect("a line per reconcile");
        assert_eq!(
            (
                &reconciled["span"]["namespace"],
                &reconciled["span"]["object"]
            ),
            (&json!("face"), &json!("golden"))
        );
        assert_eq!(
            reconciled["spans"].as_array().unwrap().len(),
            1,
            "one span per reconcile: {reconciled}"
        );

        let status = operator.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", operator.log_tail(20));

        // The secret is nowhere where people look.
        let plan = {
            let mut command = std::process::Command::new(binary());
            command
                .env_clear()
                .envs(world.operator_environment())
                .args(["plan", "--cluster-name", CLUSTER, "-n", "face"]);
            command.output().unwrap()
        };
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        let everything = [
            serde_json::to_string(&well.status).unwrap(),
            serde_json::to_string(&set.status).unwrap(),
            log(&operator).await,
            metrics,
            String::from_utf8(plan.stdout).unwrap(),
        ];
        for text in everything {
            assert!(!text.contains(canary), "{text}");
        }
    });
}

#[test]
fn text_logs_are_for_people() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-text").await;
        tenant.usual_tenant().await;
        let operator = tenant.operator_with(&["--log-format", "text"]).await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        let text = log(&operator).await;
        assert!(
            text.contains("reconcile{kind=\"TenantObservability\" namespace=\"face-text\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "no colours in a file");
    });
}

#[test]
fn one_of_two_replicas_works_and_the_other_takes_over() {
    test(|world| async move {
        let tenant = Tenant::new(world, "face-lease").await;
        tenant.usual_tenant().await;
        // A home of its own for the Lease, so that other tests' operators are not in the way.
        Tenant::operator_home(world, "face-lease-system").await;
        let args = [
            "--leader-elect=true",
            "--operator-namespace",
            "face-lease-system",
        ];
        let first = tenant.operator_with(&args).await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        let port = campanile_world::port::free().unwrap();
        let address = format!("127.0.0.1:{port}");
        let second = tenant
            .operator_with(&[&args[..], &["--metrics-addr", &address]].concat())
            .await;
        answers(&address, "/readyz", 200).await;
        assert!(
            !log(&second).await.contains("\"running\""),
            "a standby does nothing"
        );
        // A clean end gives the lease up, so the successor need not wait for it to run out.
        first.stop(Duration::from_secs(10)).await.unwrap();
        tenant
            .delete::<TenantObservability>(&tenant.namespace)
            .await;
        tenant.gone::<TenantObservability>(&tenant.namespace).await;
        assert!(log(&second).await.contains("\"running\""));
    });
}
