//! Blends, near duplicates, columns and pages of `POST /v1/search`, each against a slow and obvious second reading.

mod support;

use std::{collections::BTreeMap, sync::Arc};

use anchorite_anchors::Retriever;
use anchorite_api::Limits;
use anchorite_encoder::{Encode as _, fake::FakeEncoder};
use anchorite_index::{
    Cancel, ContentHash, Key, Pair, PairSink as _, PairStore, SourceRef, Spec, Value,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use serde_json::{Value as Json, json};
use support::{DIM, TestServer, start_pools, text_vector};

/// Numbers in [-0.5, 0.5) that look random and are the same everywhere.
fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    }
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter_mut().for_each(|v| *v /= length);
    values
}

/// `count` pairs; every fourth lies near the one before it, and every tenth has the content of the one three before it.
fn pairs(count: usize) -> Vec<Pair> {
    let mut made: Vec<Pair> = Vec::with_capacity(count);
    for row in 0..count {
        let mut next = noise(row as u32);
        let mut image: Vec<f32> = (0..DIM).map(|_| next()).collect();
        if row % 4 == 3 {
            let near = made[row - 1].image.clone().expect("every pair has one");
            image = near.iter().map(|v| v + 0.05 * next()).collect();
        }
        let like = if row % 10 == 9 { row - 3 } else { row };
        let mut content = [0; 32];
        content[..8].copy_from_slice(&(like as u64).to_le_bytes());
        let fields = [("width", Value::Int(row as i64)), ("url", Value::Text(format!("https://example.invalid/{row}")))];
        made.push(Pair {
            key: Key::new(format!("pair-{row}")).expect("a key"),
            source: SourceRef { file: "made".to_owned(), row: row as u64 },
            content: ContentHash(content),
            image: Some(unit(image)),
            text: Some(text_vector(&format!("caption {row}"))),
            caption: Some(format!("caption {row}")),
            fields: BTreeMap::from(fields.map(|(name, value)| (name.to_owned(), value))),
            picture: None,
        });
    }
    made
}

fn serve(store: Arc<dyn PairStore>) -> TestServer {
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store).expect("they match");
    start_pools(vec![("made".to_owned(), retriever)], Limits::default())
}

fn rows(answer: &Json) -> Vec<usize> {
    let hits = answer["results"][0]["hits"].as_array().expect("hits");
    hits.iter().map(|hit| hit["id"].as_u64().expect("an id") as usize).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// All rows, best first.
fn ranked(pairs: &[Pair], query: &[f32]) -> Vec<(usize, f64)> {
    let length = dot(query, query).sqrt();
    let score = |(row, pair): (usize, &Pair)| (row, dot(pair.image.as_ref().expect("there"), query) / length);
    let mut all: Vec<(usize, f64)> = pairs.iter().enumerate().map(score).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

/// The rule as written: best first, each compared in full with every one kept.
fn distinct(pairs: &[Pair], ranked: &[(usize, f64)], limit: f64, k: usize) -> (Vec<usize>, usize) {
    let mut kept: Vec<usize> = Vec::new();
    let mut dropped = 0;
    for (row, _) in ranked {
        let (image, content) = (pairs[*row].image.as_ref().expect("there"), pairs[*row].content);
        let repeats =
            |of: &usize| pairs[*of].content == content || dot(pairs[*of].image.as_ref().expect("there"), image) >= limit;
        if kept.len() == k {
            break;
        }
        if kept.iter().any(repeats) { dropped += 1 } else { kept.push(*row) }
    }
    (kept, dropped)
}

#[test]
fn a_blend_is_the_weighted_sum_of_unit_vectors() {
    let pairs = pairs(120);
    let server = serve(support::store(&pairs));
    let long: Vec<f32> = pairs[50].image.as_ref().expect("there").iter().map(|v| v * 40.0).collect();
    let parts: [(Json, Vec<f32>); 5] = [
        (json!({"text": "a red apple"}), text_vector("a red apple")),
        (json!({"id": 7}), pairs[7].image.clone().expect("there")),
        (json!({"id": 8, "from": "text"}), pairs[8].text.clone().expect("there")),
        (json!({"key": "pair-9"}), pairs[9].image.clone().expect("there")),
        (json!({"embedding": long}), pairs[50].image.clone().expect("there")),
    ];
    for weights in
        [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, -0.5, 0.25, 0.0, 3.0], [-1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1e-6, 0.0, -2e-6, 0.0]]
    {
        let mut sum = vec![0.0_f32; DIM];
        let mut blend = Vec::new();
        for ((part, vector), weight) in parts.iter().zip(weights) {
            sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += weight * v);
            let mut part = part.clone();
            part["weight"] = json!(weight);
            blend.push(part);
        }
        let answer = server.search(&json!({"blend": blend, "k": 20})).ok();
        let expected = ranked(&pairs, &sum);
        assert_eq!(rows(&answer), expected[..20].iter().map(|(row, _)| *row).collect::<Vec<_>>(), "{weights:?}");
        let score = answer["results"][0]["hits"][0]["score"].as_f64().expect("a score");
        assert!((score - expected[0].1).abs() < 1e-5, "{score} against {}", expected[0].1);
    }
}

