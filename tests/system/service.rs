//! Promise: a served pool answers people, programs and clip-retrieval's own client.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    clip_client,
    datasets::samples,
    program::{Server, demo},
};

#[test]
fn every_route_answers_and_sigterm_ends_it_well() {
    let server = demo().serve();
    wait_until_ready(&server);
    assert_eq!(server.get("/healthz").status, 200);

    let hits = server.hits(&json!({ "text": "a slice of pizza", "k": 5, "include": ["caption", "fields", "image"] }));
    assert!(hits.iter().any(|h| h["caption"].as_str().unwrap().contains("pizza")), "{hits:?}");
    assert!(hits[0]["fields"]["license"].is_string(), "{:?}", hits[0]["fields"]);

    let sample = samples(7).remove(6);
    let picture = STANDARD.encode(&sample.picture);
    let hits = server.hits(&json!({ "image": picture, "k": 1, "include": ["caption", "image"] }));
    assert_eq!((hits[0]["caption"].as_str(), hits[0]["image"].as_str()), (Some(&*sample.caption), Some(&*picture)));
    let stored = server.get(&format!("/v1/pools/demo/pairs/{}/image", hits[0]["id"]));
    assert_eq!((stored.status, &stored.body), (200, &sample.picture));
    assert!(stored.content_type.starts_with("image/"), "{}", stored.content_type);
    let pair = server.get(&format!("/v1/pools/demo/pairs/{}", hits[0]["id"])).json();
    assert_eq!(pair["caption"], sample.caption.as_str());

    assert_eq!(server.get("/v1/pools/demo").json()["rows"], 4_213);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("4213") && metrics.contains("# TYPE"), "{metrics}");
    let openapi = server.get("/openapi.json").json();
    for path in ["/v1/search", "/v1/pools/{pool}/pairs/{id}/image", "/knn-service"] {
        assert!(openapi["paths"][path].is_object(), "{path} is not described");
    }
    let page = server.get("/");
    assert!(page.status == 200 && page.content_type.starts_with("text/html"), "{}", page.content_type);
    assert!(page.text().contains("anchorite"), "{}", page.text());

    server.stop().with(0).says(&["stopped"]);
}

/// Asks again while the server warms up. A request waits for an answer, so that this is no busy loop but a short one.
#[track_caller]
fn wait_until_ready(server: &Server) {
    // A question is answered only once the model is loaded; after it, readiness is near.
    server.hits(&json!({ "text": "warm", "k": 1 }));
    for _ in 0..10_000 {
        match server.get("/readyz") {
            ready if ready.status == 200 => return,
            wait => assert_eq!((wait.status, wait.json()["error"]["code"].as_str()), (503, Some("warming_up"))),
        }
    }
    panic!("never ready");
}

#[test]
fn the_unmodified_clip_retrieval_client_asks_the_demo() {
    let Some(client) = clip_client::installed() else { return };
    let server = demo().serve();
    let folder = tempfile::tempdir().unwrap();
    let (picture, embedding) = (folder.path().join("picture"), folder.path().join("embedding.json"));
    let sample = samples(1).remove(0);
    fs::write(&picture, &sample.picture).unwrap();
    let hits = server.hits(&json!({ "text": "a red apple", "k": 1, "include": ["vectors"] }));
    fs::write(&embedding, hits[0]["vectors"]["text"].to_string()).unwrap();
    let mut drive = client.drive(&server.url, "demo", "a slice of pizza");
    let answers = clip_client::answers(drive.args([picture, embedding]));

    let captions = |name: &str| -> Vec<String> {
        let rows = answers[name].as_array().unwrap_or_else(|| panic!("{name}: {}", answers[name]));
        rows.iter().map(|r| r["caption"].as_str().unwrap().to_owned()).collect()
    };
    assert!(captions("text_defaults").iter().any(|c| c.contains("pizza")), "{:?}", captions("text_defaults"));
    assert!(captions("text").iter().any(|c| c.contains("pizza")), "{:?}", captions("text"));
    assert_eq!(captions("image")[0], sample.caption);
    assert_eq!(answers["embedding"][0]["id"], hits[0]["id"]);
    server.stop().with(0);
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let server = demo().serve();
    let refused = |body: serde_json::Value, status: u16, parts: &[&str]| {
        let reply = server.post("/v1/search", &body);
        let message = reply.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply.status, status, "{body}: {message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?} in {message}"));
    };
    refused(json!({ "text": "a", "pool": "nowhere" }), 404, &["nowhere", "/v1/pools"]);
    refused(json!({ "text": "a", "k": 0 }), 422, &["k is 0", "between 1 and"]);
    refused(json!({ "embedding": [1.0, 2.0] }), 422, &["2 values", "256"]);
    refused(json!({ "image": STANDARD.encode("words") }), 422, &["not a JPEG, PNG or WebP picture"]);
    assert_eq!(server.get("/v1/pools/nowhere").status, 404);
    let knn =
        server.post("/knn-service", &json!({ "text": "a", "indice_name": "nowhere", "modality": "image", "num_images": 1 }));
    assert!(knn.status == 404 && knn.text().contains("nowhere"), "{} {}", knn.status, knn.text());
    server.stop().with(0);
}
