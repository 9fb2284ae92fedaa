//! What each attribute of a rule, a target, a connection and an API destination is to us, and what stands in those that
//! are to be at their defaults.

use crate::kinds::attributes::{
    Attribute::{AtDefault, Declared, ReadOnly, Theirs},
    Attributes,
};
use aws_sdk_eventbridge::{
    operation::describe_connection::DescribeConnectionOutput,
    types::{ConnectionHttpParameters, Target},
};
use std::collections::BTreeSet;

/// Of a rule, as it is listed.
pub const OF_RULE: Attributes = &[
    ("name", Declared),
    ("arn", ReadOnly),
    ("event_pattern", Declared),
    ("state", Declared),
    ("description", Declared),
    ("schedule_expression", AtDefault),
    ("role_arn", AtDefault),
    // Of those that have one, none is ours.
    ("managed_by", ReadOnly),
    // Only the default bus has the events of CloudWatch, and only there it is looked.
    ("event_bus_name", ReadOnly),
];

/// Of a target.
pub const OF_TARGET: Attributes = &[
    ("id", Declared),
    ("arn", Declared),
    ("role_arn", Declared),
    ("input", AtDefault),
    ("input_path", AtDefault),
    ("input_transformer", Declared),
    ("kinesis_parameters", AtDefault),
    ("run_command_parameters", AtDefault),
    ("ecs_parameters", AtDefault),
    ("batch_parameters", AtDefault),
    ("sqs_parameters", AtDefault),
    ("http_parameters", AtDefault),
    ("redshift_data_parameters", AtDefault),
    ("sage_maker_pipeline_parameters", AtDefault),
    ("dead_letter_config", Declared),
    ("retry_policy", Declared),
    ("app_sync_parameters", AtDefault),
];

/// Of a connection, as it is described.
pub const OF_CONNECTION: Attributes = &[
    ("connection_arn", ReadOnly),
    ("name", Declared),
    ("description", Declared),
    ("invocation_connectivity_parameters", AtDefault),
    ("connection_state", ReadOnly),
    ("state_reason", ReadOnly),
    ("authorization_type", Declared),
    // By when it was modified it is seen that somebody else has written what is in it.
    ("secret_arn", ReadOnly),
    // Where the key does not let EventBridge in, the state says so.
    ("kms_key_identifier", Theirs),
    ("auth_parameters", Declared),
    ("creation_time", ReadOnly),
    ("last_modified_time", ReadOnly),
    ("last_authorized_time", ReadOnly),
];

/// Of what a connection says by which its calls let themselves be known.
pub const OF_AUTHORIZATION: Attributes = &[
    ("basic_auth_parameters", AtDefault),
    ("o_auth_parameters", AtDefault),
    ("api_key_auth_parameters", Declared),
    ("invocation_http_parameters", AtDefault),
    ("connectivity_parameters", AtDefault),
];

/// Of an API destination, as it is described.
pub const OF_DESTINATION: Attributes = &[
    ("api_destination_arn", ReadOnly),
    ("name", Declared),
    ("description", Declared),
    ("api_destination_state", ReadOnly),
    ("connection_arn", Declared),
    ("invocation_endpoint", Declared),
    ("http_method", Declared),
    ("invocation_rate_limit_per_second", Declared),
    ("creation_time", ReadOnly),
    ("last_modified_time", ReadOnly),
];

/// What a connection adds to each call.
pub const HTTP_PARAMETERS: &str = "InvocationHttpParameters";

/// That a connection leads to a private API, which no update takes back.
pub const CONNECTIVITY: &str = "InvocationConnectivityParameters";

/// What is not at its default, as the API spells it.
pub type Foreign = BTreeSet<&'static str>;

