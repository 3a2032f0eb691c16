//! `POST /v1/anchors`: policies over HTTP, as JSON and as a stream that is read while it is made.

mod support;

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anchorite_api::Limits;
use anchorite_encoder::{Encode as _, fake::FakeEncoder};
use arrow_array::{Array as _, RecordBatch, cast::AsArray as _, types::UInt32Type};
use arrow_ipc::reader::StreamReader;
use serde_json::{Value as Json, json};
use support::{CAPTIONS, DIM, GREEN, RED, Reply, TestServer, Tricky, base64, raw, start, start_with, text_vector};

const ARROW: &str = "application/vnd.apache.arrow.stream";

fn ask(server: &TestServer, body: &Json) -> Reply {
    server.post("/v1/anchors", body.to_string())
}

fn ask_arrow(server: &TestServer, body: &Json) -> Reply {
    let request = ureq::http::Request::post(server.url("/v1/anchors")).header("accept", ARROW);
    server.send(request.body(body.to_string().into_bytes()).expect("a request"))
}

fn read(reply: &Reply) -> (Json, Vec<RecordBatch>) {
    assert_eq!((reply.status, reply.header("content-type")), (200, ARROW), "{}", String::from_utf8_lossy(&reply.body));
    let reader = StreamReader::try_new(Cursor::new(&reply.body), None).expect("a schema");
    let head = serde_json::from_str(&reader.schema().metadata()["anchorite.anchors"]).expect("JSON");
    (head, reader.collect::<Result<_, _>>().expect("batches to the end"))
}

/// No near-duplicate rule: the pool repeats pictures on purpose.
fn policy(k: usize) -> Json {
    json!({"select": {"k": k, "near_duplicate": false}})
}

fn from_text(k: usize) -> Json {
    json!({"directions": [{"from": "text", "to": "text"}], "select": {"k": k, "near_duplicate": false}})
}

fn keys(result: &Json) -> Vec<&str> {
    result["anchors"].as_array().expect("anchors").iter().map(|a| a["key"].as_str().expect("a key")).collect()
}

#[test]
fn each_kind_of_query_gets_its_anchors_and_the_answer_names_what_answered() {
    let server = start(Limits::default());
    let answer = ask(
        &server,
        &json!({"queries": [
            {"name": "mine", "image": base64(RED)},
            {"embedding": support::picture_vector(GREEN)},
            {"id": 2},
            {"key": "pair-4"},
        ], "policy": policy(1)}),
    )
    .ok();
    assert_eq!((&answer["pool"], &answer["generation"], &answer["search"]), (&json!("fruit"), &json!(1), &json!("exact")));
    assert_eq!(answer["encoder"], FakeEncoder::new(DIM).fingerprint());
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.iter().map(|r| keys(r)[0]).collect::<Vec<_>>(), ["pair-0", "pair-1", "pair-2", "pair-4"]);
    assert_eq!((&results[0]["name"], &results[0]["found"], &results[0]["ended"]), (&json!("mine"), &json!(1), &json!("met")));
    let first = &results[0]["anchors"][0];
    assert_eq!((&first["id"], &first["caption"], &first["rank"]), (&json!(0), &json!(CAPTIONS[0]), &json!(0)));
    assert!((first["score"].as_f64().expect("a score") - 1.0).abs() < 1e-5, "{first}");
    assert_eq!((&answer["report"]["requested"], &answer["report"]["found"]), (&json!(4), &json!(4)));
    assert!(first.get("image").is_none() && first.get("fields").is_none(), "only what is asked for: {first}");
}

#[test]
fn words_and_pictures_of_one_query_are_fused_as_the_policy_says() {
    let server = start(Limits::default());
    let directions = json!([{"from": "image", "to": "image"}, {"from": "text", "to": "text"}]);
    let policy = json!({"directions": directions, "select": {"k": 1, "near_duplicate": false}});
    let body = json!({"queries": [{"text": CAPTIONS[3], "image": base64(RED)}], "policy": policy});
    assert_eq!(keys(&ask(&server, &body).ok()["results"][0]), ["pair-3"], "the same picture, but its own words");
}

