//! `POST /v1/search` answers what was asked.

mod support;

use anchorite_api::Limits;
use serde_json::{Value as Json, json};
use support::{BLUE, CAPTIONS, GREEN, RED, base64, start, text_vector};

fn ids(result: &Json) -> Vec<u64> {
    result["hits"].as_array().expect("hits").iter().map(|h| h["id"].as_u64().expect("an id")).collect()
}

#[test]
fn words_find_the_caption_that_shares_them() {
    let server = start(Limits::default());
    let answer = server.search(&json!({"text": "a red apple", "side": "text", "k": 3, "include": ["caption"]})).ok();
    assert_eq!((&answer["pool"], &answer["generation"]), (&json!("fruit"), &json!(1)));
    let result = &answer["results"][0];
    let first = &result["hits"][0];
    assert_eq!((&first["id"], &first["key"], &first["caption"]), (&json!(0), &json!("pair-0"), &json!("a red apple")));
    assert!((first["score"].as_f64().expect("a score") - 1.0).abs() < 1e-5);
    assert_eq!(result["hits"].as_array().expect("hits").len(), 3);
    assert_eq!((&result["degraded"], &result["requested"]), (&json!(false), &json!(3)));
    assert!(result["took_ms"].as_f64().expect("a time") >= 0.0);
}

#[test]
fn a_picture_finds_itself_with_or_without_a_data_prefix_or_padding() {
    let server = start(Limits::default());
    let plain = base64(BLUE);
    for image in [plain.clone(), format!("data:image/jpeg;base64,{plain}"), plain.trim_end_matches('=').to_owned()] {
        let answer = server.search(&json!({"image": image, "k": 1})).ok();
        assert_eq!(ids(&answer["results"][0]), [2]);
    }
}

#[test]
fn equal_scores_come_in_row_order() {
    let server = start(Limits::default());
    let answer = server.search(&json!({"image": base64(RED), "k": 2})).ok();
    assert_eq!(ids(&answer["results"][0]), [0, 3]);
}

#[test]
fn an_embedding_of_any_length_finds_its_direction() {
    let server = start(Limits::default());
    let long: Vec<f32> = text_vector(CAPTIONS[4]).iter().map(|v| v * 250.0).collect();
    let answer = server.search(&json!({"embedding": long, "side": "text", "k": 1})).ok();
    assert_eq!(ids(&answer["results"][0]), [4]);
    assert!(answer["results"][0]["hits"][0]["score"].as_f64().expect("a score") <= 1.0);
}

#[test]
fn a_stored_pair_is_a_query_by_row_by_key_and_from_either_side() {
    let server = start(Limits::default());
    let found = |body: Json| ids(&server.search(&body).ok()["results"][0]);
    assert_eq!(found(json!({"id": 2, "k": 1})), [2]);
    assert_eq!(found(json!({"key": "pair-4", "k": 1})), [4]);
    assert_eq!(found(json!({"key": "12345", "k": 1})), [1], "row 7's picture is row 1's, which comes first");
    assert_eq!(found(json!({"id": 5, "from": "text", "side": "text", "k": 1})), [5]);
    assert_eq!(found(json!({"id": 6, "side": "text", "k": 1})), [6], "no picture vector: its caption's is used");
}

#[test]
fn many_queries_of_all_kinds_are_answered_in_order() {
    let server = start(Limits::default());
    let queries = json!([
        {"image": base64(GREEN)}, {"text": "a yellow sun"}, {"id": 4}, {"image": base64(BLUE)},
        {"embedding": support::picture_vector(RED)}, {"key": "pair-2"},
    ]);
    let answer = server.search(&json!({"queries": queries, "k": 1})).ok();
    let results = answer["results"].as_array().expect("results");
    let firsts: Vec<u64> = results.iter().map(|r| ids(r)[0]).collect();
    assert_eq!((firsts[0], &firsts[2..]), (1, &[4, 2, 0, 2][..]));
    let alone = server.search(&json!({"text": "a yellow sun", "k": 1})).ok();
    assert_eq!(results[1]["hits"], alone["results"][0]["hits"], "a query in a batch is the query alone");
}

#[test]
fn the_threshold_drops_hits_and_says_how_many() {
    let server = start(Limits::default());
    let all = server.search(&json!({"image": base64(RED), "k": 10})).ok();
    let some = server.search(&json!({"image": base64(RED), "k": 10, "threshold": 0.99})).ok();
    assert_eq!(ids(&some["results"][0]), [0, 3]);
    let total = all["results"][0]["hits"].as_array().expect("hits").len();
    assert_eq!(some["results"][0]["below_threshold"], json!(total - 2));
}

#[test]
fn records_come_for_the_first_hits_only_and_carry_only_what_is_included() {
    let server = start(Limits::default());
    let names = |hit: &Json| hit.as_object().expect("a hit").keys().cloned().collect::<Vec<_>>();
    let bare = server.search(&json!({"id": 0, "k": 3, "limit": 0})).ok();
    assert_eq!(names(&bare["results"][0]["hits"][0]), ["id", "score"]);
    let include = json!(["caption", "fields", "image", "vectors", "source"]);
    let full = server.search(&json!({"id": 0, "k": 3, "limit": 2, "include": include})).ok();
    let hits = full["results"][0]["hits"].as_array().expect("hits");
    assert_eq!(names(&hits[2]), ["id", "score"]);
    let mut expected = vec!["id", "score", "key", "caption", "fields", "image", "vectors", "source", "has_image"];
    expected.sort_unstable();
    assert_eq!(names(&hits[0]), expected);
    assert_eq!(hits[0]["image"], json!(base64(RED)), "the stored bytes as they are");
    assert_eq!(hits[0]["has_image"], json!(true));
    let captions = server.search(&json!({"id": 6, "side": "text", "k": 1})).ok();
    assert_eq!(captions["results"][0]["hits"][0]["has_image"], json!(false), "row 6 is words alone");
    assert_eq!(hits[0]["fields"], json!({"license": "CC0", "rank": 0}));
    assert_eq!((&hits[0]["source"]["file"], &hits[0]["source"]["row"]), (&json!("fruit.parquet"), &json!(0)));
    assert_eq!(hits[0]["vectors"]["image"].as_array().expect("a vector").len(), support::DIM);
    assert_eq!(hits[0]["vectors"]["text"].as_array().expect("a vector").len(), support::DIM);
}

#[test]
fn another_pool_is_searched_by_name_at_every_effort() {
    let server = start(Limits::default());
    for effort in ["fast", "normal", "high", "exact"] {
        let answer =
            server.search(&json!({"pool": "words", "side": "text", "text": "a blue boat", "k": 1, "effort": effort})).ok();
        assert_eq!((&answer["pool"], ids(&answer["results"][0])), (&json!("words"), vec![2]));
    }
}

#[test]
fn null_is_absent() {
    let server = start(Limits::default());
    let answer =
        server.search(&json!({"id": 2, "text": null, "image": null, "k": null, "include": null, "threshold": null})).ok();
    assert_eq!(ids(&answer["results"][0])[0], 2);
}

#[test]
fn k_of_ten_thousand_works() {
    let server = start(Limits::default());
    assert_eq!(ids(&server.search(&json!({"id": 2, "k": 10_000})).ok()["results"][0]).len(), 7, "every row with a picture");
}