#[test]
fn a_blend_of_one_is_the_input_alone_and_many_queries_may_be_blends() {
    let server = support::start(Limits::default());
    let alone = server.search(&json!({"id": 2, "k": 4})).ok()["results"][0]["hits"].clone();
    let queries = json!([{"blend": [{"id": 2}]}, {"id": 2}, {"blend": [{"id": 2, "weight": -1}]}]);
    let answer = server.search(&json!({"queries": queries, "k": 4})).ok();
    assert_eq!(answer["results"][0]["hits"], alone);
    assert_eq!(answer["results"][1]["hits"], alone);
    let away = &answer["results"][2]["hits"];
    assert!(away[0]["score"].as_f64() >= away[1]["score"].as_f64() && away[0] != alone[0], "{away}");
}

#[test]
fn blends_that_say_nothing_are_refused_by_name() {
    let server = support::start(Limits::default());
    for (body, code, words) in [
        (json!({"blend": []}), "query_input", "empty"),
        (json!({"blend": [{"id": 2}, {"id": 2, "weight": -1}]}), "inputs_cancel", "cancel"),
        (json!({"blend": [{"id": 2, "weight": 0}]}), "inputs_cancel", "cancel"),
        (json!({"blend": [{"id": 0}, {"weight": 2}]}), "query_input", "blend[1]"),
        (json!({"blend": [{"id": 0, "text": "a"}]}), "query_input", "blend[0]"),
        (json!({"blend": [{"id": 0}], "text": "a"}), "query_input", "text and blend"),
        (json!({"blend": [{"blend": []}]}), "json_fields", "blend"),
        (json!({"blend": vec![json!({"id": 0}); 65]}), "query_input", "64"),
        (json!({"queries": [{"id": 0}, {"blend": [{"image": "!"}]}]}), "image_base64", "query 1: blend[0]"),
        (json!({"blend": [{"text": "a", "weight": 1e39}]}), "weight_not_finite", "weight"),
    ] {
        let reply = server.search(&body);
        assert_eq!((reply.status, reply.code().as_str()), (422, code), "{body}: {}", reply.text());
        assert!(reply.text().contains(words), "{}", reply.text());
    }
    assert_eq!(server.search(&json!({"blend": [{"text": "a"}, {"id": 99}]})).status, 404);
}