#[test]
fn parts_come_when_asked_for() {
    let server = start(Limits::default());
    let body = json!({"queries": [{"image": base64(RED)}], "policy": policy(1), "include": ["image", "fields", "vectors"]});
    let anchor = ask(&server, &body).ok()["results"][0]["anchors"][0].take();
    assert_eq!((&anchor["image"], &anchor["fields"]["license"]), (&json!(base64(RED)), &json!("CC0")));
    assert_eq!(anchor["vectors"]["image"].as_array().expect("a vector").len(), DIM);
}

#[test]
fn a_set_shares_out_and_counts_what_is_missing() {
    let server = start(Limits::default());
    let queries: Vec<Json> = (0..4).map(|_| json!({"image": base64(RED)})).collect();
    let answer = ask(&server, &json!({"queries": queries, "policy": policy(4)})).ok();
    let report = &answer["report"];
    assert_eq!((&report["requested"], &report["found"], &report["shortfall"]), (&json!(16), &json!(7), &json!(9)));
    assert_eq!(answer["results"][3]["ended"], "pool_exhausted");
    assert!(report["dropped"]["already_taken"].as_u64().expect("a count") > 0, "{report}");
    assert_eq!(report["unlisted"], report["dropped"]["already_taken"], "counted, not listed");
}

#[test]
fn samples_are_the_same_in_any_batch_and_others_in_another_epoch() {
    let server = start(Limits::default());
    let queries: Vec<Json> = CAPTIONS.iter().map(|c| json!({"text": c})).collect();
    let of = |queries: &[Json], epoch: u64| {
        let sample = json!({"k": 2, "seed": 3, "epoch": epoch});
        let answer = ask(&server, &json!({"queries": queries, "policy": from_text(6), "sample": sample})).ok();
        let results = answer["results"].as_array().expect("results").clone();
        let named = |r: &Json| (r["name"].to_string(), keys(r).join(" "));
        results.iter().map(named).collect::<BTreeMap<String, String>>()
    };
    let first = of(&queries, 0);
    assert_eq!(first.len(), CAPTIONS.len(), "names tell queries apart");
    assert_eq!(first, of(&queries.iter().rev().cloned().collect::<Vec<_>>(), 0));
    let alone = of(&queries[2..3], 0);
    assert_eq!(alone.values().next(), first.get(alone.keys().next().expect("a query")));
    assert!((1..5).any(|epoch| of(&queries, epoch) != first));
}

#[test]
fn arrow_says_the_same_as_json_in_batches_of_whole_queries() {
    let server = start(Limits::default());
    let queries: Vec<Json> = CAPTIONS.iter().map(|c| json!({"text": c})).collect();
    let body =
        json!({"queries": queries, "policy": from_text(1), "include": ["image", "fields", "vectors"], "queries_per_batch": 2});
    let expected = ask(&server, &body).ok();
    let (head, batches) = read(&ask_arrow(&server, &body));
    for field in ["pool", "generation", "encoder", "model", "search", "report"] {
        assert_eq!(head[field], expected[field], "{field}");
    }
    assert_eq!((batches.len(), &head["batches"]), (3, &json!(3)));
    let mut row = 0;
    for (place, batch) in batches.iter().enumerate() {
        let texts = |name: &str| batch[name].as_string::<i32>().clone();
        for i in 0..batch.num_rows() {
            let query = batch["query"].as_primitive::<UInt32Type>().value(i) as usize;
            assert_eq!(query / 2, place, "two queries a batch");
            let anchor = &expected["results"][query]["anchors"][0];
            assert_eq!(head["queries"][query]["name"], texts("name").value(i));
            assert_eq!(
                (texts("key").value(i), texts("caption").value(i)),
                (anchor["key"].as_str().unwrap_or(""), anchor["caption"].as_str().unwrap_or(""))
            );
            assert_eq!(serde_json::from_str::<Json>(texts("fields").value(i)).expect("JSON"), anchor["fields"]);
            assert_eq!(base64(batch["image"].as_binary::<i32>().value(i)), anchor["image"]);
            row += 1;
        }
    }
    assert_eq!(row, expected["report"]["found"].as_u64().expect("a count") as usize);
}

