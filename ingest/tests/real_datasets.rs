//! Datasets as the real tools write them (see `data/make.py`) go in as they are.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use anchorite_index::Value;
use anchorite_ingest::{ColumnOptions, IngestJob, IngestOptions, Missing, Outcome, Vectors, holds_only_vectors, plan};
use support::{encoder, fixture, named, reasons, run, run_ready};

#[test]
fn hugging_face_images_with_embedded_bytes() {
    let run = run(fixture("hf/train-00000-of-00001.parquet"), &IngestOptions::default());
    let report = run.report();
    assert_eq!((report.rows_read, report.accepted, report.rejected, report.images), (5, 5, 0, 5));
    assert_eq!(report.outcome, Outcome::Done);
    assert_eq!(report.generation, Some(1));
    let columns = &report.sources[0].columns;
    assert_eq!((columns.image.as_deref(), columns.caption.as_deref()), (Some("image"), Some("caption")));
    let records = run.records();
    assert_eq!(records[3].caption.as_deref(), Some("picture number 3"));
    assert_eq!(records[3].fields["label"], Value::Int(1));
    assert!(records[3].picture.as_ref().unwrap().starts_with(b"\xff\xd8\xff"));
    assert_eq!((records[3].source.file.as_str(), records[3].source.row), ("hf/train-00000-of-00001.parquet", 3));
    assert_eq!(records[3].key.as_str().len(), 32);
    assert!(records[3].image.is_some() && records[3].text.is_some());
}

#[test]
fn hugging_face_images_by_path_are_read_beside_the_file_and_a_missing_one_is_a_reject() {
    let run = run(fixture("hf/paths.parquet"), &IngestOptions::default());
    assert_eq!((run.report().accepted, reasons(run.report())), (2, vec![("path_missing", 1)]));
    let stored = run.records()[1].picture.clone().unwrap();
    assert_eq!(stored, std::fs::read(fixture("hf/pictures/1.jpg")).unwrap());
}

#[test]
fn of_a_list_of_captions_the_first_that_is_not_blank_counts() {
    let run = run(fixture("hf/lists.parquet"), &IngestOptions::default());
    assert_eq!(reasons(run.report()), [("caption_null", 2)]);
    let captions: Vec<_> = run.records().into_iter().map(|r| r.caption.unwrap()).collect();
    assert_eq!(captions, ["first", "third"]);
}

#[test]
fn img2dataset_parquet_with_a_failed_download() {
    let options =
        IngestOptions { columns: ColumnOptions { key: Some("key".to_owned()), ..Default::default() }, ..Default::default() };
    let run = run(fixture("img2dataset"), &options);
    assert_eq!((run.report().accepted, reasons(run.report())), (3, vec![("download_failed", 1)]));
    let records = run.records();
    assert_eq!(records[2].key.as_str(), "000000003");
    assert_eq!(records[2].fields["url"], Value::Text("http://host.invalid/3.jpg".to_owned()));
    assert_eq!(records[2].fields["width"], Value::Int(16));
    assert!(!records[2].fields.contains_key("error_message"));
}

#[test]
fn a_clip_retrieval_folder_comes_in_whole_and_in_order() {
    let folder = fixture("clip");
    assert!(holds_only_vectors(std::slice::from_ref(&folder)).unwrap());
    let run = run_ready(&folder, 8, &IngestOptions::default());
    assert_eq!((run.report().accepted, run.report().rejected), (5, 0));
    let records = run.records();
    let names: Vec<_> = records.iter().map(|r| (r.source.file.as_str(), r.source.row)).collect();
    assert_eq!(names, [("clip/0", 0), ("clip/0", 1), ("clip/0", 2), ("clip/1", 0), ("clip/1", 1)]);
    assert_eq!(records[4].caption.as_deref(), Some("sample 11"));
    assert_eq!(records[4].fields["image_path"], Value::Text("0000011".to_owned()));
    assert_eq!(records[4].fields["nested.width"], Value::Int(1));
    // First values of the arrays, as NumPy prints them.
    let (image, text) = (records[0].image.as_ref().unwrap(), records[0].text.as_ref().unwrap());
    let bytes = std::fs::read(fixture("clip/img_emb/img_emb_0.npy")).unwrap();
    let first = half::f16::from_le_bytes([bytes[128], bytes[129]]).to_f32();
    assert!((image[0] - first).abs() < 1e-3, "{} {first}", image[0]);
    assert_ne!(image, text);
    let length: f32 = image.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-6);
}

#[test]
fn a_clip_retrieval_folder_is_refused_by_a_run_with_an_encoder() {
    let error = run(fixture("clip"), &IngestOptions::default()).error();
    assert!(error.contains("ready-made vectors"), "{error}");
}

#[test]
fn the_wrong_dimension_is_an_error_and_not_a_reject_for_every_row() {
    let error = run_ready(fixture("clip"), 512, &IngestOptions::default()).error();
    assert!(error.contains("have 8 values, the pool's have 512"), "{error}");
}

#[test]
fn a_plan_says_what_would_be_read_and_how_the_first_rows_fare() {
    let (encoder, options, sources) = (encoder(), IngestOptions::default(), [fixture("img2dataset")]);
    let planned = plan(IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options }, 3).unwrap();
    assert_eq!(planned.rows, 4);
    assert_eq!(planned.sources[0].columns.image.as_deref(), Some("jpg"));
    assert_eq!(planned.sources[0].schema[0].name, "caption");
    assert_eq!(planned.checked.iter().map(|c| c.problem.is_none()).collect::<Vec<_>>(), [true, true, false]);

    let sources = [fixture("clip")];
    let planned = plan(IngestJob { sources: &sources, vectors: Vectors::Ready { dim: None }, options: &options }, 1).unwrap();
    assert_eq!((planned.rows, planned.dim), (5, Some(8)));
}

#[test]
fn captions_alone_go_in_when_the_picture_column_is_turned_off() {
    let columns =
        ColumnOptions { image: anchorite_ingest::ColumnChoice::Absent, caption: named("caption"), ..Default::default() };
    let options = IngestOptions { columns, missing: Missing::Reject, ..Default::default() };
    let run = run(fixture("img2dataset/00000.parquet"), &options);
    assert_eq!((run.report().accepted, run.report().images), (4, 0));
    assert!(run.records().iter().all(|r| r.image.is_none() && r.text.is_some()));
}