#[test]
fn near_duplicates_give_way_to_further_hits() {
    let pairs = pairs(400);
    let server = serve(support::store(&pairs));
    for (row, limit, k) in
        [(3_usize, 0.95, 10), (17, 0.95, 100), (40, 0.5, 25), (5, 0.2, 40), (5, 1.0, 30), (80, -1.0, 5), (1, 0.95, 400)]
    {
        let ranked = ranked(&pairs, pairs[row].image.as_ref().expect("there"));
        let (kept, dropped) = distinct(&pairs, &ranked, limit, k);
        let answer = server.search(&json!({"id": row, "k": k, "near_duplicate": limit})).ok();
        assert_eq!(rows(&answer), kept, "row {row}, limit {limit}, k {k}");
        let result = &answer["results"][0];
        assert_eq!(result["near_duplicates"], json!(dropped), "row {row}, limit {limit}, k {k}");
        assert_eq!((&result["requested"], &result["degraded"]), (&json!(k), &json!(false)));
    }
    let whole = server.search(&json!({"id": 3, "k": 400, "near_duplicate": 0.95})).ok();
    assert!(rows(&whole).len() < 400 && rows(&whole).len() > 200, "the case must have duplicates: {}", rows(&whole).len());
}

#[test]
fn a_threshold_ends_the_search_for_further_hits() {
    let pairs = pairs(200);
    let server = serve(support::store(&pairs));
    let ranked = ranked(&pairs, pairs[3].image.as_ref().expect("there"));
    let above: Vec<(usize, f64)> = ranked.iter().copied().filter(|(_, score)| *score >= 0.5).collect();
    let (kept, _) = distinct(&pairs, &above, 0.95, 150);
    let answer = server.search(&json!({"id": 3, "k": 150, "near_duplicate": 0.95, "threshold": 0.5})).ok();
    assert_eq!(rows(&answer), kept);
    let below = answer["results"][0]["below_threshold"].as_u64().expect("a number") as usize;
    assert!(below > 0 && below <= 150 - kept.len(), "{below} of {}", 150 - kept.len());
}

#[test]
fn a_near_duplicate_limit_must_be_a_cosine() {
    let server = support::start(Limits::default());
    for limit in [1.1, -1.5] {
        let reply = server.search(&json!({"text": "a", "near_duplicate": limit}));
        assert_eq!((reply.status, reply.code().as_str()), (422, "near_duplicate_out_of_range"));
    }
}

