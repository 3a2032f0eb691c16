//! What the graph promises: recall per effort, every vector in reach, the same bytes from one thread.

use std::{collections::HashSet, fs};

use crate::support::{BUILDERS, build, by, clustered, image_pair, one_thread_by, rows, spec, widened};
use anchorite_index::{
    Answer, Builder, Cancel, Effort, PairSink, PairStore, Parts, Query, Refine, RowId, Side, StoreError,
    pool::{MAX_EF, Pool, PoolWriter, WriterOptions, inspect, verify},
};

/// Beams for comparing graphs.
const EFS: [usize; 3] = [10, 24, 64];

/// Share of the exact ten nearest that `search` finds.
fn recall_with(queries: &[Vec<f32>], pool: &Pool, search: impl Fn(&Query) -> Answer) -> f64 {
    let found = |q: &Vec<f32>| {
        let exact: HashSet<u64> = rows(pool, q, 10, Effort::Exact).into_iter().collect();
        let query = Query::new(Side::Image, q.clone(), 10, Effort::Normal);
        search(&query).hits.iter().filter(|hit| exact.contains(&hit.row.0)).count()
    };
    queries.iter().map(found).sum::<usize>() as f64 / (queries.len() * 10) as f64
}

/// Share of the exact ten nearest that come back, over `queries`.
fn recall(pool: &Pool, queries: &[Vec<f32>], effort: Effort) -> f64 {
    let found = |q: &Vec<f32>| {
        let exact: HashSet<u64> = rows(pool, q, 10, Effort::Exact).into_iter().collect();
        rows(pool, q, 10, effort).iter().filter(|row| exact.contains(row)).count()
    };
    queries.iter().map(found).sum::<usize>() as f64 / (queries.len() * 10) as f64
}

#[test]
fn recall_of_each_effort_is_above_its_floor() {
    let all = clustered(6_200, 48, 150, 21);
    let (queries, base) = all.split_at(200);
    for builder in BUILDERS {
        for refine in [Refine::Off, Refine::Alpha] {
            let dir = tempfile::tempdir().unwrap();
            let mut options = by(builder);
            options.build.refine = refine;
            let pool = build(dir.path(), base, &options);
            for (effort, floor) in [(Effort::Fast, 0.90), (Effort::Normal, 0.97), (Effort::High, 0.995)] {
                let recall = recall(&pool, queries, effort);
                assert!(recall >= floor, "{builder:?}, refine {refine:?}, {effort:?}: {recall}");
            }
            assert!(verify(dir.path()).unwrap().is_sound());
        }
    }
}

#[test]
fn our_graph_finds_as_much_as_that_of_hnsw_rs_with_the_same_beam() {
    let all = clustered(8_300, 64, 400, 31);
    let (queries, base) = all.split_at(300);
    let found = BUILDERS.map(|builder| {
        let dir = tempfile::tempdir().unwrap();
        let pool = build(dir.path(), base, &by(builder));
        EFS.map(|ef| recall_with(queries, &pool, |q| pool.search_ef(q, ef, &Cancel::default()).unwrap()))
    });
    let [reference, own] = found;
    for ((ef, reference), own) in EFS.iter().zip(reference).zip(own) {
        assert!(own >= reference - 0.01, "ef {ef}: own {own}, hnsw_rs {reference}");
    }
}

/// From 256 values on a search looks at sketches before it compares rows. The vectors are those of
/// `recall_of_each_effort_is_above_its_floor` with every value repeated, so that they lie to each other as those do.
#[test]
fn wide_vectors_are_found_as_well_whatever_their_dimension() {
    let narrow = clustered(6_100, 48, 150, 21);
    for dim in [256, 512, 640] {
        let all = widened(&narrow, dim);
        let (queries, base) = all.split_at(100);
        for builder in BUILDERS {
            let dir = tempfile::tempdir().unwrap();
            let pool = build(dir.path(), base, &by(builder));
            for (effort, floor) in [(Effort::Fast, 0.90), (Effort::Normal, 0.97), (Effort::High, 0.995)] {
                let recall = recall(&pool, queries, effort);
                assert!(recall >= floor, "{builder:?}, {dim} values, {effort:?}: {recall}");
            }
            assert!(verify(dir.path()).unwrap().is_sound());
        }
    }
}

#[test]
fn vectors_sorted_by_cluster_make_as_good_a_graph() {
    let mut base = clustered(6_000, 32, 60, 12);
    base.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let queries: Vec<Vec<f32>> = base.iter().step_by(40).cloned().collect();
    for builder in BUILDERS {
        let dir = tempfile::tempdir().unwrap();
        let pool = build(dir.path(), &base, &by(builder));
        let recall = recall(&pool, &queries, Effort::Normal);
        assert!(recall >= 0.97, "{builder:?}: {recall}");
        assert!(verify(dir.path()).unwrap().is_sound());
    }
}

#[test]
fn a_beam_of_no_width_or_beyond_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(50, 16, 2, 1);
    let pool = build(dir.path(), &vectors, &WriterOptions::default());
    let query = Query::new(Side::Image, vectors[0].clone(), 1, Effort::Fast);
    for ef in [0, MAX_EF + 1] {
        let refused = pool.search_ef(&query, ef, &Cancel::default());
        assert!(matches!(refused, Err(StoreError::Parameter { name: "ef", .. })), "{refused:?}");
    }
    assert_eq!(pool.search_ef(&query, 1, &Cancel::default()).unwrap().hits[0].row, RowId(0));
}

