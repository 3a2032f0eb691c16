//! Anchors for training loops: the same ones whenever they are asked for again, in any batch; others in another epoch. And lists that
//! stay short when a pool has too little to give.

mod common;

use std::collections::BTreeSet;

use anchorite_anchors::{
    CurateError, Curated, Given, Limits, Policy, Questions, Sample, Surroundings, curate_sample, encode_questions,
    policy::{ClassBounds, Control, Direction, Select},
};
use anchorite_index::{Cancel, ContentHash, Key, Pair, PairStore, Side};
use common::{all_kept, encoder, kept, picture, pool, run, run_within, store};
use sha2::{Digest as _, Sha256};

fn given(numbers: impl IntoIterator<Item = u32>) -> Vec<Given> {
    let one = |n: u32| Given { id: format!("q{n}"), picture: Some(picture(10_000 + n)), ..Given::default() };
    numbers.into_iter().map(one).collect()
}

fn asked(given: Vec<Given>, policy: &Policy) -> Questions {
    encode_questions(given, policy, &encoder(), &Limits::default(), &Cancel::default()).expect("questions")
}

fn candidates(k: usize) -> Policy {
    Policy { select: Select { k: Some(k), near_duplicate: None, ..Select::default() }, ..Policy::default() }
}

fn sampled(store: &dyn PairStore, policy: &Policy, questions: &Questions, sample: Sample) -> Result<Curated, CurateError> {
    let (limits, cancel) = (Limits::default(), Cancel::default());
    curate_sample(store, policy, questions, &sample, Surroundings { limits: &limits, cancel: &cancel, told: &|_, _| {} })
}

fn draw(k: usize, epoch: u64) -> Sample {
    Sample { k, seed: 7, epoch }
}

#[test]
fn a_query_gets_the_same_anchors_in_any_batch_and_order() {
    let (store, policy) = (store(&pool(60)), candidates(12));
    let all = sampled(&store, &policy, &asked(given(0..8), &policy), draw(3, 1)).expect("anchors");
    let reversed = sampled(&store, &policy, &asked(given((0..8).rev()), &policy), draw(3, 1)).expect("anchors");
    let alone = sampled(&store, &policy, &asked(given([5]), &policy), draw(3, 1)).expect("anchors");
    for n in 0..8 {
        assert_eq!(kept(&all, Some(n)), kept(&reversed, Some(7 - n)), "query {n}");
        assert_eq!(kept(&all, Some(n)).len(), 3);
    }
    assert_eq!(kept(&all, Some(5)), kept(&alone, Some(0)));
    assert_eq!((all.report.requested, all.report.found, all.report.shortfall), (24, 24, 0));
    assert_eq!(all.report.dropped["not_drawn"], 8 * 9);
}

#[test]
fn epochs_draw_anew_from_the_candidates_and_reach_all_of_them() {
    let (store, policy) = (store(&pool(60)), candidates(12));
    let questions = asked(given(0..4), &policy);
    let whole = sampled(&store, &policy, &questions, draw(12, 0)).expect("anchors");
    let epochs: Vec<Curated> =
        (0..40).map(|epoch| sampled(&store, &policy, &questions, draw(3, epoch)).expect("anchors")).collect();
    let distinct: BTreeSet<Vec<String>> = epochs.iter().map(all_kept).collect();
    assert!(distinct.len() > 35, "{} of 40 epochs differ", distinct.len());
    for query in 0..4 {
        let reached: BTreeSet<String> = epochs.iter().flat_map(|e| kept(e, Some(query))).collect();
        assert_eq!(reached, kept(&whole, Some(query)).into_iter().collect(), "query {query}");
    }
}

#[test]
fn a_pair_may_come_for_two_queries_where_each_is_answered_by_itself() {
    let (store, policy) = (store(&pool(10)), candidates(10));
    let questions = asked(given(0..2), &policy);
    let both = sampled(&store, &policy, &questions, draw(10, 0)).expect("anchors");
    assert_eq!((kept(&both, Some(0)).len(), kept(&both, Some(1)).len()), (10, 10));
    assert_eq!(all_kept(&run(&store, &policy, &questions).expect("anchors")).len(), 10, "a set shares them out");
}

