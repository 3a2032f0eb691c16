//! Everything that can be wrong with a dataset has a clear error or a reject with its code, and costs nothing else.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_index::{Cancel, PairStore};
use anchorite_ingest::{
    ColumnChoice, ColumnOptions, IngestJob, IngestOptions, Limits, Missing, NoProgress, Outcome, ProgressUpdate, Rows,
    VectorMode, Vectors, ingest,
};
use arrow_array::{ArrayRef, Int64Array, NullArray};
use support::{
    DIM, binary, encoder, fixture, floats, jpeg, named, read_rejects, reasons, run, run_ready, run_with, text, vectors, write,
    write_pairs,
};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    (folder, file)
}

fn defaults() -> IngestOptions {
    IngestOptions::default()
}

fn keyed() -> IngestOptions {
    IngestOptions { columns: ColumnOptions { key: Some("key".to_owned()), ..Default::default() }, ..Default::default() }
}

#[test]
fn truncated_files_of_any_length_are_named_errors() {
    let (_folder, file) = folder();
    let whole = fs::read(fixture("hf/train-00000-of-00001.parquet")).unwrap();
    for length in [0, 1, 4, 8, 11, 12, 100, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = run(&file, &defaults()).error();
        assert!(error.contains("data.parquet") && error.contains("damaged"), "{length}: {error}");
    }
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_or_rejects_but_never_a_panic() {
    let (_folder, file) = folder();
    let whole = fs::read(fixture("hf/paths.parquet")).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&file, &bytes).unwrap();
        let run = run(&file, &IngestOptions { workers: std::num::NonZeroUsize::new(1), ..defaults() });
        if let Ok(report) = &run.result {
            assert_eq!(report.rows_read, report.accepted + report.rejected + report.already_present, "byte {at}");
        }
    }
}

/// Pictures, captions and numbers in 20 kB. Read without a pool, so that all flips are quick.
#[test]
fn a_flipped_byte_anywhere_in_20_kb_of_three_columns_is_an_error_or_rows() {
    let (_folder, file) = folder();
    let rows = 0..40;
    let picture = |i: usize| Some([jpeg(i), (0..400).map(|at| (i * 31 + at * 7) as u8).collect()].concat());
    write(
        &file,
        vec![
            ("image", binary(rows.clone().map(picture))),
            ("caption", text(rows.clone().map(|i| Some(format!("caption {i}"))))),
            ("number", Arc::new(Int64Array::from_iter_values(rows.map(|i| i as i64 * 7_919))) as ArrayRef),
        ],
    );
    let bytes = fs::read(&file).unwrap();
    // One byte is written at a time: 20,000 new files would take a disk minutes.
    let open = fs::File::options().write(true).open(&file).unwrap();
    assert!((18_000..24_000).contains(&bytes.len()), "{}", bytes.len());
    let (mut errors, sources) = (0, [file.clone()]);
    for at in 0..bytes.len() {
        open.write_all_at(&[bytes[at] ^ 0xff], at as u64).unwrap();
        let mut found = 0;
        let read = Rows::open(&sources, ColumnOptions::default(), VectorMode::Encode, Limits::default()).and_then(|mut rows| {
            while rows.next_row()?.is_some() {
                found += 1;
            }
            Ok(())
        });
        open.write_all_at(&bytes[at..=at], at as u64).unwrap();
        assert!(found <= 40 && (read.is_err() || found == 40), "byte {at}: {found} rows");
        errors += usize::from(read.is_err());
    }
    assert!(errors > 200, "only {errors} flips were noticed");
}

#[test]
fn what_is_no_parquet_file_is_a_named_error() {
    let (_folder, file) = folder();
    fs::write(&file, jpeg(1).repeat(10)).unwrap();
    assert!(run(&file, &defaults()).error().contains("another kind of file"));
    fs::write(&file, [&[0; 20][..], &u32::MAX.to_le_bytes(), b"PAR1"].concat()).unwrap();
    assert!(run(&file, &defaults()).error().contains("claims 4294967295 bytes"));
}

