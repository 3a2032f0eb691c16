//! The service around the routes: health, metrics, request ids, limits, panics, shutdown, and an OpenAPI document that is true.

mod support;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anchorite_api::{Drained, Limits};
use serde_json::{Value as Json, json};
use support::{Reply, TestServer, Tricky, filling::Ground, raw, start, start_damaged, start_stuck, start_with};

/// Asks until the server is no longer warming up; it tells at once, so this is a handful of requests.
fn readiness(server: &TestServer) -> Reply {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = server.get("/readyz");
        if reply.status == 200 || reply.code() != "warming_up" || Instant::now() > deadline {
            return reply;
        }
        std::thread::yield_now();
    }
}

#[test]
fn it_is_alive_and_soon_ready() {
    let server = start(Limits::default());
    assert_eq!(server.get("/healthz").status, 200);
    let reply = readiness(&server);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn a_pool_that_cannot_answer_keeps_it_unready_but_alive() {
    let (encoder, _hand) = Tricky::new();
    encoder.broken.store(true, Ordering::Relaxed);
    let server = start_with(&encoder, Limits::default());
    let reply = readiness(&server);
    assert_eq!((reply.status, reply.code().as_str()), (503, "pool_failed"));
    assert!(reply.text().contains("fruit"), "{}", reply.text());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_failing_encoder_is_a_500_that_keeps_its_secrets() {
    let (encoder, _hand) = Tricky::new();
    encoder.broken.store(true, Ordering::Relaxed);
    let server = start_with(&encoder, Limits::default());
    let reply = server.search(&json!({"text": "apple"}));
    assert_eq!((reply.status, reply.code().as_str()), (500, "encoder_failed"));
    assert!(!reply.text().contains("secret"), "{}", reply.text());
}

#[test]
fn a_damaged_pool_is_a_500_that_keeps_its_secrets() {
    let server = start_damaged();
    let reply = server.get("/v1/pools/fruit/pairs/0");
    assert_eq!((reply.status, reply.code().as_str()), (500, "pool_damaged"));
    assert!(!reply.text().contains("secret"), "{}", reply.text());
}

#[test]
fn a_panic_is_a_500_and_counted_and_the_server_goes_on() {
    let (encoder, _hand) = Tricky::new();
    let server = start_with(&encoder, Limits::default());
    let reply = server.search(&json!({"text": "panic"}));
    assert_eq!((reply.status, reply.code().as_str()), (500, "panic"));
    assert!(!reply.text().contains("secret") && !reply.text().contains("told to"), "{}", reply.text());
    assert_eq!(server.search(&json!({"text": "apple"})).status, 200);
    assert!(server.get("/metrics").text().contains("anchorite_panics_total 1"));
}

#[test]
fn request_ids_are_kept_when_plain_and_made_otherwise() {
    let server = start(Limits::default());
    let with = |id: &str| {
        let request = ureq::http::Request::get(server.url("/nowhere")).header("x-request-id", id);
        server.send(request.body(Vec::new()).expect("a request"))
    };
    let kept = with("job-7_a.b");
    assert_eq!((kept.header("x-request-id"), &kept.json()["error"]["request_id"]), ("job-7_a.b", &json!("job-7_a.b")));
    let made: BTreeSet<String> =
        ["with space", &"x".repeat(65), "<b>", ""].map(|id| with(id).header("x-request-id").to_owned()).into();
    assert_eq!(made.len(), 4, "each is new");
    assert!(made.iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{made:?}");
}

#[test]
fn metrics_count_requests_stages_rows_and_errors_in_both_dialects() {
    let server = start(Limits::default());
    assert_eq!(readiness(&server).status, 200);
    server.search(&json!({"text": "apple"})).ok();
    server.search(&json!({"image": support::base64(support::RED)})).ok();
    server.post("/knn-service", r#"{"text": "apple", "modality": "image", "num_images": 2, "deduplicate": true}"#).ok();
    server.search(&json!({"text": "apple", "k": 0}));
    let reply = server.get("/metrics");
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = reply.text();
    for line in [
        r#"anchorite_http_requests_total{method="POST",route="/v1/search",status="200"} 2"#,
        r#"anchorite_http_requests_total{method="POST",route="/v1/search",status="422"} 1"#,
        r#"anchorite_http_request_seconds_count{method="POST",route="/v1/search"} 3"#,
        r#"anchorite_stage_seconds_count{stage="encode_text"} 2"#,
        r#"anchorite_stage_seconds_count{stage="encode_image"} 1"#,
        r#"anchorite_stage_seconds_count{stage="search"} 3"#,
        r#"anchorite_pool_rows{pool="fruit",side="all"} 8"#,
        r#"anchorite_pool_rows{pool="words",side="image"} 0"#,
        r#"anchorite_pool_generation{pool="fruit"} 1"#,
        r#"anchorite_errors_total{code="k_out_of_range"} 1"#,
        "full_knn_request_time_count 1",
        "text_clip_inference_time_count 2",
        "image_clip_inference_time_count 1",
        "knn_index_time_count 3",
        "metadata_get_time_count 3",
        "dedup_time_count 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

#[test]
fn beyond_its_concurrency_it_refuses_at_once_with_retry_after() {
    let (encoder, hand) = Tricky::new();
    let limits = Limits { max_in_flight: 1, retry_after: Duration::from_secs(3), ..Limits::default() };
    let server = start_with(&encoder, limits);
    assert_eq!(readiness(&server).status, 200);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.search(&json!({"text": "wait"})).status);
        hand.entered.recv().expect("the first request computes");
        let refused = server.search(&json!({"text": "apple"}));
        assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "too_busy", "3"));
        assert_eq!(server.get("/healthz").status, 200, "health does not queue behind searches");
        hand.open.send(()).expect("the first request waits");
        assert_eq!(first.join().expect("no panic"), 200);
    });
    assert_eq!(server.search(&json!({"text": "apple"})).status, 200, "the permit came back");
}

#[test]
fn bodies_beyond_the_memory_budget_are_refused_at_once() {
    let server = start(Limits { body_budget_bytes: 8 << 10, ..Limits::default() });
    let body = json!({"text": "x ".repeat(5 << 10)}).to_string();
    let reply = server.post("/v1/search", body);
    assert_eq!((reply.status, reply.code().as_str()), (429, "too_busy"));
}

#[test]
fn what_takes_longer_than_the_deadline_is_given_up() {
    let (encoder, hand) = Tricky::new();
    let server = start_with(&encoder, Limits { deadline: Duration::from_millis(200), ..Limits::default() });
    let reply = server.search(&json!({"text": "wait"}));
    assert_eq!((reply.status, reply.code().as_str()), (504, "deadline_exceeded"));
    drop(hand);
}

#[test]
fn a_head_that_does_not_come_closes_the_connection() {
    let server = start(Limits { header_timeout: Duration::from_millis(300), ..Limits::default() });
    for sent in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let started = Instant::now();
        raw(&server, sent.as_bytes());
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{sent:?} closed after {took:?}");
    }
}

