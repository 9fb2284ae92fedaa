//! The way of a request: who calls, which trouble it meets, whether it keeps the contract, what it does, and back.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method as Verb, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::arguments::{Arguments, Written};
use super::calls::Call;
use super::methods::{self, Method};
use super::rates::Rate;
use super::state::{Outcome, Refused};
use super::trouble::{About, Trouble};
use super::{Inner, Shared, WEBHOOK};

type Answer = Response<Full<Bytes>>;

/// The connection ends without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on demand")
    }
}

impl std::error::Error for Cut {}

/// A request as it came.
struct Request {
    verb: Verb,
    path: String,
    query: String,
    content_type: Option<String>,
    token: Option<String>,
    body: Bytes,
}

/// How it is answered, before it is.
struct Reply {
    status: u16,
    kind: &'static str,
    body: String,
    headers: Vec<(&'static str, String)>,
    cut: bool,
    late: Duration,
    error: Option<String>,
}

impl Reply {
    fn new(status: u16, kind: &'static str, body: String) -> Self {
        Self {
            status,
            kind,
            body,
            headers: Vec::new(),
            cut: false,
            late: Duration::ZERO,
            error: None,
        }
    }

    fn json(answer: &Value) -> Self {
        let error = answer["error"].as_str().map(str::to_owned);
        Self {
            error,
            ..Self::new(200, JSON, answer.to_string())
        }
    }

    fn text(status: u16, text: &str) -> Self {
        let error = (status != 200).then(|| text.to_owned());
        Self {
            error,
            ..Self::new(status, "text/html", text.to_owned())
        }
    }

    fn rate_limited(seconds: u64, body: String, kind: &'static str) -> Self {
        Self {
            headers: vec![(RETRY_AFTER.as_str(), seconds.to_string())],
            error: Some("ratelimited".to_owned()),
            ..Self::new(429, kind, body)
        }
    }
}

const JSON: &str = "application/json; charset=utf-8";

fn refused(refused: Refused) -> Map<String, Value> {
    let mut answer = refused.more;
    answer.insert("ok".to_owned(), json!(false));
    answer.insert("error".to_owned(), json!(refused.error));
    answer
}

/// Whole seconds, never too few.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The status that a webhook has for an error.
fn webhook_status(error: &str) -> u16 {
    match error {
        "action_prohibited" | "invalid_token" | "posting_to_general_channel_denied" => 403,
        "channel_not_found" | "no_service" | "no_team" | "no_active_hooks" => 404,
        "channel_is_archived" => 410,
        "rollup_error" => 500,
        _ => 400,
    }
}

impl Request {
    fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    }

    async fn read(request: hyper::Request<Incoming>) -> Result<Self, Cut> {
        let (parts, body) = request.into_parts();
        let bearer = Self::header(&parts.headers, AUTHORIZATION);
        let token = bearer.and_then(|bearer| {
            bearer
                .strip_prefix("Bearer ")
                .map(|token| token.trim().to_owned())
        });
        Ok(Self {
            verb: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            content_type: Self::header(&parts.headers, CONTENT_TYPE),
            token,
            body: body.collect().await.map_err(|_| Cut)?.to_bytes(),
        })
    }
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A connection that breaks is the client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Result<Answer, Cut> {
    let request = Request::read(request).await?;
    let now = Timestamp::now();
    let reply = if let Some(method) = request.path.strip_prefix("/api/") {
        shared.change(|inner| inner.method(method, &request, now))
    } else if let Some(rest) = request.path.strip_prefix("/services/") {
        shared.change(|inner| inner.webhook(rest, &request, now))
    } else if request.path == "/record" && request.verb == Verb::GET {
        Reply::new(
            200,
            "text/plain; charset=utf-8",
            shared.look(|inner| inner.told()),
        )
    } else {
        Reply::new(
            404,
            "text/plain",
            "there is /api/<method>, /services/T…/B…/… and /record\n".to_owned(),
        )
    };
    tokio::time::sleep(reply.late).await;
    if reply.cut {
        return Err(Cut);
    }
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}

/// Whose call it is.
#[derive(Clone, Debug, Default)]
struct Caller {
    workspace: String,
    name: String,
    user: String,
    scopes: BTreeSet<String>,
}

impl Inner {
    fn violated(&mut self, workspace: &str, name: &str, what: &str, found: &[String]) {
        for each in found {
            self.violations
                .push((workspace.to_owned(), format!("{name} {what}: {each}")));
        }
    }

