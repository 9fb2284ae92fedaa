//! How AWS is read: with credentials that are as fresh as the role, to the last page, and with an eye for what
//! is not there.

use super::{Account, Call, classify};
use crate::engine::error::{Class, Error, Result};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error as StdError;

impl Account {
    /// Reads; once more with fresh credentials, where those at hand are refused but the role is not. `read` must
    /// take its client from the account each time. Errors are those of `read`, and of assuming the role.
    pub async fn read_afresh<T, F>(&self, read: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match read().await {
            Err(error) if error.class == Class::Denied => {
                self.check().await?;
                read().await
            }
            outcome => outcome,
        }
    }
}

/// What is on a page, and the token of the next one; `None` where what is listed is not there itself.
pub type Page<T> = Option<(Vec<T>, Option<String>)>;

/// Reads all pages of `operation`, from the one without a token on; `None` where what is listed is not there
/// itself. It is an error if AWS answers with the same page again and again.
pub async fn pages<T, F>(
    operation: &str,
    read: impl Fn(Option<String>) -> F,
) -> Result<Option<Vec<T>>>
where
    F: Future<Output = Result<Page<T>>>,
{
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let Some((page, next)) = read(token.clone()).await? else {
            return Ok(None);
        };
        all.extend(page);
        if next.is_none() {
            return Ok(Some(all));
        }
        if next == token {
            return Err(Error::failing(format!(
                "{operation} answers with the same page again and again"
            )));
        }
        token = next;
    }
}

/// What a call was answered; `None` where what it is about is not there.
pub fn found<T, E>(
    call: &Call<'_>,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<Option<T>>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match answer {
        Err(error) if is_missing(&error) => Ok(None),
        answer => answer.map(Some).map_err(|error| classify(call, &error)),
    }
}

/// Whether AWS says that what a call is about is not there: EventBridge's code, and the two of SNS.
pub fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let code = error.as_service_error().and_then(|error| error.code());
    matches!(
        code,
        Some("ResourceNotFoundException" | "ResourceNotFound" | "NotFound")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_read_to_the_end_and_one_that_repeats_is_an_error() {
        let text = |text: &str| Some(text.to_owned());
        let book = [
            (None, Some((vec![1, 2], text("a")))),
            // A page may be empty, and yet not the last.
            (text("a"), Some((vec![], text("b")))),
            (text("b"), Some((vec![3], None))),
            (text("c"), Some((vec![4], text("c")))),
            (text("d"), None),
        ];
        let from = async |first: Option<String>| {
            let read = |token: Option<String>| {
                let wanted = token.or(first.clone());
                let page = book.iter().find(|(token, _)| *token == wanted);
                let page = page.unwrap().1.clone();
                async move { Ok(page) }
            };
            pages("L", read).await
        };
        assert_eq!(from(None).await, Ok(Some(vec![1, 2, 3])));
        let repeated = from(text("c")).await.unwrap_err();
        assert_eq!(
            repeated.message,
            "L answers with the same page again and again"
        );
        assert_eq!(from(text("d")).await, Ok(None));
    }
}