#[test]
fn columns_say_which_metadata_comes() {
    let server = serve(support::store(&pairs(20)));
    let fields = |body: Json| server.search(&body).ok()["results"][0]["hits"][0]["fields"].clone();
    assert_eq!(fields(json!({"id": 4, "columns": ["width"]})), json!({"width": 4}));
    assert_eq!(fields(json!({"id": 4, "columns": []})), json!({}));
    assert_eq!(fields(json!({"id": 4, "columns": ["url", "width", "url"]})).as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(fields(json!({"id": 4, "include": ["fields"]})).as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(fields(json!({"id": 4})), Json::Null);
    let reply = server.search(&json!({"id": 4, "columns": ["width", "height"]}));
    assert_eq!((reply.status, reply.code().as_str()), (422, "column_unknown"));
    assert!(reply.text().contains("url, width"), "it names those there are: {}", reply.text());
}

/// Follows cursors to the end.
fn pages(server: &TestServer, body: &Json) -> Vec<Vec<usize>> {
    let mut body = body.clone();
    let mut pages = Vec::new();
    loop {
        let answer = server.search(&body).ok();
        pages.push(rows(&answer));
        let Some(next) = answer["next"].as_str() else { return pages };
        body["cursor"] = json!(next);
    }
}

#[test]
fn pages_are_pieces_of_the_one_list() {
    let server = serve(support::store(&pairs(130)));
    for k in [1, 25, 100, 127, 130] {
        for page in [1, 24, 25, 200] {
            let body = json!({"id": 3, "k": k, "page": page, "near_duplicate": 0.95, "include": ["caption"]});
            let whole = rows(&server.search(&json!({"id": 3, "k": k, "near_duplicate": 0.95})).ok());
            let pages = pages(&server, &body);
            assert_eq!(pages.concat(), whole, "k {k}, page {page}");
            assert!(pages.iter().rev().skip(1).all(|p| p.len() == page), "only the last page is short");
        }
    }
    let second = server.search(&json!({"id": 3, "k": 50, "page": 10, "include": ["caption"]})).ok();
    let mut body = json!({"include": ["caption"], "page": 10, "k": 50, "id": 3});
    body["cursor"] = second["next"].clone();
    let hits = server.search(&body).ok()["results"][0]["hits"].clone();
    assert!(hits[9]["caption"].is_string(), "records come for every page: {hits}");
}

#[test]
fn pages_of_an_approximate_search_neither_repeat_nor_lose_a_hit() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = Spec { encoder: FakeEncoder::new(DIM).fingerprint().to_owned(), dim: DIM };
    let mut writer = PoolWriter::open(dir.path(), &spec, &WriterOptions::default()).expect("a pool");
    writer.append(&pairs(3_000)).expect("appends");
    writer.commit(&Cancel::default()).expect("commits");
    let server = serve(Arc::new(Pool::open(dir.path(), &OpenOptions::default()).expect("opens")));
    let body = json!({"text": "a red apple", "k": 500, "page": 60, "effort": "fast"});
    let whole = rows(&server.search(&json!({"text": "a red apple", "k": 500, "effort": "fast"})).ok());
    assert_eq!(pages(&server, &body).concat(), whole);
    assert_eq!(whole.len(), 500);
}

#[test]
fn a_cursor_is_good_for_its_request_and_its_generation() {
    let server = support::start(Limits::default());
    let body = json!({"id": 2, "k": 6, "page": 2});
    let next = server.search(&body).ok()["next"].as_str().expect("a cursor").to_owned();
    let with = |cursor: &str, field: &str, value: Json| {
        let mut body = body.clone();
        (body["cursor"], body[field]) = (json!(cursor), value);
        server.search(&body)
    };
    assert_eq!(with(&next, "page", json!(2)).status, 200);
    for (cursor, field, value) in [
        (next.as_str(), "k", json!(5)),
        (next.as_str(), "id", json!(3)),
        (next.as_str(), "page", Json::Null),
        ("", "k", json!(6)),
        ("1-2", "k", json!(6)),
        ("x-y-z", "k", json!(6)),
        ("99999999999999999999999-2-0", "k", json!(6)),
    ] {
        let reply = with(cursor, field, value);
        assert_eq!((reply.status, reply.code().as_str()), (422, "cursor_refused"), "{cursor} {field}: {}", reply.text());
    }
    let gone = with(&next.replacen("1-", "7-", 1), "page", json!(2));
    assert_eq!((gone.status, gone.code().as_str()), (410, "generation_gone"));
    assert!(gone.text().contains('7') && gone.text().contains("search again"), "{}", gone.text());
    let none = server.search(&json!({"id": 2, "page": 0}));
    assert_eq!((none.status, none.code().as_str()), (422, "page_out_of_range"));
}

#[test]
fn a_vector_in_base64_is_the_vector_in_numbers() {
    let server = support::start(Limits::default());
    let values = text_vector("a red apple");
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let answer = |embedding: Json| {
        server.search(&json!({"embedding": embedding, "side": "text", "k": 5})).ok()["results"][0]["hits"].clone()
    };
    assert_eq!(answer(json!(support::base64(&bytes))), answer(json!(values)));
    let anchors = |embedding: Json| {
        let policy = json!({"directions": [{"from": "text", "to": "text"}]});
        let body = json!({"queries": [{"name": "q", "embedding": embedding}], "policy": policy});
        server.post("/v1/anchors", body.to_string()).ok()["results"].clone()
    };
    assert_eq!(anchors(json!(support::base64(&bytes))), anchors(json!(values)));
    for (text, words) in [("%%", "base64"), ("AAAA", "3 bytes"), ("", "0 values")] {
        let reply = server.search(&json!({"embedding": text}));
        assert_eq!(reply.status, 422, "{}", reply.text());
        assert!(reply.text().contains(words), "{}", reply.text());
    }
}
