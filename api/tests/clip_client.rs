//! clip-retrieval's own client and its page from its wheel, unmodified, against a running server. What the page does over pictures is in
//! `tests/system/browser.rs`.

#[path = "../../tests/clients/chromium.rs"]
mod chromium;
#[path = "../../tests/clients/clip_client.rs"]
mod client;
#[path = "../../tests/clients/python.rs"]
mod python;
mod support;

use std::{collections::BTreeMap, env, fs, path::Path, sync::Arc};

use anchorite_anchors::Retriever;
use anchorite_api::Limits;
use anchorite_encoder::fake::FakeEncoder;
use anchorite_index::Pair;
use serde_json::Value as Json;
use support::{CAPTIONS, DIM, RED, base64, pair, start, start_pools, store, text_vector};

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

#[test]
fn the_unmodified_page_shows_every_pair_of_a_pool_without_pictures() {
    let (Some(chromium), Some(wheel)) = (chromium::chromium(), client::installed()) else { return };
    let bare = |(row, caption)| Pair { fields: BTreeMap::new(), ..pair(row, Some(caption), None) };
    let pairs: Vec<Pair> = (0_u64..).zip(CAPTIONS).map(bare).collect();
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store(&pairs)).expect("they match");
    let server = start_pools(vec![("captions".to_owned(), retriever)], Limits::default());
    let url = server.url("");
    // Where a person wants to look at it.
    let screenshot = env::var_os("ANCHORITE_SCREENSHOTS").map(|folder| Path::new(&folder).join("front-captions.png"));
    let [checks, words] = ["pictureless", CAPTIONS[4]].map(Path::new);
    let mut args = vec![wheel.front(), Path::new(&url), checks, words, words];
    args.extend(screenshot.as_deref());
    assert_eq!(chromium.drive("front_drive.py", &args), ["pictureless"]);
}
