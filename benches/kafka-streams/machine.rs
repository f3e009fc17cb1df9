//! The machine that measures.

use std::fs;

use anyhow::{Context, Result};

/// Returns the load average of the last minute.
pub(crate) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    Ok(first.parse()?)
}

/// Returns processor, memory, kernel and versions in a line.
pub(crate) fn describe() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let processors = read("/proc/cpuinfo")?;
    let models = || {
        let lines = processors.lines();
        lines.filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
    };
    let model = models()
        .next()
        .map_or("an unknown processor", |(_, name)| name);
    let memory = read("/proc/meminfo")?;
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc/meminfo has no MemTotal")?;
    let gib = kib.parse::<u64>()? / 1024 / 1024;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let java = std::process::Command::new("java")
        .arg("-version")
        .output()
        .context("cannot run java")?;
    let java = String::from_utf8_lossy(&java.stderr).into_owned();
    let java = java.split('"').nth(1).unwrap_or("unknown");
    Ok(format!(
        "{} × {model}, {gib} GiB, Linux {}, Java {java}",
        models().count(),
        kernel.trim()
    ))
}
