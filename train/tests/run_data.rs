//! Promise: a finetune set that cannot be trained on is refused before the first step, by name, and what to do.

#![expect(clippy::unwrap_used, reason = "test code")]

mod run_support;

use std::{fs, path::Path};

use anchorite_train::{
    data::{DataError, PairSet},
    runner::{Captions, RunConfig, TaskText},
};
use run_support::{config, pictures, read, streams, write_labelled};

/// A set in a file of its own: pictures with labels.
fn set(folder: &Path, rows: &[(Option<Vec<u8>>, Option<&str>)]) -> RunConfig {
    let path = folder.join("task.parquet");
    write_labelled(&path, rows);
    let mut config = config(&folder.join("run"));
    config.task.sources = vec![path];
    config.task.label = "label".to_owned();
    config.task.only.clear();
    config.batch = 4;
    config
}

fn good(count: usize) -> Vec<(Option<Vec<u8>>, Option<&'static str>)> {
    pictures(count).into_iter().enumerate().map(|(i, p)| (Some(p), Some(["cat", "dog"][i % 2]))).collect()
}

fn refused(config: &RunConfig, parts: &[&str]) -> DataError {
    let error = read(config).unwrap_err();
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in: {text}"));
    error
}

fn all_rows(set: &PairSet) -> Vec<String> {
    (0..set.spool.len()).map(|row| set.spool.get(row).unwrap().texts[0].clone()).collect()
}

#[test]
fn classes_come_from_names_and_from_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = set(folder.path(), &good(6));
    let named = read(&config).unwrap();
    assert_eq!(
        (named.classes.clone(), all_rows(&named)[1].clone()),
        (vec!["cat".to_owned(), "dog".to_owned()], "dog".to_owned())
    );
    config.task.label = "number".to_owned();
    config.task.class_names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
    assert_eq!(all_rows(&read(&config).unwrap()), ["a", "b", "c", "d", "e", "f"]);
    let file = folder.path().join("names.txt");
    fs::write(&file, "u\nv\nw\nx\ny\nz\n").unwrap();
    config.task.class_names_file = Some(file);
    assert_eq!(all_rows(&read(&config).unwrap())[5], "z");
}

#[test]
fn a_set_of_one_class_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<_> = good(8).into_iter().map(|(p, _)| (p, Some("cat"))).collect();
    refused(&set(folder.path(), &rows), &["all 8 rows are of one class, \"cat\"", "\"label\""]);
}

#[test]
fn fewer_rows_than_a_batch_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(&set(folder.path(), &good(3)), &["3 rows are fewer than the 4 of a batch", "set batch to less"]);
}

#[test]
fn unreadable_pictures_are_counted_and_named_and_left_out_where_they_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = good(8);
    rows[2].0 = Some(b"no picture".to_vec());
    rows[5].0 = None;
    rows[6].0.as_mut().unwrap().truncate(200);
    let mut config = set(folder.path(), &rows);
    refused(&config, &["task: 3 rows are unusable", "data.max_rejects allows 0", "task.parquet#"]);
    config.data.max_rejects = 3;
    let set = read(&config).unwrap();
    assert_eq!((set.spool.len(), set.rejected), (5, 3));
}

#[test]
fn rows_without_a_class_or_of_an_unknown_one_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = good(8);
    rows[4].1 = None;
    let mut config = set(folder.path(), &rows);
    refused(&config, &["1 rows are unusable", "task.parquet#4", "it has no label"]);
    config.data.max_rejects = 100;
    config.task.class_names = vec!["cat".to_owned(), "cow".to_owned()];
    let set = read(&config);
    assert!(matches!(set, Err(DataError::OneClass { .. })), "{set:?}");
    config.task.label = "labels".to_owned();
    refused(&config, &["no row has a column \"labels\"", "task.label", "label, number"]);
    config.task.sources = vec![folder.path().join("elsewhere.parquet")];
    refused(&config, &["cannot open"]);
}

#[test]
fn captions_come_from_a_table_by_key_and_one_that_fits_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = set(folder.path(), &good(6));
    config.task.key = Some("number".to_owned());
    let csv = folder.path().join("captions.csv");
    let lines: String = (0..6).map(|i| format!("{i},a picture of number {i}\n{i},another of {i}\n")).collect();
    fs::write(&csv, format!("key,caption\n{lines}")).unwrap();
    config.captions = Some(Captions { file: Some(csv.clone()), ..Captions::default() });
    let read_back = read(&config).unwrap();
    assert_eq!(read_back.spool.get(4).unwrap().captions, ["a picture of number 4", "another of 4"]);

    let jsonl = folder.path().join("captions.jsonl");
    let lines: String = (0..6).map(|i| format!("{{\"image\": {i}, \"text\": \"line {i}\"}}\n")).collect();
    fs::write(&jsonl, lines).unwrap();
    let (file_key, file_caption) = ("image".to_owned(), "text".to_owned());
    config.captions = Some(Captions { file: Some(jsonl), file_key, file_caption, ..Captions::default() });
    assert_eq!(read(&config).unwrap().spool.get(5).unwrap().captions, ["line 5"]);

    fs::write(&csv, "key,caption\nx,nothing\n").unwrap();
    config.captions = Some(Captions { file: Some(csv), ..Captions::default() });
    refused(&config, &["none of its 1 keys is a key of the finetune set (such as \"0\")", "task.key"]);
}

#[test]
fn a_prompt_is_drawn_for_each_sample() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = set(folder.path(), &good(8));
    config.tokens = Some(16);
    let streams = streams(&config, None);
    let tokens = |batch: u64| streams.batch(batch).unwrap().streams[0].tokens.clone();
    let different: std::collections::BTreeSet<Vec<i64>> =
        (0..8).flat_map(|b| tokens(b).chunks(16).map(<[i64]>::to_vec).collect::<Vec<_>>()).collect();
    assert!(different.len() > 16, "{} prompts", different.len());
    assert_eq!(tokens(5), tokens(5));
}

#[test]
fn a_set_of_captions_needs_no_classes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("run"));
    config.task.text = TaskText::Caption;
    let set = read(&config).unwrap();
    assert_eq!(set.spool.len(), 440);
    assert!(all_rows(&set).contains(&"planet earth".to_owned()));
}
