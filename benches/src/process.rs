//! Memory and processor time of this process, as the kernel counts them.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

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

/// How many threads wanted a processor in the last minute, on average, as the kernel says.
///
/// # Errors
/// Not Linux.
pub(crate) fn load() -> Result<String> {
    let all = std::fs::read_to_string("/proc/loadavg")?;
    Ok(all.split(' ').next().unwrap_or_default().to_owned())
}

/// Processor time of this thread: what a busy machine does not lengthen. To the nanosecond; the count in `/proc` moves
/// only every few milliseconds.
pub(crate) fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Processor time of all threads of this process so far, ended ones too.
pub(crate) fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
