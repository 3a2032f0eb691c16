//! `POST /v1/manifest`: chosen pairs as a file that the rest of the system reads.

mod support;

use anchorite_anchors::{Limits as CurateLimits, hits, manifest};
use anchorite_api::Limits;
use anchorite_index::{Cancel, Key, RowId};
use serde_json::{Value as Json, json};
use support::{fruit, start, store};

fn chosen() -> Json {
    json!([
        {"id": 3, "query": "apples", "score": 0.5},
        {"key": "pair-5"},
        {"id": 0, "query": "apples", "score": 0.75},
        {"id": 0, "query": "red"},
    ])
}

#[test]
fn chosen_pairs_come_back_as_a_manifest_that_verifies() {
    let server = start(Limits::default());
    let reply = server.post("/v1/manifest", json!({"pairs": chosen(), "generation": 1}).to_string());
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/vnd.apache.parquet"));
    assert!(reply.header("content-disposition").starts_with("attachment"));
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("anchors.parquet");
    std::fs::write(&path, &reply.body).expect("writes");
    let read = manifest::read(&path).expect("a manifest");
    assert_eq!((read.header.search.as_str(), read.header.report.found, read.header.queries.count), ("chosen", 4, 2));
    // Without a query first, then by query in the order in which they came.
    let rows: Vec<u64> = read.anchors.iter().map(|anchor| anchor.row.0).collect();
    assert_eq!(rows, [5, 3, 0, 0]);
    assert_eq!((&read.anchors[0].key, read.anchors[0].row), (&Key::new("pair-5").expect("a key"), RowId(5)));
    let coverage = manifest::verify(&read, &*store(&fruit()), &CurateLimits::default(), &Cancel::default()).expect("looks");
    assert_eq!((coverage.anchors, coverage.same, coverage.same_encoder), (4, 4, true));
    let seen: Vec<(Option<String>, Option<f32>)> =
        hits(&path, 10).expect("rows").into_iter().map(|hit| (hit.query, hit.score)).collect();
    let named = |name: &str, score| (Some(name.to_owned()), score);
    assert_eq!(seen, [(None, None), named("apples", Some(0.5)), named("apples", Some(0.75)), named("red", None)]);
}

#[test]
fn the_same_manifest_comes_as_json_where_it_is_asked_for() {
    let server = start(Limits::default());
    let body = json!({"pairs": chosen()}).to_string();
    let request = ureq::http::Request::post(server.url("/v1/manifest")).header("accept", "application/json");
    let reply = server.send(request.body(body.into_bytes()).expect("a request"));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("content-disposition"), "attachment; filename=\"anchors.json\"");
    let answer = reply.ok();
    assert_eq!((&answer["header"]["search"], &answer["header"]["report"]["found"]), (&json!("chosen"), &json!(4)));
    let rows: Vec<Json> =
        answer["rows"].as_array().expect("rows").iter().map(|row| json!([row["row"], row["query"], row["score"]])).collect();
    assert_eq!(Json::from(rows), json!([[5, null, null], [3, "apples", 0.5], [0, "apples", 0.75], [0, "red", null]]));
    let first = &answer["rows"][1];
    assert_eq!((&first["direction"], &first["kept"], &first["split"]), (&json!("chosen"), &json!(true), &json!("train")));
    assert_eq!(first["content"].as_str().map(str::len), Some(64));
}

#[test]
fn equal_choices_give_equal_bytes() {
    let server = start(Limits::default());
    let body = json!({"pairs": chosen()}).to_string();
    assert_eq!(server.post("/v1/manifest", &body).body, server.post("/v1/manifest", &body).body);
}

#[test]
fn choices_that_name_no_pair_are_refused_with_their_place() {
    let server = start(Limits::default());
    for (pairs, status, code, words) in [
        (json!([]), 422, "no_pairs", "at least one"),
        (json!([{"id": 0}, {}]), 422, "pair_id", "pairs[1]"),
        (json!([{"id": 0, "key": "pair-0"}]), 422, "pair_id", "pairs[0]"),
        (json!([{"key": ""}]), 422, "key_malformed", "pairs[0]"),
        (json!([{"id": 0, "query": ""}]), 422, "query_name", "1024"),
        (json!([{"id": 0, "score": 1e39}]), 422, "score_not_finite", "pairs[0]"),
        (json!([{"id": 0}, {"id": 0}]), 422, "pair_twice", "row 0"),
        (json!([{"id": 99}]), 404, "pair_not_found", "row 99"),
        (json!([{"key": "absent"}]), 404, "pair_not_found", "pairs[0]"),
        (json!(vec![json!({"id": 0}); 10_001]), 422, "too_many_ids", "10000"),
    ] {
        let reply = server.post("/v1/manifest", json!({"pairs": pairs}).to_string());
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
        assert!(reply.text().contains(words), "{}", reply.text());
    }
    let gone = server.post("/v1/manifest", json!({"pairs": [{"id": 0}], "generation": 2}).to_string());
    assert_eq!((gone.status, gone.code().as_str()), (410, "generation_gone"));
}