#[test]
fn sources_that_are_not_there_or_hold_nothing_are_errors() {
    let (folder, file) = folder();
    assert!(run(&file, &defaults()).error().contains("cannot open"));
    assert!(run(folder.path(), &defaults()).error().contains("nothing to ingest found"));
    let none = run_with(&[], Vectors::Encode(&encoder()), &defaults());
    assert!(none.error().contains("no source"));
}

#[test]
fn an_empty_dataset_is_an_error_that_says_so() {
    let (_folder, file) = folder();
    write_pairs(&file, 0, 0);
    let error = run(&file, &defaults()).error();
    assert!(error.contains("the dataset is empty: 0 rows in ") && error.ends_with("/data.parquet"), "{error}");
}

#[test]
fn missing_and_ambiguous_columns_name_what_is_there_and_the_flag() {
    let (_folder, file) = folder();
    let (image, caption): (ArrayRef, ArrayRef) = (binary([Some(jpeg(0))]), text([Some("a")]));
    let error_of = |columns: Vec<(&str, ArrayRef)>, options: &IngestOptions| {
        write(&file, columns);
        run(&file, options).error()
    };

    let error = error_of(vec![("picture", image.clone()), ("caption", caption.clone())], &defaults());
    assert!(error.contains("no image column") && error.contains("--image-column"), "{error}");
    assert!(error.contains("picture: Binary, caption: Utf8"), "{error}");

    let error = error_of(vec![("image", image.clone()), ("words", caption.clone())], &defaults());
    assert!(error.contains("no caption column") && error.contains("--caption-column"), "{error}");

    let both = vec![("image", image.clone()), ("caption", caption.clone()), ("TEXT", caption.clone())];
    let error = error_of(both, &defaults());
    assert!(error.contains("caption, TEXT could each be the caption"), "{error}");

    let two = vec![("image", image.clone()), ("jpg", image.clone()), ("caption", caption.clone())];
    assert!(error_of(two, &defaults()).contains("image, jpg could each be the image"));

    let wrong = vec![("image", Arc::new(Int64Array::from(vec![1])) as ArrayRef), ("caption", caption.clone())];
    assert!(error_of(wrong.clone(), &defaults()).contains("no image column"));
    let columns = ColumnOptions { image: named("image"), ..Default::default() };
    let error = error_of(wrong, &IngestOptions { columns, ..Default::default() });
    assert!(error.contains("column \"image\" is Int64, but --image-column needs"), "{error}");

    let columns = ColumnOptions { caption: named("nope"), ..Default::default() };
    let error = error_of(vec![("image", image), ("caption", caption)], &IngestOptions { columns, ..Default::default() });
    assert!(error.contains("no column \"nope\" for --caption-column"), "{error}");
}

#[test]
fn a_named_column_settles_what_is_ambiguous() {
    let (_folder, file) = folder();
    write(&file, vec![("image", binary([Some(jpeg(0))])), ("caption", text([Some("a")])), ("title", text([Some("b")]))]);
    let columns = ColumnOptions { caption: named("title"), ..Default::default() };
    let run = run(&file, &IngestOptions { columns, ..Default::default() });
    assert_eq!(run.records()[0].caption.as_deref(), Some("b"));
    assert_eq!(run.records()[0].fields["caption"], anchorite_index::Value::Text("a".to_owned()));
}

