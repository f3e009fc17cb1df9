//! What a process has used, as Linux counts it.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each bench that includes this file uses a part of it"
)]

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u32 = 100;

/// Returns the CPU time of all threads so far, user and system.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, rest) = stat
        .rsplit_once(')')
        .with_context(|| format!("{path} has no name"))?;
    let ticks = |field: usize| -> Result<u32> {
        // Fields are numbered from 1, and `rest` starts with the third.
        let text = rest
            .split_whitespace()
            .nth(field - 3)
            .with_context(|| format!("{path} is short"))?;
        Ok(text.parse()?)
    };
    Ok(Duration::from_secs(1) * (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

/// Returns the largest resident set so far, in MiB.
pub(crate) fn peak_rss_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// Returns the resident set, in MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("{path} has no {field}"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
