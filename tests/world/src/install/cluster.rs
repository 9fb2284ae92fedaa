//! Kubernetes itself: etcd, kube-apiserver, kube-controller-manager and kubectl, built from `cluster/` as one binary with four names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{digest, once, run};

/// The version that the built binaries report, that of `k8s.io/kubernetes` in `cluster/go.mod`.
const VERSION: &str = "v1.36.3";
const NAMES: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
];
/// What the binary is made from, in `cluster/`; `build.sh` says how.
const SOURCES: [&str; 5] = ["build.sh", "go.mod", "go.sum", "main.go", "controllers.go"];
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// Where the programs of a Kubernetes control plane are.
#[derive(Clone, Debug)]
pub struct Cluster {
    directory: PathBuf,
}

impl Cluster {
    /// The key-value store.
    pub fn etcd(&self) -> PathBuf {
        self.directory.join("etcd")
    }

    /// The API server.
    pub fn kube_apiserver(&self) -> PathBuf {
        self.directory.join("kube-apiserver")
    }

    /// The controllers that the API server counts on: namespace deletion, garbage collection, service accounts.
    pub fn kube_controller_manager(&self) -> PathBuf {
        self.directory.join("kube-controller-manager")
    }

    /// The command line.
    pub fn kubectl(&self) -> PathBuf {
        self.directory.join("kubectl")
    }
}

/// The binaries that `KUBEBUILDER_ASSETS` names, or else our own; builds them the first time.
pub fn cluster() -> Result<Cluster> {
    if let Some(directory) = std::env::var_os(ASSETS).filter(|assets| !assets.is_empty()) {
        return provided(PathBuf::from(directory));
    }
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let sources: Vec<Vec<u8>> = SOURCES
        .iter()
        .map(|name| read(&module.join(name)))
        .collect::<Result<_>>()?;
    let key = digest(sources.iter().map(Vec::as_slice));
    let usable = |home: &Path| NAMES.iter().all(|name| home.join(name).exists());
    let directory = once("kubernetes", &key, usable, |home| build(&module, home))?;
    Ok(Cluster { directory })
}

fn build(module: &Path, home: &Path) -> Result<()> {
    if let Err(error) = Command::new("go").arg("version").output() {
        bail!(
            "the test world builds Kubernetes {VERSION} and needs Go 1.26 or newer for it, but `go` cannot be run ({error}). Install it from \
             go.dev/dl, or set {ASSETS} to a directory that holds {}",
            NAMES.join(", ")
        );
    }
    let mut go = Command::new("sh");
    go.arg(module.join("build.sh")).arg(home.join("cluster"));
    let log = super::directory().join("kubernetes.log");
    run(
        &format!("building Kubernetes {VERSION} (about 4 minutes the first time)"),
        &mut go,
        &log,
    )?;
    for name in NAMES {
        symlink("cluster", home.join(name)).with_context(|| format!("{name} cannot be linked"))?;
    }
    Ok(())
}

fn provided(directory: PathBuf) -> Result<Cluster> {
    // Programs are started in a directory of their own.
    let directory = std::path::absolute(&directory)?;
    let missing: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| !directory.join(name).is_file())
        .collect();
    if !missing.is_empty() {
        bail!(
            "{ASSETS} names {}, where {} cannot be found. Put it there (the test world needs all of {}), or unset {ASSETS}: then the \
             world builds its own",
            directory.display(),
            missing.join(" and "),
            NAMES.join(", ")
        );
    }
    Ok(Cluster { directory })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
