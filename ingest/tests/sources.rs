//! How sources are named and found: patterns, folders of pictures, tables, and the files beside them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anchorite_index::Value;
use anchorite_ingest::{ColumnOptions, IngestOptions, Limits, Vectors};
use support::{encoder, fixture, jpeg, named, read_rejects, reasons, run, run_with, write_pairs};

fn defaults() -> IngestOptions {
    IngestOptions::default()
}

fn names(run: &support::Run) -> Vec<&str> {
    run.report().sources.iter().map(|s| s.name.as_str()).collect()
}

fn captions(run: &support::Run) -> Vec<String> {
    run.records().into_iter().map(|r| r.caption.unwrap()).collect()
}

/// `set/train/{0,1,2,10}.parquet` and `set/test/0.parquet`.
fn shards() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    for (number, name) in ["train/0", "train/1", "train/2", "train/10", "test/0"].iter().enumerate() {
        let file = set.join(format!("{name}.parquet"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_pairs(&file, number * 3, 3);
    }
    (folder, set)
}

#[test]
fn patterns_name_the_files_a_shell_would_in_natural_order() {
    let (_folder, set) = shards();
    let train = ["train/0.parquet", "train/1.parquet", "train/2.parquet", "train/10.parquet"];
    let all = [&["test/0.parquet"][..], &train[..]].concat();
    let cases: [(&str, &[&str]); 7] = [
        ("train/*.parquet", &train),
        ("train/{0..2}.parquet", &train[..3]),
        ("train/?.parquet", &train[..3]),
        ("train/[12].parquet", &train[1..3]),
        ("**/*.parquet", &all),
        ("{train,test}/0.parquet", &["train/0.parquet", "test/0.parquet"]),
        ("t*", &all),
    ];
    for (pattern, expected) in cases {
        assert_eq!(names(&run(set.join(pattern), &defaults())), expected, "{pattern}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_that_names_it() {
    let (_folder, set) = shards();
    for (pattern, message) in
        [("none/*.parquet", "none/*.parquet"), ("train/*.tar", "matches nothing"), ("train/[.parquet", "train/[.parquet")]
    {
        let error = run(set.join(pattern), &defaults()).error();
        assert!(error.contains(message), "{error}");
    }
    // What braces list is named, so it must be there.
    assert!(run(set.join("train/{0..3}.parquet"), &defaults()).error().contains("train/3.parquet"));
    assert!(run(set.join("train/{0..999999999}.parquet"), &defaults()).error().contains("too many files"));
    // Matched, but nothing to ingest among it.
    fs::write(set.join("notes.md"), "x").unwrap();
    assert!(run(set.join("*.md"), &defaults()).error().contains("nothing to ingest"));
}

#[test]
fn a_file_with_the_characters_of_a_pattern_in_its_name_is_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("[a]{0..2}*.parquet");
    write_pairs(&file, 0, 3);
    assert_eq!(run(&file, &defaults()).report().accepted, 3);
}

#[test]
fn folders_with_the_characters_of_a_pattern_in_their_names_are_themselves_before_a_pattern() {
    let (folder, set) = shards();
    let odd = folder.path().join("my [new] set {1,2}, *ünï*");
    fs::rename(&set, &odd).unwrap();
    for (pattern, files) in [("train/*.parquet", 4), ("**/0.parquet", 2), ("train/{0..1}.parquet", 2), ("{train,test}/0.*", 2)] {
        assert_eq!(run(odd.join(pattern), &defaults()).report().sources.len(), files, "{pattern}");
    }
}

#[test]
fn a_row_has_one_key_however_its_file_is_named() {
    let (_folder, set) = shards();
    let key = |source: PathBuf| {
        let run = run(source, &defaults());
        let record = run.records().into_iter().find(|r| r.source.file == "train/2.parquet").unwrap();
        (record.key, record.source)
    };
    let direct = key(set.join("train/2.parquet"));
    for other in ["", "train", "train/.", "test/../train", "**/2.parquet", "train/{2..2}.parquet"] {
        assert_eq!(key(set.join(other)), direct, "{other}");
    }
    // The Hugging Face cache is made of links; the name is the link's.
    let linked = tempfile::tempdir().unwrap();
    fs::create_dir(linked.path().join("train")).unwrap();
    fs::copy(set.join("train/2.parquet"), linked.path().join("blob")).unwrap();
    symlink("../blob", linked.path().join("train/2.parquet")).unwrap();
    assert_eq!(key(linked.path().join("train/2.parquet")), direct);
}

#[test]
fn img2dataset_files_output_is_pictures_with_captions_beside_them() {
    let run = run(fixture("img2dataset_files"), &defaults());
    assert_eq!((run.report().accepted, run.report().rejected, run.report().sidecars), (4, 0, 4));
    assert_eq!(run.report().failed_before, 2, "one was not there, one was no picture");
    assert_eq!(names(&run), ["img2dataset_files/00000", "img2dataset_files/00001"]);
    assert_eq!(captions(&run), ["caption of 0.jpg", "caption of 1.jpg", "caption of 2.jpg", "caption of 3.jpg"]);
    let last = run.records().remove(3);
    assert_eq!(last.fields["status"], Value::Text("success".to_owned()));
    assert!(!last.fields.contains_key("caption"));
}

#[test]
fn img2dataset_parquet_output_lists_failed_downloads_with_the_tools_words() {
    let out = tempfile::tempdir().unwrap();
    let rejects = out.path().join("rejects.parquet");
    let run = run(fixture("img2dataset_parquet"), &IngestOptions { rejects: Some(rejects.clone()), ..defaults() });
    assert_eq!((run.report().accepted, run.report().sidecars, run.report().failed_before), (4, 2, 0));
    assert_eq!(reasons(run.report()), [("download_failed", 2)]);
    let messages: Vec<_> = read_rejects(&rejects).into_iter().map(|(_, _, _, message)| message).collect();
    assert!(messages[0].starts_with("failed_to_download: ") && messages[0].contains("404"), "{messages:?}");
    assert!(messages[1].starts_with("failed_to_resize: "), "{messages:?}");
}

/// A folder of pictures `0.jpg` to `3.jpg`, and one in `in/`.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    for (number, name) in ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "in/4.jpg"].iter().enumerate() {
        fs::write(folder.path().join(name), jpeg(number)).unwrap();
    }
    folder
}