#[test]
fn a_body_that_does_not_come_is_a_408() {
    let server = start(Limits { body_timeout: Duration::from_millis(300), ..Limits::default() });
    let answer =
        raw(&server, b"POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{\"text\"");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_slow"), "{answer}");
}

#[test]
fn a_head_too_large_is_refused() {
    let server = start(Limits { header_bytes: 8192, ..Limits::default() });
    let answer = raw(&server, format!("GET / HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "x".repeat(20_000)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn shutdown_answers_what_was_asked_and_takes_no_more() {
    let (encoder, hand) = Tricky::new();
    let mut server = start_with(&encoder, Limits::default());
    let address = server.address;
    let request = json!({"text": "wait"}).to_string();
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{request}", request.len()).expect("sends");
    hand.entered.recv().expect("the request computes");
    server.ask_to_stop();
    // Refused at the door once the listener is closed, which is how we know that shutdown has begun.
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_ok() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    hand.open.send(()).expect("the request waits");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.stop(), Drained::Clean);
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let (encoder, hand) = Tricky::new();
    let server = start_with(&encoder, Limits { drain: Duration::from_millis(200), ..Limits::default() });
    let request = json!({"text": "wait"}).to_string();
    let mut stream = TcpStream::connect(server.address).expect("connects");
    write!(stream, "POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{request}", request.len()).expect("sends");
    hand.entered.recv().expect("the request computes");
    let opener = std::thread::spawn(move || {
        // The runtime's own end waits for the blocked thread, so the gate opens once the connection was cut or the test is over.
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        stream.read_to_end(&mut rest).ok();
        drop(hand);
    });
    assert_eq!(server.stop(), Drained::CutShort);
    opener.join().expect("no panic");
}

/// Every route, method and status that the document promises.
fn promised(document: &Json) -> BTreeSet<(String, String, u16)> {
    let mut promised = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            for status in operation["responses"].as_object().expect("responses").keys() {
                promised.insert((path.clone(), method.clone(), status.parse().expect("a status")));
            }
        }
    }
    promised
}