#[test]
fn null_and_broken_rows_are_listed_with_their_codes_and_cost_nothing_else() {
    let (folder, file) = folder();
    let long = "word ".repeat(100);
    write(
        &file,
        vec![
            ("image", binary([Some(jpeg(0)), None, Some(jpeg(2)), Some(b"GIF89a".to_vec()), Some(vec![]), None, Some(jpeg(6))])),
            ("caption", text([Some("good"), Some("no picture"), None, Some("gif"), Some("empty"), None, Some(long.as_str())])),
        ],
    );
    let rejects = folder.path().join("rejects.parquet");
    let options = IngestOptions { rejects: Some(rejects.clone()), ..defaults() };
    let run = run(&file, &options);
    assert_eq!((run.report().rows_read, run.report().accepted, run.report().truncated_captions), (7, 2, 1));
    let found: Vec<_> = read_rejects(&rejects).into_iter().map(|(file, row, code, _)| (file, row, code)).collect();
    let expected = [(1, "image_null"), (2, "caption_null"), (3, "image_unknown_format"), (4, "image_empty"), (5, "image_null")];
    let name = format!("{}/data.parquet", folder.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(found, expected.map(|(row, code)| (name.clone(), row, code.to_owned())));
    assert_eq!(run.records()[1].caption.as_deref(), Some(long.as_str()));
}

#[test]
fn half_rows_can_be_kept() {
    let (_folder, file) = folder();
    write(&file, vec![("image", binary([Some(jpeg(0)), None, None])), ("caption", text([None, Some("b"), Some("  ")]))]);
    let run = run(&file, &IngestOptions { missing: Missing::KeepHalf, ..defaults() });
    assert_eq!((run.report().accepted, reasons(run.report())), (2, vec![("image_null", 1)]));
    assert_eq!(
        run.records().iter().map(|r| (r.image.is_some(), r.text.is_some())).collect::<Vec<_>>(),
        [(true, false), (false, true)]
    );
}

#[test]
fn columns_of_nothing_but_nulls_are_rejects_or_absent_fields() {
    let (_folder, file) = folder();
    let nulls = || Arc::new(NullArray::new(2)) as ArrayRef;
    write(&file, vec![("image", binary([Some(jpeg(0)), None])), ("caption", nulls()), ("note", nulls())]);
    assert_eq!(reasons(run(&file, &defaults()).report()), [("caption_null", 1), ("image_null", 1)]);
    write(&file, vec![("image", nulls()), ("caption", text([Some("a"), Some("b")])), ("note", nulls())]);
    assert_eq!(reasons(run(&file, &defaults()).report()), [("image_null", 2)]);
}

#[test]
fn more_rejects_than_allowed_is_an_outcome_and_keeps_what_was_accepted() {
    let (_folder, file) = folder();
    write(&file, vec![("image", binary([Some(jpeg(0)), None, None])), ("caption", text([Some("a"), Some("b"), Some("c")]))]);
    let run = |max| run(&file, &IngestOptions { max_rejects: Some(max), ..defaults() });
    assert_eq!(run(2).report().outcome, Outcome::Done);
    let over = run(1);
    assert_eq!((over.report().outcome, over.store.status().rows), (Outcome::TooManyRejects, 1));
}

#[test]
fn keys_are_checked_row_by_row() {
    let (_folder, file) = folder();
    let keys = [Some("a"), Some("b"), Some("a"), None, Some("white space"), Some("c")];
    let pictures = (0..6).map(|i| Some(jpeg(i)));
    write(&file, vec![("image", binary(pictures)), ("caption", text([Some("x"); 6])), ("key", text(keys))]);
    let run = run(&file, &keyed());
    assert_eq!(reasons(run.report()), [("key_duplicate", 1), ("key_invalid", 1), ("key_null", 1)]);
    let found: Vec<_> = run.records().iter().map(|r| r.key.as_str().to_owned()).collect();
    assert_eq!(found, ["a", "b", "c"]);
    assert!(!run.records()[0].fields.contains_key("key"));
}

#[test]
fn two_files_of_one_name_are_refused_until_a_source_root_tells_them_apart() {
    let (folder, _) = folder();
    let files = ["a/train", "b/train"].map(|part| folder.path().join(part).join("data.parquet"));
    for (number, file) in files.iter().enumerate() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_pairs(file, number * 3, 3);
    }
    let error = run_with(&files, Vectors::Encode(&encoder()), &defaults()).error();
    assert!(error.contains("two files are called train/data.parquet") && error.contains("--source-root"), "{error}");
    let rooted = IngestOptions { source_root: Some(folder.path().to_owned()), ..defaults() };
    let run = run_with(&files, Vectors::Encode(&encoder()), &rooted);
    assert_eq!(
        run.report().sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["a/train/data.parquet", "b/train/data.parquet"]
    );
    let elsewhere = IngestOptions { source_root: Some(folder.path().join("a")), ..defaults() };
    let error = run_with(&files, Vectors::Encode(&encoder()), &elsewhere).error();
    assert!(error.contains("does not lie below --source-root"), "{error}");
}

