//! Promise: an ingest says which columns it uses, how fast it is, what it leaves out, how long the rest takes and what it waits for; at its end
//! where the time went; and afterwards a file beside the pool says it all again.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{
    datasets::{samples, vectors, words, write, write_rows},
    program::{model, run, text},
};

#[test]
fn columns_rate_rejects_time_left_and_bottleneck_are_said_while_rows_go_in() {
    let folder = tempfile::tempdir().unwrap();
    let (data, pool) = (folder.path().join("data"), text(folder.path().join("pool")));
    fs::create_dir(&data).unwrap();
    let samples = samples(120);
    for (number, part) in samples.chunks(60).enumerate() {
        let mut rows: Vec<_> = part.iter().map(|s| (Some(s.picture.clone()), Some(s.caption.as_str()))).collect();
        rows[1].1 = None;
        write_rows(&data.join(format!("{number}.parquet")), &rows);
    }
    let ended = run(&["ingest", &text(&data), "--pool", &pool, "--model", model(), "--threads", "1"]).with(0);
    let said: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(said.iter().filter(|line| line.contains("picture image, caption caption")).count(), 1, "said once: {said:?}");
    let first = said.iter().find(|line| line.starts_with("ingest: ")).unwrap();
    for part in ["/120 ", " rows/s", " rejected", " left and the index", "most time in encoding"] {
        assert!(first.contains(part), "no {part:?} in {first}");
    }
    for part in ["2 rejected", "time: reading ", "held up ", "encoding ", "pool.rejects.parquet"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    let summary: Json = serde_json::from_slice(&fs::read(folder.path().join("pool.ingest.json")).unwrap()).unwrap();
    let report = &summary["report"];
    assert_eq!((&report["accepted"], &report["rejected_by_reason"]), (&json!(118), &json!({"caption_null": 2})), "{summary}");
    assert_eq!(
        (&report["outcome"], &summary["error"], &summary["sources"]),
        (&json!("done"), &json!(null), &json!([text(&data)]))
    );
    assert!(
        report["stages"]["encoding"].as_f64() > Some(0.0) && report["sources"].as_array().map(Vec::len) == Some(2),
        "{summary}"
    );
}

#[test]
fn building_the_index_is_said_in_the_same_line() {
    let folder = tempfile::tempdir().unwrap();
    let (file, pool) = (folder.path().join("vectors.parquet"), text(folder.path().join("pool")));
    let row = |i: usize| (0..16).map(|axis| ((i * (axis + 3)) % 101) as f32 - 50.0).collect::<Vec<f32>>();
    let rows: Vec<_> = (1..=3_000).map(row).collect();
    let captions: Vec<String> = (0..rows.len()).map(|i| format!("caption {i}")).collect();
    write(&file, vec![("image_embedding", vectors(&rows)), ("caption", words(captions.iter().map(|c| Some(c.as_str()))))]);
    let ended = run(&["ingest", &text(&file), "--pool", &pool, "--vectors-from", "elsewhere"]).with(0);
    let line = ended.stderr.lines().find(|line| line.contains("building the index")).unwrap_or_default();
    for part in ["ingest: 3000/3000 ", " rows/s, 0 rejected; ", "building the index: image graph "] {
        assert!(line.contains(part), "no {part:?} in {}", ended.stderr);
    }
}
