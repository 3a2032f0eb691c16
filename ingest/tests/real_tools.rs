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
