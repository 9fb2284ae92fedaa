//! Every request that goes to AWS, for the metrics: one per attempt.

use super::error::DISTRUSTS;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef},
        },
        orchestrator::{HttpResponse, Metadata},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// One request that went to AWS, an attempt each.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The service, in lower case.
    pub service: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// `ok`, `throttled`, `denied`, `refused`, `failing` or `no answer`.
    pub outcome: &'static str,
    /// From sending to the answer.
    pub took: Duration,
}

/// Is told of every request that went to AWS.
pub type Observer = Arc<dyn Fn(Request<'_>) + Send + Sync>;

/// Tells the observer of every attempt.
pub(super) struct Observe(pub(super) Observer);

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observe")
    }
}

/// What an answer says. The services put their codes into XML, JSON, CBOR or a header, all of them as
/// plain text, and throttle with 400 as well as with 429.
fn outcome(response: &HttpResponse) -> &'static str {
    let status = response.status().as_u16();
    if (200..400).contains(&status) {
        return "ok";
    }
    let code = response
        .headers()
        .get("x-amzn-query-error")
        .unwrap_or_default();
    let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
    let says = |word: &str| code.contains(word) || body.contains(word);
    match status {
        429 => "throttled",
        400..=499 if says("Throttl") || says("RequestLimitExceeded") => "throttled",
        401 | 403 => "denied",
        400..=499 if says("AccessDenied") || says(DISTRUSTS) => "denied",
        400..=499 => "refused",
        _ => "failing",
    }
}

/// When an attempt was sent; `None` while it has not been.
#[derive(Debug)]
struct Sent(Option<Instant>);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Observe {
    fn name(&self) -> &'static str {
        "campanile"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Sent(None));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state()
            .store_put(Sent(Some(Instant::now())));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Without credentials nothing is sent.
        let sent = bag.load::<Sent>().and_then(|sent| sent.0);
        if let (Some(metadata), Some(sent)) = (bag.load::<Metadata>(), sent) {
            self.0(Request {
                service: &metadata.service().to_ascii_lowercase(),
                operation: metadata.name(),
                outcome: match (context.response(), context.output_or_error()) {
                    (None, _) => "no answer",
                    // It says that all is well, and cannot be read.
                    (Some(response), Some(Err(_))) if response.status().is_success() => "failing",
                    (Some(response), _) => outcome(response),
                },
                took: sent.elapsed(),
            });
        }
        Ok(())
    }
}
