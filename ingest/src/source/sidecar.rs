//! Files that img2dataset puts beside its shards: no sources of their own.
//!
//! `00000_stats.json` marks a finished shard and counts it. `00000.parquet` beside `00000.tar` (or the folder `00000/`) lists the
//! rows of the shard, failed downloads included, without pictures.

use std::{io::Read, path::Path};

use super::Reach;

/// A statistics file is a kilobyte; what is larger is none.
const MAX_STATS_BYTES: u64 = 1 << 20;

/// Whether `name` is such a file, among `has` in its folder.
pub(crate) fn is_sidecar(name: &str, has: &dyn Fn(&str) -> bool) -> bool {
    if name.ends_with("_stats.json") {
        return true;
    }
    let Some(stem) = name.strip_suffix(".parquet") else { return false };
    let beside_tar = [".tar", ".tar.gz", ".tgz"].iter().any(|ending| has(&format!("{stem}{ending}")));
    beside_tar || (has(stem) && has(&format!("{stem}_stats.json")))
}

/// Samples of a tar, by the statistics beside it.
pub(crate) fn successes(tar: &Path, reach: &Reach) -> Option<u64> {
    let name = tar.file_name()?.to_str()?;
    let stem = name.split('.').next()?;
    let mut text = String::new();
    let file = reach.open(&tar.with_file_name(format!("{stem}_stats.json"))).ok()?;
    file.take(MAX_STATS_BYTES).read_to_string(&mut text).ok()?;
    super::json::object(text.as_bytes()).ok()?.get("successes")?.as_u64()
}
