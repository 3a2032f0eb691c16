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
    assert_eq!(answer["pool"], "fruit");
    assert_eq!(answer["generation"], 1);
    let first = &answer["results"][0]["hits"][0];
    assert_eq!((&first["id"], &first["key"], &first["caption"]), (&json!(0), &json!("pair-0"), &json!("a red apple")));
    assert!((first["score"].as_f64().expect("a score") - 1.0).abs() < 1e-5);
    assert_eq!(answer["results"][0]["hits"].as_array().expect("hits").len(), 3);
    assert_eq!(answer["results"][0]["degraded"], false);
    assert!(answer["results"][0]["took_ms"].as_f64().expect("a time") >= 0.0);
}