#[test]
fn paths_that_leave_the_folder_are_rejects() {
    let (folder, file) = folder();
    let inner = folder.path().join("set");
    fs::create_dir(&inner).unwrap();
    let outside = folder.path().join("outside.jpg");
    fs::write(&outside, jpeg(0)).unwrap();
    fs::write(inner.join("fine.jpg"), jpeg(1)).unwrap();
    symlink(&outside, inner.join("link.jpg")).unwrap();
    let absolute = outside.to_str().unwrap().to_owned();
    let paths = ["fine.jpg", "../outside.jpg", &absolute, "link.jpg", "set/../../outside.jpg", "http://h/x.jpg", "gone.jpg", ""];
    let columns = vec![("image", text(paths.map(Some))), ("caption", text([Some("x"); 8]))];
    drop(file);
    let file = inner.join("data.parquet");
    write(&file, columns);
    let run = run(&file, &defaults());
    assert_eq!(run.report().accepted, 1);
    assert_eq!(
        reasons(run.report()),
        [("image_null", 1), ("path_invalid", 3), ("path_is_url", 1), ("path_missing", 1), ("path_refused", 1)]
    );
}

#[test]
fn pictures_and_captions_above_their_limits_are_rejects() {
    let (_folder, file) = folder();
    write(
        &file,
        vec![("image", binary([Some(jpeg(0).repeat(100)), Some(jpeg(1))])), ("caption", text([Some("x"), Some("longer")]))],
    );
    let limits = Limits { max_picture_bytes: 100, max_caption_bytes: 5, ..Limits::default() };
    let run = run(&file, &IngestOptions { limits, ..defaults() });
    assert_eq!(reasons(run.report()), [("image_too_many_bytes", 1), ("text_too_long", 1)]);
}

#[test]
fn bad_vectors_are_rejects_with_their_codes() {
    let (_folder, file) = folder();
    let good = vec![3.0, 4.0];
    let rows = [Some(good), Some(vec![f32::NAN, 1.0]), Some(vec![0.0, 0.0]), None, Some(vec![f32::INFINITY, 0.0])];
    write(
        &file,
        vec![
            ("embedding", vectors(&rows, 2)),
            ("caption", text([Some("x"); 5])),
            ("score", floats(&[1.0, f32::NAN, 0.0, 0.0, 0.0])),
        ],
    );
    let run = run_ready(&file, 2, &defaults());
    assert_eq!(reasons(run.report()), [("vector_not_finite", 2), ("vector_null", 1), ("vector_zero", 1)]);
    assert_eq!(run.records()[0].image.as_deref(), Some(&[0.6, 0.8][..]));
    assert_eq!(run.records()[0].text, None);

    let error = run_ready(&file, DIM, &defaults()).error();
    assert!(error.contains("the vectors in embedding have 2 values, the pool's have 32"), "{error}");
}

