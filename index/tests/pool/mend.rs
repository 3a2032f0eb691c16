//! What of damaged vectors follows from the rest is put back to the byte; what does not is named, and nothing is made up.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{clustered, image_pair, one_thread, rows, spec};
use anchorite_index::{
    Cancel, Effort, Pair, PairSink, Precision, Side, StoreError,
    format::{
        header::{FileId, FileKind, HEADER_BYTES, Header},
        vectors::{F16, NODES, ORDER, Q8, ROWS, SCALES},
    },
    pool::{OpenOptions, Pool, PoolWriter, Verify, WriterOptions, repair, verify},
};

const DIM: usize = 16;
const ROWS_IN_ALL: usize = 130;

/// Every row has a picture; every second one a caption, so that not every row number of that side is known without its section.
fn fill(dir: &Path, precision: Precision) -> Vec<f32> {
    let vectors = clustered(ROWS_IN_ALL, DIM, 5, 4);
    let options = WriterOptions { precision: Some(precision), ..one_thread() };
    let mut writer = PoolWriter::open(dir, &spec(DIM), &options).unwrap();
    let pair = |n: usize| Pair {
        text: n.is_multiple_of(2).then(|| vectors[(n + 7) % ROWS_IN_ALL].clone()),
        ..image_pair(n, vectors[n].clone())
    };
    writer.append(&(0..ROWS_IN_ALL).map(pair).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    vectors[3].clone()
}

fn vectors_file(side: Side) -> FileId {
    FileId::new(1, FileKind::Vectors, Some(side))
}

fn header(bytes: &[u8], side: Side) -> Header {
    Header::decode(bytes, vectors_file(side), bytes.len() as u64).unwrap()
}

/// Spoils a byte in the middle of each of these sections; 0 is the header.
fn spoil(dir: &Path, side: Side, tags: &[u32]) -> Vec<u8> {
    let path = dir.join(vectors_file(side).name());
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    let found = header(&sound, side);
    for &tag in tags {
        let at = match tag {
            0 => 40,
            tag => {
                let section = found.section(tag, None).unwrap();
                (section.offset + section.len / 2) as usize
            }
        };
        bytes[at] ^= 0x42;
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    sound
}

fn mend(dir: &Path) -> anchorite_index::pool::RepairReport {
    repair(dir, &one_thread(), &Cancel::default()).unwrap()
}

/// Sections as they were, under a new revision.
fn is_restored(dir: &Path, sound: &[u8], side: Side, story: &str) {
    let report = mend(dir);
    assert!(report.beyond.is_empty() && report.rebuilt.len() == 1, "{story}: {report:?}");
    let revision = report.generation;
    let id = FileId { revision, ..vectors_file(side) };
    assert_eq!(report.rebuilt, [id.name()], "{story}");
    let bytes = fs::read(dir.join(id.name())).unwrap();
    assert!(bytes[HEADER_BYTES..] == sound[HEADER_BYTES..], "{story}: to the byte");
    assert!(verify(dir).unwrap().is_sound(), "{story}");
    assert!(Pool::open(dir, &OpenOptions { verify: Verify::Full, ..OpenOptions::default() }).is_ok(), "{story}");
    // A writer goes on from it.
    assert!(PoolWriter::open(dir, &spec(DIM), &one_thread()).is_ok());
}

fn is_refused(dir: &Path, words: &[&str], story: &str) {
    let names = || -> BTreeSet<_> { fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let before = names();
    let report = mend(dir);
    assert!(report.rebuilt.is_empty(), "{story}: {report:?}");
    let told = report.beyond.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    assert!(words.iter().all(|word| told.contains(word)), "{story}: {told}");
    assert!(report.beyond.iter().all(|error| matches!(error, StoreError::Corrupt { .. })), "{story}");
    assert!(!verify(dir).unwrap().is_sound(), "{story}");
    assert!(names().is_subset(&before), "{story}: nothing half made stays");
}

#[test]
fn what_f16_rows_determine_is_put_back_to_the_byte() {
    for side in Side::ALL {
        for tags in [&[Q8][..], &[SCALES], &[ORDER], &[Q8, SCALES], &[Q8, ORDER], &[SCALES, ORDER], &[Q8, SCALES, ORDER], &[0]] {
            let dir = tempfile::tempdir().unwrap();
            let query = fill(dir.path(), Precision::Half);
            let before = rows(&Pool::open(dir.path(), &OpenOptions::default()).unwrap(), &query, 9, Effort::Exact);
            let sound = spoil(dir.path(), side, tags);
            is_restored(dir.path(), &sound, side, &format!("{side} {tags:?}"));
            assert_eq!(rows(&Pool::open(dir.path(), &OpenOptions::default()).unwrap(), &query, 9, Effort::Exact), before);
        }
    }
    // Row numbers are known only where every row has a vector.
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    let sound = spoil(dir.path(), Side::Image, &[ROWS, Q8]);
    is_restored(dir.path(), &sound, Side::Image, "row numbers");
    spoil(dir.path(), Side::Text, &[ROWS]);
    is_refused(dir.path(), &["text.vectors", "row numbers"], "row numbers of captions");
}

#[test]
fn a_gap_between_sections_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    let path = dir.path().join(vectors_file(Side::Image).name());
    let sound = fs::read(&path).unwrap();
    let scales = header(&sound, Side::Image).section(SCALES, None).unwrap();
    let mut bytes = sound.clone();
    bytes[(scales.offset + scales.len) as usize] = 9;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    is_restored(dir.path(), &sound, Side::Image, "a gap");
}

#[test]
fn f16_rows_are_not_made_of_7_bit_rows() {
    for tags in [&[F16][..], &[F16, Q8], &[F16, ORDER], &[F16, 0], &[Q8, 0], &[ORDER, 0]] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), Precision::Half);
        spoil(dir.path(), Side::Image, tags);
        is_refused(dir.path(), &["image.vectors", "damaged at byte"], &format!("{tags:?}"));
    }
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    spoil(dir.path(), Side::Image, &[F16]);
    is_refused(
        dir.path(),
        &["damaged at byte 512", "f16 rows", "although the 7-bit rows are sound", "cannot be worked out"],
        "f16 rows",
    );
    // The other side, and a graph over sound vectors, are repaired all the same.
    let sound = spoil(dir.path(), Side::Text, &[Q8]);
    let report = mend(dir.path());
    assert_eq!((report.rebuilt.len(), report.beyond.len()), (1, 1), "{report:?}");
    let mended = fs::read(dir.path().join(&report.rebuilt[0])).unwrap();
    assert!(mended[HEADER_BYTES..] == sound[HEADER_BYTES..]);
}