fn set<const N: usize>(all: [(&'static str, bool); N]) -> Foreign {
    let set = all.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(name, _)| name).collect()
}

/// What somebody has set in a target that we leave unset.
pub fn foreign_to_target(target: &Target) -> Foreign {
    set([
        ("Input", target.input.is_some()),
        ("InputPath", target.input_path.is_some()),
        ("KinesisParameters", target.kinesis_parameters.is_some()),
        (
            "RunCommandParameters",
            target.run_command_parameters.is_some(),
        ),
        ("EcsParameters", target.ecs_parameters.is_some()),
        ("BatchParameters", target.batch_parameters.is_some()),
        ("SqsParameters", target.sqs_parameters.is_some()),
        ("HttpParameters", target.http_parameters.is_some()),
        (
            "RedshiftDataParameters",
            target.redshift_data_parameters.is_some(),
        ),
        (
            "SageMakerPipelineParameters",
            target.sage_maker_pipeline_parameters.is_some(),
        ),
        ("AppSyncParameters", target.app_sync_parameters.is_some()),
    ])
}

/// The same of a connection.
pub fn foreign_to_connection(connection: &DescribeConnectionOutput) -> Foreign {
    let auth = connection.auth_parameters();
    let adds = |it: &ConnectionHttpParameters| {
        let lists = [
            it.header_parameters().len(),
            it.query_string_parameters().len(),
            it.body_parameters().len(),
        ];
        lists.iter().any(|count| *count > 0)
    };
    set([
        (
            CONNECTIVITY,
            connection.invocation_connectivity_parameters.is_some(),
        ),
        (
            "BasicAuthParameters",
            auth.is_some_and(|auth| auth.basic_auth_parameters.is_some()),
        ),
        (
            "OAuthParameters",
            auth.is_some_and(|auth| auth.o_auth_parameters.is_some()),
        ),
        (
            HTTP_PARAMETERS,
            auth.and_then(|auth| auth.invocation_http_parameters())
                .is_some_and(adds),
        ),
        (
            "ConnectivityParameters",
            auth.is_some_and(|auth| auth.connectivity_parameters.is_some()),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::attributes::tests::assert_complete;
    use aws_sdk_eventbridge::{
        operation::describe_api_destination::DescribeApiDestinationOutput, types as sdk,
    };

    fn at_default(tables: &[Attributes]) -> BTreeSet<String> {
        let all = tables.iter().copied().flatten();
        let names = all.filter(|(_, ours)| *ours == AtDefault);
        names.map(|(name, _)| name.replace('_', "")).collect()
    }

    fn named(foreign: Foreign) -> BTreeSet<String> {
        foreign.into_iter().map(str::to_lowercase).collect()
    }

    #[test]
    fn every_attribute_is_known() {
        assert_complete(OF_RULE, &sdk::Rule::builder().build());
        let target = sdk::Target::builder().id("a").arn("a").build().unwrap();
        assert_complete(OF_TARGET, &target);
        assert_complete(OF_CONNECTION, &DescribeConnectionOutput::builder().build());
        let auth = sdk::ConnectionAuthResponseParameters::builder().build();
        assert_complete(OF_AUTHORIZATION, &auth);
        let destination = DescribeApiDestinationOutput::builder().build();
        assert_complete(OF_DESTINATION, &destination);
    }

    #[test]
    fn what_is_set_in_a_target_is_seen() {
        let kinesis = sdk::KinesisParameters::builder().partition_key_path("$.id");
        let command = sdk::RunCommandTarget::builder()
            .key("tag")
            .values("x")
            .build()
            .unwrap();
        let command = sdk::RunCommandParameters::builder().run_command_targets(command);
        let ecs = sdk::EcsParameters::builder()
            .task_definition_arn("arn")
            .build()
            .unwrap();
        let batch = sdk::BatchParameters::builder()
            .job_definition("a")
            .job_name("a");
        let redshift = sdk::RedshiftDataParameters::builder().database("db");
        let target = sdk::Target::builder()
            .id("a")
            .arn("a")
            .input("{}")
            .input_path("$.detail")
            .kinesis_parameters(kinesis.build().unwrap())
            .run_command_parameters(command.build().unwrap())
            .ecs_parameters(ecs)
            .batch_parameters(batch.build().unwrap())
            .sqs_parameters(sdk::SqsParameters::builder().build())
            .http_parameters(sdk::HttpParameters::builder().build())
            .redshift_data_parameters(redshift.build().unwrap())
            .sage_maker_pipeline_parameters(sdk::SageMakerPipelineParameters::builder().build())
            .app_sync_parameters(sdk::AppSyncParameters::builder().build());
        let foreign = foreign_to_target(&target.build().unwrap());
        assert_eq!(named(foreign), at_default(&[OF_TARGET]));
    }

    #[test]
    fn what_is_set_in_a_connection_is_seen() {
        let described = |auth: sdk::builders::ConnectionAuthResponseParametersBuilder| {
            DescribeConnectionOutput::builder().auth_parameters(auth.build())
        };
        let auth = sdk::ConnectionAuthResponseParameters::builder;
        let resource = || {
            sdk::DescribeConnectionResourceParameters::builder()
                .resource_configuration_arn("arn")
                .resource_association_arn("arn")
                .build()
        };
        let connectivity = || {
            sdk::DescribeConnectionConnectivityParameters::builder()
                .resource_parameters(resource().unwrap())
                .build()
        };
        let header = sdk::ConnectionHeaderParameter::builder()
            .key("X-Team")
            .build();
        let http = sdk::ConnectionHttpParameters::builder;
        let basic = sdk::ConnectionBasicAuthResponseParameters::builder().build();
        let whole = auth()
            .basic_auth_parameters(basic)
            .o_auth_parameters(sdk::ConnectionOAuthResponseParameters::builder().build())
            .invocation_http_parameters(http().header_parameters(header).build())
            .connectivity_parameters(connectivity());
        let whole = described(whole).invocation_connectivity_parameters(connectivity());
        let foreign = foreign_to_connection(&whole.build());
        assert_eq!(
            named(foreign),
            at_default(&[OF_CONNECTION, OF_AUTHORIZATION])
        );
        let query = sdk::ConnectionQueryStringParameter::builder()
            .key("a")
            .build();
        let body = sdk::ConnectionBodyParameter::builder().key("a").build();
        for (parameters, foreign) in [
            (http(), None),
            (http().query_string_parameters(query), Some(HTTP_PARAMETERS)),
            (http().body_parameters(body), Some(HTTP_PARAMETERS)),
        ] {
            let auth = auth().invocation_http_parameters(parameters.build());
            let seen = foreign_to_connection(&described(auth).build());
            assert_eq!(seen, foreign.into_iter().collect());
        }
        let bare = DescribeConnectionOutput::builder().build();
        assert_eq!(foreign_to_connection(&bare), Foreign::new());
    }
}
