//! OpenAI's embeddings and models: shape, both encodings, pictures, what is refused, and that requests are encoded together.

mod support;

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use anchorite_api::Limits;
use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder};
use serde_json::{Value as Json, json};
use support::{DIM, PNG, RED, Reply, TestServer, base64, picture_vector, start, start_with, text_vector};

fn embed(server: &TestServer, body: &Json) -> Reply {
    server.post("/v1/embeddings", body.to_string())
}

fn floats(values: &Json) -> Vec<f32> {
    values.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

#[test]
fn texts_come_back_in_order_in_openai_s_shape() {
    let server = start(Limits::default());
    let answer = embed(&server, &json!({"model": "fake", "input": ["a red apple", "a boat"], "user": "someone"})).ok();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("fake")));
    for (place, text) in ["a red apple", "a boat"].into_iter().enumerate() {
        let one = &answer["data"][place];
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(place)));
        assert_eq!(floats(&one["embedding"]), text_vector(text));
    }
    assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(0), "{}", answer["usage"]);
    let single = embed(&server, &json!({"model": "words", "input": "a boat", "dimensions": DIM})).ok();
    assert_eq!(floats(&single["data"][0]["embedding"]), text_vector("a boat"), "a pool's name is a model's name");
}

#[test]
fn base64_is_little_endian_float32() {
    let server = start(Limits::default());
    let answer = embed(&server, &json!({"model": "fake", "input": "a boat", "encoding_format": "base64"})).ok();
    let bytes: Vec<u8> = text_vector("a boat").iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(answer["data"][0]["embedding"], base64(&bytes));
}

#[test]
fn pictures_come_by_modality_or_by_name() {
    let server = start(Limits::default());
    let uri = format!("data:image/jpeg;base64,{}", base64(RED));
    let answer = embed(&server, &json!({"model": "fake", "modality": "image", "input": [uri, base64(PNG)]})).ok();
    assert_eq!(floats(&answer["data"][0]["embedding"]), picture_vector(RED));
    assert_eq!(floats(&answer["data"][1]["embedding"]), picture_vector(PNG));
    let mixed = embed(&server, &json!({"model": "fake", "input": [{"image": uri}, {"text": "a boat"}, "a boat"]})).ok();
    assert_eq!(floats(&mixed["data"][0]["embedding"]), picture_vector(RED));
    assert_eq!(mixed["data"][1]["embedding"], mixed["data"][2]["embedding"]);
}

#[test]
fn models_are_listed_once_with_their_pools() {
    let server = start(Limits::default());
    let list = server.get("/v1/models").ok();
    assert_eq!(list["data"].as_array().expect("models").len(), 1);
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"], &model["pools"]), (&json!("fake"), &json!("model"), &json!(["fruit", "words"])));
}

#[test]
fn what_cannot_be_embedded_is_refused_by_name() {
    let server = start(Limits { max_texts: 2, max_pictures: 1, ..Limits::default() });
    let uri = format!("data:image/jpeg;base64,{}", base64(RED));
    for (body, status, code) in [
        (json!({"model": "gpt", "input": "a"}), 404, "model_not_found"),
        (json!({"model": "fake", "input": []}), 422, "input_count"),
        (json!({"model": "fake", "input": ["a", "b", "c"]}), 422, "input_count"),
        (json!({"model": "fake", "modality": "image", "input": [uri, uri]}), 422, "input_count"),
        (json!({"model": "fake", "input": [1, 2]}), 422, "token_ids"),
        (json!({"model": "fake", "input": [[1, 2]]}), 422, "token_ids"),
        (json!({"model": "fake", "input": " "}), 422, "empty_text"),
        (json!({"model": "fake", "input": "a", "dimensions": 3}), 422, "dimensions"),
        (json!({"model": "fake", "input": "a", "encoding_format": "int8"}), 422, "json_fields"),
        (json!({"model": "fake", "modality": "image", "input": "https://example.invalid/a.jpg"}), 422, "image_url"),
        (json!({"model": "fake", "modality": "image", "input": "?"}), 422, "image_base64"),
        (json!({"model": "fake", "modality": "image", "input": base64(b"words")}), 422, "image_unknown_format"),
    ] {
        let reply = embed(&server, &body);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{body}: {}", reply.text());
    }
}

/// An encoder that says how large each batch of texts was, and waits for a nod before each.
struct Gated {
    inner: FakeEncoder,
    batches: Mutex<mpsc::Sender<usize>>,
    gate: Mutex<mpsc::Receiver<()>>,
}

impl Encode for Gated {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }
    fn name(&self) -> &str {
        "gated"
    }
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.inner.prepare_image(bytes)
    }
    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        self.inner.prepare_text(text)
    }
    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.inner.encode_images(batch)
    }
    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        self.batches.lock().expect("lock").send(batch.len()).ok();
        self.gate.lock().expect("lock").recv().ok();
        assert!(batch.len() != 3, "three are a panic");
        self.inner.encode_texts(batch)
    }
}

/// A gated server, warm: its batches, and its gate.
fn gated(limits: Limits) -> (TestServer, mpsc::Receiver<usize>, mpsc::Sender<()>) {
    let (tell, batches) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let encoder = Gated { inner: FakeEncoder::new(DIM), batches: Mutex::new(tell), gate: Mutex::new(gate) };
    // Warming up asks each of the two pools for both sides.
    (0..4).for_each(|_| open.send(()).expect("a gate"));
    let server = start_with(&Arc::new(encoder), limits);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.get("/readyz").status != 200 {
        assert!(Instant::now() < deadline, "never warm");
        std::thread::yield_now();
    }
    batches.try_iter().for_each(drop);
    (server, batches, open)
}

/// Waits until so many texts are in the queue.
fn queued(server: &TestServer, count: usize) {
    let line = format!(r#"anchorite_embeddings_waiting{{model="gated",tower="text"}} {count}"#);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.get("/metrics").text().lines().any(|l| l == line) {
        assert!(Instant::now() < deadline, "never {count} in the queue");
        std::thread::yield_now();
    }
}

#[test]
fn requests_that_wait_are_encoded_together() {
    let (server, batches, open) = gated(Limits::default());
    let one = |n: usize| embed(&server, &json!({"model": "gated", "input": format!("text {n}")})).ok();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| one(0));
        assert_eq!(batches.recv().expect("a batch"), 1, "an idle tower starts at once");
        let others: Vec<_> = (1..9).map(|n| scope.spawn(move || (n, one(n)))).collect();
        queued(&server, 8);
        drop(open);
        assert_eq!(batches.recv().expect("a batch"), 8, "all that have gathered go together");
        first.join().expect("no panic");
        for other in others {
            let (n, answer) = other.join().expect("no panic");
            assert_eq!(floats(&answer["data"][0]["embedding"]), text_vector(&format!("text {n}")), "each gets its own");
        }
    });
}

#[test]
fn a_full_queue_refuses_at_once_and_a_panic_ends_no_lane() {
    let (server, batches, open) = gated(Limits { text_queue: 4, ..Limits::default() });
    let many = |n: usize| embed(&server, &json!({"model": "gated", "input": vec!["a boat"; n]}));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| many(1).status);
        assert_eq!(batches.recv().expect("a batch"), 1);
        let three = scope.spawn(|| many(3));
        queued(&server, 3);
        let refused = many(2);
        assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "too_busy", "1"));
        drop(open);
        assert_eq!(first.join().expect("no panic"), 200);
        let three = three.join().expect("no panic");
        assert_eq!((three.status, three.code().as_str()), (500, "panic"), "three are a panic");
    });
    assert_eq!(many(1).status, 200, "the lane goes on");
}
