//! The binary: `campanile run`, `plan`, `crds`.

use campanile::cli::Cli;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::from_command_line() {
        Ok(cli) => cli.execute().await,
        Err(code) => code,
    }
}