#[test]
fn a_7_bit_pool_loses_its_rows_but_not_its_orders() {
    for tags in [&[ORDER][..], &[NODES], &[ROWS], &[ROWS, ORDER], &[0]] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), Precision::SevenBit);
        let sound = spoil(dir.path(), Side::Image, tags);
        is_restored(dir.path(), &sound, Side::Image, &format!("{tags:?}"));
    }
    for (tags, word) in [(&[Q8][..], "7-bit rows"), (&[SCALES], "7-bit rows"), (&[ORDER, NODES], "both orders")] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), Precision::SevenBit);
        spoil(dir.path(), Side::Image, tags);
        is_refused(dir.path(), &["image.vectors", word], &format!("{tags:?}"));
    }
}

#[test]
fn a_graph_over_lost_vectors_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    spoil(dir.path(), Side::Image, &[F16]);
    let graph = dir.path().join(FileId::new(1, FileKind::Graph, Some(Side::Image)).name());
    let mut bytes = fs::read(&graph).unwrap();
    bytes[HEADER_BYTES + 1] ^= 1;
    fs::remove_file(&graph).unwrap();
    fs::write(&graph, bytes).unwrap();
    is_refused(dir.path(), &["image.vectors", "image graph"], "both");
    // Vectors that come back bring their graph back with them.
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    spoil(dir.path(), Side::Image, &[SCALES]);
    fs::remove_file(dir.path().join(FileId::new(1, FileKind::Graph, Some(Side::Image)).name())).unwrap();
    assert_eq!(mend(dir.path()).rebuilt.len(), 2);
    assert!(verify(dir.path()).unwrap().is_sound());
}
