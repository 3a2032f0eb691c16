//! Memory and processor time of this process, as the kernel counts them.

use std::time::Duration;

use anyhow::{Context, Result};

/// A line of `/proc/self/status` in bytes: `VmHWM` (peak resident), `RssAnon` (anonymous resident), `RssFile` (mapped resident).
///
/// # Errors
/// No such line, or not Linux.
pub(crate) fn memory(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix(field)).with_context(|| format!("no {field} in /proc/self/status"))?;
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Processor time of this thread: what a busy machine does not lengthen.
///
/// # Errors
/// Not Linux.
pub(crate) fn thread_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().context("/proc/thread-self/schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