/// Requests that bring about each promised status, on servers that are in the mood for it.
struct Seen(BTreeSet<(String, String, u16)>);

impl Seen {
    fn get(&mut self, server: &TestServer, route: &str, path: &str) {
        self.0.insert((route.to_owned(), "get".to_owned(), server.get(path).status));
    }

    fn post(&mut self, server: &TestServer, route: &str, body: &str) {
        self.0.insert((route.to_owned(), "post".to_owned(), server.post(route, body).status));
    }

    fn reload(&mut self, server: &TestServer, pool: &str) {
        let status = server.post(&format!("/v1/pools/{pool}/reload"), "").status;
        self.0.insert(("/v1/pools/{pool}/reload".to_owned(), "post".to_owned(), status));
    }

    fn get_again(&mut self, server: &TestServer, route: &str, path: &str) {
        let etag = server.get(path).header("etag").to_owned();
        let request = ureq::http::Request::get(server.url(path)).header("if-none-match", etag).body(Vec::new());
        self.0.insert((route.to_owned(), "get".to_owned(), server.send(request.expect("a request")).status));
    }

    fn slow(&mut self, server: &TestServer, route: &str) {
        let head = format!("POST {route} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{{");
        let answer = raw(server, head.as_bytes());
        let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
        self.0.insert((route.to_owned(), "post".to_owned(), status));
    }
}

const FIELDS: &str = "/v1/pools/{pool}/fields";
const PAIR: &str = "/v1/pools/{pool}/pairs/{id}";
const IMAGE: &str = "/v1/pools/{pool}/pairs/{id}/image";
const KNN: &str = r#"{"text": "apple", "modality": "image", "num_images": 2}"#;

const EMBED: &str = r#"{"model": "fruit", "input": "apple"}"#;
const ANCHORS: &str = r#"{"queries": [{"text": "apple"}], "policy": {"directions": [{"from": "text", "to": "text"}]}}"#;

const MANIFEST: &str = r#"{"pairs": [{"id": 0}]}"#;

/// What a cursor of `{"id": 0, "page": 1}` says of its request.
fn cursor_digest(server: &TestServer) -> String {
    let answer = server.search(&json!({"id": 0, "page": 1})).ok();
    answer["next"].as_str().and_then(|cursor| cursor.rsplit('-').next()).expect("a cursor").to_owned()
}

