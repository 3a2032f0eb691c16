//! Efforts keep their promise: what each means is measured when a graph is built, for queries of each modality.

use crate::support::{clustered, image_pair, one_thread, spec, unit, widened};
use anchorite_index::{
    Cancel, Effort, Pair, PairSink, PairStore, Query, Side,
    pool::{OpenOptions, Pool, PoolWriter, inspect},
};

const DIM: usize = 32;
const PROMISES: [(Effort, f64); 3] = [(Effort::Fast, 0.90), (Effort::Normal, 0.98), (Effort::High, 0.995)];

/// Captions lie in a cone of their own, so that they are no neighbours of the pictures they describe.
fn caption(picture: &[f32]) -> Vec<f32> {
    unit(picture.iter().enumerate().map(|(i, v)| 0.6 * v + if i % 5 == 0 { 0.45 } else { -0.05 * (i % 3) as f32 }).collect())
}

fn pool(dir: &std::path::Path, pictures: &[Vec<f32>], captions: bool) -> Pool {
    let mut writer = PoolWriter::open(dir, &spec(pictures[0].len()), &one_thread()).unwrap();
    let pair = |(n, v): (usize, &Vec<f32>)| Pair { text: captions.then(|| caption(v)), ..image_pair(n, v.clone()) };
    writer.append(&pictures.iter().enumerate().map(pair).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    Pool::open(dir, &OpenOptions::default()).unwrap()
}

fn recall(pool: &Pool, queries: &[Vec<f32>], side: Side, (asked, effort): (Option<Side>, Effort)) -> f64 {
    let ask = |effort| {
        let query = |v: &Vec<f32>| Query { asked, ..Query::new(side, v.clone(), 10, effort) };
        let queries: Vec<Query> = queries.iter().map(query).collect();
        pool.search(&queries, &Cancel::default()).unwrap()
    };
    let (found, truth) = (ask(effort), ask(Effort::Exact));
    let shared = |(f, t): (&anchorite_index::Answer, &anchorite_index::Answer)| {
        f.hits.iter().filter(|hit| t.hits.iter().any(|other| other.row == hit.row)).count()
    };
    found.iter().zip(&truth).map(shared).sum::<usize>() as f64 / (queries.len() * 10) as f64
}

#[test]
fn every_effort_finds_what_it_promises_for_pictures_and_captions_not_seen_before() {
    promises(&clustered(5_200, DIM, 200, 29));
}

#[test]
fn every_effort_finds_what_it_promises_where_searches_look_at_sketches() {
    promises(&widened(&clustered(5_200, DIM, 200, 29), 256));
}

fn promises(all: &[Vec<f32>]) {
    let (queries, base) = all.split_at(200);
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), base, true);
    let texts: Vec<Vec<f32>> = queries.iter().map(|v| caption(v)).collect();
    for side in Side::ALL {
        for (asked, queries) in [(Side::Image, queries), (Side::Text, &texts[..])] {
            for (effort, promise) in PROMISES {
                for asked in [Some(asked), None] {
                    let found = recall(&pool, queries, side, (asked, effort));
                    // 200 queries of which each finds ten: half a point of chance either way.
                    assert!(found >= promise - 0.01, "{asked:?} against {side}, {effort:?}: {found}");
                }
            }
        }
    }
    for graph in &inspect(dir.path()).unwrap().graphs {
        for measured in [graph.efforts.image.unwrap(), graph.efforts.text.unwrap()] {
            assert_eq!(measured.queries, 256);
            for (width, (effort, promise)) in measured.widths.iter().zip(PROMISES) {
                assert!(f64::from(width.recall) >= promise - 1e-6, "{effort:?}: {width:?}");
            }
            assert!(measured.widths.windows(2).all(|pair| pair[1].ef == 0 || pair[0].ef <= pair[1].ef), "{measured:?}");
        }
    }
}

#[test]
fn a_small_graph_is_not_searched_and_one_without_captions_widens_for_texts() {
    let base = clustered(3_000, DIM, 60, 31);
    let dir = tempfile::tempdir().unwrap();
    let small = pool(dir.path(), &base[..900], false);
    let info = inspect(dir.path()).unwrap();
    assert!(info.graphs[0].efforts.image.unwrap().widths.iter().all(|width| width.ef == 0));
    assert!((recall(&small, &base[..100], Side::Image, (None, Effort::Fast)) - 1.0).abs() < 1e-9);

    let dir = tempfile::tempdir().unwrap();
    pool(dir.path(), &base, false);
    let efforts = inspect(dir.path()).unwrap().graphs[0].efforts;
    let ef = |asked, effort| efforts.ef(asked, effort).unwrap();
    assert!(efforts.text.is_none());
    for (effort, _) in PROMISES {
        assert_eq!(ef(Some(Side::Text), effort), ef(Some(Side::Image), effort) * 4);
        assert_eq!(ef(None, effort), ef(Some(Side::Text), effort));
    }
    assert_eq!(efforts.ef(None, Effort::Exact), None);
}
