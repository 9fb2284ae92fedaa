//! The three processes and their flags.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{READY_WITHIN, audit, client, identity, serves};
use crate::install::Cluster;
use crate::port;
use crate::process::Process;
use crate::run_dir::DATA;

/// Unix sockets in the directory of both processes: no ports to race for, and no limit on how long the directory's path is.
/// The numbers are there because etcd wants `host:port` in any URL.
const ETCD_CLIENTS: &str = "unix://etcd:1";
const ETCD_PEERS: &str = "unix://etcd:2";
const CERTIFICATES: &str = "certificates";
/// What campanile's world needs of kube-controller-manager, and all that our own build of it has.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,\
    root-ca-certificate-publisher-controller,clusterrole-aggregation-controller";
const ATTEMPTS: usize = 5;

/// In the order in which they are to end.
#[derive(Debug)]
pub(super) struct ControlPlane {
    _controllers: Process,
    pub(super) apiserver: Process,
    _etcd: Process,
    port: u16,
}

impl ControlPlane {
    pub(super) async fn start(
        programs: &Cluster,
        run_dir: &Path,
        directory: &Path,
        token: &str,
        extra: &[String],
    ) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
        let etcd = start_etcd(programs, run_dir, directory).await?;
        // With a name of its own, so that what it writes is told from what the admin does.
        let controllers_token = format!("{:032x}", fastrand::u128(..));
        fs::write(
            directory.join("tokens.csv"),
            format!(
                "{token},admin,admin,system:masters\n{controllers_token},{name},{name},system:masters\n",
                name = audit::CONTROLLERS
            ),
        )?;

        let log = run_dir.join("kube-apiserver.log");
        let mut attempt = 1;
        let (apiserver, port) = loop {
            let port = port::free()?;
            let apiserver = Process::spawn(
                "kube-apiserver",
                &apiserver(programs, directory, port, extra)?,
                &log,
            )
            .await?;
            identity::write_kubeconfig(
                directory,
                "admin",
                &format!("https://127.0.0.1:{port}"),
                "default",
                token,
            )?;
            match ready(directory, &apiserver).await {
                Ok(()) => break (apiserver, port),
                Err(_)
                    if attempt < ATTEMPTS
                        && apiserver.log_tail(5).contains("address already in use") =>
                {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        };
        let server = format!("https://127.0.0.1:{port}");
        let who = audit::CONTROLLERS;
        let kubeconfig =
            identity::write_kubeconfig(directory, who, &server, "default", &controllers_token)?;
        let log = run_dir.join("kube-controller-manager.log");
        let controllers = Process::spawn(
            "kube-controller-manager",
            &controllers(programs, directory, &kubeconfig),
            log,
        )
        .await?;
        Ok(Self {
            _controllers: controllers,
            apiserver,
            _etcd: etcd,
            port,
        })
    }

    pub(super) fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

async fn start_etcd(programs: &Cluster, run_dir: &Path, directory: &Path) -> Result<Process> {
    let mut command = Command::new(programs.etcd());
    command
        .current_dir(directory)
        .arg("--name=world")
        .arg(format!("--data-dir=../{DATA}/etcd"))
        .arg(format!("--listen-client-urls={ETCD_CLIENTS}"))
        .arg(format!("--advertise-client-urls={ETCD_CLIENTS}"))
        .arg(format!("--listen-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-advertise-peer-urls={ETCD_PEERS}"))
        .arg(format!("--initial-cluster=world={ETCD_PEERS}"))
        .arg("--enable-grpc-gateway=false")
        .arg("--unsafe-no-fsync")
        .arg("--log-level=warn");
    let etcd = Process::spawn("etcd", &command, run_dir.join("etcd.log")).await?;
    let began = Instant::now();
    // The API server backs off for seconds when it finds nobody at its first attempt.
    let socket = directory.join(ETCD_CLIENTS.trim_start_matches("unix://"));
    while !socket.exists() {
        etcd.ensure_running()?;
        if began.elapsed() > READY_WITHIN {
            bail!(
                "etcd does not serve after {} s; the end of its log:\n{}",
                READY_WITHIN.as_secs(),
                etcd.log_tail(20)
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(etcd)
}

fn apiserver(programs: &Cluster, directory: &Path, port: u16, extra: &[String]) -> Result<Command> {
    let mut command = Command::new(programs.kube_apiserver());
    command
        .current_dir(directory)
        .arg(format!("--etcd-servers={ETCD_CLIENTS}"))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={port}"))
        // Here it writes a certificate and a key of its own; the same key signs the tokens of service accounts.
        .arg(format!("--cert-dir={CERTIFICATES}"))
        .arg(format!(
            "--service-account-signing-key-file={CERTIFICATES}/apiserver.key"
        ))
        .arg(format!(
            "--service-account-key-file={CERTIFICATES}/apiserver.key"
        ))
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg("--token-auth-file=tokens.csv")
        .arg("--authorization-mode=RBAC")
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        // It refuses to publish a loopback address as the endpoint of the `kubernetes` service.
        .arg("--endpoint-reconciler-type=none")
        .arg("--profiling=false");
    audit::keep(&mut command, directory)?;
    command.args(extra);
    Ok(command)
}

fn controllers(programs: &Cluster, directory: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(programs.kube_controller_manager());
    command
        .current_dir(directory)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg(format!("--controllers={CONTROLLERS}"))
        .arg(format!("--root-ca-file={}", identity::AUTHORITY))
        .arg("--leader-elect=false")
        // Nobody asks it anything, so it needs no port.
        .arg("--secure-port=0")
        .arg("--profiling=false");
    command
}

async fn ready(directory: &Path, apiserver: &Process) -> Result<()> {
    let began = Instant::now();
    let mut problem = None;
    while began.elapsed() < READY_WITHIN {
        apiserver.ensure_running()?;
        // The client reads the certificate that the server writes when it starts.
        if directory.join(identity::AUTHORITY).exists() {
            let looked =
                async { serves(&client(&directory.join("admin.kubeconfig")).await?).await };
            match tokio::time::timeout(Duration::from_secs(5), looked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => problem = Some(error),
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let problem = problem.map_or_else(
        || "it does not answer".to_owned(),
        |error| format!("{error:#}"),
    );
    bail!(
        "kube-apiserver is not ready after {} s: {problem}; the end of its log:\n{}",
        READY_WITHIN.as_secs(),
        apiserver.log_tail(20)
    )
}
