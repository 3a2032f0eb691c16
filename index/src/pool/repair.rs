//! Graphs built anew where their files are damaged: they hold nothing that the vectors do not determine. Everything else that is
//! damaged is named and stays as it is.

use std::{path::Path, sync::Arc};

use super::{
    generations::{DamagedManifest, Generations},
    lock::lock,
    report::verify,
    writer::{WriterOptions, publish_manifest, remove_leftovers},
};
use crate::{
    Cancel, Side, StoreError,
    disk::Disk,
    format::{
        header::FileKind,
        manifest::{Manifest, SegmentEntry},
    },
    hnsw::Plan,
    segment::{check_file, rebuild_graph},
};

/// What [`repair`] found and did.
#[derive(Debug)]
pub struct RepairReport {
    /// Generation after it; a repair is a commit.
    pub generation: u64,
    /// Graph files that took the place of damaged or missing ones, by name.
    pub rebuilt: Vec<String>,
    /// What cannot be repaired: it holds what is nowhere else.
    pub beyond: Vec<StoreError>,
}

/// Checks every byte of the pool in `dir` and builds the damaged graphs anew.
///
/// # Errors
/// No pool there, no manifest that verifies, another writer at work, a failed write, or [`StoreError::Cancelled`].
pub fn repair(dir: impl AsRef<Path>, options: &WriterOptions, cancel: &Cancel) -> Result<RepairReport, StoreError> {
    let dir = dir.as_ref();
    options.build.check()?;
    let Some(found) = Generations::read(dir)? else {
        verify(dir)?;
        return Ok(RepairReport { generation: 0, rebuilt: Vec::new(), beyond: Vec::new() });
    };
    let _lock = lock(dir)?;
    let highest = found.highest;
    let (before, mut beyond) = found.newest(DamagedManifest::UsePrevious)?;
    let mut manifest = Manifest { generation: highest + 1, ..before.clone() };
    let disk = Disk::new(dir, Arc::clone(&options.medium));
    // What a repair that was cut short left behind has the names that this one gives.
    if beyond.is_empty() {
        remove_leftovers(&disk, &[&before])?;
    }
    let plan = Plan { params: options.build, cancel: cancel.clone(), report: options.on_build.clone() };
    let mut rebuilt = Vec::new();
    let dim = manifest.spec.dim;
    for segment in &mut manifest.segments {
        let (sides, lost) = damage(dir, segment, dim);
        beyond.extend(lost);
        for side in sides {
            let file = rebuild_graph(&disk, segment, side, highest + 1, (dim, &plan))?;
            rebuilt.push(file.id.name());
            segment.files.retain(|other| other.id.kind != FileKind::Graph || other.id.side != Some(side));
            segment.files.push(file);
        }
    }
    if rebuilt.is_empty() {
        return Ok(RepairReport { generation: before.generation, rebuilt, beyond });
    }
    disk.sync_dir()?;
    publish_manifest(&disk, &manifest)?;
    Ok(RepairReport { generation: manifest.generation, rebuilt, beyond })
}

/// The sides whose graphs can be built anew, and the damage that stays.
fn damage(dir: &Path, segment: &SegmentEntry, dim: usize) -> (Vec<Side>, Vec<StoreError>) {
    let (mut sides, mut lost, mut graphs) = (Vec::new(), Vec::new(), Vec::new());
    for file in &segment.files {
        let found = check_file(dir, segment, file, dim);
        match (file.id.kind, file.id.side) {
            (FileKind::Graph, Some(side)) if !found.is_empty() => graphs.push((side, found)),
            _ => lost.extend(found),
        }
    }
    for (side, found) in graphs {
        let vectors = segment.file(FileKind::Vectors, Some(side)).map(|file| file.id.name()).unwrap_or_default();
        // A graph over damaged vectors would be made of damage.
        if lost.iter().any(|error| error.to_string().contains(&vectors)) {
            lost.extend(found);
        } else {
            sides.push(side);
        }
    }
    (sides, lost)
}
