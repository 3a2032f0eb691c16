//! Pools that keep 7-bit rows alone: a third of the room, scores that are those of the rows kept, and no word left out about it.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{clustered, image_pair, one_thread, rows, spec, widened};
use anchorite_index::{
    Answer, Cancel, Effort, Key, Pair, PairSink, PairStore, Parts, Precision, Query, RowId, Side, StoreError,
    format::header::{FileId, FileKind, Header},
    pool::{OnConflict, OpenOptions, Pool, PoolWriter, Verify, WriterOptions, inspect, verify},
};

const DIM: usize = 48;

fn seven() -> WriterOptions {
    WriterOptions { precision: Some(Precision::SevenBit), ..one_thread() }
}

fn fill(dir: &Path, vectors: &[Vec<f32>], options: &WriterOptions) -> PoolWriter {
    let mut writer = PoolWriter::open(dir, &spec(vectors[0].len()), options).unwrap();
    let pair = |(n, v): (usize, &Vec<f32>)| Pair {
        text: n.is_multiple_of(3).then(|| vectors[(n + 1) % vectors.len()].clone()),
        ..image_pair(n, v.clone())
    };
    writer.append(&vectors.iter().enumerate().map(pair).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    writer
}

/// A key with its stored image and text vector.
type Stored = (Key, Option<Vec<f32>>, Option<Vec<f32>>);

fn vectors_of(pool: &Pool) -> Vec<Stored> {
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let records = pool.get(&all, Parts { picture: false, vectors: true }).unwrap();
    records.into_iter().flatten().map(|record| (record.key, record.image, record.text)).collect()
}

fn answers(pool: &Pool, queries: &[Vec<f32>], effort: Effort) -> Vec<Answer> {
    let queries: Vec<Query> = queries.iter().map(|v| Query::new(Side::Image, v.clone(), 10, effort)).collect();
    pool.search(&queries, &Cancel::default()).unwrap()
}

/// What a plain loop finds among the rows that the pool gives back.
fn by_hand(pool: &Pool, query: &[f32]) -> Vec<(u64, f64)> {
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let records = pool.get(&all, Parts { picture: false, vectors: true }).unwrap();
    let score = |v: &Vec<f32>| v.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut scored: Vec<(u64, f64)> =
        records.into_iter().flatten().filter_map(|r| Some((r.row.0, score(r.image.as_ref()?)))).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored
}

#[test]
fn a_7_bit_pool_takes_a_third_of_the_room_and_scores_what_it_keeps() {
    let all = clustered(3_050, DIM, 40, 8);
    let (queries, base) = all.split_at(50);
    let (half, small) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(half.path(), base, &one_thread());
    fill(small.path(), base, &seven());
    let (full, pool) =
        (Pool::open(half.path(), &OpenOptions::default()).unwrap(), Pool::open(small.path(), &OpenOptions::default()).unwrap());
    assert_eq!((full.precision(), pool.precision()), (Precision::Half, Precision::SevenBit));
    assert_eq!(inspect(small.path()).unwrap().precision, Precision::SevenBit);
    let bytes = |pool: &Pool| pool.info().files[&FileKind::Vectors].bytes as f64;
    assert!(bytes(&pool) < 0.45 * bytes(&full), "{} of {}", bytes(&pool), bytes(&full));
    assert!(!names(small.path()).iter().any(|name| name.ends_with(".tmp")), "what was made on the way is gone");
    assert!(verify(small.path()).unwrap().is_sound());

    // Exact answers are those of the rows kept, by graph or not, and every effort keeps its promise against them.
    let exact = answers(&pool, queries, Effort::Exact);
    for (query, answer) in queries.iter().zip(&exact) {
        let truth = by_hand(&pool, query);
        for (hit, (_, score)) in answer.hits.iter().zip(&truth) {
            assert!((f64::from(hit.score) - score).abs() < 1e-5, "{} {score}", hit.score);
        }
    }
    for (effort, least) in [(Effort::Fast, 0.9), (Effort::Normal, 0.98), (Effort::High, 0.995)] {
        let mut found = 0;
        for (answer, truth) in answers(&pool, queries, effort).iter().zip(&exact) {
            for hit in &answer.hits {
                let same = truth.hits.iter().find(|other| other.row == hit.row);
                assert!(same.is_none_or(|other| other.score.to_bits() == hit.score.to_bits()), "one score, however it was found");
                found += usize::from(same.is_some());
            }
        }
        assert!(found as f64 / (queries.len() * 10) as f64 >= least, "{effort:?}: {found}");
    }

    // What rounding costs, against what was given: scores are near, and most neighbours the same.
    let mut shared = 0;
    for (seven, half) in exact.iter().zip(answers(&full, queries, Effort::Exact)) {
        let truth: BTreeSet<u64> = half.hits.iter().map(|hit| hit.row.0).collect();
        shared += seven.hits.iter().filter(|hit| truth.contains(&hit.row.0)).count();
        assert!((seven.hits[0].score - half.hits[0].score).abs() < 0.01);
    }
    let recall = shared as f64 / (queries.len() * 10) as f64;
    assert!((0.9..1.0).contains(&recall), "7-bit rows are not f16 rows, and not far from them: {recall}");
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn rows_stay_what_they_are_through_merges_deletions_and_compaction() {
    for dim in [DIM, 256] {
        let base = widened(&clustered(420, DIM, 7, 5), dim);
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fill(dir.path(), &base[..300], &seven());
        let first = vectors_of(writer.committed());
        let more: Vec<Pair> = (300..420).map(|n| image_pair(n, base[n].clone())).collect();
        writer.append(&more).unwrap();
        let gone: Vec<Key> = (0..300).step_by(5).map(|n| image_pair(n, Vec::new()).key).collect();
        writer.delete(&gone).unwrap();
        writer.commit(&Cancel::default()).unwrap();
        for _ in 0..2 {
            writer.compact(&Cancel::default(), &mut |_| {}).unwrap();
            let after = vectors_of(writer.committed());
            let kept: Vec<_> = first.iter().filter(|(key, ..)| !gone.contains(key)).collect();
            assert_eq!(after.len(), kept.len() + 120);
            assert!(kept.iter().zip(&after).all(|(before, now)| **before == *now), "to the bit, dimension {dim}");
            writer.delete(&[image_pair(419, Vec::new()).key]).unwrap();
            writer.append(&more[119..]).unwrap();
        }
        assert!(verify(dir.path()).unwrap().is_sound());
        assert_eq!(rows(writer.committed(), &base[7], 1, Effort::Exact).len(), 1);
    }
}

#[test]
fn a_pool_keeps_to_what_it_was_made_with_and_rounding_is_never_hidden() {
    let base = clustered(60, DIM, 4, 2);
    let (half, small, made) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(fill(half.path(), &base, &one_thread()));
    drop(fill(small.path(), &base, &seven()));
    let open = |dir: &Path, precision| PoolWriter::open(dir, &spec(DIM), &WriterOptions { precision, ..one_thread() });
    let refused = open(small.path(), Some(Precision::Half)).err().unwrap();
    assert!(matches!(refused, StoreError::PrecisionFixed { pool: Precision::SevenBit, asked: Precision::Half }), "{refused}");
    assert!(refused.to_string().contains("7-bit") && refused.to_string().contains("f16"), "{refused}");
    assert!(matches!(open(half.path(), Some(Precision::SevenBit)).err().unwrap(), StoreError::PrecisionFixed { .. }));
    assert!(matches!(open(made.path(), Some(Precision::Single)).err().unwrap(), StoreError::PrecisionFixed { .. }));
    // Without a word the pool's own stays, also in an empty pool that was opened before.
    assert_eq!(open(small.path(), None).unwrap().committed().precision(), Precision::SevenBit);
    drop(open(made.path(), Some(Precision::SevenBit)).unwrap());
    let mut writer = open(made.path(), None).unwrap();
    assert_eq!(writer.committed().precision(), Precision::SevenBit);

    // f16 pools may be rounded into a 7-bit one, never the other way round.
    let part = |dir: &Path| Pool::open(dir, &OpenOptions { verify: Verify::Full, ..OpenOptions::default() }).unwrap();
    let merge =
        |writer: &mut PoolWriter, dir: &Path| writer.merge(&[part(dir)], OnConflict::Refuse, &Cancel::default(), &mut |_, _| {});
    merge(&mut writer, half.path()).unwrap();
    assert_eq!(vectors_of(writer.committed()), vectors_of(&part(small.path())), "rounded as if they had come as they were");
    let mut other = open(half.path(), None).unwrap();
    let refused = merge(&mut other, small.path()).unwrap_err();
    assert!(matches!(&refused, StoreError::Rounded { found: Precision::SevenBit, kept: Precision::Half, .. }), "{refused}");
    assert_eq!(other.committed().status().rows, 60);
}

#[test]
fn a_filter_finds_its_rows_in_a_7_bit_pool() {
    let base = clustered(4_000, DIM, 30, 3);
    let dir = tempfile::tempdir().unwrap();
    let writer = fill(dir.path(), &base, &seven());
    let filter = anchorite_index::Filter::from_json(r#"{"range": {"field": "source.row", "gte": 3000}}"#).unwrap();
    let ask = |effort| Query { filter: Some(filter.clone().into()), ..Query::new(Side::Image, base[10].clone(), 10, effort) };
    let found = writer.committed().search(&[ask(Effort::Exact), ask(Effort::High)], &Cancel::default()).unwrap();
    let truth: Vec<u64> =
        by_hand(writer.committed(), &base[10]).into_iter().map(|(row, _)| row).filter(|row| *row >= 3_000).collect();
    assert!(found[0].hits.iter().map(|hit| hit.row.0).eq(truth[..10].iter().copied()));
    assert!(found[1].hits.iter().filter(|hit| truth[..10].contains(&hit.row.0)).count() >= 9);
}

/// The bytes that a 7-bit pool keeps of two vectors, worked out by hand: a change of them is a new version of the format.
#[test]
fn a_7_bit_vectors_file_has_these_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PoolWriter::open(dir.path(), &spec(2), &seven()).unwrap();
    writer.append(&[image_pair(0, vec![0.6, -0.8]), image_pair(1, vec![0.0, 1.0])]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    let id = FileId::new(1, FileKind::Vectors, Some(Side::Image));
    let bytes = fs::read(dir.path().join(id.name())).unwrap();
    let header = Header::decode(&bytes, id, bytes.len() as u64).unwrap();
    assert_eq!(header.sections.iter().map(|s| s.tag).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let section = |tag| {
        let section = header.section(tag, None).unwrap();
        &bytes[section.offset as usize..(section.offset + section.len) as usize]
    };
    let row = |values: [u8; 2]| [&values[..], &[64; 62]].concat();
    // 0.6 / (0.8 / 63) is 47.25; 0.8 in half precision is 0.7998.
    assert_eq!(section(2), [row([64 + 47, 1]), row([64, 127])].concat());
    // Rows are of unit length.
    let scales: Vec<u8> =
        [(1.0 / f64::from(47 * 47 + 63 * 63).sqrt()) as f32, 1.0 / 63.0].iter().flat_map(|s| s.to_le_bytes()).collect();
    assert_eq!(section(3), scales);
    let numbers: Vec<u8> = [0u32, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!([section(4), section(5), section(6)], [numbers.as_slice(); 3]);
}
