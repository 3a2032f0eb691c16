//! Standard output: JSON for programs, tables for people.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

use crate::progress::say;

/// Whether something could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// One line of text. A reader that has left (`anchorite ... | head`) wants no more of it; any other failure is told and remembered.
pub(crate) fn line(text: &str) {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) => {
            say(&format!("error: write to standard output: {e}"));
        }
        _ => {}
    }
}

/// Whether results were lost on the way out.
pub(crate) fn lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// One JSON document on one line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// Bytes as a person reads them.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
