//! AWS: an emulator (MiniStack) behind a proxy of ours that knows who may call, counts what is called, refuses what AWS refuses
//! and makes trouble when told to.
//!
//! Who holds what: the emulator and the patches in `emulator/` keep alarms, topics and subscriptions, rules, targets, connections
//! and API destinations, and deliver; the proxy keeps identities, the roles that are assumed, the record of calls, the troubles and
//! the rates. An account is twelve digits; an access key that *is* twelve digits is that account's, every other key must have come
//! from AssumeRole.

mod alarm_form;
mod answer;
mod calls;
mod cbor;
mod delivery;
mod event_form;
mod identity;
mod ministack;
mod pages;
mod proxy;
mod rates;
mod request;
mod sts;
mod trouble;
mod watch;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudwatch::config::{Credentials, SharedCredentialsProvider};

pub use calls::{By, Call, Mark};
pub use delivery::{DeadLetter, Delivery, Outcome};
pub use identity::Trust;
pub use trouble::Trouble;

use crate::server::{Port, Server};
use ministack::MiniStack;
use proxy::Proxy;

/// The account the operator under test runs in, which is its access key as well.
pub const OPERATOR_ACCOUNT: &str = "000011112222";

/// What the world's own clients call themselves, so that their calls are told from those under test.
const OWN_APP: &str = "campanile-world";

/// What a topic lists of a subscription whose reader has ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsubscribed {
    /// Nothing.
    Gone,
    /// The protocol and the endpoint with the literal `Deleted` for an ARN, until the endpoint is subscribed again.
    Deleted,
}

/// AWS on loopback. Dropping it ends the proxy and the emulator.
pub struct Aws {
    // In this order: the proxy first, then what it stands in front of.
    server: Server,
    proxy: Arc<Proxy>,
    _emulator: MiniStack,
}

impl Aws {
    /// Starts the emulator, whose files and log go below `run_dir`, and the proxy in front of it.
    pub async fn start(run_dir: &Path) -> Result<Self> {
        let port = Port::take()?;
        let emulator = MiniStack::start(&run_dir.join("aws"), port.number()).await?;
        let proxy = Arc::new(Proxy::new(emulator.url())?);
        let server = Server::start("AWS proxy", port, {
            let proxy = Arc::clone(&proxy);
            move |listener| proxy.serve(listener)
        })?;
        Ok(Self {
            server,
            proxy,
            _emulator: emulator,
        })
    }

    /// What `AWS_ENDPOINT_URL` is set to.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// Makes `role_arn` assumable by the operator's account under `trust`, or changes the trust it has: open sessions go on, and the
    /// next AssumeRole is judged by the new trust.
    pub fn role(&self, role_arn: &str, trust: Trust) {
        self.proxy.identities().role(role_arn, trust);
    }

    /// Deletes the role. Whoever has assumed it is refused from now on (403 InvalidClientTokenId), even if it is made again.
    pub fn remove_role(&self, role_arn: &str) {
        self.proxy.identities().remove_role(role_arn);
    }

    /// Makes every call of `operation` (`PutMetricAlarm`, or `cloudwatch:PutMetricAlarm` where several services have it) in
    /// `account` meet `trouble` until [`Aws::allow`]. The world's own clients never do.
    ///
    /// # Panics
    /// If it is [`Trouble::ShortPages`] for an operation whose pages cannot be made shorter, [`Trouble::FailEntries`] for one
    /// without entries, or anything but [`Trouble::Deny`] for `iam:PassRole`: no test may believe that it was met.
    pub fn trouble(&self, account: &str, operation: &str, trouble: Trouble) {
        self.make_trouble(account, operation, trouble, None);
    }

    /// The same for the next `times` calls; panics as [`Aws::trouble`] does.
    pub fn trouble_times(&self, account: &str, operation: &str, trouble: Trouble, times: usize) {
        self.make_trouble(account, operation, trouble, Some(times));
    }

    fn make_trouble(&self, account: &str, operation: &str, trouble: Trouble, left: Option<usize>) {
        assert!(
            !matches!(trouble, Trouble::ShortPages(_)) || pages::can_be_short(operation),
            "the pages of {operation} cannot be made shorter"
        );
        let entries = ["PutTargets", "RemoveTargets", "PutEvents"];
        let name = operation.rsplit(':').next().unwrap_or(operation);
        assert!(
            !matches!(trouble, Trouble::FailEntries(..)) || entries.contains(&name),
            "{operation} has no entries that fail"
        );
        assert!(
            name != "PassRole" || trouble == Trouble::Deny,
            "a permission that comes with other calls can be denied, and nothing else"
        );
        self.proxy.troubles().set(account, operation, trouble, left);
    }

