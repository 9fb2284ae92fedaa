//! The way of a request: who calls, which trouble it meets, whether it is legal, on to the emulator, and back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::answer::{Answer, Fault, JSON, QUERY_ERROR, reply};
use super::calls::{self, Call, Calls};
use super::identity::{Identities, Identity};
use super::rates::Rates;
use super::request::{Credential, Protocol, Request};
use super::trouble::{Met, Trouble, Troubles};
use super::watch::Watch;
use super::{alarm_form, cbor, event_form, pages, sts};

pub(super) struct Proxy {
    upstream: String,
    client: reqwest::Client,
    identities: Identities,
    calls: Calls,
    troubles: Troubles,
    rates: Rates,
    watch: Watch,
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on demand")
    }
}

impl std::error::Error for Cut {}

impl Proxy {
    pub(super) fn new(upstream: &str) -> Result<Self> {
        Ok(Self {
            upstream: upstream.to_owned(),
            client: super::client()?,
            identities: Identities::default(),
            calls: Calls::default(),
            troubles: Troubles::default(),
            rates: Rates::default(),
            watch: Watch::default(),
        })
    }

    pub(super) fn identities(&self) -> &Identities {
        &self.identities
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(super) fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let proxy = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| Arc::clone(&proxy).answer(request));
                // A connection that breaks is the client's affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Result<Answer, Cut> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let request = Request::read(&parts, &body);
        let caller = self.caller(&request);
        let (identity, credential) = match &caller {
            Ok((identity, credential)) => (identity.clone(), credential.clone()),
            Err(_) => (
                Identity {
                    account: String::new(),
                    arn: String::new(),
                    user_id: String::new(),
                },
                request.credential.clone().unwrap_or_default(),
            ),
        };
        let name = format!(
            "{} {}:{}",
            identity.account, request.service, request.operation
        );
        self.watch
            .look(&parts.uri.to_string(), &parts.headers, &body, &name);
        let Met { trouble, page } = self.meet(&request, &identity.account, &credential.region);
        let resource = request.resource(&identity.account, &credential.region);
        let result = match caller {
            Err(fault) => Err(fault),
            Ok(_) => {
                let trouble = trouble.as_ref();
                let refusal = self.refusal(&request, &identity, &credential, &resource, trouble);
                match (refusal.await, trouble) {
                    (Some(fault), _) => Err(fault),
                    (None, Some(Trouble::FailEntries(code, message))) => {
                        Ok((failed_entries(&request, code, message), None))
                    }
                    (None, _) => {
                        let path = parts.uri.path_and_query();
                        let path = path.map_or("/", |path| path.as_str());
                        let (path, body) = match page {
                            Some(size) => pages::shorten(&request.operation, path, &body, size),
                            None => (path.to_owned(), body),
                        };
                        self.done(&request, &identity, &credential, &parts, &path, body)
                            .await
                    }
                }
            }
        };
        let (answer, error) = match result {
            Ok((answer, error)) => (answer, error),
            Err(fault) => (
                fault.answer(request.protocol, &request.service),
                Some(fault.code),
            ),
        };
        let cut = trouble == Some(Trouble::CutAfterCommit);
        self.calls.push(Call {
            at: Timestamp::now(),
            by: request.by,
            account: identity.account,
            region: credential.region,
            identity: identity.arn,
            access_key_id: credential.access_key_id,
            write: calls::is_write(&request.operation),
            service: request.service,
            operation: request.operation,
            resource,
            status: (!cut).then(|| answer.status().as_u16()),
            error,
        });
        if cut { Err(Cut) } else { Ok(answer) }
    }

    /// What happens to a request that is not the world's own. One above the quota meets nothing else, and uses nothing up.
    fn meet(&self, request: &Request, account: &str, region: &str) -> Met {
        let (service, operation) = (&request.service, &request.operation);
        match request.by {
            calls::By::World | calls::By::Link => Met::default(),
            calls::By::Client
                if self
                    .rates
                    .exceeded(account, region, service, operation, Instant::now()) =>
            {
                Met {
                    trouble: Some(Trouble::Throttle),
                    page: None,
                }
            }
            calls::By::Client => {
                self.troubles
                    .meet(account, service, operation, request.later_page)
            }
        }
    }

    fn caller(&self, request: &Request) -> Result<(Identity, Credential), Fault> {
        if let Some((account, credential)) = request.link_target() {
            return Ok((
                Identity {
                    account,
                    arn: String::new(),
                    user_id: String::new(),
                },
                credential,
            ));
        }
        let credential = request.credential.clone();
        let credential = credential.ok_or_else(|| {
            Fault::new(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            )
        })?;
        let identity = self.identities.of(
            &credential.access_key_id,
            request.token.as_deref(),
            Timestamp::now(),
        )?;
        Ok((identity, credential))
    }

    /// Why nothing is done, before anything is.
    async fn refusal(
        &self,
        request: &Request,
        identity: &Identity,
        credential: &Credential,
        resource: &str,
        trouble: Option<&Trouble>,
    ) -> Option<Fault> {
        let denied = || {
            Fault::denied(
                request.protocol,
                &identity.arn,
                &request.service,
                &request.operation,
                resource,
            )
        };
        match trouble {
            Some(Trouble::Deny) => return Some(denied()),
            Some(Trouble::Throttle) => return Some(Fault::throttled(request.protocol)),
            Some(Trouble::Fail5xx | Trouble::FailLaterPages) => return Some(Fault::internal()),
            Some(Trouble::Answer(status, code, message)) => {
                return Some(Fault::new(*status, code, message));
            }
            Some(Trouble::Delay(time)) => tokio::time::sleep(*time).await,
            Some(Trouble::CutAfterCommit | Trouble::ShortPages(_) | Trouble::FailEntries(..))
            | None => {}
        }
        if calls::is_write(&request.operation)
            && self.identities.is_read_only(&credential.access_key_id)
        {
            return Some(denied());
        }
        if let Some(fault) = self.passing(request, identity) {
            return Some(fault);
        }
        if request.service == "events" {
            let Some(body) = &request.json else {
                return Some(Fault::new(
                    400,
                    "SerializationException",
                    "the body is not JSON",
                ));
            };
            let refusal = event_form::check(&request.operation, body).err()?;
            return Some(Fault::new(400, refusal.code, refusal.message));
        }
        if request.protocol != Protocol::Cbor {
            return None;
        }
        let Some(body) = &request.cbor else {
            return Some(Fault::new(
                400,
                "SerializationException",
                "the body is not CBOR",
            ));
        };
        let illegal = alarm_form::check(&request.operation, body, &credential.region).err()?;
        Some(Fault::new(400, "ValidationError", illegal))
    }

    /// Whether it may hand the roles to the service that it names.
    fn passing(&self, request: &Request, identity: &Identity) -> Option<Fault> {
        let role = *request.passed_roles().first()?;
        let met = match request.by {
            calls::By::Client => self
                .troubles
                .meet(&identity.account, "iam", "PassRole", false),
            calls::By::World | calls::By::Link => Met::default(),
        };
        (met.trouble == Some(Trouble::Deny))
            .then(|| Fault::denied(request.protocol, &identity.arn, "iam", "PassRole", role))
    }

    /// Does what is asked: the answer, and its error code if it is one.
    async fn done(
        &self,
        request: &Request,
        identity: &Identity,
        credential: &Credential,
        parts: &Parts,
        path: &str,
        body: Bytes,
    ) -> Result<(Answer, Option<String>), Fault> {
        if request.service == "sts"
            && let Some(answer) = sts::answer(&self.identities, identity, request)
        {
            return answer.map(|answer| (answer, None));
        }
        let answer = self
            .forward(parts, path, body, &credential.header(&identity.account))
            .await;
        let mut answer =
            answer.map_err(|error| Fault::new(502, "EmulatorUnreachable", format!("{error:#}")))?;
        let error = error_code(&answer, request.protocol);
        // The emulator leaves out the header from which SDKs take a CBOR error's code.
        if let (Protocol::Cbor, Some(code)) = (request.protocol, &error) {
            let at_fault = if answer.status().is_client_error() {
                "Sender"
            } else {
                "Receiver"
            };
            if let Ok(value) = HeaderValue::try_from(format!("{code};{at_fault}")) {
                answer.headers_mut().insert(QUERY_ERROR, value);
            }
        }
        Ok((answer.map(Full::new), error))
    }

    async fn forward(
        &self,
        parts: &Parts,
        path: &str,
        body: Bytes,
        authorization: &str,
    ) -> Result<hyper::Response<Bytes>> {
        let mut headers = parts.headers.clone();
        for hop in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(hop);
        }
        headers.insert(AUTHORIZATION, HeaderValue::try_from(authorization)?);
        // Who it is for is settled; the emulator does not know the token.
        headers.remove("x-amz-security-token");
        let request = self
            .client
            .request(parts.method.clone(), format!("{}{path}", self.upstream))
            .headers(headers)
            .body(body);
        let answer = request
            .send()
            .await
            .context("the emulator does not answer")?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for hop in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(hop);
        }
        let mut response = hyper::Response::new(
            answer
                .bytes()
                .await
                .context("the emulator's answer breaks off")?,
        );
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Tells the patched emulator to do something that no AWS call does.
    pub(super) async fn tell(
        &self,
        what: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        let answer = self
            .client
            .post(format!("{}/_world/{what}", self.upstream))
            .json(body)
            .send()
            .await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}

