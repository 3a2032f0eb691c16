//! Layouts as the real tools write them, and as the tools that read a layout read it (see `data/make_tools.py`).
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use anchorite_index::Value;
use anchorite_ingest::IngestOptions;
use serde_json::Value as Json;
use support::{fixture, run, run_ready};

fn golden(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

#[test]
fn hugging_face_shards_of_large_binary_and_large_string() {
    let run = run(fixture("hf_large"), &IngestOptions::default());
    assert_eq!((run.report().accepted, run.report().rejected, run.report().sources.len()), (5, 0, 2));
    let columns = &run.report().sources[1].columns;
    assert_eq!((columns.image.as_deref(), columns.caption.as_deref()), (Some("jpg"), Some("caption")));
    let records = run.records();
    assert_eq!(records[4].caption.as_deref(), Some("large picture 4"));
    assert_eq!(records[4].fields["url"], Value::Text("http://host.invalid/4".to_owned()));
    assert_eq!((records[4].source.file.as_str(), records[4].source.row), ("hf_large/train-00001-of-00002.parquet", 1));
}

#[test]
fn an_image_folder_is_what_datasets_reads_in_it() {
    let run = run(fixture("imagefolder"), &IngestOptions::default());
    assert_eq!((run.report().accepted, run.report().rejected), (3, 0));
    let mut rows: Vec<Json> =
        run.records().into_iter().map(|r| serde_json::json!([r.caption.unwrap(), r.fields["width"]])).collect();
    rows.sort_by_key(Json::to_string);
    assert_eq!(Json::Array(rows), golden("imagefolder/read.json"));
}

#[test]
fn tables_are_what_open_clip_reads_in_them() {
    let read = golden("open_clip/read.json");
    for name in ["pairs.csv", "pairs.tsv"] {
        let run = run(fixture("open_clip").join(name), &IngestOptions::default());
        let captions: Vec<Json> = run.records().into_iter().map(|r| r.caption.unwrap().into()).collect();
        assert_eq!(Json::Array(captions), read[name], "{name}: {:?}", run.report());
    }
}

#[test]
fn what_clip_retrievals_own_writer_writes_comes_in_whole_and_in_order() {
    let run = run_ready(fixture("clip_written"), 8, &IngestOptions::default());
    assert_eq!((run.report().accepted, run.report().rejected), (5, 0));
    let records = run.records();
    let captions: Vec<&str> = records.iter().map(|r| r.caption.as_deref().unwrap()).collect();
    assert_eq!(captions, ["written 00", "written 01", "written 02", "written 10", "written 11"]);
    assert_eq!(records[3].fields["url"], Value::Text("http://host.invalid/10".to_owned()));
    assert!(records.iter().all(|r| r.image.as_ref().unwrap() != r.text.as_ref().unwrap()));
}

#[test]
fn ready_vectors_as_datasets_and_pandas_write_them() {
    let run = run_ready(fixture("vectors/datasets.parquet"), 8, &IngestOptions::default());
    assert_eq!((run.report().accepted, run.report().rejected), (4, 0));
    let records = run.records();
    assert_eq!(records[3].caption.as_deref(), Some("ready 3"));
    let first: Vec<f32> = serde_json::from_value(golden("vectors/first.json")).unwrap();
    let same = |found: &[f32]| found.iter().zip(&first).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(same(records[0].image.as_ref().unwrap()) && !same(records[0].text.as_ref().unwrap()));

    let run = run_ready(fixture("vectors/pandas.parquet"), 8, &IngestOptions::default());
    assert_eq!((run.report().accepted, &run.report().rejected_by_reason["vector_null"]), (3, &1));
    let records = run.records();
    assert_eq!((records[2].caption.as_deref(), &records[2].fields["id"]), (Some("panda 3"), &Value::Int(3)));
    assert!(same(records[0].image.as_ref().unwrap()) && records[0].text.is_none());
}

#[test]
fn pages_that_pyarrow_put_checksums_on_are_held_to_them() {
    let whole = std::fs::read(fixture("checksums/pairs.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.parquet");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(run(&file, &IngestOptions::default()).report().accepted, 3);
    // A byte of a caption: without its checksum the page would be as good as any.
    let at = whole.windows(8).position(|bytes| bytes == b"summed 1").unwrap();
    let mut flipped = whole;
    flipped[at] ^= 1;
    std::fs::write(&file, &flipped).unwrap();
    let error = run(&file, &IngestOptions::default()).error();
    assert!(error.contains("pairs.parquet is damaged") && error.to_lowercase().contains("crc"), "{error}");
}
