//! Every bad question gets its status, a stable code and a sentence that says what to do; never a 500, never a path.

mod support;

use anchorite_api::Limits;
use serde_json::{Value as Json, json};
use support::{BLUE, base64, start};

/// What is sent, the status, the code, and words the sentence must have.
type Case = (&'static str, String, u16, &'static str, &'static str);

#[expect(clippy::needless_pass_by_value, reason = "the table reads better without a hundred ampersands")]
fn case(name: &'static str, body: impl ToString, status: u16, code: &'static str, words: &'static str) -> Case {
    (name, body.to_string(), status, code, words)
}

fn search_cases() -> Vec<Case> {
    let picture = base64(BLUE);
    let broken_embedding = |middle: &str| format!(r#"{{"embedding": [0.1, {middle}, 0.2]}}"#);
    vec![
        case("unknown pool", json!({"text": "x", "pool": "nope"}), 404, "pool_not_found", "/v1/pools"),
        case("pool by path", json!({"text": "x", "pool": "../../etc/passwd"}), 404, "pool_not_found", "/v1/pools"),
        case("k = 0", json!({"text": "x", "k": 0}), 422, "k_out_of_range", "between 1 and 10000"),
        case("k too large", json!({"text": "x", "k": 10_001}), 422, "k_out_of_range", "between 1 and 10000"),
        case(
            "k negative",
            json!({"text": "x", "k": -1}),
            422,
            "json_fields",
            "k: invalid value: integer `-1`, expected a whole number",
        ),
        case(
            "k no number",
            json!({"text": "x", "k": "ten"}),
            422,
            "json_fields",
            "k: invalid type: string \"ten\", expected a whole",
        ),
        case("threshold no number", json!({"text": "x", "threshold": "0.3"}), 422, "json_fields", "expected a number at line 1"),
        case("a list of words", json!({"text": ["x"]}), 422, "json_fields", "text: invalid type: a list, expected a string"),
        case("a list for a body", json!(["x"]), 422, "json_fields", "a list, expected an object at line 1"),
        case(
            "words for a body",
            json!("x, expected usize"),
            422,
            "json_fields",
            "string \"x, expected usize\", expected an object",
        ),
        case("k enormous", r#"{"text": "x", "k": 99999999999999999999999}"#, 422, "json_fields", "k: "),
        case("NaN in the embedding", broken_embedding("NaN"), 400, "json_syntax", "finite"),
        case("Infinity in the embedding", broken_embedding("Infinity"), 400, "json_syntax", "finite"),
        case("null in the embedding", broken_embedding("null"), 422, "json_fields", "embedding[1]"),
        case("number out of range", broken_embedding("1e999"), 400, "json_syntax", "finite"),
        case("beyond f32", json!({"embedding": vec![1e300; support::DIM]}), 422, "embedding_values", "finite"),
        case("a zero embedding", json!({"embedding": vec![0.0; support::DIM]}), 422, "embedding_values", "not all zero"),
        case(
            "wrong dimension",
            json!({"embedding": [1.0, 2.0]}),
            422,
            "embedding_dimension",
            "has 2 values; this pool's have 16",
        ),
        case("an empty embedding", json!({"embedding": []}), 422, "embedding_dimension", "has 0 values"),
        case("bad base64", json!({"image": "%%%"}), 422, "image_base64", "base64"),
        case("no picture", json!({"image": base64(b"GIF89a, not really")}), 422, "image_unknown_format", "JPEG, PNG or WebP"),
        case("empty picture", json!({"image": ""}), 422, "image_empty", "empty"),
        case("data prefix only", json!({"image": "data:image/png;base64"}), 422, "image_empty", "empty"),
        case("two inputs", json!({"text": "x", "image": picture}), 422, "query_input", "text and image"),
        case("no input", json!({"k": 3}), 422, "query_input", "exactly one of"),
        case("both forms", json!({"text": "x", "queries": [{"text": "y"}]}), 422, "query_input", "queries"),
        case("two inputs in the second", json!({"queries": [{"id": 1}, {"id": 1, "key": "a"}]}), 422, "query_input", "query 1: "),
        case("no queries", json!({"queries": []}), 422, "query_count", "between 1 and"),
        case("too many queries", json!({"queries": vec![json!({"id": 1}); 257]}), 422, "query_count", "256"),
        case(
            "too many hits",
            json!({"queries": vec![json!({"id": 1}); 11], "k": 10_000}),
            422,
            "too_many_hits",
            "several requests",
        ),
        case(
            "too many records",
            json!({"queries": vec![json!({"id": 1}); 10], "k": 10_000, "limit": 10_000}),
            422,
            "too_many_records",
            "lower limit",
        ),
        case("unknown effort", json!({"text": "x", "effort": "heroic"}), 422, "json_fields", "effort: unknown variant `heroic`"),
        case("unknown side", json!({"text": "x", "side": "back"}), 422, "json_fields", "side: "),
        case("unknown part", json!({"text": "x", "include": ["smell"]}), 422, "json_fields", "include[0]: "),
        case("unknown field", json!({"text": "x", "topk": 3}), 422, "json_fields", "unknown field `topk`"),
        case(
            "unknown field within",
            json!({"queries": [{"txt": "x"}]}),
            422,
            "json_fields",
            "queries[0].txt: unknown field `txt`",
        ),
        case("empty text", json!({"text": ""}), 422, "text_empty", "at least one word"),
        case("white space", json!({"text": " \n\t"}), 422, "text_empty", "at least one word"),
        case("empty text in a batch", json!({"queries": [{"id": 0}, {"text": ""}]}), 422, "text_empty", "query 1: "),
        case("threshold no number", json!({"text": "x", "threshold": "high"}), 422, "json_fields", "threshold: "),
        case("threshold beyond f32", json!({"text": "x", "threshold": 1e300}), 422, "threshold_not_finite", "cosine"),
        case("no such row", json!({"id": 8}), 404, "pair_not_found", "rows are 0 to 7"),
        case("row far away", json!({"id": u64::MAX}), 404, "pair_not_found", "rows are 0 to 7"),
        case("row negative", json!({"id": -1}), 422, "json_fields", "id: "),
        case("no such key", json!({"key": "pair-99"}), 404, "pair_not_found", "pair-99"),
        case("no key at all", json!({"key": "a/b"}), 422, "key_malformed", "1 to 64 characters"),
        case("no vector of that side", json!({"id": 6, "from": "image"}), 422, "pair_without_vector", "its other side"),
        case("no such side", json!({"pool": "words", "text": "x"}), 422, "no_such_side", "other side"),
        case("not JSON", "text=apple", 400, "json_syntax", "not JSON"),
        case("half JSON", r#"{"text": "a"#, 400, "json_syntax", "not JSON"),
        case("more than JSON", r#"{"text": "a"} {"text": "b"}"#, 400, "json_syntax", "one JSON object"),
        case("empty body", "", 400, "json_syntax", "not JSON"),
        case("an array", "[1]", 422, "json_fields", "/openapi.json"),
        case("deep JSON", format!("{{\"queries\": {}", "[".repeat(100_000)), 422, "json_fields", "queries"),
        case("deep unknown JSON", format!("{{\"x\": {}", "[".repeat(100_000)), 422, "json_fields", "unknown field `x`"),
    ]
}

#[test]
fn every_bad_search_says_what_to_do() {
    let server = start(Limits::default());
    for (name, body, status, code, words) in search_cases() {
        let reply = server.post("/v1/search", body);
        let answer: Json = reply.json();
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{name}: {message}");
        assert!(message.contains(words), "{name}: {message:?} has no {words:?}");
        assert!(!message.contains(".rs") && !message.contains("panick"), "{name}: {message}");
        assert_eq!(answer["error"]["request_id"].as_str(), Some(reply.header("x-request-id")), "{name}");
    }
    assert_eq!(server.search(&json!({"text": "apple"})).status, 200, "and it still answers");
}

#[test]
fn a_body_over_the_limit_is_refused_whether_announced_or_chunked() {
    let server = start(Limits { search_body_bytes: 1000, ..Limits::default() });
    let body = json!({"text": "x".repeat(2000)}).to_string();
    let reply = server.post("/v1/search", &body);
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    let chunked = format!(
        "POST /v1/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let answer = support::raw(&server, chunked.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("1000 bytes"), "{answer}");
}

#[test]
fn pictures_that_do_not_fit_one_answer_are_refused_with_the_way_out() {
    let server = start(Limits { answer_bytes: 1000, ..Limits::default() });
    let one = server.search(&json!({"id": 0, "k": 1, "include": ["image"]}));
    assert_eq!(one.status, 200);
    let two = server.search(&json!({"id": 0, "k": 2, "include": ["image"]}));
    assert_eq!((two.status, two.code().as_str()), (422, "answer_too_large"), "{}", two.text());
}

#[test]
fn every_bad_path_says_what_to_do() {
    let server = start(Limits::default());
    let cases = [
        ("/v1/pools/nope", 404, "pool_not_found"),
        ("/v1/pools/nope/pairs/1", 404, "pool_not_found"),
        ("/v1/pools/fruit/pairs/99", 404, "pair_not_found"),
        ("/v1/pools/fruit/pairs/99999999999999999999999999", 404, "pair_not_found"),
        ("/v1/pools/fruit/pairs/nobody", 404, "pair_not_found"),
        ("/v1/pools/fruit/pairs/a%2Fb", 422, "key_malformed"),
        ("/v1/pools/fruit/pairs/%FF", 400, "path_malformed"),
        ("/v1/pools/fruit/pairs/-1", 404, "pair_not_found"),
        ("/v1/pools/fruit/pairs/abc?by=id", 422, "pair_id"),
        ("/v1/pools/fruit/pairs/1?by=magic", 422, "query_parameter"),
        ("/v1/pools/fruit/pairs/1?colour=red", 422, "query_parameter"),
        ("/v1/pools/fruit/pairs/6/image", 404, "no_picture"),
        ("/v1/pools/fruit/pairs/99/image", 404, "pair_not_found"),
        ("/nothing/here", 404, "route_not_found"),
        ("/v1/search", 405, "method_not_allowed"),
    ];
    for (path, status, code) in cases {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}: {}", reply.text());
    }
    assert_eq!(server.get("/v1/search").header("allow"), "POST");
}
