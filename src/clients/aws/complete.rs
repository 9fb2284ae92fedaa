//! Whether an answer came whole. The SDK takes an empty answer for one that lists nothing, and XML that breaks off for
//! all there is; to us either would be the absence of things that are there.

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::AfterDeserializationInterceptorContextRef},
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use derive_more::{Display, Error};

/// Why an answer that the SDK can read is not whole.
#[derive(Clone, Copy, Debug, Display, Error, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// There is nothing in it.
    #[display("there is nothing in it")]
    Empty,
    /// It ends before its end.
    #[display("it breaks off")]
    BreaksOff,
}

/// Makes an answer that did not come whole an error.
#[derive(Debug)]
pub(super) struct Complete;

impl Intercept for Complete {
    fn name(&self) -> &'static str {
        "complete"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = bag.load::<Metadata>().map_or("", Metadata::name);
        let body = context.response().body().bytes().unwrap_or_default();
        match context.output_or_error() {
            Ok(_) => Ok(check(operation, body)?),
            Err(_) => Ok(()),
        }
    }
}

/// Whether a good answer is whole, as far as it can be told: JSON and CBOR that break off cannot be read at all.
fn check(operation: &str, body: &[u8]) -> Result<(), Incomplete> {
    let body = body.trim_ascii();
    // Others may have nothing to say but that it is done.
    let tells = ["Describe", "List", "Get", "Create"];
    let tells = tells.iter().any(|verb| operation.starts_with(verb));
    if body.is_empty() && tells {
        return Err(Incomplete::Empty);
    }
    let end = format!("</{operation}Response>");
    if body.starts_with(b"<") && !body.ends_with(end.as_bytes()) {
        return Err(Incomplete::BreaksOff);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_told_from_what_is() {
        use Incomplete::{BreaksOff, Empty};
        let topic = "<GetTopicAttributesResponse><GetTopicAttributesResult/>";
        let whole = format!("<?xml version=\"1.0\"?>\n{topic}</GetTopicAttributesResponse>\n");
        for (operation, body, expected) in [
            ("DescribeAlarms", "", Err(Empty)),
            ("ListRules", " \n", Err(Empty)),
            ("CreateConnection", "", Err(Empty)),
            ("PutMetricAlarm", "", Ok(())),
            ("DeleteRule", "", Ok(())),
            ("ListRules", "{}", Ok(())),
            ("GetTopicAttributes", topic, Err(BreaksOff)),
            ("GetTopicAttributes", &whole, Ok(())),
            ("ListTagsForResource", &whole, Err(BreaksOff)),
        ] {
            assert_eq!(
                check(operation, body.as_bytes()),
                expected,
                "{operation} {body}"
            );
        }
    }
}