#[test]
fn loose_pictures_take_their_captions_from_beside_them_and_keep_their_keys_when_others_come() {
    let folder = pictures();
    let put = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    put("0.txt", b"zero\n");
    put("1.json", br#"{"title": "one", "id": 7}"#);
    put("2.txt", b"\xff");
    put("in/4.txt", b"four");
    let first = run(folder.path(), &defaults());
    assert_eq!(reasons(first.report()), [("caption_null", 1), ("text_invalid", 1)]);
    assert_eq!(captions(&first), ["zero", "one", "four"]);
    assert_eq!(first.records()[1].fields["id"], Value::Int(7));

    put("00.jpg", &jpeg(9));
    put("00.txt", b"new");
    let second = run(folder.path(), &defaults());
    let keys = |run: &support::Run| run.records().into_iter().map(|r| r.key).collect::<Vec<_>>();
    assert!(keys(&first).iter().all(|key| keys(&second).contains(key)));
    assert_eq!(second.report().accepted, 4);
}

#[test]
fn files_of_kinds_that_are_not_read_are_counted() {
    let folder = pictures();
    for name in ["4.gif", "in/5.GIF", "README", "Städte.txt", ".hidden.gif"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let found = run(folder.path(), &defaults());
    let ignored: Vec<(&str, u64)> =
        found.report().ignored_files.iter().map(|(ending, files)| (ending.as_str(), *files)).collect();
    assert_eq!(ignored, [("gif", 2), ("readme", 1)]);
    fs::write(folder.path().join("list.jsonl"), r#"{"file_name": "0.jpg", "text": "zero"}"#).unwrap();
    let found = run(folder.path().join("*"), &defaults());
    assert_eq!((found.report().accepted, found.report().ignored_files.get("gif")), (1, Some(&2)));
}

#[test]
fn pictures_that_are_named_by_themselves_are_asked_for_by_their_folder() {
    let folder = pictures();
    for named in ["0.jpg", "*.jpg", "{0,1}.jpg", "?.jp*"] {
        let error = run(folder.path().join(named), &defaults()).error();
        assert!(error.contains("is a picture; name its folder"), "{named}: {error}");
    }
}

#[test]
fn pictures_that_a_parquet_file_names_are_no_rows_of_their_own() {
    let run = run(fixture("hf"), &defaults());
    assert_eq!(names(&run), ["hf/lists.parquet", "hf/paths.parquet", "hf/train-00000-of-00001.parquet"]);
    assert_eq!((run.report().accepted, run.report().owned_pictures), (9, 2));
    assert_eq!(reasons(run.report()), [("caption_null", 2), ("path_missing", 1)]);
}

#[test]
fn links_among_pictures_are_not_followed() {
    let (folder, outside) = (pictures(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret.jpg"), jpeg(1)).unwrap();
    symlink(outside.path().join("secret.jpg"), folder.path().join("link.jpg")).unwrap();
    let run = run(folder.path(), &defaults());
    assert_eq!(reasons(run.report()), [("caption_null", 5), ("path_refused", 1)]);
}

#[test]
fn an_image_folders_metadata_jsonl_owns_the_pictures_below_it() {
    let folder = pictures();
    let lines = [
        r#"{"file_name": "0.jpg", "text": "zero", "width": 5, "tags": ["a"]}"#,
        r#"{"file_name": "in/4.jpg", "text": "four"}"#,
        "",
        r#"{"file_name": "../0.jpg", "text": "up"}"#,
        r#"{"file_name": "gone.jpg", "text": "gone"}"#,
        r#"{"file_name": "1.jpg", "#,
        r#"{"file_name": "1.jpg", "text": null}"#,
        r#"{"text": "no picture"}"#,
        r#"{"file_name": "http://host.invalid/x.jpg", "text": "url"}"#,
    ];
    fs::write(folder.path().join("metadata.jsonl"), lines.join("\n")).unwrap();
    let run = run(folder.path(), &defaults());
    assert_eq!(captions(&run), ["zero", "four"]);
    assert_eq!(run.records()[0].fields["width"], Value::Int(5));
    assert_eq!(run.records()[1].source.row, 1);
    assert_eq!(
        reasons(run.report()),
        [
            ("caption_null", 1),
            ("image_null", 1),
            ("path_invalid", 1),
            ("path_is_url", 1),
            ("path_missing", 1),
            ("row_invalid", 1)
        ]
    );
    assert_eq!(run.report().sources[0].columns.image.as_deref(), Some("file_name"));
}

#[test]
fn tables_of_any_separator_as_open_clip_reads_them() {
    for (name, text) in [
        ("a.csv", "filepath\ttitle\tsplit\n0.jpg\ta, \"quoted\" zero\ttrain\nin/4.jpg\tfour\t\n"),
        ("b.csv", "filepath,title,split\n0.jpg,\"a, \"\"quoted\"\" zero\",train\n./in/4.jpg,four,\n"),
        ("c.tsv", "\u{feff}filepath;title;split\r\n0.jpg;\"a, \"\"quoted\"\" zero\";train\r\nin/4.jpg;four;\r\n"),
    ] {
        let folder = pictures();
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        for source in [file.as_path(), folder.path()] {
            let run = run(source, &defaults());
            assert_eq!(captions(&run), ["a, \"quoted\" zero", "four"], "{name}");
            let records = run.records();
            assert_eq!(records[0].fields["split"], Value::Text("train".to_owned()));
            assert!(!records[1].fields.contains_key("split"));
            assert!(records[0].source.file.ends_with(name));
        }
    }
}

#[test]
fn lines_that_are_wrong_reject_themselves_and_columns_can_be_named() {
    let folder = pictures();
    let file = folder.path().join("list.csv");
    let mut text = b"id,picture,words\nr0,0.jpg,zero\nr1,1.jpg\nr2,2.jpg,\xff\nr3,/etc/passwd,abs\nr4,3.jpg,three\n".to_vec();
    fs::write(&file, &text).unwrap();
    assert!(run(&file, &defaults()).error().contains("no image column found; name it with --image-column"));
    let columns =
        ColumnOptions { image: named("picture"), caption: named("words"), key: Some("id".to_owned()), ..Default::default() };
    let options = IngestOptions { columns, ..defaults() };
    let found = run(&file, &options);
    assert_eq!(reasons(found.report()), [("path_invalid", 1), ("row_invalid", 2)]);
    assert_eq!(found.records().iter().map(|r| r.key.as_str().to_owned()).collect::<Vec<_>>(), ["r0", "r4"]);
    assert_eq!(found.records()[1].source.row, 4);

    // A quote that is never closed takes all that follows; that is bounded.
    text.extend(b"r5,0.jpg,\"open\n");
    text.extend(b"r6,0.jpg,six\n".repeat(100_000));
    fs::write(&file, &text).unwrap();
    let limits = Limits { max_metadata_bytes: 1 << 10, ..Limits::default() };
    let found = run(&file, &IngestOptions { limits, ..options });
    assert!(found.error().contains("a quote may be open"), "{}", found.error());
    assert_eq!(found.records().len(), 2);
}

#[test]
fn one_run_takes_sources_of_every_kind() {
    let sources = ["webdataset/json.tar", "img2dataset_files", "img2dataset_parquet", "hf/train-*.parquet"].map(fixture);
    let run = run_with(&sources, Vectors::Encode(&encoder()), &defaults());
    assert_eq!(run.report().accepted, 3 + 4 + 4 + 5);
    assert_eq!(run.report().rows_read, run.report().accepted + run.report().rejected);
    assert!(run.report().sources.iter().all(|s| !Path::new(&s.name).is_absolute() && s.rows > 0));
}
