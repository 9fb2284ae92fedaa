//! The HTTP client for vendors without an SDK: one for all, with limits of time and size.

use crate::engine::error::{Error, Result};
use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use std::{error::Error as StdError, time::Duration};

/// The longest that making a connection may take, the look-up of the name and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The longest that a call may take, from its beginning to the last byte of the answer.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are read: several times what a thousand channels take.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The longest that anybody may ask us to stay away, so that one wrong header does not stop us for days.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The client. Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`); redirects are not
/// followed, so that secrets do not leak.
pub fn client() -> Result<Client> {
    builder().build().map_err(|error| {
        Error::failing(format!(
            "could not prepare for HTTPS: {}; are the system's certificates there?",
            chain(&error.without_url())
        ))
    })
}

fn builder() -> ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .user_agent(concat!("campanile/", env!("CARGO_PKG_VERSION")))
}

/// A whole answer, whatever it says.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// What came, for people: `HTTP 200 with text/html`.
    pub fn came(&self) -> String {
        let kind = self.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        format!(
            "HTTP {} with {}",
            self.status,
            content_type(kind, &self.body)
        )
    }

    /// How long the other side asks us to stay away, at most an hour. It may also name a moment
    /// instead of seconds; nobody whom we ask does.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        let wait = Duration::from_secs(text.trim().parse().ok()?);
        Some(wait.min(LONGEST_WAIT))
    }
}

/// Why there is no answer. Says nothing of the URL, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Whether the request may have reached the other side.
    pub sent: bool,
    /// What went wrong.
    pub text: String,
}

/// Sends a request, and reads the answer to its end.
pub(super) async fn exchange(request: RequestBuilder) -> Result<Answer, Lost> {
    #[cfg(test)]
    if let Some(answer) = tests::double(&request) {
        return answer.await;
    }
    let response = request.send().await.map_err(|error| Lost {
        sent: !error.is_connect() && !error.is_builder(),
        text: chain(&error.without_url()),
    })?;
    whole(response, BODY_LIMIT).await
}

