//! What this process has used, as Linux counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u32 = 100;

/// Returns the CPU time of all threads so far, user and system.
pub(crate) fn cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, rest) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has no name")?;
    let ticks = |field: usize| -> Result<u32> {
        // Fields are numbered from 1, and `rest` starts with the third.
        let text = rest
            .split_whitespace()
            .nth(field - 3)
            .context("/proc/self/stat is short")?;
        Ok(text.parse()?)
    };
    Ok(Duration::from_secs(1) * (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

/// Returns the largest resident set so far, in MiB.
pub(crate) fn peak_rss_mib() -> Result<f64> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc/self/status has no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