#[test]
fn pixels_are_what_the_model_takes() {
    let server = start(Limits::default());
    let body = json!({"queries": [{"text": "words without a picture"}, {"text": CAPTIONS[0]}], "policy": from_text(1), "include": ["pixels"]});
    let (_, batches) = read(&ask_arrow(&server, &body));
    let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
    let expected = FakeEncoder::new(DIM).prepare_image(RED).expect("a picture");
    let schema = batch.schema();
    let field = schema.field_with_name("pixels").expect("pixels");
    assert_eq!(field.metadata()["ARROW:extension:metadata"], format!("{{\"shape\":[3,{},{}]}}", expected.height, expected.width));
    let pixels = batch["pixels"].as_fixed_size_list();
    assert!(pixels.is_null(0), "no picture is kept of the first");
    let values = pixels.value(1);
    assert_eq!(values.as_primitive::<arrow_array::types::Float32Type>().values(), &expected.values[..]);
    let refused = ask(&server, &body);
    assert_eq!((refused.status, refused.code().as_str()), (422, "pixels_need_arrow"));
}

#[test]
fn controls_answer_without_queries() {
    let server = start(Limits::default());
    let policy = json!({"control": {"kind": "random"}, "select": {"k": 2, "near_duplicate": false}});
    let body = json!({"queries": [{"image": base64(RED)}, {"image": base64(GREEN)}], "policy": policy, "sample": {"k": 2}});
    let answer = ask(&server, &body).ok();
    assert_eq!((&answer["results"][0]["name"], keys(&answer["results"][0]).len()), (&Json::Null, 4));
    let (_, batches) = read(&ask_arrow(&server, &body));
    assert!(batches[0]["query"].is_null(0) && batches[0].num_rows() == 4);
}

#[test]
fn bad_requests_are_refused_by_name() {
    let limits = Limits { max_anchor_queries: 3, max_anchors: 20, max_anchor_hits: 100, ..Limits::default() };
    let server = start(limits);
    let text = json!({"text": "apple"});
    let image = json!({"image": base64(RED)});
    let cases = [
        (json!({"queries": []}), "query_count", "between 1 and 3"),
        (json!({"queries": [text, text, text, text]}), "query_count", "4 queries"),
        (json!({"queries": [{}]}), "query_input", "query 0"),
        (json!({"queries": [image, {"text": "a", "id": 1}]}), "query_input", "query 1"),
        (json!({"queries": [text]}), "query_refused", "it has no picture"),
        (json!({"queries": [image, {"image": base64(b"words")}]}), "query_refused", "not a JPEG, PNG or WebP picture"),
        (json!({"queries": [{"image": "!"}]}), "image_base64", "query 0"),
        (json!({"queries": [{"embedding": [1.0]}]}), "embedding_dimension", "16"),
        (json!({"queries": [{"key": "a/../\u{0}"}]}), "key_malformed", "query 0"),
        (json!({"queries": [{"name": "", "text": "a"}]}), "query_name", "query 0"),
        (json!({"queries": [image], "policy": {"select": {"k": 0}}}), "policy_refused", "select.k"),
        (json!({"queries": [image], "policy": {"select": {"q": 1}}}), "json_fields", "policy.select.q"),
        (
            json!({"queries": [image], "policy": {"protect": {"sets": [{"name": "a", "source": "/etc"}]}}}),
            "policy_refused",
            "protect.sets",
        ),
        (json!({"queries": [image], "policy": {"select": {"k": 21}}}), "too_many_anchors", "20 anchors"),
        (
            json!({"queries": [image], "policy": {"select": {"k": 3, "diversity": {"kind": "mmr", "shortlist": 90}}}}),
            "too_many_hits",
            "100 hits",
        ),
        (json!({"queries": [image], "sample": {"k": 5}}), "policy_refused", "select.k"),
        (json!({"queries": [image], "policy": {"validation": 0.5}, "sample": {"k": 1}}), "policy_refused", "validation"),
        (json!({"queries": [image], "queries_per_batch": 0}), "batch_size", "at least 1"),
        (json!({"queries": [image], "policy": {"select": {"class": {"quota": 1}}}}), "query_without_class", "no class"),
    ];
    for (body, code, part) in cases {
        let reply = ask(&server, &body);
        assert_eq!((reply.status, reply.code().as_str()), (422, code), "{body}: {}", reply.text());
        assert!(reply.text().contains(part), "no {part:?} in {}", reply.text());
        assert_eq!(ask_arrow(&server, &body).status, 422, "the same before a stream begins: {body}");
    }
    for (body, code) in
        [(json!({"queries": [{"id": 99}]}), "pair_not_found"), (json!({"queries": [{"key": "nope"}]}), "pair_not_found")]
    {
        let reply = ask(&server, &body);
        assert_eq!((reply.status, reply.code().as_str()), (404, code), "{}", reply.text());
    }
}