#[test]
fn vectors_of_changing_length_are_rejects() {
    use arrow_array::builder::{Float32Builder, ListBuilder};
    let (_folder, file) = folder();
    let mut builder = ListBuilder::new(Float32Builder::new());
    for length in [2, 3, 2, 0] {
        builder.append_value((0..length).map(|_| Some(1.0)));
    }
    write(&file, vec![("vec", Arc::new(builder.finish()) as ArrayRef)]);
    let columns = ColumnOptions { image_vector: ColumnChoice::Absent, text_vector: named("vec"), ..Default::default() };
    let run = run_ready(&file, 2, &IngestOptions { columns, ..defaults() });
    assert_eq!((run.report().accepted, reasons(run.report())), (2, vec![("vector_dimension", 2)]));
    assert!(run.records().iter().all(|r| r.image.is_none() && r.text.is_some()));
}

#[test]
fn a_dataset_without_vectors_cannot_be_taken_as_ready_made() {
    let (_folder, file) = folder();
    write_pairs(&file, 0, 1);
    let error = run_ready(&file, 2, &defaults()).error();
    assert!(error.contains("no image vector column") && error.contains("--image-vector-column"), "{error}");
}

#[test]
fn broken_clip_retrieval_folders_are_named_errors() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let to = folder.path().join(name);
        for part in ["img_emb", "text_emb", "metadata"] {
            fs::create_dir_all(to.join(part)).unwrap();
            for entry in fs::read_dir(fixture("clip").join(part)).unwrap() {
                let from = entry.unwrap().path();
                fs::copy(&from, to.join(part).join(from.file_name().unwrap())).unwrap();
            }
        }
        to
    };
    let error_of = |at: &Path| run_ready(at, 8, &defaults()).error();

    let cut = fresh("cut");
    let array = cut.join("img_emb/img_emb_0.npy");
    let bytes = fs::read(&array).unwrap();
    fs::write(&array, &bytes[..bytes.len() - 1]).unwrap();
    let error = error_of(&cut);
    assert!(error.contains("img_emb_0.npy") && error.contains("3 rows of 8 values"), "{error}");

    let swapped = fresh("swapped");
    fs::copy(swapped.join("img_emb/img_emb_1.npy"), swapped.join("img_emb/img_emb_0.npy")).unwrap();
    let error = error_of(&swapped);
    assert!(error.contains("2 rows in img_emb, 3 rows in text_emb, 3 rows in metadata"), "{error}");

    let missing = fresh("missing");
    fs::remove_file(missing.join("text_emb/text_emb_1.npy")).unwrap();
    assert!(error_of(&missing).contains("partition 1 has no file in text_emb/"));

    // The partition before the damage is kept.
    let later = fresh("later");
    fs::write(later.join("metadata/metadata_1.parquet"), b"PAR1").unwrap();
    let run = run_ready(&later, 8, &defaults());
    assert!(run.error().contains("metadata_1.parquet"));
    assert_eq!(run.store.status().rows, 3);

    let bare = fresh("bare");
    fs::remove_dir_all(bare.join("metadata")).unwrap();
    assert_eq!(run_ready(&bare, 8, &defaults()).report().accepted, 5);
}

/// What happens to a file while it is read.
type Damage = fn(&Path);

#[test]
fn a_source_that_vanishes_or_changes_while_it_is_read_is_a_named_error_and_the_next_run_does_the_rest() {
    let damages: [(&str, Damage); 4] = [
        ("removed", |file| fs::remove_file(file).unwrap()),
        ("cut", |file| fs::File::options().write(true).open(file).unwrap().set_len(30_000).unwrap()),
        ("longer", |file| {
            std::io::Write::write_all(&mut fs::File::options().append(true).open(file).unwrap(), b"more").unwrap();
        }),
        ("another", |file| write_pairs(file, 5_000, 10)),
    ];
    for (what, damage) in damages {
        let (_folder, file) = folder();
        write_pairs(&file, 0, 3_000);
        let (mut store, encoder, options) = (support::store(), encoder(), defaults());
        let sources = [file.clone()];
        let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
        // After the first rows; those in flight are bounded, so that many are still to be read.
        let mut todo = Some(damage);
        let mut progress = |_: &ProgressUpdate| {
            if let Some(damage) = todo.take() {
                damage(&file);
            }
        };
        let failure = ingest(job, &mut store, &mut progress, &Cancel::default()).unwrap_err();
        let said = failure.to_string();
        assert!(
            said.contains("data.parquet") && ["changed while", "damaged"].iter().any(|word| said.contains(word)),
            "{what}: {said}"
        );
        let accepted = failure.report.unwrap().accepted;
        assert!(accepted > 0 && accepted == store.status().rows, "{what}: {accepted}");
        write_pairs(&file, 0, 3_000);
        let rest = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
        assert_eq!((rest.accepted + rest.already_present, store.status().rows), (3_000, 3_000), "{what}");
    }
}

