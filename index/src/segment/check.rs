//! Reads a whole file and compares it with every checksum there is, then looks at the values themselves.

use std::path::Path;

use super::{
    dead::read_dead,
    files::{GraphFile, PairsFile, check_sections, open_checked},
    vectors::VectorsFile,
};
use crate::{
    RowSet, Side, StoreError,
    distance::Cpu,
    format::{
        bytes::Damage,
        graph::NONE,
        header::FileKind,
        manifest::{FileEntry, SegmentEntry, side_index},
    },
};

/// Everything wrong with one file of a segment.
pub(crate) fn check_file(dir: &Path, segment: &SegmentEntry, file: &FileEntry, dim: usize) -> Vec<StoreError> {
    let (map, header) = match open_checked(dir, file) {
        Ok(opened) => opened,
        Err(error) => return vec![error],
    };
    let mut found: Vec<StoreError> = check_sections(&map, &header).into_iter().map(|damage| map.corrupt(damage)).collect();
    if found.is_empty() && crc32c::crc32c(map.bytes()) != file.crc {
        found.push(map.corrupt(Damage::new(0, "the file's checksum differs, outside its sections")));
    }
    // Values are looked at only behind good checksums: what they find then is a fault of the writer, not of the disk.
    if found.is_empty()
        && let Err(error) = check_values(dir, segment, file, dim)
    {
        found.push(error);
    }
    found
}

fn check_values(dir: &Path, segment: &SegmentEntry, file: &FileEntry, dim: usize) -> Result<(), StoreError> {
    match (file.id.kind, file.id.side) {
        (FileKind::Pairs, _) => {
            let pairs = PairsFile::open(dir, file, segment.rows)?;
            let dead = segment.file(FileKind::Dead, None).map(|file| read_dead(dir, file, segment)).transpose()?;
            pairs.check_key_order(|row| dead.as_ref().is_none_or(|dead| !dead.contains(row as usize)))?;
            (0..pairs.rows()).try_for_each(|row| pairs.record(row).map(drop))
        }
        (FileKind::Vectors, Some(side)) => {
            check_vectors(&VectorsFile::open(dir, file, segment.side_rows(side), dim)?, segment.rows)
        }
        (FileKind::Graph, Some(side)) => check_graph(&GraphFile::open(dir, file, segment.side_rows(side) as usize, dim)?),
        (FileKind::Dead, _) => check_dead(dir, segment, file, dim),
        _ => Ok(()),
    }
}

/// The dead rows that have a vector must be as many as the counts say.
fn check_dead(dir: &Path, segment: &SegmentEntry, file: &FileEntry, dim: usize) -> Result<(), StoreError> {
    let dead = read_dead(dir, file, segment)?;
    for side in Side::ALL {
        let Some(entry) = segment.file(FileKind::Vectors, Some(side)) else { continue };
        let vectors = VectorsFile::open(dir, entry, segment.side_rows(side), dim)?;
        let found = vectors.rows().iter().filter(|row| dead.contains(**row as usize)).count() as u64;
        let said = segment.dead.sides[side_index(side)];
        if found != said {
            return Err(
                vectors.corrupt(Damage::new(0, format!("{found} dead rows have a {side} vector, the manifest says {said}")))
            );
        }
    }
    Ok(())
}

fn check_vectors(vectors: &VectorsFile, segment_rows: u64) -> Result<(), StoreError> {
    let corrupt = |offset, reason: String| Err(vectors.corrupt(Damage::new(offset, reason)));
    let rows = vectors.rows();
    for node in 0..vectors.nodes() {
        let ascends = node == 0 || rows[node - 1] < rows[node];
        if !ascends || u64::from(rows[node]) >= segment_rows {
            return corrupt(vectors.rows_offset(node), format!("row {} of node {node} is out of order", rows[node]));
        }
        if vectors.f16_row(node).is_some_and(|row| row.iter().any(|v| !v.is_finite())) {
            return corrupt(vectors.offset(node), format!("vector {node} has a value that is not finite"));
        }
    }
    let mut seen = RowSet::empty(vectors.nodes());
    for node in 0..vectors.nodes() as u32 {
        let position = vectors.position(node)?;
        if seen.contains(position) {
            return corrupt(vectors.order_offset(node), format!("vector {position} has two 7-bit rows"));
        }
        seen.insert(position);
    }
    if let Some(at) = vectors.wrong_inverse()? {
        return corrupt(at, "the place of a 7-bit row is that of another".to_owned());
    }
    let view = vectors.view(Cpu::scalar());
    if let Some(node) = view.scales.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
        return corrupt(vectors.scales_offset() + node as u64 * 4, format!("the scale of node {node} is {}", view.scales[node]));
    }
    match view.q8.iter().position(|&byte| byte == 0 || byte > 127) {
        Some(at) => corrupt(vectors.q8_offset() + at as u64, format!("byte {} in a 7-bit row", view.q8[at])),
        None => Ok(()),
    }
}

fn check_graph(graph: &GraphFile) -> Result<(), StoreError> {
    let view = graph.view(Cpu::scalar());
    let fault = |fault| graph.fault(fault);
    for node in 0..view.nodes as u32 {
        view.checked_links(node).try_for_each(|link| link.map(drop)).map_err(fault)?;
    }
    for level in &view.upper {
        for position in 0..level.nodes.len() {
            view.upper_node(level, position).map_err(fault)?;
            view.upper_links(level, position).try_for_each(|link| link.map(drop)).map_err(fault)?;
        }
    }
    check_reach(graph)
}

/// Whether every node can be reached from the entry on level 0. Links are in range (checked before).
fn check_reach(graph: &GraphFile) -> Result<(), StoreError> {
    let view = graph.view(Cpu::scalar());
    let mut reached = vec![false; view.nodes];
    let mut open = vec![view.entry];
    reached[view.entry as usize] = true;
    while let Some(node) = open.pop() {
        for &link in view.links(node).iter().take_while(|link| **link != NONE) {
            if !std::mem::replace(&mut reached[link as usize], true) {
                open.push(link);
            }
        }
    }
    let lost = reached.iter().filter(|reached| !**reached).count();
    match reached.iter().position(|reached| !reached) {
        Some(node) => Err(graph.corrupt(Damage::new(0, format!("{lost} nodes, {node} among them, cannot be reached")))),
        None => Ok(()),
    }
}