#[test]
fn exact_search_is_what_a_plain_loop_over_the_stored_vectors_says() {
    let all = clustered(3_010, 40, 20, 4);
    let (queries, base) = all.split_at(10);
    let dir = tempfile::tempdir().unwrap();
    let pool = build(dir.path(), base, &WriterOptions { segment_rows: 1_100, ..WriterOptions::default() });
    let all_rows: Vec<RowId> = (0..3_000).map(RowId).collect();
    let stored = pool.get(&all_rows, Parts { vectors: true, picture: false }).unwrap();
    for query in queries {
        let dot = |v: &[f32]| v.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let mut expected: Vec<(f64, u64)> = stored.iter().flatten().map(|r| (dot(r.image.as_ref().unwrap()), r.row.0)).collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let expected: Vec<u64> = expected.into_iter().take(50).map(|(_, row)| row).collect();
        assert_eq!(rows(&pool, query, 50, Effort::Exact), expected);
    }
}

#[test]
fn many_queries_at_once_answer_as_one_by_one() {
    let all = clustered(2_100, 32, 20, 8);
    let (queries, base) = all.split_at(100);
    let dir = tempfile::tempdir().unwrap();
    let pool = build(dir.path(), base, &WriterOptions::default());
    for effort in [Effort::Normal, Effort::Exact] {
        let ask = |v: &Vec<f32>| Query::new(Side::Image, v.clone(), 9, effort);
        let asked: Vec<Query> = queries.iter().map(ask).collect();
        let together = pool.search(&asked, &Cancel::default()).unwrap();
        for (query, answer) in asked.iter().zip(&together) {
            assert_eq!(pool.search(std::slice::from_ref(query), &Cancel::default()).unwrap()[0], *answer);
        }
    }
}

#[test]
fn ten_thousand_equal_vectors_stay_in_reach_and_so_does_the_rest() {
    let mut vectors = clustered(2_000, 24, 40, 2);
    vectors.extend(std::iter::repeat_n(vectors[7].clone(), 10_000));
    for builder in BUILDERS {
        let dir = tempfile::tempdir().unwrap();
        let pool = build(dir.path(), &vectors, &by(builder));
        let report = verify(dir.path()).unwrap();
        assert!(report.is_sound(), "{:?}", report.damage);
        assert_eq!(inspect(dir.path()).unwrap().graphs[0].duplicates, 10_000);
        let same = rows(&pool, &vectors[7], 1_000, Effort::Normal);
        assert_eq!(same.len(), 1_000);
        assert!(same.iter().all(|row| *row == 7 || *row >= 2_000));
        let own = (0..2_000).step_by(10).filter(|&n| rows(&pool, &vectors[n], 1, Effort::High) == [n as u64]).count();
        assert!(own >= 198, "{builder:?}: {own} of 200 vectors found by themselves");
    }
}

#[test]
fn a_pool_of_nothing_but_one_vector_gives_every_row() {
    let vectors = vec![clustered(1, 16, 1, 1).remove(0); 700];
    for builder in BUILDERS {
        let dir = tempfile::tempdir().unwrap();
        let pool = build(dir.path(), &vectors, &by(builder));
        assert!(verify(dir.path()).unwrap().is_sound());
        assert_eq!(rows(&pool, &vectors[0], 100, Effort::Fast).len(), 100);
        assert_eq!(rows(&pool, &vectors[0], 1_000, Effort::Normal), (0..700).collect::<Vec<u64>>());
    }
}

#[test]
fn one_thread_builds_the_same_bytes_twice() {
    for builder in BUILDERS {
        same_bytes_twice(&one_thread_by(builder));
    }
}

#[test]
fn another_seed_gives_another_graph() {
    let vectors = clustered(1_500, 32, 30, 3);
    let graphs = [1, 2].map(|seed| {
        let dir = tempfile::tempdir().unwrap();
        let mut options = one_thread_by(Builder::Own);
        options.build.seed = seed;
        build(dir.path(), &vectors, &options);
        fs::read(dir.path().join("seg-0000000000000001.image.graph")).unwrap()
    });
    assert!(graphs[0] != graphs[1], "the seed has no effect");
}

fn same_bytes_twice(options: &WriterOptions) {
    let vectors = clustered(3_000, 32, 30, 3);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for dir in &dirs {
        build(dir.path(), &vectors, options);
    }
    let mut names: Vec<_> = fs::read_dir(dirs[0].path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert!(names.len() >= 5);
    for name in names {
        let read = |dir: &tempfile::TempDir| fs::read(dir.path().join(&name)).unwrap();
        assert!(read(&dirs[0]) == read(&dirs[1]), "{name:?} differs");
    }
}

#[test]
fn a_cancelled_commit_publishes_nothing_and_can_be_finished_later() {
    let vectors = clustered(2_000, 16, 10, 6);
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::default();
    let raise = cancel.clone();
    let options = WriterOptions { on_build: Some(std::sync::Arc::new(move |_| raise.cancel())), ..WriterOptions::default() };
    let mut writer = PoolWriter::open(dir.path(), &spec(16), &options).unwrap();
    let pairs: Vec<_> = vectors.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect();
    writer.append(&pairs[..1_500]).unwrap();
    assert!(matches!(writer.commit(&cancel), Err(StoreError::Cancelled)));
    assert_eq!(writer.committed().status().rows, 0);
    writer.append(&pairs[1_500..]).unwrap();
    assert_eq!(writer.commit(&Cancel::default()).unwrap(), 1);
    assert_eq!(writer.committed().status().rows, 2_000);
    assert!(verify(dir.path()).unwrap().is_sound());
}
