//! clip-retrieval's own client from its wheel, unmodified, against a running server.

#[path = "../../tests/clients/clip_client.rs"]
mod client;
#[path = "../../tests/clients/python.rs"]
mod python;
mod support;

use std::fs;

use anchorite_api::Limits;
use serde_json::Value as Json;
use support::{CAPTIONS, RED, base64, start, text_vector};

fn ids(results: &Json) -> Vec<u64> {
    results.as_array().unwrap_or_else(|| panic!("no array: {results}")).iter().map(|r| r["id"].as_u64().expect("an id")).collect()
}

#[test]
fn the_unmodified_client_gets_correct_answers() {
    let Some(client) = client::installed() else { return };
    let server = start(Limits::default());
    let files = tempfile::tempdir().expect("a folder");
    let (picture, embedding) = (files.path().join("red.jpg"), files.path().join("embedding.json"));
    fs::write(&picture, RED).expect("writes");
    fs::write(&embedding, serde_json::json!(text_vector(CAPTIONS[4])).to_string()).expect("writes");
    let mut drive = client.drive(&server.url(""), "fruit", CAPTIONS[1]);
    let answers = client::answers(drive.args([picture, embedding]));

    let text = &answers["text"];
    assert_eq!((ids(text).len(), ids(text)[0]), (3, 1));
    for field in ["url", "caption", "similarity", "id"] {
        assert!(!text[0][field].is_null(), "upstream's own test looks for {field}: {text}");
    }
    assert_eq!(text[0]["caption"], CAPTIONS[1]);
    assert_eq!(ids(&answers["text_defaults"]).len(), 5, "seven rows have pictures, two of them repeat another's");
    assert_eq!((ids(&answers["image"]), &answers["image"][0]["image"]), (vec![0, 3], &base64(RED).into()));
    assert_eq!(ids(&answers["image_deduplicated"]), [0], "the client asks for deduplication unless told otherwise");
    assert_eq!(ids(&answers["embedding"]), [4]);
    let message = |name: &str| answers[name]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message("unknown_index").contains("no-such-index"), "{}", answers["unknown_index"]);
    assert!(message("wrong_dimension").contains("17 values"), "{}", answers["wrong_dimension"]);
}