    fn method(&mut self, name: &str, request: &Request, now: Timestamp) -> Reply {
        let token = request.token.clone().unwrap_or_default();
        let caller = self.state.holder(&token).map(|(team, token)| Caller {
            workspace: team.id.clone(),
            name: team.name.clone(),
            user: token.user.clone(),
            scopes: token.scopes.clone(),
        });
        let is_known = caller.is_some();
        let caller = caller.unwrap_or_default();
        let arguments = Arguments::read(request.content_type.as_deref(), &request.body);
        let sent = arguments
            .as_ref()
            .map(|arguments| arguments.values.clone())
            .unwrap_or_default();
        let (channel, names) = self.channel(&caller.workspace, &sent);
        let method = methods::find(name);
        let reply = self.meet(name, method, &caller, names, |inner, short| {
            inner.done(name, method, request, arguments, &caller, short, now)
        });
        let mut reply = reply;
        if is_known {
            let scopes: Vec<_> = caller.scopes.iter().map(String::as_str).collect();
            reply.headers.push(("x-oauth-scopes", scopes.join(",")));
            let accepted = method
                .map(|method| method.scopes.join(","))
                .unwrap_or_default();
            reply.headers.push(("x-accepted-oauth-scopes", accepted));
        }
        self.calls.push(Call {
            at: Timestamp::now(),
            method: name.to_owned(),
            workspace: caller.workspace,
            token,
            channel,
            arguments: sent,
            content_type: request.content_type.clone().unwrap_or_default(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            status: (!reply.cut).then_some(reply.status),
            error: reply.error.clone(),
        });
        reply
    }

    /// The id of the channel that a call is about, and what a filter may call it.
    fn channel(
        &self,
        workspace: &str,
        sent: &std::collections::BTreeMap<String, Value>,
    ) -> (String, Vec<String>) {
        let text = |name: &str| sent.get(name).and_then(Value::as_str).unwrap_or_default();
        let team = self.state.teams.get(workspace);
        let room = team.and_then(|team| team.room(text("channel")));
        let id = room
            .map_or(text("channel"), |room| &room.channel.id)
            .to_owned();
        let mut names = vec![id.clone(), text("name").to_owned()];
        names.extend(room.map(|room| room.channel.name.clone()));
        names.retain(|name| !name.is_empty());
        (room.map_or_else(String::new, |_| id), names)
    }

    /// What stands between a call and its being done: the rates, and troubles. One above the rates meets nothing else, and uses
    /// nothing up.
    fn meet(
        &mut self,
        name: &str,
        method: Option<&'static Method>,
        caller: &Caller,
        channel: Vec<String>,
        done: impl FnOnce(&mut Self, bool) -> Reply,
    ) -> Reply {
        let is_webhook = name == WEBHOOK;
        let limited = |seconds: u64| {
            if is_webhook {
                Reply::rate_limited(seconds, String::new(), "text/html")
            } else {
                let body = json!({"ok": false, "error": "ratelimited"});
                Reply::rate_limited(seconds, body.to_string(), JSON)
            }
        };
        let rate = if is_webhook {
            Some((WEBHOOK, Rate::PerChannel))
        } else {
            method.map(|method| (method.name, method.rate))
        };
        if let Some((method, rate)) = rate
            && self.limited.contains(&caller.workspace)
        {
            let place = channel.first().map_or("", String::as_str);
            let whose = format!("{} {}", caller.workspace, caller.user);
            if let Err(wait) = self.rates.take(&whose, method, place, rate, Instant::now()) {
                return limited(seconds(wait).max(1));
            }
        }
        let about = About {
            method: name,
            workspace: &caller.workspace,
            channel,
        };
        let (trouble, short) = self.troubles.meet(&about);
        match trouble {
            None | Some(Trouble::ShortPages) => done(self, short),
            Some(Trouble::Status(status, body)) => Reply {
                error: Some(status.to_string()),
                ..Reply::new(status, "text/html; charset=utf-8", body)
            },
            Some(Trouble::Error(error)) if is_webhook => {
                Reply::text(webhook_status(&error), &error)
            }
            Some(Trouble::Error(error)) => {
                let answer = Value::Object(refused(Refused::from(error.as_str())));
                self.judge(name, &answer, caller);
                Reply::json(&answer)
            }
            Some(Trouble::RateLimited { retry_after }) => limited(retry_after),
            Some(Trouble::CutBefore) => Reply {
                cut: true,
                error: Some("cut".to_owned()),
                ..Reply::new(500, "text/plain", String::new())
            },
            Some(Trouble::CutAfterCommit) => Reply {
                cut: true,
                ..done(self, short)
            },
            Some(Trouble::Slow(late)) => Reply {
                late,
                ..done(self, short)
            },
        }
    }

    fn judge(&mut self, name: &str, answer: &Value, caller: &Caller) {
        if let Some(contract) = self.contract {
            let found = contract.answer(name, answer, &caller.scopes);
            self.violated(
                &caller.workspace,
                &format!("{} {name}", caller.name),
                "answer",
                &found,
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call is")]
    fn done(
        &mut self,
        name: &str,
        method: Option<&'static Method>,
        request: &Request,
        arguments: Result<Arguments, &'static str>,
        caller: &Caller,
        short: bool,
        now: Timestamp,
    ) -> Reply {
        let mut found = Vec::new();
        if request.verb != Verb::POST {
            found.push(format!("{} instead of POST", request.verb));
        }
        if !request.query.is_empty() {
            found.push("arguments in the query".to_owned());
        }
        match (&arguments, method) {
            (Err(error), _) => found.push(format!("the body cannot be read: {error}")),
            (Ok(arguments), Some(method)) => {
                found.extend(method.unheard(arguments));
                found.extend(
                    self.contract
                        .into_iter()
                        .flat_map(|contract| contract.request(name, arguments)),
                );
            }
            (Ok(_), None) => found.push("no such method".to_owned()),
        }
        self.violated(
            &caller.workspace,
            &format!("{} {name}", caller.name),
            "request",
            &found,
        );
        let no_charset = arguments
            .as_ref()
            .is_ok_and(|arguments| arguments.no_charset);
        let outcome = self.outcome(method, request, arguments, caller, &found, short, now);
        let mut answer = match outcome {
            Ok(answer) => std::iter::once(("ok".to_owned(), json!(true)))
                .chain(answer)
                .collect(),
            Err(why) => refused(why),
        };
        if no_charset {
            warn(&mut answer, "missing_charset");
        }
        let answer = Value::Object(answer);
        if method.is_some() {
            self.judge(name, &answer, caller);
        }
        Reply::json(&answer)
    }

    /// What comes of it. A request that breaks the contract changes nothing, and is refused with Slack's own word where it has one.
    #[expect(clippy::too_many_arguments, reason = "all that a call is")]
    fn outcome(
        &mut self,
        method: Option<&'static Method>,
        request: &Request,
        arguments: Result<Arguments, &'static str>,
        caller: &Caller,
        found: &[String],
        short: bool,
        now: Timestamp,
    ) -> Outcome {
        let Some(token) = request.token.as_deref().filter(|token| !token.is_empty()) else {
            return Err("not_authed".into());
        };
        let method = method.ok_or("unknown_method")?;
        let team = self
            .state
            .teams
            .get_mut(&caller.workspace)
            .ok_or("invalid_auth")?;
        let token = team.tokens.get(token).ok_or("invalid_auth")?.clone();
        if request.verb != Verb::POST {
            return Err("invalid_post_type".into());
        }
        let arguments = method.seen(arguments?);
        if found.is_empty() {
            return method.call(team, &token, &arguments, now, short);
        }
        method.call(&mut team.clone(), &token, &arguments, now, short)?;
        let unknown = found
            .iter()
            .any(|each| each.starts_with("unknown argument"));
        let error = if unknown {
            "invalid_arg_name"
        } else {
            "invalid_arguments"
        };
        Err(Refused::explained(error, found))
    }

    fn webhook(&mut self, rest: &str, request: &Request, now: Timestamp) -> Reply {
        let mut parts = rest.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let (team, bot, secret) = (part(), part(), part());
        let known = self.state.teams.get_mut(team);
        let room = known.and_then(|team| {
            let serial = team.webhooks.iter().find(|hook| hook.id == bot)?.room;
            Some(team.room_by_serial(serial)?.channel.clone())
        });
        let caller = Caller {
            workspace: self
                .state
                .teams
                .get(team)
                .map(|team| team.id.clone())
                .unwrap_or_default(),
            name: self
                .state
                .teams
                .get(team)
                .map(|team| team.name.clone())
                .unwrap_or_default(),
            user: bot.to_owned(),
            scopes: BTreeSet::new(),
        };
        let arguments = Arguments::read(request.content_type.as_deref(), &request.body);
        let sent = arguments
            .as_ref()
            .map(|arguments| arguments.values.clone())
            .unwrap_or_default();
        let names = room
            .iter()
            .flat_map(|channel| [channel.id.clone(), channel.name.clone()])
            .collect();
        let reply = self.meet(WEBHOOK, None, &caller, names, |inner, _| {
            let (status, text) =
                match inner.hooked(team, bot, secret, request, arguments, &caller, now) {
                    Ok(()) => (200, "ok".to_owned()),
                    Err(refusal) => refusal,
                };
            if let Some(contract) = inner.contract {
                let found = contract.webhook_answer(status, &text);
                inner.violated(
                    &caller.workspace,
                    &format!("{} webhook", caller.name),
                    "answer",
                    &found,
                );
            }
            Reply::text(status, &text)
        });
        self.calls.push(Call {
            at: Timestamp::now(),
            method: WEBHOOK.to_owned(),
            workspace: caller.workspace,
            token: request.path.clone(),
            channel: room.map(|channel| channel.id).unwrap_or_default(),
            arguments: sent,
            content_type: request.content_type.clone().unwrap_or_default(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            status: (!reply.cut).then_some(reply.status),
            error: reply.error.clone(),
        });
        reply
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call is")]
    fn hooked(
        &mut self,
        team: &str,
        bot: &str,
        secret: &str,
        request: &Request,
        arguments: Result<Arguments, &'static str>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        let mut found = Vec::new();
        if request.verb != Verb::POST {
            found.push(format!("{} instead of POST", request.verb));
        }
        if !request.query.is_empty() {
            found.push("arguments in the query".to_owned());
        }
        match &arguments {
            // Nothing at all is how a webhook is asked whether it is alive.
            Ok(arguments) if arguments.written == Written::Json && arguments.values.is_empty() => {}
            Ok(arguments) if arguments.written == Written::Json => {
                let unknown = arguments.values.keys();
                let unknown = unknown.filter(|name| !methods::HOOKED.contains(&name.as_str()));
                found.extend(unknown.map(|name| format!("unknown argument {name}")));
                found.extend(
                    self.contract
                        .into_iter()
                        .flat_map(|contract| contract.webhook_request(arguments)),
                );
            }
            Ok(_) => found.push("it takes JSON".to_owned()),
            Err(error) => found.push(format!("the body cannot be read: {error}")),
        }
        self.violated(
            &caller.workspace,
            &format!("{} webhook", caller.name),
            "request",
            &found,
        );
        let team = self
            .state
            .teams
            .get_mut(team)
            .ok_or((404, "no_team".to_owned()))?;
        let arguments = arguments.unwrap_or_else(|_| Arguments::none());
        if found.is_empty() {
            return team.hook(bot, secret, &arguments, now);
        }
        team.clone().hook(bot, secret, &arguments, now)?;
        Err((400, "invalid_payload".to_owned()))
    }
}

fn warn(answer: &mut Map<String, Value>, warning: &str) {
    let warnings = match answer.get("warning").and_then(Value::as_str) {
        Some(other) => format!("{other},{warning}"),
        None => warning.to_owned(),
    };
    let list: Vec<_> = warnings.split(',').map(str::to_owned).collect();
    answer.insert("warning".to_owned(), json!(warnings));
    let metadata = answer
        .entry("response_metadata")
        .or_insert_with(|| json!({}));
    metadata["warnings"] = json!(list);
}
