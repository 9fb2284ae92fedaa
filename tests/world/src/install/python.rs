//! The world's Python: a virtual environment with the AWS emulator, exactly the versions of `requirements.txt`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{digest, once, run};

const REQUIREMENTS: &str = include_str!("../../requirements.txt");
const OLDEST: (u32, u32) = (3, 10);

/// The interpreter of the virtual environment; installs it the first time.
pub fn python() -> Result<PathBuf> {
    let python = |home: &Path| home.join("bin/python");
    let usable = |home: &Path| python(home).exists();
    let home = once(
        "python",
        &digest([REQUIREMENTS.as_bytes()]),
        usable,
        |home| {
            let log = super::directory().join("python.log");
            let venv = run(
                "making a Python environment",
                Command::new(interpreter()?)
                    .args(["-m", "venv", "--clear"])
                    .arg(home),
                &log,
            );
            venv.context("Python cannot make virtual environments here: on Debian and Ubuntu, install python3-venv")?;
            let requirements = home.join("requirements.txt");
            std::fs::write(&requirements, REQUIREMENTS)?;
            let mut pip = Command::new(python(home));
            pip.args([
                "-m",
                "pip",
                "install",
                "--no-input",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
            ])
            .arg(&requirements);
            run("installing the AWS emulator", &mut pip, &log)
        },
    )?;
    Ok(python(&home))
}

/// The system's `python3` itself: what is on the PATH may be a script that looks for it each time.
pub(super) fn interpreter() -> Result<PathBuf> {
    let missing = || {
        format!(
            "the test world needs Python {}.{} or newer as `python3` on the PATH: install python3 and python3-venv",
            OLDEST.0, OLDEST.1
        )
    };
    let tell = "import sys; print(sys.version_info[0], sys.version_info[1], sys.executable)";
    let output = Command::new("python3")
        .args(["-c", tell])
        .output()
        .with_context(missing)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.trim_end().splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => {}
        _ => bail!(
            "{}\n{}{}",
            missing(),
            text,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
    words.next().map(PathBuf::from).with_context(missing)
}