/// The answer in which every entry of the request has failed.
fn failed_entries(request: &Request, code: &str, message: &str) -> Answer {
    let list = |key: &str| {
        let entries = request
            .json
            .as_ref()
            .and_then(|body| body.get(key)?.as_array());
        entries.into_iter().flatten()
    };
    let failed: Vec<_> = list("Targets")
        .filter_map(|target| target.get("Id"))
        .chain(list("Ids"))
        .map(|id| serde_json::json!({"TargetId": id, "ErrorCode": code, "ErrorMessage": message}))
        .chain(
            list("Entries")
                .map(|_| serde_json::json!({"ErrorCode": code, "ErrorMessage": message})),
        )
        .collect();
    let key = if request.operation == "PutEvents" {
        "Entries"
    } else {
        "FailedEntries"
    };
    let body = serde_json::json!({"FailedEntryCount": failed.len(), key: failed});
    reply(200, JSON, body.to_string())
}

fn error_code(answer: &hyper::Response<Bytes>, protocol: Protocol) -> Option<String> {
    if answer.status().is_success() {
        return None;
    }
    let body = answer.body();
    let named = |body: serde_json::Value| {
        Some(body.get("__type")?.as_str()?.rsplit('#').next()?.to_owned())
    };
    let code = match protocol {
        Protocol::Cbor => cbor::read(body).and_then(named),
        Protocol::Json => serde_json::from_slice(body).ok().and_then(named),
        Protocol::Query | Protocol::Rest => {
            let text = String::from_utf8_lossy(body);
            text.split_once("<Code>")
                .and_then(|(_, rest)| rest.split_once("</Code>"))
                .map(|(code, _)| code.to_owned())
        }
    };
    Some(code.unwrap_or_else(|| "Unknown".to_owned()))
}
