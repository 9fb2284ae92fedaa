//! Writes to AWS: a [`Writer`] has the one call that its permit names, and does not outlive the permit.

use super::{
    Account, Clients,
    error::{Call, classify},
};
use crate::engine::{
    error::{Error, Result},
    gate::{Operation, WritePermit},
};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error as StdError;

/// The call of an account that a permit names.
pub struct Writer<'p> {
    clients: Clients,
    /// The call, for people.
    pub call: Call<'p>,
}

impl Account {
    /// The call that has passed the gate. It is an error if that was to be made in another account, or as another role.
    pub fn writer<'p>(&'p self, permit: &'p WritePermit<'_>) -> Result<Writer<'p>> {
        let Operation { endpoint, api, .. } = *permit.operation();
        if self.operation(endpoint, api) != *permit.operation() {
            let role = &self.identity.role_arn;
            let message = format!("the permit for {api} is not one of {role}");
            return Err(Error::failing(message));
        }
        Ok(Writer {
            clients: self.clients.read().clone(),
            call: Call {
                identity: &self.identity,
                api,
                writes: true,
            },
        })
    }
}

macro_rules! calls {
    ($($sdk:ident $service:ident: $($call:ident $api:literal $builder:ident),+;)+) => {
        impl Writer<'_> {
            $($(
                #[doc = concat!("`", $api, "`, to be sent; an error if the permit is for another call.")]
                pub fn $call(&self) -> Result<$sdk::operation::$call::builders::$builder> {
                    self.is_for($api)?;
                    Ok(self.clients.$service.$call())
                }
            )+)+
        }
    };
}

calls! {
    aws_sdk_cloudwatch cloudwatch:
        put_metric_alarm "cloudwatch:PutMetricAlarm" PutMetricAlarmFluentBuilder,
        delete_alarms "cloudwatch:DeleteAlarms" DeleteAlarmsFluentBuilder,
        set_alarm_state "cloudwatch:SetAlarmState" SetAlarmStateFluentBuilder;
    aws_sdk_eventbridge eventbridge:
        create_connection "events:CreateConnection" CreateConnectionFluentBuilder,
        update_connection "events:UpdateConnection" UpdateConnectionFluentBuilder,
        delete_connection "events:DeleteConnection" DeleteConnectionFluentBuilder,
        create_api_destination "events:CreateApiDestination" CreateApiDestinationFluentBuilder,
        update_api_destination "events:UpdateApiDestination" UpdateApiDestinationFluentBuilder,
        delete_api_destination "events:DeleteApiDestination" DeleteApiDestinationFluentBuilder,
        put_rule "events:PutRule" PutRuleFluentBuilder,
        delete_rule "events:DeleteRule" DeleteRuleFluentBuilder,
        put_targets "events:PutTargets" PutTargetsFluentBuilder,
        remove_targets "events:RemoveTargets" RemoveTargetsFluentBuilder;
    aws_sdk_sns sns:
        create_topic "sns:CreateTopic" CreateTopicFluentBuilder,
        set_topic_attributes "sns:SetTopicAttributes" SetTopicAttributesFluentBuilder,
        delete_topic "sns:DeleteTopic" DeleteTopicFluentBuilder,
        subscribe "sns:Subscribe" SubscribeFluentBuilder,
        set_subscription_attributes "sns:SetSubscriptionAttributes" SetSubscriptionAttributesFluentBuilder,
        unsubscribe "sns:Unsubscribe" UnsubscribeFluentBuilder;
}

impl Writer<'_> {
    /// CloudWatch's `TagResource`.
    pub fn tag_alarm(
        &self,
    ) -> Result<aws_sdk_cloudwatch::operation::tag_resource::builders::TagResourceFluentBuilder>
    {
        self.is_for("cloudwatch:TagResource")?;
        Ok(self.clients.cloudwatch.tag_resource())
    }

    /// SNS's `TagResource`.
    pub fn tag_topic(
        &self,
    ) -> Result<aws_sdk_sns::operation::tag_resource::builders::TagResourceFluentBuilder> {
        self.is_for("sns:TagResource")?;
        Ok(self.clients.sns.tag_resource())
    }

    fn is_for(&self, api: &str) -> Result<()> {
        if self.call.api == api {
            return Ok(());
        }
        let message = format!("the permit for {} is none for {api}", self.call.api);
        Err(Error::failing(message))
    }

    /// What came of the call, where its answer says no more than that it was carried out.
    pub fn done<T, E>(&self, answer: Result<T, SdkError<E, HttpResponse>>) -> Result<()>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        answer.map(drop).map_err(|error| self.refusal(&error))
    }

    /// What the call's error means, and what to do about it.
    pub fn refusal<E>(&self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        classify(&self.call, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_of_one_call_one_account_one_region_and_one_role() {
        let account = Account::at("http://127.0.0.1", &Default::default());
        let own = account.operation("endpoint", "sns:CreateTopic");
        let may = |operation| account.writer(&WritePermit::unchecked(operation)).is_ok();
        assert!(may(own));
        for other in [
            Operation {
                account: "555566667777",
                ..own
            },
            Operation {
                region: "eu-west-1",
                ..own
            },
            Operation {
                identity: "arn:aws:iam::222233334444:role/other",
                ..own
            },
        ] {
            assert!(!may(other), "{other:?}");
        }
        let permit = WritePermit::unchecked(own);
        let writer = account.writer(&permit).unwrap();
        assert!(writer.create_topic().is_ok());
        let other = writer.delete_topic().unwrap_err();
        assert_eq!(
            other.message,
            "the permit for sns:CreateTopic is none for sns:DeleteTopic"
        );
    }
}
