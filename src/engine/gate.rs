//! What every outside write passes. A write takes a [`WritePermit`], and only the engine's gates make one, so a write
//! that passed no gate does not compile.

use super::{
    error::{Error, Result},
    rendering::Step,
};
use futures::future::BoxFuture;
use std::any::Any;

/// A call that writes, as the gate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// What one refusal or throttling stops: the credentials, the Region and the service.
    pub endpoint: &'a str,
    /// Whose quota it uses up.
    pub account: &'a str,
    /// Where.
    pub region: &'a str,
    /// As whom: the role, the token's source.
    pub identity: &'a str,
    /// The API, as IAM spells it: `cloudwatch:PutMetricAlarm`.
    pub api: &'static str,
}

/// The right to send one call. The methods of clients that write take it.
#[derive(Debug)]
pub struct WritePermit<'a>(Operation<'a>);

impl<'a> WritePermit<'a> {
    /// The call that was admitted.
    pub fn operation(&self) -> &Operation<'a> {
        &self.0
    }

    /// For a gate that has admitted the call.
    pub(super) fn new(operation: Operation<'a>) -> Self {
        Self(operation)
    }

    /// A permit that no gate gave.
    #[cfg(test)]
    pub fn unchecked(operation: Operation<'a>) -> Self {
        Self(operation)
    }
}

/// A change to the status of the object at hand that has to be written before the run goes on.
pub struct StatusEdit(Box<Edit>);

type Edit = dyn Fn(&mut dyn Any) + Send + Sync;

impl StatusEdit {
    /// Of a status of type `T`.
    pub fn new<T: 'static>(edit: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        Self(Box::new(move |status| {
            let status = status.downcast_mut();
            debug_assert!(status.is_some(), "the status is of another kind");
            if let Some(status) = status {
                edit(status);
            }
        }))
    }

    /// Makes it.
    pub fn apply<T: 'static>(&self, status: &mut T) {
        (self.0)(status);
    }
}

/// What every outside write passes. In `plan` there is none.
pub trait Gate: Send + Sync {
    /// May these changes be written now, in one call? Lease still held, not shutting down, no newer
    /// generation, and the quota allows it; it waits for the latter.
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>>;
    /// Changes the status of the object at once.
    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>>;
    /// A call that was entered has been answered, with an outcome for each change that was in it; none where it
    /// was refused as a whole and the changes are tried one by one. The step of a deletion has what is lost by it.
    fn answered(&self, operation: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]);
    /// The refusal, where this very change, or any at this endpoint, was refused so lately that it is not
    /// worth asking again.
    fn refused(&self, operation: Operation<'_>, step: &Step) -> Option<Error>;
}

/// Asks the gate for a permit, after what is intended was written into status.
pub async fn admit<'a>(
    gate: &'a dyn Gate,
    operation: Operation<'a>,
    steps: &'a [Step],
    intents: &[StatusEdit],
) -> Result<WritePermit<'a>> {
    for intent in intents {
        gate.edit(intent).await?;
    }
    // After the status write, so that lease and generation are checked just before the call.
    gate.enter(operation, steps).await?;
    Ok(WritePermit::new(operation))
}
