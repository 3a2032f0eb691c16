//! However a pool's files are read, its answers are the same; and what the system is told where nobody says so.

use anchorite_index::{
    Cancel, Effort, Hit, PairSink, PairStore, Query, Side,
    pool::{Access, OpenOptions, Pool, PoolWriter, WriterOptions},
};

use crate::support::{clustered, image_pair, one_thread, spec, widened};

const EFFORTS: [Effort; 4] = [Effort::Fast, Effort::Normal, Effort::High, Effort::Exact];
const GB: u64 = 1 << 30;

fn answers(dir: &std::path::Path, access: Access, queries: &[Vec<f32>]) -> Vec<Vec<Hit>> {
    let pool = Pool::open(dir, &OpenOptions { access, ..OpenOptions::default() }).unwrap();
    let query = |effort| move |v: &Vec<f32>| Query::new(Side::Image, v.clone(), 10, effort);
    let questions: Vec<Query> = EFFORTS.into_iter().flat_map(|effort| queries.iter().map(query(effort))).collect();
    pool.search(&questions, &Cancel::default()).unwrap().into_iter().map(|answer| answer.hits).collect()
}

#[test]
fn every_way_to_read_the_files_gives_the_same_hits_and_scores() {
    let all = widened(&clustered(3_050, 24, 60, 5), 256);
    let (queries, rows) = all.split_at(50);
    let dir = tempfile::tempdir().unwrap();
    // Two segments, the second too small for a graph that is searched.
    let options = WriterOptions { merge: None, segment_rows: 2_500, ..one_thread() };
    let mut writer = PoolWriter::open(dir.path(), &spec(256), &options).unwrap();
    writer.append(&rows.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    drop(writer);
    let by_system = answers(dir.path(), Access::System, queries);
    assert!(by_system.iter().all(|hits| hits.len() == 10));
    for access in [Access::Random, Access::Searched, Access::Resident] {
        assert_eq!(answers(dir.path(), access, queries), by_system, "{access:?}");
    }
}

#[test]
fn pools_beyond_memory_are_read_at_random_and_others_as_the_system_likes() {
    let cases = [
        (GB, Some(2 * GB), Access::System),
        (2 * GB, Some(2 * GB), Access::System),
        (2 * GB + 1, Some(2 * GB), Access::Random),
        (180 * GB, Some(64 * GB), Access::Random),
        (1, Some(0), Access::Random),
        // Nobody knows: as before there was a choice.
        (180 * GB, None, Access::System),
    ];
    for (bytes, available, expected) in cases {
        assert_eq!(Access::fitting(bytes, available), expected, "{bytes} bytes, {available:?} left");
    }
}
