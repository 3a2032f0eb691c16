//! Promise: vectors made elsewhere are ingested and served without a model.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{
    datasets::{read_rejects, vectors, words, write, write_npy},
    program::{Ended, Server, model, run, text},
};

const DIM: usize = 24;
const ROWS: usize = 60;

/// Vectors that differ in a known way: row i leans to axis i modulo the dimension, and no two are equal.
fn row(i: usize) -> Vec<f32> {
    (0..DIM).map(|axis| if axis == i % DIM { 4.0 } else { ((i * 7 + axis * 13) % 11) as f32 / 11.0 }).collect()
}

fn captions() -> Vec<String> {
    (0..ROWS).map(|i| format!("caption {i}")).collect()
}

/// What ingest, the pool and a server without a model make of vectors.
#[track_caller]
fn works(source: &str, pool: &str) {
    let report = run(&["ingest", source, "--pool", pool, "--vectors-from", "elsewhere-b32", "--json"]).with(0).json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(ROWS), &json!(0)), "{report}");
    let info = run(&["pool", "info", pool, "--json"]).with(0).json();
    assert_eq!((&info["dim"], &info["image_rows"], &info["text_rows"]), (&json!(DIM), &json!(ROWS), &json!(ROWS)));
    assert!(info["encoder"].as_str().unwrap().contains("elsewhere-b32"), "{info}");

    let server = Server::start(&["--pool", &format!("ready={pool}")]);
    for side in ["image", "text"] {
        let hits = server.hits(&json!({ "embedding": row(17), "k": 3, "side": side, "include": ["caption"] }));
        assert_eq!(hits[0]["caption"], "caption 17", "{side}: {hits:?}");
        assert!(hits[0]["score"].as_f64().unwrap() > 0.999);
    }
    let id = server.hits(&json!({ "embedding": row(5), "k": 1 }))[0]["id"].clone();
    assert_eq!(server.hits(&json!({ "id": id, "k": 1, "include": ["caption"] }))[0]["caption"], "caption 5");
    let words = server.post("/v1/search", &json!({ "text": "a cat" }));
    let message = words.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(words.status == 422 && message.contains("text tower"), "{} {message}", words.status);
    let nan = server.post("/v1/search", &json!({ "embedding": vec![0.0; DIM] }));
    assert_eq!(nan.status, 422, "{}", nan.text());
    assert_eq!(server.get("/readyz").status, 200);
    server.stop().with(0);

    let said = run(&["search", "--pool", pool, "--text", "a cat"]).with(1);
    said.says(&["no --model given", "text tower"]);
}

#[test]
fn a_clip_retrieval_folder_is_ingested_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("embeddings");
    for (part, rows) in [("img_emb", 0..40), ("img_emb", 40..ROWS), ("text_emb", 0..40), ("text_emb", 40..ROWS)] {
        let inner = source.join(part);
        fs::create_dir_all(&inner).unwrap();
        let label = usize::from(rows.start > 0);
        write_npy(&inner.join(format!("{part}_{label}.npy")), &rows.map(row).collect::<Vec<_>>());
    }
    fs::create_dir(source.join("metadata")).unwrap();
    for (label, captions) in [&captions()[..40], &captions()[40..]].into_iter().enumerate() {
        let file = source.join(format!("metadata/metadata_{label}.parquet"));
        write(&file, vec![("caption", words(captions.iter().map(|c| Some(c.as_str()))))]);
    }
    works(&text(&source), &text(folder.path().join("pool")));
}

#[test]
fn a_parquet_column_of_vectors_is_ingested_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors.parquet");
    write_vectors(&file, &(0..ROWS).map(row).collect::<Vec<_>>());
    works(&text(&file), &text(folder.path().join("pool")));
}

fn write_vectors(file: &std::path::Path, rows: &[Vec<f32>]) {
    let captions = captions();
    let columns = vec![
        ("image_embedding", vectors(rows)),
        ("text_embedding", vectors(rows)),
        ("caption", words(captions[..rows.len()].iter().map(|c| Some(c.as_str())))),
    ];
    write(file, columns);
}

/// A pool of a few good vectors, and a file of `rows` that is to be added.
struct Added {
    folder: tempfile::TempDir,
}

impl Added {
    fn new(rows: &[Vec<f32>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_vectors(&folder.path().join("good.parquet"), &[row(1), row(2)]);
        write_vectors(&folder.path().join("more.parquet"), rows);
        let added = Self { folder };
        added.ingest("good.parquet", "elsewhere").with(0);
        added
    }

    fn path(&self, name: &str) -> String {
        text(self.folder.path().join(name))
    }

    fn ingest(&self, file: &str, from: &str) -> Ended {
        run(&["ingest", &self.path(file), "--pool", &self.path("pool"), "--vectors-from", from, "--json"])
    }

    fn rows(&self) -> Json {
        run(&["pool", "info", &self.path("pool"), "--json"]).with(0).json()["rows"].clone()
    }
}

#[test]
fn vectors_of_another_dimension_are_refused() {
    let added = Added::new(&[vec![1.0; DIM + 1]]);
    added.ingest("more.parquet", "elsewhere").with(1).says(&["25", "24"]);
    assert_eq!(added.rows(), 2);
    let ended =
        run(&["ingest", &added.path("more.parquet"), "--pool", &added.path("new"), "--ready-vectors", "--model", model()]);
    ended.with(1).says(&["more.parquet: the vectors in image_embedding have 25 values, the pool's have 256"]);
}

#[test]
fn vectors_of_another_maker_are_refused() {
    let added = Added::new(&[row(3)]);
    added.ingest("more.parquet", "somewhere").with(1).says(&[
        "built by encoder vectors:elsewhere",
        "not by vectors:somewhere",
        "or a new pool",
    ]);
    assert_eq!(added.rows(), 2);
    let unnamed = run(&["ingest", &added.path("more.parquet"), "--pool", &added.path("new"), "--ready-vectors"]);
    unnamed.with(1).says(&["--vectors-from"]);
}

#[test]
fn vectors_with_values_that_are_no_numbers_or_no_length_are_listed() {
    let (mut nan, mut infinite) = (row(3), row(4));
    nan[5] = f32::NAN;
    infinite[0] = f32::INFINITY;
    let added = Added::new(&[nan, row(5), infinite, vec![0.0; DIM]]);
    let report = added.ingest("more.parquet", "elsewhere").with(0).json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(1), &json!(3)));
    let found = read_rejects(added.path("pool.rejects.parquet"));
    let found: Vec<(u64, &str)> = found.iter().map(|r| (r.row, r.code.as_str())).collect();
    assert_eq!(found, [(0, "vector_not_finite"), (2, "vector_not_finite"), (3, "vector_zero")]);
    assert_eq!(added.rows(), 3);
}

#[test]
fn a_folder_that_lacks_a_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("embeddings");
    for (name, rows) in [("img_emb/img_emb_0.npy", 3), ("img_emb/img_emb_1.npy", 3), ("text_emb/text_emb_0.npy", 3)] {
        fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        write_npy(&source.join(name), &(0..rows).map(row).collect::<Vec<_>>());
    }
    let ingest = || run(&["ingest", &text(&source), "--pool", &text(folder.path().join("pool")), "--vectors-from", "e"]);
    ingest().with(1).says(&["partition 1 has no file in text_emb/"]);
    write_npy(&source.join("text_emb/text_emb_1.npy"), &[row(0), row(1)]);
    ingest().with(1).says(&["3", "2"]);
}
