//! Damage undone where the pool itself determines what was there: graphs are built anew from their vectors, parts of vectors files are put back
//! to the byte ([`crate::segment::mend_vectors`]). Everything else that is damaged is named and stays as it is.

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
    segment::{build_graph, check_file, mend_vectors},
};

/// What [`repair`] found and did.
#[derive(Debug)]
pub struct RepairReport {
    /// Generation after it; a repair is a commit.
    pub generation: u64,
    /// Graph and vectors files that took the place of damaged ones, by name.
    pub rebuilt: Vec<String>,
    /// What cannot be repaired: it holds what is nowhere else.
    pub beyond: Vec<StoreError>,
}

/// Checks every byte of the pool in `dir`, puts damaged vectors files back to the byte where that can be proved, and builds damaged graphs
/// anew.
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
    let precision = manifest.precision;
    for segment in &mut manifest.segments {
        let mut found = Found::of(dir, segment, dim);
        for side in std::mem::take(&mut found.vectors) {
            match mend_vectors(&disk, segment, side, (dim, precision), (highest + 1, cancel)) {
                Ok(file) => {
                    rebuilt.push(file.id.name());
                    segment.put(file);
                }
                Err(error @ StoreError::Corrupt { .. }) => found.lose(side, error),
                Err(error) => return Err(error),
            }
        }
        beyond.extend(found.lost);
        for side in found.graphs {
            let file = build_graph(&disk, segment, side, highest + 1, (dim, &plan))?;
            rebuilt.push(file.id.name());
            segment.put(file);
        }
    }
    if rebuilt.is_empty() {
        return Ok(RepairReport { generation: before.generation, rebuilt, beyond });
    }
    disk.sync_dir()?;
    publish_manifest(&disk, &manifest)?;
    Ok(RepairReport { generation: manifest.generation, rebuilt, beyond })
}

/// What is wrong with a segment.
struct Found {
    /// Sides whose vectors files are damaged.
    vectors: Vec<Side>,
    /// Sides whose graphs are.
    graphs: Vec<Side>,
    /// Damage that stays.
    lost: Vec<StoreError>,
}

impl Found {
    fn of(dir: &Path, segment: &SegmentEntry, dim: usize) -> Self {
        let mut all = Self { vectors: Vec::new(), graphs: Vec::new(), lost: Vec::new() };
        for file in &segment.files {
            let found = check_file(dir, segment, file, dim);
            match (file.id.kind, file.id.side) {
                _ if found.is_empty() => {}
                (FileKind::Graph, Some(side)) => all.graphs.push(side),
                (FileKind::Vectors, Some(side)) => all.vectors.push(side),
                _ => all.lost.extend(found),
            }
        }
        all
    }

    /// The vectors of a side stay damaged; a graph over them would be made of damage.
    fn lose(&mut self, side: Side, error: StoreError) {
        self.lost.push(error);
        if let Some(place) = self.graphs.iter().position(|other| *other == side) {
            self.graphs.remove(place);
            self.lost.push(StoreError::Corrupt {
                file: format!("the {side} graph"),
                offset: 0,
                reason: "it is damaged too, and its vectors are".to_owned(),
            });
        }
    }
}
