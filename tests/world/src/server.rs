//! HTTP servers on loopback with a thread and an async runtime of their own: a world outlives the runtime of any one test.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A port of our own, already listening: nobody else can take it before the server runs.
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    pub(crate) fn take() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn number(&self) -> u16 {
        self.address.port()
    }
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    address: SocketAddr,
    runtime: Handle,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs `serve` on `port` until the server is dropped.
    pub(crate) fn start<F>(
        name: &str,
        port: Port,
        serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + 'static,
    {
        let Port { listener, address } = port;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no async runtime for a server")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => tokio::select! {
                            () = serve(listener) => {}
                            _ = stopped => {}
                        },
                        Err(error) => tracing::error!(%error, "a loopback server cannot listen"),
                    }
                });
            });
        let thread = thread.with_context(|| format!("no thread for the server of {name}"))?;
        Ok(Self {
            address,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs `work` in the server's runtime, where its HTTP client's connections live.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime
            .spawn(work)
            .await
            .context("a server of the world has ended")?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
