//! What a pool is made of, and whether all of it is sound.

use std::{collections::BTreeMap, path::Path};

use super::{
    generations::{DamagedManifest, Generations},
    reader::{OpenOptions, Pool, Verify},
};
use crate::{
    PairStore, Precision, Side, StoreError,
    format::{effort::EffortTable, header::FileKind, manifest::SegmentEntry},
    segment::check_file,
};

/// Bytes of one kind of file, over all segments.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BytesOfKind {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One graph.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct GraphInfo {
    /// Segment number.
    pub segment: u64,
    /// Whose vectors.
    pub side: Side,
    /// Nodes.
    pub nodes: u64,
    /// Links per node on upper levels; twice as many on level 0.
    pub m: u32,
    /// Beam width while building.
    pub ef_construction: u32,
    /// Links on level 0.
    pub links: u64,
    /// Nodes that the builder left unreachable and that were given a link.
    pub orphans_repaired: u64,
    /// Nodes whose stored row equals that of a node before them.
    pub duplicates: u64,
    /// Beam width and recall of each effort, by the modality of the query.
    pub efforts: EffortTable,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SegmentInfo {
    /// Its number.
    pub segment: u64,
    /// Rows that are alive.
    pub rows: u64,
    /// Rows that are dead.
    pub dead_rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl SegmentInfo {
    fn of(entry: &SegmentEntry) -> Self {
        Self { segment: entry.id, rows: entry.live_rows(), dead_rows: entry.dead.rows, bytes: entry.bytes() }
    }
}

/// What a pool is made of.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PoolInfo {
    /// Generation in use.
    pub generation: u64,
    /// Fingerprint of the encoder.
    pub encoder: String,
    /// Values per vector.
    pub dim: usize,
    /// What is kept of every vector; scores, exact ones included, are computed from that.
    pub precision: Precision,
    /// Name of the encoder's model; empty when it is not known.
    pub model: String,
    /// Pairs that are alive.
    pub rows: u64,
    /// Pairs with an image vector.
    pub image_rows: u64,
    /// Pairs with a text vector.
    pub text_rows: u64,
    /// Pairs that were deleted or replaced and still take room.
    pub dead_rows: u64,
    /// Segments.
    pub segments: u64,
    /// Each segment, in row order.
    pub segment_list: Vec<SegmentInfo>,
    /// Bytes of the watermark.
    pub progress_bytes: u64,
    /// Bytes by kind of file.
    pub files: BTreeMap<FileKind, BytesOfKind>,
    /// Every graph.
    pub graphs: Vec<GraphInfo>,
    /// Unreachable nodes repaired, over all graphs.
    pub orphans_repaired: u64,
    /// What is wrong with manifests newer than the one in use.
    pub damaged_manifests: Vec<String>,
}

/// Describes the pool in `dir`; reads no vectors.
///
/// # Errors
/// As [`Pool::open`].
pub fn inspect(dir: impl AsRef<Path>) -> Result<PoolInfo, StoreError> {
    Ok(Pool::open(dir, &OpenOptions::default())?.info())
}

impl Pool {
    /// What the pool is made of.
    #[must_use]
    pub fn info(&self) -> PoolInfo {
        let status = self.status();
        let mut files: BTreeMap<FileKind, BytesOfKind> = BTreeMap::new();
        let mut graphs = Vec::new();
        for (entry, segment) in self.segments() {
            for file in &entry.files {
                let kind = files.entry(file.id.kind).or_default();
                kind.files += 1;
                kind.bytes += file.len;
            }
            for side in Side::ALL {
                if let Some(facts) = segment.facts(side) {
                    graphs.push(GraphInfo {
                        segment: entry.id,
                        side,
                        nodes: entry.side_rows(side),
                        m: facts.m,
                        ef_construction: facts.ef_construction,
                        links: facts.links,
                        orphans_repaired: facts.orphans_repaired,
                        duplicates: facts.duplicates,
                        efforts: segment.efforts(side).unwrap_or_default(),
                    });
                }
            }
        }
        PoolInfo {
            generation: status.generation,
            encoder: self.spec().encoder.clone(),
            dim: self.spec().dim,
            precision: self.precision(),
            model: self.manifest().model.clone(),
            rows: status.rows,
            dead_rows: status.positions - status.rows,
            image_rows: status.image_rows,
            text_rows: status.text_rows,
            segments: self.manifest().segments.len() as u64,
            segment_list: self.segments().map(|(entry, _)| SegmentInfo::of(entry)).collect(),
            progress_bytes: self.progress().len() as u64,
            files,
            orphans_repaired: graphs.iter().map(|g| g.orphans_repaired).sum(),
            graphs,
            damaged_manifests: self.damaged_manifests().iter().map(ToString::to_string).collect(),
        }
    }
}

/// Outcome of a full check.
#[derive(Debug)]
pub struct VerifyReport {
    /// Generation checked.
    pub generation: u64,
    /// Segment files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything wrong, each with file and offset.
    pub damage: Vec<StoreError>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads every byte of the pool in `dir` and reports all damage, not only the first.
///
/// # Errors
/// No pool there, or no manifest that verifies.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport, StoreError> {
    let dir = dir.as_ref();
    let Some(found) = Generations::read(dir)? else {
        // Says what is there instead.
        Pool::open(dir, &OpenOptions { damaged_manifest: DamagedManifest::Refuse, ..OpenOptions::default() })?;
        return Ok(VerifyReport { generation: 0, files: 0, bytes: 0, damage: Vec::new() });
    };
    let (manifest, damage) = found.newest(DamagedManifest::UsePrevious)?;
    let mut report = VerifyReport { generation: manifest.generation, files: 0, bytes: 0, damage };
    for segment in &manifest.segments {
        for file in &segment.files {
            report.files += 1;
            report.bytes += file.len;
            report.damage.extend(check_file(dir, segment, file, manifest.spec.dim));
        }
    }
    if report.is_sound() {
        // What no file shows by itself.
        report.damage.extend(Pool::of(dir, manifest, Vec::new(), Verify::Header).err());
    }
    Ok(report)
}
