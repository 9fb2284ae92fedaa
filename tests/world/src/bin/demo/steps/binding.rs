//! A Namespace that is bound to no account reaches none.

use anyhow::Result;
use campanile_world::aws::Call;

use crate::demo::{Demo, in_repository, typed};
use crate::proof;
use crate::sabotage::Sabotage;

/// A Namespace that the platform team has bound to no account.
const NAMESPACE: &str = "elsewhere";
/// The file with the tenant that the demo follows.
const FILE: &str = "examples/10-vsu-tenant.yaml";
const BINDING: &str = "campanile.dev/aws-account-id";

/// Names the tenant's account from another Namespace, and reads why nothing comes of it.
pub async fn refused(demo: &Demo<'_>) -> Result<()> {
    let tenant = demo.tenant();
    demo.screen.step(
        "Somebody names an account that is not theirs",
        "Whoever may write into a Namespace may write any account into a spec. Which account a Namespace acts in is said by an \
         annotation on the Namespace itself, which is the platform team's. Here is the file of vsu again, in a Namespace without.",
    );
    demo.kubectl(&["create", "namespace", NAMESPACE]).await?;
    if demo.breaks(Sabotage::Binding) {
        let binding = format!("{BINDING}={}", tenant.account);
        demo.ask(&["annotate", "namespace", NAMESPACE, &binding])
            .await?;
    }
    let mark = demo.world.aws.mark();
    let [from, to] = [&tenant.namespace, NAMESPACE].map(|name| format!("namespace: {name}"));
    demo.screen.command(&format!(
        "sed 's/{from}/{to}/' {FILE} | kubectl apply --server-side -f -"
    ));
    let manifest = std::fs::read_to_string(in_repository(FILE)?)?.replace(&from, &to);
    let apply = ["apply", "--server-side", "-f", "-"];
    let applied = demo.world.kubernetes.kubectl_with_input(apply, &manifest);
    demo.screen.output(&applied.await?.success()?);

    let path = "jsonpath={range .status.conditions[?(@.type==\"Ready\")]}{.reason} {.message}{end}";
    let args = ["get", "tobs", &tenant.name, "-n", NAMESPACE, "-o", path];
    let said = demo
        .until("the operator has looked at it", &args, |text| {
            match text.split_whitespace().next() {
                None | Some("Applying") => None,
                Some(_) => Some(text.to_owned()),
            }
        })
        .await?;
    demo.screen.command(&typed("kubectl", &args));
    demo.screen.output(&said);
    proof::ensure(
        said.starts_with("AccessDenied ") && said.contains("is bound to no account"),
        format!("AccessDenied, because {NAMESPACE} is bound to no account"),
        said.as_str(),
    )?;
    // The account's role trusts another ExternalId, so had it been asked for, that would be on record as a refusal.
    let calls = demo.world.aws.calls_since(mark);
    let mut tried = calls.iter().filter(|call| call.operation == "AssumeRole");
    proof::ensure(
        tried.all(Call::succeeded),
        "AWS was not even asked for the account's role",
        "it was asked, and refused",
    )?;
    demo.screen.proven(
        "it is refused, and says who can change that; by AWS's own record it was not even asked",
    );
    demo.ask(&["delete", "tobs", &tenant.name, "-n", NAMESPACE])
        .await?;
    demo.ask(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .await?;
    Ok(())
}