fn ordinary_statuses(seen: &mut Seen) {
    let server = start(Limits::default());
    readiness(&server);
    for path in
        ["/healthz", "/readyz", "/metrics", "/v1/pools", "/v1/models", "/indices-list", "/config.json", "/metrics-summary"]
    {
        seen.get(&server, path, path);
    }
    for (route, path) in [
        ("/v1/pools/{pool}", "/v1/pools/fruit"),
        ("/v1/pools/{pool}", "/v1/pools/nope"),
        ("/v1/pools/{pool}", "/v1/pools/%FF"),
        (FIELDS, "/v1/pools/fruit/fields"),
        (FIELDS, "/v1/pools/nope/fields"),
        (FIELDS, "/v1/pools/%FF/fields"),
        (PAIR, "/v1/pools/fruit/pairs/0"),
        (PAIR, "/v1/pools/fruit/pairs/99"),
        (PAIR, "/v1/pools/fruit/pairs/%FF"),
        (PAIR, "/v1/pools/fruit/pairs/0?by=magic"),
        (IMAGE, "/v1/pools/fruit/pairs/0/image"),
        (IMAGE, "/v1/pools/fruit/pairs/6/image"),
        (IMAGE, "/v1/pools/fruit/pairs/%FF/image"),
        (IMAGE, "/v1/pools/fruit/pairs/a%2Fb/image"),
    ] {
        seen.get(&server, route, path);
    }
    for pool in ["fruit", "nope", "%FF"] {
        seen.reload(&server, pool);
    }
    seen.get_again(&server, IMAGE, "/v1/pools/fruit/pairs/0/image");
    let gone = format!(r#"{{"id": 0, "page": 1, "cursor": "9-1-{}"}}"#, cursor_digest(&server));
    for body in [r#"{"text": "apple"}"#, "{", r#"{"id": 99}"#, r#"{"k": 0}"#, &gone] {
        seen.post(&server, "/v1/search", body);
    }
    for body in [MANIFEST, "{", r#"{"pairs": [{"id": 99}]}"#, "{}", r#"{"pairs": [{"id": 0}], "generation": 9}"#] {
        seen.post(&server, "/v1/manifest", body);
    }
    for body in [ANCHORS, "{", r#"{"queries": [{"id": 99}]}"#, "{}"] {
        seen.post(&server, "/v1/anchors", body);
    }
    for body in [EMBED, "{", r#"{"model": "nope", "input": "a"}"#, "{}"] {
        seen.post(&server, "/v1/embeddings", body);
    }
    for body in [KNN, "{", &KNN.replace('}', r#", "indice_name": "nope"}"#), "{}"] {
        seen.post(&server, "/knn-service", body);
    }
    for body in [r#"{"ids": [0]}"#, "{", r#"{"ids": [99]}"#, "{}"] {
        seen.post(&server, "/metadata", body);
    }
}

fn statuses_of_trouble(seen: &mut Seen) {
    let posts = [
        ("/v1/search", r#"{"text": "apple"}"#),
        ("/v1/anchors", ANCHORS),
        ("/v1/embeddings", EMBED),
        ("/knn-service", KNN),
        ("/metadata", r#"{"ids": [0]}"#),
        ("/v1/manifest", MANIFEST),
    ];
    let small = start(Limits { search_body_bytes: 5, anchors_body_bytes: 5, small_body_bytes: 5, ..Limits::default() });
    let slow = start(Limits { body_timeout: Duration::from_millis(100), ..Limits::default() });
    let busy = start(Limits { max_in_flight: 0, ..Limits::default() });
    for (route, body) in posts {
        seen.post(&small, route, body);
        seen.slow(&slow, route);
        seen.post(&busy, route, body);
    }
    let gets = [
        ("/v1/pools", "/v1/pools"),
        ("/v1/pools/{pool}", "/v1/pools/fruit"),
        (FIELDS, "/v1/pools/fruit/fields"),
        (PAIR, "/v1/pools/fruit/pairs/0"),
        (IMAGE, "/v1/pools/fruit/pairs/0/image"),
    ];
    let damaged = start_damaged();
    let (stuck, unstick) = start_stuck(Limits { deadline: Duration::from_millis(100), ..Limits::default() });
    seen.reload(&busy, "fruit");
    seen.reload(&stuck, "fruit");
    seen.reload(&support::start_unreloadable(), "fruit");
    for (route, path) in gets {
        seen.get(&busy, route, path);
        seen.get(&damaged, route, path);
        seen.get(&stuck, route, path);
    }
    for (route, body) in &posts[4..] {
        seen.post(&damaged, route, body);
        seen.post(&stuck, route, body);
    }
    drop(unstick);
    let (encoder, hand) = Tricky::new();
    let late = start_with(&encoder, Limits { deadline: Duration::from_millis(100), ..Limits::default() });
    let (encoder, _hand) = Tricky::new();
    encoder.broken.store(true, Ordering::Relaxed);
    let broken = start_with(&encoder, Limits::default());
    readiness(&broken);
    seen.get(&broken, "/readyz", "/readyz");
    for (route, body) in &posts[..4] {
        seen.post(&late, route, &body.replace("apple", "wait"));
        seen.post(&broken, route, body);
    }
    drop(hand);
}

/// Of the routes of jobs.
fn statuses_of_jobs(seen: &mut Seen) {
    const INGEST: &str = "/v1/pools/{pool}/ingest";
    const JOB: &str = "/v1/jobs/{id}";
    const REJECTS: &str = "/v1/jobs/{id}/rejects";
    let (ground, boats) = (Ground::default(), r#"{"sources": ["boats"]}"#);
    let mut tell = |route: &str, method: &str, status: u16| {
        seen.0.insert((route.to_owned(), method.to_owned(), status));
    };
    let quick = |limits| Ground::default().serve(limits);
    let small = quick(Limits { small_body_bytes: 5, ..Limits::default() });
    let busy = quick(Limits { max_in_flight: 0, max_jobs_waiting: 0, ..Limits::default() });
    let (encoder, hand) = Tricky::new();
    let held = Ground { encoder, ..Ground::default() };
    let late = held.serve(Limits { deadline: Duration::from_millis(100), compute_threads: 1, ..Limits::default() });
    // Its one thread is not free from here on.
    assert_eq!(late.search(&json!({"text": "wait"})).status, 504);
    let plain = start(Limits::default());
    let slow = quick(Limits { body_timeout: Duration::from_millis(100), ..Limits::default() });
    let head = "POST /v1/pools/fruit/ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{";
    tell(INGEST, "post", raw(&slow, head.as_bytes()).split(' ').nth(1).expect("a status").parse().expect("a number"));
    ground.gate.set(true);
    let server = ground.serve(Limits::default());
    let (running, waiting) = (server.ingest(&json!({"sources": ["boats"]})), server.ingest(&json!({"sources": ["boats"]})));
    server.job_when(&running, |job| job["state"] == "running");
    for (on, pool, body) in [
        (&server, "fruit", boats),
        (&server, "fruit", "{"),
        (&server, "fruit", "{}"),
        (&server, "nope", boats),
        (&server, "%FF", boats),
        (&small, "fruit", boats),
        (&busy, "fruit", boats),
        (&late, "fruit", boats),
        (&plain, "fruit", boats),
    ] {
        tell(INGEST, "post", on.post(&format!("/v1/pools/{pool}/ingest"), body).status);
    }
    for (on, id) in [(&server, running.as_str()), (&server, "nope"), (&server, "%FF"), (&busy, "nope"), (&late, "nope")] {
        tell("/v1/jobs", "get", on.get("/v1/jobs").status);
        tell(JOB, "get", on.get(&format!("/v1/jobs/{id}")).status);
        tell(REJECTS, "get", on.get(&format!("/v1/jobs/{id}/rejects")).status);
        tell(JOB, "delete", on.delete(&format!("/v1/jobs/{id}")).status);
    }
    for _ in 0..2 {
        tell(JOB, "delete", server.delete(&format!("/v1/jobs/{waiting}")).status);
    }
    drop(hand);
    ground.gate.set(false);
    server.job_over(&running);
    tell(REJECTS, "get", server.get(&format!("/v1/jobs/{running}/rejects")).status);
    tell(REJECTS, "get", server.get(&format!("/v1/jobs/{running}/rejects?limit=0")).status);
    std::fs::remove_dir_all(ground.jobs()).expect("removes");
    tell(INGEST, "post", server.post("/v1/pools/fruit/ingest", boats).status);
}

/// 401 and 403 of every route that has a scope; `keys.rs` proves which key gets what.
fn statuses_of_keys(seen: &mut Seen, document: &Json) {
    let server = support::start_keyed();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, _) in methods.as_object().expect("methods").iter().filter(|(_, is)| is["x-scope"].is_string()) {
            let concrete = path.replace("{pool}", "fruit").replace("{id}", "0");
            for key in ["Bearer wrong", "Bearer reading secret"] {
                let request = ureq::http::Request::builder().method(method.to_uppercase().as_str()).uri(server.url(&concrete));
                let reply = server.send(request.header("authorization", key).body(Vec::new()).expect("a request"));
                if [401, 403].contains(&reply.status) {
                    seen.0.insert((path.clone(), method.clone(), reply.status));
                }
            }
        }
    }
}

#[test]
fn every_documented_status_is_real_and_every_real_one_documented() {
    let document = start(Limits::default()).get("/openapi.json").ok();
    assert_eq!(document["info"]["title"], "anchorite");
    let mut seen = Seen(BTreeSet::new());
    ordinary_statuses(&mut seen);
    statuses_of_trouble(&mut seen);
    statuses_of_jobs(&mut seen);
    statuses_of_keys(&mut seen, &document);
    let promised = promised(&document);
    let never: Vec<_> = promised.difference(&seen.0).collect();
    let silent: Vec<_> = seen.0.difference(&promised).collect();
    assert!(never.is_empty() && silent.is_empty(), "documented but not seen: {never:?}; seen but not documented: {silent:?}");
}

#[test]
fn the_document_describes_the_search() {
    let document = serde_json::to_value(anchorite_api::openapi()).expect("JSON");
    let search = &document["components"]["schemas"]["SearchRequest"];
    for field in
        ["text", "image", "embedding", "id", "key", "queries", "pool", "k", "side", "effort", "threshold", "include", "limit"]
    {
        assert!(search["properties"][field].is_object(), "no {field}");
    }
    assert_eq!(search["additionalProperties"], json!(false), "unknown fields are refused, and the document says so");
    let references = document.to_string().matches("#/components/schemas/").count();
    assert!(references > 10, "bodies are described by their types");
}
