//! Promise: a server that others reach asks for keys, and what is ingested while it runs is found without a restart.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{
    datasets::{vectors, words, write},
    program::{Server, run, text},
};

/// Puts rows `from..to` into the pool: row i points along axis i.
fn ingest(folder: &std::path::Path, pool: &str, from: usize, to: usize) {
    let rows: Vec<Vec<f32>> = (from..to).map(|i| (0..8).map(|axis| f32::from(axis == i)).collect()).collect();
    let captions: Vec<String> = (from..to).map(|i| format!("caption {i}")).collect();
    let source = folder.join(format!("rows-{from}.parquet"));
    let caption = words(captions.iter().map(|c| Some(c.as_str())));
    write(&source, vec![("image_embedding", vectors(&rows)), ("text_embedding", vectors(&rows)), ("caption", caption)]);
    let columns = ["--image-vector-column", "image_embedding", "--text-vector-column", "text_embedding"];
    run(&[&["ingest", &text(source), "--pool", pool, "--vectors-from", "elsewhere"][..], &columns].concat()).with(0);
}

#[test]
fn keys_open_the_server_and_a_reload_shows_what_was_ingested_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, keys) = (text(folder.path().join("pool")), text(folder.path().join("keys")));
    ingest(folder.path(), &pool, 0, 4);
    let added = |name: &str, scope: &str| {
        let made = run(&["keys", "add", &keys, name, "--scope", scope]).with(0).says(&[name, scope]);
        made.stdout.trim().to_owned()
    };
    let (reader, ruler) = (added("reader", "read"), added("ruler", "admin"));
    assert!(reader.len() == 64 && reader != ruler);
    let file = fs::read_to_string(&keys).unwrap();
    assert!(!file.contains(&reader) && !file.contains(&ruler), "the file holds hashes: {file}");
    run(&["keys", "add", &keys, "reader"]).with(1).says(&["reader", "again"]);

    let server = Server::start(&["--pool", &format!("grow={pool}"), "--keys", &keys]);
    let axis = |i: usize| -> Vec<f32> { (0..8).map(|a| f32::from(a == i)).collect() };
    let ask = json!({ "embedding": axis(6), "k": 1, "include": ["caption"] });
    assert_eq!(server.post("/v1/search", &ask).status, 401);
    assert_eq!(server.get("/healthz").status, 200, "orchestrators show no key");
    let found = |key: &str| -> Json {
        let reply = server.post_as(key, "/v1/search", &ask);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let ready = (0..10_000).any(|_| server.get("/readyz").status == 200);
    assert!(ready, "it warms up");
    run(&["health", "--server", &server.url]).with(0);
    run(&["health", "--server", "http://127.0.0.1:1"]).with(1).says(&["127.0.0.1:1"]);
    let before = found(&reader);
    assert!(before["results"][0]["hits"][0]["score"].as_f64().unwrap() < 0.1, "{before}");

    ingest(folder.path(), &pool, 4, 8);
    assert_eq!(server.post_as(&reader, "/v1/pools/grow/reload", &json!({})).status, 403);
    let reload = server.post_as(&ruler, "/v1/pools/grow/reload", &json!({}));
    assert_eq!(reload.status, 200, "{}", reload.text());
    let after = found(&reader);
    assert_eq!(after["results"][0]["hits"][0]["caption"], "caption 6", "{after}");
    assert!(after["generation"].as_u64() > before["generation"].as_u64());
    server.stop().with(0);

    fs::write(&keys, "nonsense\n").unwrap();
    run(&["serve", "--pool", &pool, "--keys", &keys]).with(1).says(&["line 1", "anchorite keys add"]);
}
