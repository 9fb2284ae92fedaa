//! What most tests declare: a tenant that is named like its namespace, and its AlarmSet `golden`.

use super::{Conditions, REGION, Tenant, version};
use campanile::api::{AlarmSet, Health, TenantObservability};
use serde_json::{Value, json};

impl Tenant {
    /// A tenant with two environments and a topic for critical and warning.
    pub async fn usual_tenant(&self) -> TenantObservability {
        self.tenant(self.usual_spec()).await
    }

    /// What the usual tenant declares.
    pub fn usual_spec(&self) -> Value {
        json!({
            "environments": [{"name": "pilot"}, {"name": "prod", "deploymentId": "app-prod"}],
            "aws": {"accountId": self.account, "region": REGION},
            "notify": {"critical": {}, "warning": {}}
        })
    }

    /// Applies the set `golden`, in one environment.
    pub async fn golden(&self, alarms: Value) -> AlarmSet {
        self.set("golden", json!(["prod"]), alarms).await
    }

    /// Applies the usual tenant, and the set `golden` with one alarm.
    pub async fn usual(&self) {
        self.usual_tenant().await;
        self.golden(errors()).await;
    }

    /// The tenant as it is now.
    pub async fn tenant_now(&self) -> TenantObservability {
        self.now(&self.namespace).await
    }

    /// Waits until the tenant is as `right` says, and returns it.
    pub async fn tenant_until(
        &self,
        what: &str,
        right: impl Fn(&TenantObservability) -> bool,
    ) -> TenantObservability {
        self.until(&self.namespace, what, right).await
    }

    /// Waits for a reason of the tenant's `Ready`, and returns its message.
    pub async fn tenant_is(&self, reason: &str) -> String {
        let name = &self.namespace;
        self.ready::<TenantObservability>(name, reason).await
    }

    /// Asks for a look at the tenant, in these words.
    pub async fn ask_tenant(&self, words: &str) {
        self.ask::<TenantObservability>(&self.namespace, words)
            .await;
    }

    /// The same, and waits until its status names them.
    pub async fn look_at_tenant(&self, words: &str) -> TenantObservability {
        self.look(&self.namespace, words).await
    }

    /// Waits until this is the tenant's health, and returns it.
    pub async fn comes_to(&self, health: Health) -> TenantObservability {
        let right = |tenant: &TenantObservability| {
            let status = tenant.status.as_ref();
            status.is_some_and(|status| status.health == Some(health))
        };
        self.tenant_until(&format!("{health:?}"), right).await
    }

    /// Waits until the tenant's `Healthy` holds.
    pub async fn healthy(&self) -> TenantObservability {
        let right = |tenant: &TenantObservability| tenant.holds("Healthy");
        self.tenant_until("healthy", right).await
    }

    /// Waits until the tenant's `DeliveryReady` holds.
    pub async fn delivering(&self) -> TenantObservability {
        let right = |tenant: &TenantObservability| tenant.holds("DeliveryReady");
        self.tenant_until("delivering", right).await
    }

    /// Waits for a reason of the tenant's `DeliveryReady`, and returns the tenant.
    pub async fn delivery(&self, reason: &str) -> TenantObservability {
        let right = |tenant: &TenantObservability| {
            let delivery = tenant.condition("DeliveryReady");
            delivery.is_some_and(|delivery| delivery.reason == reason)
        };
        self.tenant_until(reason, right).await
    }

    /// The URL by which PagerDuty hears of what is published, for an integration key.
    pub fn pager_url(&self, key: &str) -> String {
        let pagerduty = self.world.pagerduty.url();
        format!("{pagerduty}/integration/{key}/enqueue")
    }

    /// Deletes the tenant.
    pub async fn delete_tenant(&self) {
        self.delete::<TenantObservability>(&self.namespace).await;
    }

    /// Waits until the tenant is gone.
    pub async fn tenant_gone(&self) {
        self.gone::<TenantObservability>(&self.namespace).await;
    }

    /// Waits for a reason of `Ready` of the tenant and of its set `golden`, and returns the messages.
    pub async fn both_are(&self, reason: &str) -> [String; 2] {
        let tenant = self.tenant_is(reason).await;
        [tenant, self.ready::<AlarmSet>("golden", reason).await]
    }

    /// The versions of the tenant and of its set `golden`.
    pub async fn both_versions(&self) -> [String; 2] {
        let tenant = version::<TenantObservability>(self, &self.namespace).await;
        [tenant, version::<AlarmSet>(self, "golden").await]
    }

    /// Nothing is written to AWS or to these two over some polls.
    pub async fn is_quiet(&self, when: &str) {
        let (mark, before) = (self.world.aws.mark(), self.both_versions().await);
        self.polls(mark, 4).await;
        assert_eq!(self.writes_since(mark), [], "writes to AWS, {when}");
        let now = self.both_versions().await;
        assert_eq!(now, before, "writes to the API server, {when}");
    }

    /// Deletes the set `golden` and the tenant.
    pub async fn delete_both(&self) {
        self.delete::<AlarmSet>("golden").await;
        self.delete_tenant().await;
    }

    /// Waits until both are gone.
    pub async fn both_gone(&self) {
        self.gone::<AlarmSet>("golden").await;
        self.tenant_gone().await;
    }
}

/// An alarm of the spec with what most tests do not care about.
pub fn alarm(name: &str, severity: &str, more: Value) -> Value {
    let mut alarm = json!({"name": name, "severity": severity, "namespace": "App", "metricName": name.replace('-', "."),
        "statistic": "Sum", "period": 60, "evaluationPeriods": 1, "comparisonOperator": "GreaterThanThreshold",
        "threshold": 10, "treatMissingData": "notBreaching"});
    alarm
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    alarm
}

/// The one alarm that most tests are content with.
pub fn errors() -> Value {
    json!([alarm("errors", "critical", json!({}))])
}

/// A tenant's spec with a pager for what is critical; its key is in the Secret `pager`.
pub fn paged(mut spec: Value) -> Value {
    let reference = json!({"name": "pager", "key": "key"});
    let pager = json!({"name": "primary", "integrationKeySecretRef": reference});
    spec["notify"]["critical"] = json!({"pagerDuty": [pager]});
    spec
}

/// An integration key as PagerDuty makes them, told from others by its last two digits.
pub fn pager_key(end: &str) -> String {
    format!("abcdefabcdefabcdefabcdefabcdef{end}")
}
