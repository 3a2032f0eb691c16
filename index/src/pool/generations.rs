//! Which manifests are there, which one counts, and which files nobody names.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use crate::{
    StoreError,
    format::{
        header::FileId,
        manifest::{Manifest, file_name, generation_of},
    },
    limits::Limits,
};

/// Name of the writer's lock file.
pub(super) const LOCK: &str = "LOCK";
/// How many generations are kept.
const KEPT: usize = 2;

/// What to do when the newest manifest is damaged and an older one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedManifest {
    /// Take the newest that verifies. The damaged ones are told by `Pool::damaged_manifests`.
    UsePrevious,
    /// Refuse with what is wrong.
    Refuse,
}

/// The manifests of a folder.
#[derive(Debug)]
pub(super) struct Generations {
    /// Those that verify, newest first.
    pub(super) good: Vec<Manifest>,
    /// Those newer than the newest good one, and what is wrong with each.
    pub(super) damaged: Vec<StoreError>,
    /// The highest number in any name.
    pub(super) highest: u64,
}

/// Names in a folder.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Io { action: "list", file: dir.display().to_string(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

impl Generations {
    /// Reads manifests from the newest down until two verify. `None` when the folder has none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let mut numbers: Vec<u64> = names(dir)?.iter().filter_map(|name| generation_of(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&highest) = numbers.first() else { return Ok(None) };
        let mut found = Self { good: Vec::new(), damaged: Vec::new(), highest };
        for number in numbers {
            match read_manifest(dir, number) {
                Ok(manifest) => found.good.push(manifest),
                // An unknown version is no damage: stepping back behind it would hide what a newer program wrote.
                Err(error @ StoreError::Version { .. }) => return Err(error),
                // A writer may have removed it since the folder was listed.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error @ StoreError::Io { .. }) => return Err(error),
                Err(error) if found.good.is_empty() => found.damaged.push(error),
                Err(_) => {}
            }
            if found.good.len() == KEPT {
                break;
            }
        }
        Ok(Some(found))
    }

    /// The manifest that counts, and what is wrong with newer ones.
    pub(super) fn newest(mut self, damaged: DamagedManifest) -> Result<(Manifest, Vec<StoreError>), StoreError> {
        let refuse = damaged == DamagedManifest::Refuse || self.good.is_empty();
        if refuse && !self.damaged.is_empty() {
            return Err(self.damaged.swap_remove(0));
        }
        match self.good.into_iter().next() {
            Some(manifest) => Ok((manifest, self.damaged)),
            None => Err(vanished(self.highest)),
        }
    }
}

/// The error of a folder whose manifests went away while it was read.
fn vanished(generation: u64) -> StoreError {
    StoreError::Io { action: "open", file: file_name(generation), source: io::ErrorKind::NotFound.into() }
}

pub(super) fn read_manifest(dir: &Path, generation: u64) -> Result<Manifest, StoreError> {
    let name = file_name(generation);
    let failed = |source| StoreError::Io { action: "read", file: name.clone(), source };
    let max = Limits::STANDARD.manifest_bytes;
    let file = File::open(dir.join(&name)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(StoreError::Corrupt { file: name, offset: max, reason: format!("longer than {max} bytes") });
    }
    Manifest::decode(&bytes, generation)
}

/// Files of ours that none of the kept manifests names.
pub(super) fn leftovers(names: &[String], kept: &[&Manifest]) -> Vec<String> {
    let mut live: HashSet<String> = HashSet::new();
    for manifest in kept {
        live.insert(file_name(manifest.generation));
        live.extend(manifest.segments.iter().flat_map(|s| &s.files).map(|file| file.id.name()));
    }
    names.iter().filter(|name| is_ours(name) && *name != LOCK && !live.contains(*name)).cloned().collect()
}

/// Whether a name is one that this crate gives.
pub(super) fn is_ours(name: &str) -> bool {
    let base = name.strip_suffix(".tmp").unwrap_or(name);
    name == LOCK || generation_of(base).is_some() || FileId::is_name(name)
}
