//! The HTTP server of the process: `/livez`, `/readyz`, `/metrics`.

use super::{Metrics, Probes};
use crate::engine::error::{Error, Result};
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{future::Future, io, net::SocketAddr};
use tokio::net::TcpListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens for [`serve`], apart from it so that a wrong address ends the process before it does anything.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there; choose another --metrics-addr"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 for --metrics-addr",
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; choose another --metrics-addr"
            }
            _ => "choose another --metrics-addr",
        };
        Error::invalid(format!("could not listen on {address}: {error}; {hint}"))
    })
}

/// Answers until `shutdown` resolves. Let that be the very last: a process that is winding up is alive.
pub async fn serve(
    listener: TcpListener,
    probes: Probes,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let router = Router::new()
        .route(
            "/livez",
            get({
                let probes = probes.clone();
                async move || answer(&probes.stuck())
            }),
        )
        .route("/readyz", get(async move || answer(&probes.unready())))
        .route("/metrics", get(async move || exposition(&metrics)));
    // Not axum's graceful shutdown: it would wait for whoever keeps a connection open.
    tokio::select! {
        served = axum::serve(listener, router) => {
            served.map_err(|error| Error::failing(format!("could not go on answering probes: {error}")))
        }
        () = shutdown => Ok(()),
    }
}

/// `ok`, or 503 with what is wrong, a line each.
fn answer(wrong: &[String]) -> Response {
    if wrong.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n").into_response()
    }
}

fn exposition(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpStream,
        time::Duration,
    };
    use tokio::sync::oneshot;

    /// The whole answer, head and body.
    async fn ask(address: SocketAddr, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn it_answers() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (probes, metrics) = (Probes::default(), Metrics::new());
        let pending = probes.wait_for("the API server");
        drop(probes.heartbeat("controller", Duration::ZERO));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, probes.clone(), metrics, async move {
            let _ = stopped.await;
        }));

        let unready = ask(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
        assert!(
            unready.ends_with("\r\n\r\nwaiting for the API server\n"),
            "{unready}"
        );
        pending.done();
        let ready = ask(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nok\n"),
            "{ready}"
        );

        let stuck = ask(address, "/livez").await;
        assert!(
            stuck.starts_with("HTTP/1.1 503 ") && stuck.contains("\ncontroller: "),
            "{stuck}"
        );
        drop(probes.heartbeat("controller", Duration::MAX));
        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200 "));

        let metrics = ask(address, "/metrics").await;
        assert!(
            metrics.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{metrics}"
        );
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(ask(address, "/").await.starts_with("HTTP/1.1 404 "));

        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(
            error
                .message
                .starts_with(&format!("could not listen on {address}: ")),
            "{error}"
        );
        assert!(
            error.message.contains("another process listens there"),
            "{error}"
        );
    }
}
