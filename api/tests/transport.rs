//! Connections: TLS, and one too many. And a new generation of a pool, taken while requests run.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anchorite_anchors::Retriever;
use anchorite_api::{App, AppError, Limits, Options, Tls, TlsError};
use anchorite_encoder::fake::FakeEncoder;
use anchorite_index::PairStore;
use serde_json::json;
use support::{CAPTIONS, DIM, TestServer, fruit, generations, raw, start, start_app, start_tls, start_unreloadable, store};

const CERTIFICATE: &[u8] = include_bytes!("fixtures/tls.crt");
const KEY: &[u8] = include_bytes!("fixtures/tls.key");

fn app(limits: Limits) -> App {
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), store(&fruit())).expect("they match");
    App::new(vec![("fruit".to_owned(), retriever)], Options { limits, ..Options::default() }).expect("a server")
}

#[test]
fn a_server_with_a_certificate_speaks_tls_and_nothing_else() {
    let server = start_tls(app(Limits::default()), Tls::from_pem(CERTIFICATE, KEY).expect("an identity"));
    // The certificate signs itself, so that no root vouches for it.
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).proxy(None).build().into();
    let url = format!("https://{}", server.address);
    let body = agent.get(format!("{url}/healthz")).call().expect("an answer").body_mut().read_to_string().expect("text");
    assert_eq!(body, "ok\n");
    let found = agent.post(format!("{url}/v1/search")).send(json!({"text": CAPTIONS[0], "side": "text"}).to_string());
    assert!(found.expect("an answer").body_mut().read_to_string().expect("text").contains("pair-0"));
    let plain = raw(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(!plain.starts_with("HTTP/"), "no plain HTTP on a TLS port: {plain}");
}

#[test]
fn what_is_no_identity_is_refused() {
    assert!(matches!(Tls::from_pem(b"", KEY), Err(TlsError::Certificate { source: None })));
    assert!(matches!(Tls::from_pem(CERTIFICATE, b"words"), Err(TlsError::Key { .. })));
    assert!(matches!(Tls::from_pem(CERTIFICATE, CERTIFICATE), Err(TlsError::Key { .. })));
    assert!(Tls::from_pem(CERTIFICATE, KEY).is_ok());
}

#[test]
fn a_handshake_that_does_not_come_closes_the_connection() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = start_tls(app(limits), Tls::from_pem(CERTIFICATE, KEY).expect("an identity"));
    let started = Instant::now();
    raw(&server, b"");
    assert!(started.elapsed() < Duration::from_secs(10), "closed after {:?}", started.elapsed());
}

#[test]
fn one_connection_too_many_is_told_so_and_a_free_place_is_taken() {
    let server = start(Limits { max_connections: 1, ..Limits::default() });
    let mut first = TcpStream::connect(server.address).expect("connects");
    write!(first, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("sends");
    let mut byte = [0];
    first.read_exact(&mut byte).expect("an answer");
    let refused = raw(&server, b"");
    let (head, body) = refused.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len()))
            || head.ends_with(&format!("content-length: {}", body.len())),
        "{refused}"
    );
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).expect("JSON")["error"]["code"], "too_many_connections");
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !raw(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < deadline, "the place never came free");
        std::thread::yield_now();
    }
}

/// A server over generation 1, and the generation that it finds when it looks: the second one once the flag is raised.
fn growing(refresh: Option<Duration>) -> (TestServer, Arc<AtomicBool>) {
    let [first, second] = generations();
    let grown = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&grown);
    let look = move |present: u64| {
        let there: &Arc<dyn PairStore> = if seen.load(Ordering::SeqCst) { &second } else { return Ok(None) };
        Ok((there.status().generation > present).then(|| Arc::clone(there)))
    };
    let retriever = Retriever::new(Arc::new(FakeEncoder::new(DIM)), first).expect("they match");
    let options = Options { limits: Limits { refresh, ..Limits::default() }, ..Options::default() };
    let app = App::new(vec![("fruit".to_owned(), retriever)], options).expect("a server");
    (start_app(app.refreshing("fruit", Box::new(look)).expect("there is such a pool")), grown)
}

#[test]
fn a_new_generation_is_taken_when_asked_for_and_no_request_fails() {
    let (server, grown) = growing(None);
    let generation = || {
        let answer = server.search(&json!({"text": CAPTIONS[0], "k": 100, "side": "text"})).ok();
        (answer["generation"].as_u64().expect("a number"), answer["results"][0]["hits"].as_array().expect("hits").len())
    };
    assert_eq!(generation(), (1, 3));
    assert_eq!(server.post("/v1/pools/fruit/reload", "").ok(), json!({"generation": 1, "changed": false}));
    let seen = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    seen.lock().expect("lock").push(generation());
                }
            });
        }
        grown.store(true, Ordering::SeqCst);
        assert_eq!(server.post("/v1/pools/fruit/reload", "").ok(), json!({"generation": 2, "changed": true}));
        assert_eq!(generation(), (2, 7));
        stop.store(true, Ordering::SeqCst);
    });
    let seen = seen.into_inner().expect("lock");
    assert!(seen.iter().all(|answer| [(1, 3), (2, 7)].contains(answer)), "each answer is of one generation: {seen:?}");
    assert_eq!(server.get("/v1/pools/fruit").ok()["rows"], 8);
    assert_eq!(server.post("/v1/pools/nope/reload", "").status, 404);
}

#[test]
fn a_new_generation_is_taken_unasked() {
    let (server, grown) = growing(Some(Duration::from_millis(20)));
    grown.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.get("/v1/pools/fruit").ok()["generation"] != 2 {
        assert!(Instant::now() < deadline, "never taken");
    }
}

#[test]
fn a_new_generation_that_cannot_be_opened_leaves_the_old_one() {
    let server = start_unreloadable();
    let reply = server.post("/v1/pools/fruit/reload", "");
    assert_eq!((reply.status, reply.code().as_str()), (500, "pool_damaged"));
    assert!(!reply.text().contains("secret"), "{}", reply.text());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.get("/metrics").text().contains("anchorite_errors_total{code=\"refresh_failed\"}") {
        assert!(Instant::now() < deadline, "it looks by itself, and counts");
    }
    assert_eq!(server.search(&json!({"text": CAPTIONS[0], "side": "text"})).status, 200);
    let unknown = app(Limits::default()).refreshing("nope", Box::new(|_| Ok(None)));
    assert!(matches!(unknown, Err(AppError::Unknown { name }) if name == "nope"));
}
