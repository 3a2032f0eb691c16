//! Policies carried out on a small pool, against what a reader would compute by hand.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anchorite_anchors::{
    CurateError, Limits, Policy, Questions, Reason,
    policy::{
        ClassBounds, Control, Direction, Exclude, FieldValue, Per, Prompts, Select, Shares, Templates, TextSource, VectorSource,
    },
};
use anchorite_index::{Key, Pair, PairStore as _, Side, Value};
use common::*;

fn direction(from: Side, to: Side, weight: f32) -> Direction {
    Direction { from, to, weight }
}

/// Takes hits as they come: no near duplicates removed.
fn plain(k: usize) -> Policy {
    Policy { select: Select { k: Some(k), near_duplicate: None, ..Select::default() }, ..Policy::default() }
}

fn picture_questions(count: u32, policy: &Policy) -> Questions {
    let folder = tempfile::tempdir().expect("set up");
    let captions: Vec<String> = (0..count).map(|n| caption(n + 3)).collect();
    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
    let file = parquet(folder.path(), "q.parquet", vec![pictures(&query_pictures(count)), texts("caption", &captions)]);
    questions(&[file], policy).expect("set up")
}

/// Keys by the weighted mean of cosines, best first: every pair compared.
fn by_hand(pool: &[Pair], score: impl Fn(&Pair) -> f32) -> Vec<String> {
    let mut all: Vec<(f32, &Pair)> = pool.iter().map(|p| (score(p), p)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.content.cmp(&b.1.content)));
    all.into_iter().map(|(_, p)| p.key.to_string()).collect()
}

fn vector(pair: &Pair, side: Side) -> &[f32] {
    if side == Side::Image { pair.image.as_deref().expect("set up") } else { pair.text.as_deref().expect("set up") }
}

#[test]
fn each_direction_and_their_fusion_agree_with_every_pair_compared() {
    let pool = pool(120);
    let store = store(&pool);
    let (image, text) = (Side::Image, Side::Text);
    let cases = [
        vec![direction(image, image, 1.0)],
        vec![direction(image, text, 1.0)],
        vec![direction(text, image, 1.0)],
        vec![direction(text, text, 1.0)],
        vec![direction(image, image, 1.0), direction(text, text, 3.0)],
        vec![direction(image, image, 0.2), direction(image, text, 0.3), direction(text, image, 0.4), direction(text, text, 0.1)],
    ];
    for directions in cases {
        let policy = Policy { directions: directions.clone(), ..plain(5) };
        let questions = picture_questions(1, &policy);
        let question = &questions.list[0];
        let sum: f32 = directions.iter().map(|d| d.weight).sum();
        let score = |pair: &Pair| {
            directions.iter().map(|d| d.weight / sum * cosine(question.vector(d.from).unwrap(), vector(pair, d.to))).sum::<f32>()
        };
        let curated = run(&store, &policy, &questions).unwrap();
        assert_eq!(kept(&curated, Some(0)), by_hand(&pool, score)[..5], "{directions:?}");
        let entry = &curated.entries[0];
        let pair = pool.iter().find(|p| p.key == entry.key).unwrap();
        assert!((entry.score.unwrap() - score(pair)).abs() < 1e-5);
    }
}

