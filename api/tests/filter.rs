//! `POST /v1/search` with a filter.

mod support;

use anchorite_api::Limits;
use serde_json::{Value as Json, json};
use support::start;

fn ids(answer: &Json, query: usize) -> Vec<u64> {
    let hits = answer["results"][query]["hits"].as_array().expect("hits");
    let mut ids: Vec<u64> = hits.iter().map(|h| h["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn only_pairs_that_match_are_found() {
    let server = start(Limits::default());
    for (filter, expected) in [
        (json!({"range": {"field": "rank", "gte": 2, "lt": 5}}), vec![2, 3, 4]),
        (json!({"and": [{"range": {"field": "rank", "gt": 1}}, {"prefix": {"field": "caption", "value": "a "}}]}), vec![2, 4, 5]),
        (json!({"in": {"field": "key", "values": ["pair-0", "12345", "nowhere"]}}), vec![0, 7]),
        (json!({"or": [{"is_null": {"field": "caption"}}, {"eq": {"field": "caption", "value": "a yellow sun"}}]}), vec![5, 7]),
        (json!({"not": {"is_null": {"field": "url"}}}), vec![1]),
        (json!({"eq": {"field": "source", "value": "elsewhere.parquet"}}), vec![]),
        (Json::Null, vec![0, 1, 2, 3, 4, 5, 7]),
    ] {
        for effort in ["fast", "exact"] {
            let queries = json!([{"text": "a red apple"}, {"id": 2}]);
            let answer = server.search(&json!({"queries": queries, "k": 10, "filter": filter, "effort": effort})).ok();
            assert_eq!((ids(&answer, 0), ids(&answer, 1)), (expected.clone(), expected.clone()), "{filter}");
            assert_eq!(answer["results"][0]["degraded"], json!(false));
        }
    }
}

#[test]
fn a_filter_that_cannot_be_meant_is_a_422_that_names_the_place() {
    let server = start(Limits::default());
    let deep = (0..20).fold(json!({"is_null": {"field": "url"}}), |inner, _| json!({ "not": inner }));
    for (filter, code, says) in [
        (
            json!({"eq": {"field": "colour", "value": "red"}}),
            "filter_field_unknown",
            "no pair of this pool has a field \"colour\"; there are NSFW, license, rank, url",
        ),
        (json!({"eq": {"field": "rank", "value": "2"}}), "filter_field_type", "field \"rank\" holds a number"),
        (json!({"and": [{"eq": {"field": "rank"}}]}), "filter_malformed", "filter.and[0].eq: value is missing"),
        (json!("rank > 2"), "filter_malformed", "filter: give an object"),
        (json!([]), "filter_malformed", "filter: give an object"),
        (deep, "filter_too_large", "a depth of 17; at most 16"),
    ] {
        let reply = server.search(&json!({"text": "a red apple", "filter": filter}));
        assert_eq!((reply.status, reply.code().as_str()), (422, code), "{filter}");
        let answer = reply.json();
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{message}");
    }
}

/// The forms in `/openapi.json` are those that are read: every member it shows is taken, and it shows all there are.
#[test]
fn the_openapi_document_shows_the_whole_language() {
    let document = serde_json::to_value(anchorite_api::openapi()).expect("JSON");
    let schemas = &document["components"]["schemas"];
    let members = |name: &str| schemas[name]["properties"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let forms: Vec<String> = schemas["FilterForm"]["oneOf"]
        .as_array()
        .expect("forms")
        .iter()
        .map(|form| form["required"][0].as_str().expect("one member").to_owned())
        .collect();
    assert_eq!(forms, ["and", "or", "not", "eq", "in", "range", "prefix", "is_null"]);
    let none = anchorite_index::Filter::from_json(r#"{"none": 1}"#).expect_err("no such form").to_string();
    assert!(none.contains(&forms.join(", ")), "{none}");
    assert_eq!(members("FilterEquals"), ["field", "value"]);
    assert_eq!(members("FilterOneOf"), ["field", "values"]);
    assert_eq!(members("FilterBetween"), ["field", "gt", "gte", "lt", "lte"]);
    assert_eq!(members("FilterBegins"), ["field", "value"]);
    assert_eq!(members("FilterNamed"), ["field"]);
}
