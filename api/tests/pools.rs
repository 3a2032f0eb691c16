//! Pools, pairs, stored pictures, and the page.

mod support;

use anchorite_anchors::Retriever;
use anchorite_api::{App, AppError, Limits, Options};
use anchorite_encoder::fake::FakeEncoder;
use anchorite_index::StoreError;
use serde_json::json;
use support::{DIM, GREEN, PNG, RED, WEBP, fruit, start, store};

#[test]
fn pools_are_listed_in_order_with_their_counts() {
    let server = start(Limits::default());
    let pools = server.get("/v1/pools").ok()["pools"].clone();
    assert_eq!((&pools[0]["name"], &pools[1]["name"]), (&json!("fruit"), &json!("words")));
    let fruit = server.get("/v1/pools/fruit").ok();
    assert_eq!(fruit, pools[0]);
    let expected = json!({"name": "fruit", "rows": 8, "image_rows": 7, "text_rows": 7, "generation": 1, "dim": DIM,
        "model": "fake", "fingerprint": "fake-16", "max_k": 10_000, "precision": "f32"});
    assert_eq!(fruit, expected);
}

#[test]
fn a_pair_is_found_by_row_by_key_and_by_a_key_made_of_digits() {
    let server = start(Limits::default());
    let by_row = server.get("/v1/pools/fruit/pairs/1").ok();
    assert_eq!(by_row, server.get("/v1/pools/fruit/pairs/pair-1").ok());
    assert_eq!((&by_row["caption"], &by_row["image_url"]), (&json!("a green apple"), &json!("/v1/pools/fruit/pairs/1/image")));
    assert_eq!(by_row["source"]["content"], json!("01".repeat(32)));
    let digits = server.get("/v1/pools/fruit/pairs/12345?by=key").ok();
    assert_eq!((&digits["id"], &digits["caption"]), (&json!(7), &json!(null)));
    assert_eq!(server.get("/v1/pools/fruit/pairs/6").ok()["image_url"], json!(null));
}

#[test]
fn a_picture_is_its_stored_bytes_with_the_type_of_its_content() {
    let server = start(Limits::default());
    for (id, bytes, kind) in
        [("0", RED, "image/jpeg"), ("4", PNG, "image/png"), ("5", WEBP, "image/webp"), ("pair-1", GREEN, "image/jpeg")]
    {
        let reply = server.get(&format!("/v1/pools/fruit/pairs/{id}/image"));
        assert_eq!((reply.status, reply.header("content-type")), (200, kind));
        assert_eq!(reply.body, bytes);
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("content-security-policy"), "default-src 'none'; sandbox");
    }
}

#[test]
fn an_unchanged_picture_is_not_sent_again() {
    let server = start(Limits::default());
    let etag = server.get("/v1/pools/fruit/pairs/0/image").header("etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", "00".repeat(32)), "the content hash");
    let request = ureq::http::Request::get(server.url("/v1/pools/fruit/pairs/0/image")).header("if-none-match", &etag);
    let reply = server.send(request.body(Vec::new()).expect("a request"));
    assert_eq!((reply.status, reply.body.len(), reply.header("etag")), (304, 0, etag.as_str()));
}

#[test]
fn a_pool_of_another_encoder_is_refused() {
    let other = Retriever::new(std::sync::Arc::new(FakeEncoder::new(DIM + 1)), store(&fruit()));
    let error = other.expect_err("they do not match");
    assert!(matches!(error, StoreError::SpecMismatch { pool_dim: DIM, .. }), "{error}");
    assert!(error.to_string().contains("use that model, or a new pool"));
}

#[test]
fn pools_without_a_usable_name_are_refused() {
    let pool = || Retriever::new(std::sync::Arc::new(FakeEncoder::new(DIM)), store(&fruit())).expect("they match");
    let made = |names: &[&str]| App::new(names.iter().map(|n| ((*n).to_owned(), pool())).collect(), Options::default()).map(drop);
    assert_eq!(made(&[]), Err(AppError::NoPool));
    assert_eq!(made(&["a", "a"]), Err(AppError::TwoPools { name: "a".to_owned() }));
    for name in ["", "a/b", "..", "a b", "\u{e9}"] {
        assert_eq!(made(&[name]), Err(AppError::Name { name: name.to_owned() }));
    }
    assert_eq!(made(&["cc3m-2026.v1_a"]), Ok(()));
}
