//! What a process has used, as Linux counts it.

use crate::table::{row, seconds};
use anyhow::{Context, Result};
use campanile_world::process::Process;
use std::{fs, time::Duration};

/// Linux counts CPU time for programs in hundredths of a second (`USER_HZ`), on every machine we know of.
const TICK: Duration = Duration::from_millis(10);

/// How many threads of the whole machine wanted a core, over the last minute. Where it is a good deal
/// more than there are cores, times say little.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    load.to_owned()
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Of all its threads, in the kernel too.
    pub cpu: Duration,
    /// The most memory that it ever had, in KiB.
    pub peak: u64,
}

impl Usage {
    /// What a process that is running has used.
    pub fn of(process: &Process) -> Result<Self> {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid()));
        let stat = of("stat")?;
        // The program's name, in brackets, may hold anything; user and system time are 14th and 15th.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        let status = of("status")?;
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.split_whitespace().next());
        Ok(Self {
            cpu: TICK * ticks,
            peak: peak.context("no VmHWM in status")?.parse()?,
        })
    }

    /// The CPU time that it has used since, and the most memory that it ever had.
    pub fn rows_since(&self, before: &Self) {
        row("CPU time", seconds(self.cpu - before.cpu), "");
        row("peak memory", format!("{} MiB", self.peak / 1024), "");
    }
}
