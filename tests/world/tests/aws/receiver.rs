//! What an API destination calls in the tests: a server on loopback that answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::watch;

use crate::LIMIT;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// # Panics
    /// If it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A status, and the Retry-After that goes with it; `None` keeps the caller waiting for ever.
type Reply = Option<(u16, Option<&'static str>)>;

#[derive(Clone)]
pub struct Receiver {
    url: String,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    received: watch::Sender<Vec<Received>>,
}

impl Receiver {
    /// Answers 200 unless told otherwise. It lives as long as the test.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            replies: Arc::default(),
            received: watch::Sender::default(),
        };
        let app = axum::Router::new()
            .fallback(receive)
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The next request gets this answer, the one after it what is told after this.
    pub fn reply(&self, status: u16, retry_after: Option<&'static str>) {
        self.replies
            .lock()
            .unwrap()
            .push_back(Some((status, retry_after)));
    }

    /// The same without an answer.
    pub fn say_nothing(&self) {
        self.replies.lock().unwrap().push_back(None);
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Waits for that many requests, and for no longer than `LIMIT`; all that came.
    pub async fn wait(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.subscribe();
        let came = received.wait_for(|received| received.len() >= count);
        match tokio::time::timeout(2 * LIMIT, came).await {
            Ok(received) => received.unwrap().clone(),
            Err(_) => panic!("{count} did not come, but {:#?}", self.all()),
        }
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = receiver.replies.lock().unwrap().pop_front();
    receiver.received.send_modify(|received| {
        received.push(Received {
            at: Instant::now(),
            path: uri.to_string(),
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
    });
    match reply {
        None => StatusCode::OK.into_response(),
        Some(None) => std::future::pending().await,
        Some(Some((status, retry_after))) => {
            let status = StatusCode::from_u16(status).unwrap();
            match retry_after {
                None => status.into_response(),
                Some(value) => (status, [("retry-after", value)]).into_response(),
            }
        }
    }
}