async fn whole(mut response: Response, limit: usize) -> Result<Answer, Lost> {
    let lost = |text| Lost { sent: true, text };
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| lost(chain(&error.without_url())))?
    {
        if body.len() + chunk.len() > limit {
            return Err(lost(format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status().as_u16(),
        headers: std::mem::take(response.headers_mut()),
        body,
    })
}

/// What is in a body, by the header that says so: `text/html`. Nothing of the body is quoted anywhere: it may hold a
/// secret.
pub(super) fn content_type(header: &str, body: &[u8]) -> String {
    /// The most bytes that are quoted; no type of a vendor has 30.
    const LONGEST: usize = 60;
    let kind = header.split(';').next().unwrap_or_default().trim();
    let of = |byte: u8| byte.is_ascii_alphanumeric() || b"/+.-".contains(&byte);
    if body.is_empty() {
        "an empty body".to_owned()
    } else if (1..=LONGEST).contains(&kind.len()) && kind.bytes().all(of) {
        kind.to_owned()
    } else {
        "a body of an unknown type".to_owned()
    }
}

/// What an error and its sources say, without what changes from one time to the next.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if said.last() != Some(&text) {
            said.push(text);
        }
        next = error.source();
    }
    said.join(": ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::{
        Router,
        http::{StatusCode, header::LOCATION},
        response::IntoResponse,
        routing::get,
    };
    use futures::{FutureExt as _, future::BoxFuture};
    use parking_lot::Mutex;
    use reqwest::Request;
    use std::{
        collections::BTreeMap,
        future::{Future, pending},
        sync::Arc,
    };
    use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

    /// Answers in place of the network.
    pub type Double =
        Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Answer, Lost>> + Send + Sync>;

    /// Who answers, by the host that is asked.
    pub static DOUBLES: Mutex<BTreeMap<String, Double>> = Mutex::new(BTreeMap::new());

    /// The answer of a double, if one stands for the host, within the time that a call may take.
    pub fn double(
        request: &RequestBuilder,
    ) -> Option<impl Future<Output = Result<Answer, Lost>> + use<>> {
        let request = request.try_clone()?.build().ok()?;
        let double = DOUBLES.lock().get(request.url().host_str()?).cloned()?;
        let answer = timeout(CALL_LIMIT, double(request));
        let late = || Lost {
            sent: true,
            text: "timed out".into(),
        };
        Some(answer.map(move |answer| answer.unwrap_or_else(|_| Err(late()))))
    }

    /// The client, whatever proxy this machine is behind.
    pub fn direct() -> Client {
        builder().no_proxy().build().unwrap()
    }

    /// Where nobody listens.
    pub async fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// Takes requests, and hangs up instead of answering.
    pub async fn hanging_up() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
            }
        });
        url
    }

    /// Serves this until the test ends.
    pub async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        url
    }

    async fn lost(answer: impl Future<Output = Result<Answer, Lost>>) -> Lost {
        answer.await.unwrap_err()
    }

    #[tokio::test]
    async fn the_proper_client_can_be_made() {
        let Client { .. } = client().unwrap();
    }

    #[tokio::test]
    async fn what_was_never_sent_is_told_from_what_was() {
        let (http, canary) = (direct(), "/canary?canary");
        let url = nowhere().await;
        let refused = lost(exchange(http.get(format!("{url}{canary}")))).await;
        assert!(
            !refused.sent && refused.text.contains("refused"),
            "{refused:?}"
        );
        let nonsense = lost(exchange(http.get("no url, but canary"))).await;
        assert!(!nonsense.sent, "{nonsense:?}");
        let url = hanging_up().await;
        let cut = lost(exchange(http.post(format!("{url}{canary}")).body("x"))).await;
        assert!(cut.sent, "{cut:?}");
        let url = serve(Router::new().fallback(pending::<()>)).await;
        let impatient = builder().no_proxy().timeout(Duration::from_millis(100));
        let request = impatient.build().unwrap().get(format!("{url}{canary}"));
        let late = lost(exchange(request)).await;
        assert!(late.sent && late.text.contains("timed out"), "{late:?}");
        for lost in [refused, nonsense, cut, late] {
            assert!(!format!("{lost:?}").contains("canary"), "{lost:?}");
        }
    }

    #[tokio::test]
    async fn redirects_are_answers_and_endless_answers_are_not() {
        let away = || async { (StatusCode::FOUND, [(LOCATION, "/long")]) };
        let long = || async { "x".repeat(1000).into_response() };
        let router = Router::new()
            .route("/away", get(away))
            .route("/long", get(long));
        let (http, url) = (direct(), serve(router).await);
        let get = |path: &str| http.get(format!("{url}{path}"));
        assert_eq!(exchange(get("/away")).await.unwrap().status, 302);
        assert_eq!(exchange(get("/long")).await.unwrap().body.len(), 1000);
        for (limit, fits) in [(1000, true), (999, false), (0, false)] {
            let response = get("/long").send().await.unwrap();
            assert_eq!(whole(response, limit).await.is_ok(), fits, "{limit}");
        }
    }

    #[test]
    fn how_long_to_stay_away() {
        for (header, seconds) in [
            (Some("30"), Some(30)),
            (Some(" 0 "), Some(0)),
            (Some("999999999999"), Some(3600)),
            (Some("-1"), None),
            (Some("soon"), None),
            (Some("Wed, 21 Oct 2026 07:28:00 GMT"), None),
            (None, None),
        ] {
            let headers = header.map(|text| (RETRY_AFTER, text.parse().unwrap()));
            let answer = Answer {
                status: 429,
                headers: headers.into_iter().collect(),
                body: Vec::new(),
            };
            let seconds = seconds.map(Duration::from_secs);
            assert_eq!(answer.retry_after(), seconds, "{header:?}");
        }
    }
}
