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

/// What img2dataset counted in a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Samples that are in it.
    pub(crate) successes: u64,
    /// Rows that are not: pictures that could not be downloaded or resized.
    pub(crate) failures: u64,
}

/// By the statistics beside a shard: a tar, or a folder of pictures.
pub(crate) fn counted(shard: &Path, reach: &Reach) -> Option<Counted> {
    let stem = shard.file_name()?.to_str()?.split('.').next()?;
    let mut text = String::new();
    let file = reach.open(&shard.with_file_name(format!("{stem}_stats.json"))).ok()?;
    file.take(MAX_STATS_BYTES).read_to_string(&mut text).ok()?;
    let counts = super::json::object(text.as_bytes()).ok()?;
    let count = |name: &str| counts.get(name).and_then(serde_json::Value::as_u64);
    let failures = count("failed_to_download").unwrap_or(0).saturating_add(count("failed_to_resize").unwrap_or(0));
    Some(Counted { successes: count("successes")?, failures })
}
