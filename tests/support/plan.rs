//! `campanile plan`.

use super::{CLUSTER, Tenant, binary};
use campanile_world::World;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// What `campanile plan` said.
pub struct Planned {
    /// The exit code.
    pub code: i32,
    /// What is on standard output.
    pub out: String,
    /// What is on standard error.
    pub err: String,
}

/// Plans with the operator's own identity.
pub async fn plan(tenant: &Tenant, args: &[&str]) -> Planned {
    plan_as(tenant.world, &[], args, "").await
}

/// Plans with more in the environment and something on standard input.
pub async fn plan_as(world: &World, env: &[(&str, &str)], args: &[&str], input: &str) -> Planned {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .envs(world.operator_environment())
        .envs(env.iter().copied())
        .args(["plan", "--cluster-name", CLUSTER])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // It may end without having read anything.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    Planned {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