#[test]
fn a_file_that_vanishes_before_its_turn_is_named_and_takes_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.parquet", "b.parquet"].map(|name| folder.path().join(name));
    write_pairs(&files[0], 0, 3_000);
    write_pairs(&files[1], 9_000, 10);
    let (mut store, encoder, options) = (support::store(), encoder(), defaults());
    let job = IngestJob { sources: &files, vectors: Vectors::Encode(&encoder), options: &options };
    let mut progress = |_: &ProgressUpdate| drop(fs::remove_file(&files[1]));
    let failure = ingest(job, &mut store, &mut progress, &Cancel::default()).unwrap_err();
    assert!(failure.to_string().contains("b.parquet"), "{failure}");
    assert_eq!((failure.report.unwrap().accepted, store.status().rows), (3_000, 3_000));
}

/// Puts a dataset of 2,000 rows into a folder, and names it.
type Dataset = fn(&Path) -> PathBuf;

fn tar_of_pairs(folder: &Path) -> PathBuf {
    let file = folder.join("data.tar");
    let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
    for i in 0..2_000 {
        for (ending, bytes) in [("jpg", jpeg(i)), ("txt", format!("caption {i}").into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{i:05}.{ending}"), &bytes[..]).unwrap();
        }
    }
    tar.into_inner().unwrap();
    file
}

fn table_of_pairs(folder: &Path) -> PathBuf {
    let lines: String = (0..2_000).map(|i| format!("{}.jpg,caption {i}\n", i % 10)).collect();
    (0..10).for_each(|i| fs::write(folder.join(format!("{i}.jpg")), jpeg(i)).unwrap());
    let file = folder.join("data.csv");
    fs::write(&file, format!("filepath,title\n{lines}")).unwrap();
    file
}

#[test]
fn tars_and_tables_that_vanish_or_change_while_they_are_read_are_named_errors_and_the_next_run_does_the_rest() {
    let damages: [Damage; 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::File::options().write(true).open(file).unwrap().set_len(20_000).unwrap(),
        |file| std::io::Write::write_all(&mut fs::File::options().append(true).open(file).unwrap(), b"more").unwrap(),
    ];
    for make in [tar_of_pairs as Dataset, table_of_pairs] {
        for damage in damages {
            let folder = tempfile::tempdir().unwrap();
            let file = make(folder.path());
            let name = file.file_name().unwrap().to_str().unwrap();
            let (mut store, encoder, sources) = (support::store(), encoder(), [file.clone()]);
            let options = IngestOptions { workers: std::num::NonZeroUsize::new(1), ..defaults() };
            let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
            let mut todo = Some(damage);
            let mut progress = |_: &ProgressUpdate| {
                if let Some(damage) = todo.take() {
                    damage(&file);
                }
            };
            let failure = ingest(job, &mut store, &mut progress, &Cancel::default()).unwrap_err();
            assert!(failure.to_string().contains(name), "{name}: {failure}");
            assert_eq!(failure.report.unwrap().accepted, store.status().rows, "{name}");
            make(folder.path());
            let rest = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
            assert_eq!((rest.accepted + rest.already_present, store.status().rows), (2_000, 2_000), "{name}");
        }
    }
}