#[test]
fn a_json_answer_too_large_is_refused_and_a_stream_is_not() {
    let server = start(Limits { answer_bytes: RED.len(), ..Limits::default() });
    let body = json!({"queries": [{"image": base64(RED)}], "policy": policy(3), "include": ["image"]});
    assert_eq!(ask(&server, &body).code(), "answer_too_large");
    assert_eq!(read(&ask_arrow(&server, &body)).1[0].num_rows(), 3);
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let server = start(Limits { max_streams: 0, ..Limits::default() });
    let reply = ask_arrow(&server, &json!({"queries": [{"image": base64(RED)}]}));
    assert_eq!((reply.status, reply.code().as_str()), (429, "too_busy"));
}

/// Sends a request for a stream of many batches and reads only the head of the answer.
fn half_read(server: &TestServer, queries: usize) -> TcpStream {
    let queries: Vec<Json> = (0..queries).map(|_| json!({"text": CAPTIONS[0]})).collect();
    let body =
        json!({"queries": queries, "policy": from_text(6), "sample": {"k": 6}, "include": ["pixels"], "queries_per_batch": 1})
            .to_string();
    let mut stream = TcpStream::connect(server.address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    write!(stream, "POST /v1/anchors HTTP/1.1\r\nhost: x\r\naccept: {ARROW}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("sends");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} never came about");
        std::thread::yield_now();
    }
}

fn free(server: &TestServer) -> bool {
    ask_arrow(server, &json!({"queries": [{"text": CAPTIONS[0]}], "policy": from_text(1)})).status == 200
}

#[test]
fn a_client_that_leaves_frees_its_stream() {
    let server = start(Limits { max_streams: 1, max_anchors: 51_200, ..Limits::default() });
    let stream = half_read(&server, 512);
    assert!(!free(&server), "one stream is open, and its answer is larger than sockets hold");
    drop(stream);
    eventually("a free stream", || free(&server));
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let server = start(Limits { max_streams: 1, stall_timeout: Duration::from_millis(100), ..Limits::default() });
    let stream = half_read(&server, 512);
    eventually("a free stream", || free(&server));
    drop(stream);
}

#[test]
fn encoding_for_a_client_that_has_left_ends_at_the_next_batch() {
    let (encoder, hand) = Tricky::new();
    let server = start_with(&encoder, Limits { max_in_flight: 1, ..Limits::default() });
    let queries: Vec<Json> = std::iter::once("wait").chain(CAPTIONS).map(|c| json!({"text": c})).collect();
    let body = json!({"queries": queries, "policy": from_text(1)}).to_string();
    let mut stream = TcpStream::connect(server.address).expect("connects");
    write!(stream, "POST /v1/anchors HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("sends");
    hand.entered.recv().expect("it computes");
    drop(stream);
    hand.open.send(()).expect("it waits");
    eventually("a free permit", || server.search(&json!({"text": "apple"})).status == 200);
}

#[test]
fn text_vectors_ask_for_pictures_too() {
    let server = start(Limits::default());
    let policy = json!({"directions": [{"from": "text", "to": "text"}], "select": {"k": 1}});
    let body = json!({"queries": [{"embedding": text_vector(CAPTIONS[5])}], "policy": policy});
    assert_eq!(keys(&ask(&server, &body).ok()["results"][0]), ["pair-5"]);
}

#[test]
fn a_body_too_slow_or_too_large_is_told_so() {
    let server = start(Limits { anchors_body_bytes: 10, body_timeout: Duration::from_millis(200), ..Limits::default() });
    assert_eq!(ask(&server, &json!({"queries": [{"text": "apple"}]})).status, 413);
    let answer = raw(&server, b"POST /v1/anchors HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