#[test]
fn random_controls_draw_anew_each_epoch() {
    let store = store(&pool(60));
    let policy = Policy { control: Control::Random, ..candidates(4) };
    let questions = asked(given(0..4), &policy);
    let of = |epoch| all_kept(&sampled(&store, &policy, &questions, draw(2, epoch)).expect("anchors"));
    assert_eq!(of(0).len(), 8);
    assert_eq!(of(0), of(0));
    assert_ne!(of(0), of(1));
}

#[test]
fn what_only_a_whole_set_can_promise_is_refused() {
    let store = store(&pool(4));
    let target = Policy { select: Select { target: Some(3), ..Select::default() }, ..Policy::default() };
    let class = ClassBounds { maximum: Some(3), ..ClassBounds::default() };
    let bounds = Policy { select: Select { class, ..Select::default() }, ..Policy::default() };
    let split = Policy { validation: 0.1, ..Policy::default() };
    for (policy, sample, field) in [
        (target, draw(1, 0), "select.target"),
        (bounds, draw(1, 0), "select.class"),
        (split, draw(1, 0), "validation"),
        (Policy::default(), draw(0, 0), "sample.k"),
        (Policy::default(), draw(5, 0), "select.k"),
    ] {
        let refused = sampled(&store, &policy, &asked(given([0]), &policy), sample).expect_err(field).to_string();
        assert!(refused.contains(field), "{refused}");
    }
}

#[test]
fn queries_at_hand_need_what_the_directions_start_from() {
    let words = vec![Given { id: "w".into(), caption: Some("a dog".into()), ..Given::default() }];
    let refused = encode_questions(words.clone(), &Policy::default(), &encoder(), &Limits::default(), &Cancel::default());
    assert!(refused.expect_err("no picture").to_string().contains("w: it has no picture"));
    let policy = Policy { directions: vec![Direction { from: Side::Text, ..Direction::default() }], ..candidates(2) };
    assert_eq!(asked(words, &policy).list[0].text, Some(common::text_vector("a dog")));
}

/// The story: a policy that asked for more anchors than the pool held listed 21 million hits.
#[test]
fn starved_queries_list_little_and_count_everything() {
    let (store, policy) = (store(&pool(100)), candidates(50));
    let questions = asked(given(0..20), &policy);
    let whole = run_within(&store, &policy, &questions, &Limits { max_listed: 1_000, ..Limits::default() }).expect("anchors");
    let short = run_within(&store, &policy, &questions, &Limits { max_listed: 5, ..Limits::default() }).expect("anchors");
    assert_eq!(all_kept(&whole), all_kept(&short), "the anchors are the same");
    assert_eq!((whole.report.found, whole.report.shortfall), (100, 900));
    assert_eq!(short.entries.len(), 100 + 20 * 5);
    assert_eq!(whole.report.dropped, short.report.dropped, "and so are the counts");
    let dropped: u64 = short.report.dropped.values().sum();
    assert_eq!((whole.report.unlisted, short.report.unlisted), (0, dropped - 20 * 5));
    assert_eq!(whole.entries.len() as u64, 100 + dropped);
}

/// Everything may be near everything (a model of random weights makes such pools): a query then passes over the whole pool for its one anchor, and
/// compares each pair with what it took, not with all it passed over. Before, 64 queries among 4,000 pairs took 36 s of processor; now less than one.
#[test]
fn pools_in_which_everything_is_near_everything_cost_a_pass_a_query() {
    let one = pool(1).remove(0);
    let named = |n: u32| Pair {
        key: Key::new(format!("p{n}")).expect("a key"),
        content: ContentHash(Sha256::digest(n.to_le_bytes()).into()),
        ..one.clone()
    };
    let pairs: Vec<Pair> = (0..4_000).map(named).collect();
    let policy = Policy { select: Select { k: Some(2), ..Select::default() }, ..Policy::default() };
    let (store, questions) = (store(&pairs), asked(given(0..64), &policy));
    let start = std::time::Instant::now();
    let sampled = sampled(&store, &policy, &questions, draw(1, 0)).expect("anchors");
    assert_eq!((sampled.report.found, sampled.report.dropped["near_duplicate"]), (64, 64 * 3_999));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