#[test]
fn a_filter_excludes_what_it_matches_and_is_held_to_what_the_pool_has() {
    let pool = pool(60);
    let filtered = |json: &str| {
        let text = format!(r#"{{"select": {{"k": 60, "near_duplicate": false}}, "exclude": {{"filter": {json}}}}}"#);
        let policy = Policy::from_json(&text).unwrap();
        let again = Policy::from_json(&policy.to_json()).unwrap();
        assert_eq!(again, policy, "a printed policy keeps its filter");
        run(&store(&pool), &policy, &picture_questions(1, &policy))
    };
    let styles: BTreeSet<String> = pool.iter().filter_map(|pair| pair.fields.get("style")).map(ToString::to_string).collect();
    let style = styles.first().expect("pairs have styles");
    let of_style: BTreeSet<String> = pool
        .iter()
        .filter(|p| p.fields.get("style").is_some_and(|s| s.to_string() == *style))
        .map(|p| p.key.to_string())
        .collect();
    assert!(!of_style.is_empty() && of_style.len() < 60, "{styles:?}");
    let eq = format!(r#"{{"eq": {{"field": "style", "value": "{style}"}}}}"#);
    let without = filtered(&eq).unwrap();
    assert_eq!(without.report.dropped["excluded_filter"], of_style.len() as u64);
    assert!(all_kept(&without).iter().all(|key| !of_style.contains(key)));
    let only: BTreeSet<String> = all_kept(&filtered(&format!(r#"{{"not": {eq}}}"#)).unwrap()).into_iter().collect();
    assert_eq!(only, of_style);
    let refused = filtered(r#"{"is_null": {"field": "stile"}}"#).unwrap_err();
    assert!(refused.to_string().contains("stile") || format!("{refused:?}").contains("stile"), "{refused}");
    let malformed = Policy::from_json(r#"{"exclude": {"filter": {"xor": []}}}"#).unwrap_err();
    assert!(malformed.to_string().contains("xor"), "{malformed}");
}

#[test]
fn excluded_pairs_are_counted_by_reason_and_replaced() {
    let pool = pool(60);
    let questions = picture_questions(1, &plain(5));
    let ranked = by_hand(&pool, |p| cosine(questions.list[0].image.as_deref().unwrap(), vector(p, Side::Image)));
    let policy = Policy {
        exclude: Exclude {
            keys: vec![Key::new(ranked[0].as_str()).unwrap()],
            words: vec!["Red Car".into(), "TREE".into()],
            fields: vec![FieldValue { column: "style".into(), value: Value::Text("drawing".into()) }],
            filter: None,
        },
        ..plain(5)
    };
    let allowed = |key: &&String| {
        let pair = pool.iter().find(|p| p.key.as_str() == key.as_str()).unwrap();
        let caption = pair.caption.as_deref().unwrap();
        **key != ranked[0]
            && !caption.contains("red car")
            && !caption.contains("tree")
            && pair.fields["style"] != Value::Text("drawing".into())
    };
    let wanted: Vec<String> = ranked.iter().filter(allowed).take(5).cloned().collect();
    let curated = run(&store(&pool), &policy, &questions).unwrap();
    assert_eq!(kept(&curated, Some(0)), wanted);
    let looked_at = ranked.iter().position(|k| *k == wanted[4]).unwrap() + 1;
    assert_eq!(curated.entries.len(), looked_at);
    let report = &curated.report;
    assert_eq!((report.requested, report.found, report.shortfall), (5, 5, 0));
    assert_eq!(report.dropped.values().sum::<u64>() as usize, looked_at - 5);
    assert_eq!(report.dropped["excluded_key"], 1);
}

#[test]
fn words_match_whole_words_and_plurals_in_any_case() {
    let captions = ["A DOG.", "two dogs", "hotdog stand", "dogma", "a golden-retriever!", "golden and retriever", "a cat"];
    let pairs: Vec<Pair> =
        captions.iter().enumerate().map(|(n, c)| pair(&format!("k{n}"), &picture(n as u32), c, "photo")).collect();
    let exclude = Exclude { words: vec!["dog".into(), "golden retriever".into()], ..Exclude::default() };
    let policy = Policy { exclude, ..plain(10) };
    let curated = run(&store(&pairs), &policy, &picture_questions(1, &policy)).unwrap();
    let mut left = all_kept(&curated);
    left.sort();
    assert_eq!(left, ["k2", "k3", "k5", "k6"]);
    assert_eq!(curated.report.ended["pool_exhausted"], 1);
    assert_eq!(curated.report.shortfall, 6);
}

#[test]
fn queries_do_not_share_anchors_and_are_refilled_until_the_pool_is_exhausted() {
    let pool = pool(50);
    let policy = plain(10);
    let curated = run(&store(&pool), &policy, &picture_questions(7, &policy)).unwrap();
    let distinct: HashSet<String> = all_kept(&curated).into_iter().collect();
    assert_eq!(distinct.len(), 50);
    let report = &curated.report;
    assert_eq!((report.requested, report.found, report.shortfall), (70, 50, 20));
    assert!(report.dropped["already_taken"] > 0);
}

#[test]
fn a_search_that_may_not_go_deeper_says_so() {
    let limits = Limits { max_hits: 10, ..Limits::default() };
    let policy = Policy {
        exclude: Exclude { words: ["dog", "cat", "boat", "tree", "car"].map(String::from).to_vec(), ..Exclude::default() },
        ..plain(4)
    };
    let curated = run_within(&store(&pool(60)), &policy, &picture_questions(1, &policy), &limits).unwrap();
    assert_eq!(curated.report.ended.keys().collect::<Vec<_>>(), ["search_limit"]);
    let whole = run(&store(&pool(60)), &policy, &picture_questions(1, &policy)).unwrap();
    assert_eq!(whole.report.ended.keys().collect::<Vec<_>>(), ["met"]);
}

#[test]
fn near_duplicates_and_equal_content_are_one_anchor() {
    let mut pairs = pool(20);
    let mut twin = pairs[0].clone();
    twin.key = Key::new("twin").unwrap();
    let mut near = pair("near", &picture(0), "another caption", "photo");
    near.image.as_mut().unwrap()[0] += 1e-4;
    pairs.extend([twin, near]);
    let policy = Policy { select: Select { k: Some(30), ..Select::default() }, ..Policy::default() };
    let curated = run(&store(&pairs), &policy, &picture_questions(1, &policy)).unwrap();
    assert_eq!(curated.report.found, 20);
    // Which of the three comes first decides what the others are called; no two of them are taken.
    assert_eq!(curated.report.dropped.values().sum::<u64>(), 2);
    let dropped = curated.entries.iter().find(|e| matches!(e.reason, Some(Reason::NearDuplicate { .. }))).unwrap();
    let of = dropped.detail.as_deref().unwrap().split(' ').next().unwrap();
    assert!(["p0", "twin", "near"].contains(&of) && of != dropped.key.as_str());
    let by_content = run(&store(&pairs), &plain(30), &picture_questions(1, &policy)).unwrap();
    assert_eq!(by_content.report.dropped, BTreeMap::from([("same_content".to_owned(), 1)]));
}

#[test]
fn class_bounds_are_met_and_shortfalls_reported() {
    let folder = tempfile::tempdir().unwrap();
    let columns = vec![pictures(&query_pictures(4)), numbers("label", &[0, 0, 0, 1])];
    let file = parquet(folder.path(), "q.parquet", columns);
    let mut policy = plain(2);
    policy.select.class = ClassBounds { quota: Some(5), ..ClassBounds::default() };
    policy.queries.class_names = vec!["zebra".into(), "ant".into()];
    let asked = questions(&[file], &policy).unwrap();
    let curated = run(&store(&pool(60)), &policy, &asked).unwrap();
    let classes: Vec<(&str, u64, u64, u64)> =
        curated.report.classes.iter().map(|c| (c.class.as_str(), c.wanted, c.found, c.shortfall)).collect();
    assert_eq!(classes, [("ant", 5, 5, 0), ("zebra", 5, 5, 0)]);
    let few = run(&store(&pool(7)), &policy, &asked).unwrap();
    assert_eq!(few.report.classes.iter().map(|c| c.found).sum::<u64>(), 7);
    assert_eq!(few.report.classes.iter().map(|c| c.shortfall).sum::<u64>(), 3);
    assert_eq!((few.report.requested, few.report.shortfall), (10, 3));
    policy.select.target = Some(9);
    assert!(matches!(run(&store(&pool(7)), &policy, &asked), Err(CurateError::MinimumAboveTarget { .. })));
}

#[test]
fn classes_that_are_spoken_of_must_be_there() {
    let mut policy = plain(2);
    let asked = picture_questions(1, &policy);
    policy.select.class.maximum = Some(1);
    assert!(matches!(run(&store(&pool(7)), &policy, &asked), Err(CurateError::NoClass { .. })));
    let folder = tempfile::tempdir().unwrap();
    let file = parquet(folder.path(), "q.parquet", vec![pictures(&query_pictures(1)), numbers("label", &[7])]);
    policy.queries.class_names = vec!["one".into()];
    assert!(matches!(questions(&[file], &policy), Err(CurateError::NoClassName { label: 7, names: 1, .. })));
}

#[test]
fn class_names_become_the_mean_of_their_prompts_or_a_query_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("classes.txt");
    std::fs::write(&file, "dog\n\n  red car \n").unwrap();
    let mut policy = Policy { directions: vec![direction(Side::Text, Side::Text, 1.0)], ..plain(3) };
    policy.queries.text = TextSource::ClassName;
    policy.queries.templates = Templates::Own(vec!["a {}".into(), "the {} there".into()]);
    let mean = questions(std::slice::from_ref(&file), &policy).unwrap();
    assert_eq!(mean.list.iter().map(|q| q.class.as_deref().unwrap()).collect::<Vec<_>>(), ["dog", "red car"]);
    let sum: Vec<f32> = text_vector("a dog").iter().zip(text_vector("the dog there")).map(|(a, b)| a + b).collect();
    let found = mean.list[0].text.as_deref().unwrap();
    assert!((cosine(found, found) - 1.0).abs() < 1e-5);
    assert!((cosine(&sum, found) / cosine(&sum, &sum).sqrt() - 1.0).abs() < 1e-5);
    policy.queries.prompts = Prompts::Each;
    let each = questions(&[file], &policy).unwrap();
    assert_eq!(each.list.len(), 4);
    assert_eq!(each.list[3].text.as_deref().unwrap(), text_vector("the red car there"));
    let curated = run(&store(&pool(60)), &policy, &each).unwrap();
    let dog = text_vector("a dog");
    assert_eq!(kept(&curated, Some(0))[0], by_hand(&pool(60), |p| cosine(&dog, vector(p, Side::Text)))[0]);
}

#[test]
fn one_query_a_class_is_the_mean_of_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let columns = vec![pictures(&query_pictures(3)), texts("label", &["b", "a", "b"])];
    let file = parquet(folder.path(), "q.parquet", columns);
    let mut policy = plain(2);
    policy.queries.per = Per::Class;
    let asked = questions(&[file], &policy).unwrap();
    assert_eq!(asked.list.iter().map(|q| q.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let sum: Vec<f32> = image_vector(&picture(10_000)).iter().zip(image_vector(&picture(10_002))).map(|(a, b)| a + b).collect();
    let found = asked.list[1].image.as_deref().unwrap();
    assert!((cosine(&sum, found) / cosine(&sum, &sum).sqrt() - 1.0).abs() < 1e-5);
}

#[test]
fn ready_vectors_ask_as_the_encoder_would() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<Vec<f32>> = (0..2).map(|n| image_vector(&picture(10_000 + n))).collect();
    let file = parquet(folder.path(), "q.parquet", vec![vectors("image_embedding", &made)]);
    let mut policy = plain(3);
    let wanted = run(&store(&pool(40)), &policy, &picture_questions(2, &policy)).unwrap();
    policy.queries.vectors = VectorSource::Ready;
    let found = run(&store(&pool(40)), &policy, &questions(&[file], &policy).unwrap()).unwrap();
    assert_eq!(all_kept(&found), all_kept(&wanted));
}

#[test]
fn rows_that_are_no_query_are_counted_and_the_first_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broken = vec![None, Some(b"no picture".to_vec()), Some(picture(10_000))];
    let file = parquet(folder.path(), "q.parquet", vec![pictures(&broken)]);
    let asked = questions(&[file], &plain(1)).unwrap();
    assert_eq!((asked.list.len(), asked.rejected), (1, 2));
    assert_eq!(asked.list[0].id, "data/q.parquet#2");
    let nothing = parquet(folder.path(), "n.parquet", vec![pictures(&broken[..2])]);
    let error = questions(&[nothing], &plain(1)).unwrap_err();
    assert!(matches!(error, CurateError::NoQueries { rejected: 2, .. }), "{error}");
}

#[test]
fn a_random_draw_is_seeded_and_looks_at_no_query() {
    let store = store(&pool(90));
    let policy = Policy { control: Control::Random, ..plain(4) };
    let asked = picture_questions(3, &policy);
    let first = run(&store, &policy, &asked).unwrap();
    assert_eq!((first.report.requested, first.report.found), (12, 12));
    assert!(first.entries.iter().all(|e| e.query.is_none() && e.score.is_none()));
    assert_eq!(run(&store, &policy, &asked).unwrap(), first);
    let others = Policy { directions: vec![direction(Side::Text, Side::Image, 1.0)], ..policy.clone() };
    assert_eq!(all_kept(&run(&store, &others, &picture_questions(3, &others)).unwrap()), all_kept(&first));
    let reseeded = Policy { seed: 1, ..policy.clone() };
    assert_ne!(all_kept(&run(&store, &reseeded, &asked).unwrap()), all_kept(&first));
    // The same pairs in another order give the same draw.
    let mut turned = pool(90);
    turned.reverse();
    assert_eq!(all_kept(&run(&common::store(&turned), &policy, &asked).unwrap()), all_kept(&first));
    let excluding = Policy { exclude: Exclude { words: vec!["dog".into()], ..Exclude::default() }, ..policy };
    let clean = run(&store, &excluding, &asked).unwrap();
    assert_eq!(clean.report.found, 12);
    assert!(clean.entries.iter().filter(|e| e.reason.is_none()).all(|e| !e.caption.as_deref().unwrap().contains("dog")));
}

#[test]
fn every_pair_is_as_likely_to_be_drawn() {
    let store = store(&pool(40));
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..400 {
        let policy = Policy { control: Control::Random, seed, ..plain(10) };
        let drawn = run(&store, &policy, &picture_questions(1, &policy)).unwrap();
        all_kept(&drawn).into_iter().for_each(|key| *times.entry(key).or_insert(0) += 1);
    }
    // 400 draws of 10 of 40: 100 each, standard deviation 8.7; four of those either way.
    assert_eq!(times.len(), 40);
    assert!(times.values().all(|n| (65..=135).contains(n)), "{times:?}");
}

fn styles(pool: &[Pair], keys: &[String]) -> usize {
    let is_drawing =
        |key: &&String| pool.iter().any(|p| p.key.as_str() == key.as_str() && p.fields["style"] == Value::Text("drawing".into()));
    keys.iter().filter(is_drawing).count()
}

#[test]
fn a_stratified_draw_repeats_the_retrieved_mix_or_the_pools() {
    let pool = pool(90);
    let store = store(&pool);
    let retrieved = run(&store, &plain(4), &picture_questions(5, &plain(4))).unwrap();
    let control = |shares| Policy { control: Control::StratifiedRandom { column: "style".into(), shares }, ..plain(4) };
    let same_mix = run(&store, &control(Shares::Retrieved), &picture_questions(5, &plain(4))).unwrap();
    assert_eq!(same_mix.report.found, 20);
    assert_eq!(styles(&pool, &all_kept(&same_mix)), styles(&pool, &all_kept(&retrieved)));
    assert_ne!(all_kept(&same_mix), all_kept(&retrieved));
    let pools_mix = run(&store, &control(Shares::Pool), &picture_questions(5, &plain(4))).unwrap();
    assert_eq!(pools_mix.report.found, 20);
    // 30 of 90 are drawings: 6.67 of 20, and the larger remainder is theirs.
    assert_eq!(styles(&pool, &all_kept(&pools_mix)), 7);
}

#[test]
fn anchors_of_one_caption_share_a_group_and_a_side_of_the_split() {
    let store = store(&pool(60));
    let policy = Policy { validation: 0.4, ..plain(40) };
    let curated = run(&store, &policy, &picture_questions(1, &policy)).unwrap();
    let mut sides: BTreeMap<&str, HashSet<(Option<u32>, bool)>> = BTreeMap::new();
    let mut members: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in curated.entries.iter().filter(|e| e.reason.is_none()) {
        let caption = entry.caption.as_deref().unwrap();
        sides.entry(caption).or_default().insert((entry.group, entry.validation));
        *members.entry(caption).or_default() += 1;
    }
    assert!(sides.values().all(|s| s.len() == 1), "{sides:?}");
    assert!(sides.iter().all(|(caption, s)| s.iter().all(|(group, _)| group.is_some() == (members[caption] > 1))));
    let groups: HashSet<u32> = sides.values().flatten().filter_map(|(group, _)| *group).collect();
    assert_eq!(groups.len(), members.values().filter(|n| **n > 1).count());
    assert!(curated.report.validation > 0 && curated.report.validation < 40);
    assert_eq!(curated.report.in_caption_groups as usize, members.values().filter(|n| **n > 1).sum::<usize>());
    assert_eq!(store.status().rows, 60);
}
