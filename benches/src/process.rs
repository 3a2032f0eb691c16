//! Memory of this process, as the kernel counts it.

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