    /// Takes the permission for `operation` away in `account`. `iam:PassRole` is asked for by PutTargets and PutRule where they name
    /// a role.
    pub fn deny(&self, account: &str, operation: &str) {
        self.trouble(account, operation, Trouble::Deny);
    }

    /// Lifts every trouble of `operation` in `account`.
    pub fn allow(&self, account: &str, operation: &str) {
        self.proxy.troubles().lift(account, operation);
    }

    /// Keeps `account` to AWS's published quotas until [`Aws::lift_rates`]: in any second, as many calls of an operation in a Region
    /// as AWS grants, and every one above that is refused as [`Trouble::Throttle`] refuses. Stricter than AWS, which lets a burst
    /// through now and then. For CloudWatch, SNS and EventBridge; the world's own clients are not counted. The numbers are in `rates.rs`.
    pub fn limit_rates(&self, account: &str) {
        self.proxy.rates().limit(account);
    }

    /// Ends what [`Aws::limit_rates`] began.
    pub fn lift_rates(&self, account: &str) {
        self.proxy.rates().lift(account);
    }

    /// What was called so far, by anyone but the world's own clients, in the order in which it was answered.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_since(Mark::START)
    }

    /// What was answered since `mark`.
    pub fn calls_since(&self, mark: Mark) -> Vec<Call> {
        self.proxy
            .calls()
            .since(mark)
            .into_iter()
            .filter(|call| call.by != By::World)
            .collect()
    }

    /// What was answered, the world's own calls included.
    pub fn all_calls(&self) -> Vec<Call> {
        self.proxy.calls().since(Mark::START)
    }

    /// How many calls (not the world's own) `which` is true of.
    pub fn count(&self, which: impl Fn(&Call) -> bool) -> usize {
        self.count_since(Mark::START, which)
    }

    /// How many calls (not the world's own) since `mark` `which` is true of.
    pub fn count_since(&self, mark: Mark, which: impl Fn(&Call) -> bool) -> usize {
        self.calls_since(mark)
            .iter()
            .filter(|call| which(call))
            .count()
    }

    /// Now, for [`Aws::calls_since`].
    pub fn mark(&self) -> Mark {
        self.proxy.calls().mark()
    }

    /// The configuration of a client of the world's own in `account`, for any service: never counted, never in trouble.
    pub fn config(&self, account: &str, region: &str) -> SdkConfig {
        let credentials = Credentials::new(account, "loopback", None, None, OWN_APP);
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .region(Region::new(region.to_owned()))
            .endpoint_url(self.endpoint());
        config.set_app_name(AppName::new(OWN_APP).ok());
        // The emulator does not read compressed PutMetricData.
        config.set_disable_request_compression(Some(true));
        config.build()
    }

    /// A CloudWatch client of the world's own in `account`.
    pub fn cloudwatch(&self, account: &str, region: &str) -> aws_sdk_cloudwatch::Client {
        aws_sdk_cloudwatch::Client::new(&self.config(account, region))
    }

    /// An SNS client of the world's own in `account`.
    pub fn sns(&self, account: &str, region: &str) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.config(account, region))
    }

    /// An EventBridge client of the world's own in `account`.
    pub fn eventbridge(&self, account: &str, region: &str) -> aws_sdk_eventbridge::Client {
        aws_sdk_eventbridge::Client::new(&self.config(account, region))
    }

    /// Looks for `secret` in every request from now on, the world's own included: in its path, headers and body, as it stands and
    /// out of JSON, forms, percent signs, base64 and CBOR.
    ///
    /// # Panics
    /// If it is shorter than eight bytes.
    pub fn watch_for(&self, secret: &str) {
        self.proxy.watch().add(secret);
    }

    /// The requests in which `secret` was since [`Aws::watch_for`], each as `222233334444 events:CreateConnection`: the account is
    /// empty where the caller was not recognised.
    ///
    /// # Panics
    /// If nobody has asked to look for it.
    pub fn seen(&self, secret: &str) -> Vec<String> {
        self.proxy.watch().seen(secret)
    }

    /// Makes the role in `account` that EventBridge can assume to call any API destination of the account, and says its ARN. Targets
    /// with any other role are not called.
    pub async fn events_role(&self, account: &str) -> Result<String> {
        let role = format!("arn:aws:iam::{account}:role/campanile-events");
        self.tell("allow", serde_json::json!({"role": role}))
            .await?;
        Ok(role)
    }

    /// Deletes that role, or takes its trust in EventBridge away: what is to be delivered from now on is not.
    pub async fn remove_events_role(&self, role_arn: &str) -> Result<()> {
        let role = serde_json::json!({"role": role_arn});
        self.tell("forbid", role).await.map(drop)
    }

    /// What became of every event that met a rule in `account` whose target is an API destination, in the order in which they came.
    pub async fn deliveries(&self, account: &str) -> Result<Vec<Delivery>> {
        let answer = self
            .ask("deliveries", serde_json::json!({"account": account}))
            .await?;
        Ok(serde_json::from_value(answer["deliveries"].clone())?)
    }

    /// Makes an SQS queue that takes what the rules of its account cannot deliver, and says its ARN.
    pub async fn dead_letter_queue(
        &self,
        account: &str,
        region: &str,
        name: &str,
    ) -> Result<String> {
        let queue = serde_json::json!({"account": account, "region": region, "name": name});
        let answer = self.ask("queue", queue).await?;
        Ok(serde_json::from_value(answer["arn"].clone())?)
    }

    /// What is in that queue. It stays there.
    pub async fn dead_letters(&self, queue_arn: &str) -> Result<Vec<DeadLetter>> {
        let answer = self
            .ask("messages", serde_json::json!({"arn": queue_arn}))
            .await?;
        Ok(serde_json::from_value(answer["messages"].clone())?)
    }

    /// Lets CloudWatch look at its clock: every alarm of the account, or of all accounts, is evaluated, and data that stayed away
    /// counts as missing. By itself an alarm is evaluated when it is put and when data is put in its account and Region, so that
    /// tests decide; what one does here must not reach into the account of another.
    pub async fn evaluate_alarms(&self, account: Option<&str>) -> Result<()> {
        let whose = serde_json::json!({"account": account});
        self.tell("evaluate", whose).await.map(drop)
    }

    /// Clicks on the link in the confirmation mail that `endpoint` got for `topic_arn`. Fails if there is nothing to confirm.
    pub async fn confirm_mail(&self, topic_arn: &str, endpoint: &str) -> Result<()> {
        let whom = serde_json::json!({"topic": topic_arn, "endpoint": endpoint});
        anyhow::ensure!(
            self.tell("confirm", whom).await? > 0,
            "{endpoint} has no unconfirmed subscription to {topic_arn}"
        );
        Ok(())
    }

    /// The messages that `topic_arn` has sent to `endpoint` by mail, in order; for an alarm, the JSON of CloudWatch.
    pub async fn mails(&self, topic_arn: &str, endpoint: &str) -> Result<Vec<String>> {
        let whom = serde_json::json!({"topic": topic_arn, "endpoint": endpoint});
        let answer = self.ask("mails", whom).await?;
        Ok(serde_json::from_value(answer["messages"].clone())?)
    }

    /// Clicks on the link at the foot of a mail that `endpoint` got from `topic_arn`, which ends its subscription without asking
    /// anybody. `listed` says what the topic lists of it afterwards: AWS does either. Fails if there is no confirmed subscription by
    /// mail: a pending one has no such link.
    pub async fn unsubscribe_mail(
        &self,
        topic_arn: &str,
        endpoint: &str,
        listed: Unsubscribed,
    ) -> Result<()> {
        let deleted = listed == Unsubscribed::Deleted;
        let whom =
            serde_json::json!({"topic": topic_arn, "endpoint": endpoint, "deleted": deleted});
        anyhow::ensure!(
            self.tell("unsubscribe", whom).await? > 0,
            "{endpoint} has no confirmed subscription by mail to {topic_arn}"
        );
        Ok(())
    }

    /// Does something that no AWS call does; how many things it was done to.
    async fn tell(&self, what: &'static str, whom: serde_json::Value) -> Result<u64> {
        let answer = self.ask(what, whom).await?;
        Ok(answer
            .get("done")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default())
    }

    /// The same, with all that is answered.
    async fn ask(&self, what: &'static str, of: serde_json::Value) -> Result<serde_json::Value> {
        let proxy = Arc::clone(&self.proxy);
        self.server
            .run(async move { proxy.tell(what, &of).await })
            .await
    }
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("no HTTP client")
}
