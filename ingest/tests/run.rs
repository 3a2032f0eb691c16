//! What a run promises: order, completeness, re-ingest, interruption, survival of single failures, bounds.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder};
use anchorite_index::{Cancel, PairStore};
use anchorite_ingest::{
    IngestError, IngestJob, IngestOptions, IngestReport, IngestRequest, Limits, NoProgress, OnChange, Outcome, ProgressUpdate,
    Summary, Vectors, chunks_in_flight, ingest,
};
use proptest::prelude::*;
use support::{
    DIM, binary, encoder, jpeg, read_rejects, reasons, records, run, run_with, store, text, write, write_groups, write_pairs,
};

fn workers(count: usize) -> IngestOptions {
    IngestOptions { workers: std::num::NonZeroUsize::new(count), ..Default::default() }
}

/// The fake encoder, with something done to it before each batch.
struct Altered<F: Fn(&str, usize) -> Result<(), String> + Send + Sync> {
    inner: FakeEncoder,
    /// Gets the tower and the batch's size.
    before: F,
}

impl<F: Fn(&str, usize) -> Result<(), String> + Send + Sync> Altered<F> {
    fn check(&self, tower: &'static str, batch: usize) -> Result<(), EncodeError> {
        (self.before)(tower, batch).map_err(|reason| EncodeError::Runtime { tower, reason })
    }
}

impl<F: Fn(&str, usize) -> Result<(), String> + Send + Sync> Encode for Altered<F> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }
    fn name(&self) -> &str {
        "altered"
    }
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.inner.prepare_image(bytes)
    }
    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        self.inner.prepare_text(text)
    }
    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.check("image", batch.len())?;
        self.inner.encode_images(batch)
    }
    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        self.check("text", batch.len())?;
        self.inner.encode_texts(batch)
    }
}

fn altered<F: Fn(&str, usize) -> Result<(), String> + Send + Sync>(before: F) -> Altered<F> {
    Altered { inner: encoder(), before }
}

/// Three shards of 330 rows in all, with some bad ones.
fn shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("b.parquet"), 200, 100);
    write_pairs(&folder.path().join("a.parquet"), 0, 200);
    let pictures = (0..30).map(|i| (i % 4 != 0).then(|| if i % 7 == 0 { b"not a picture".to_vec() } else { jpeg(1_000 + i) }));
    let captions = (0..30).map(|i| (i % 5 != 1).then(|| format!("caption {i}")));
    write(&folder.path().join("c.parquet"), vec![("image", binary(pictures)), ("caption", text(captions))]);
    folder
}

#[test]
fn the_pool_and_the_reject_list_are_the_same_whatever_the_number_of_workers() {
    let folder = shards();
    let with = |count: usize| {
        let rejects = folder.path().join(format!("{count}.rejects.parquet"));
        let run = run(folder.path(), &IngestOptions { rejects: Some(rejects.clone()), ..workers(count) });
        assert_eq!(run.report().rows_read, 330);
        (run.records(), read_rejects(&rejects))
    };
    let (one, four) = (with(1), with(4));
    assert_eq!(one, four);
    // In source order: shards by name, rows by number.
    let places: Vec<_> = one.0.iter().map(|r| (r.source.file.clone(), r.source.row)).collect();
    let mut sorted = places.clone();
    sorted.sort();
    assert_eq!(places, sorted);
    assert!(one.0.len() > 300 && one.1.len() > 10);
}

#[test]
fn vectors_belong_to_their_own_rows() {
    let folder = shards();
    let (encoder, run) = (encoder(), run(folder.path(), &workers(3)));
    for record in run.records() {
        let pixels = encoder.prepare_image(record.picture.as_ref().unwrap()).unwrap();
        let tokens = encoder.prepare_text(record.caption.as_ref().unwrap()).unwrap();
        assert_eq!(record.image.unwrap(), encoder.encode_images(&[pixels]).unwrap()[0].as_slice());
        assert_eq!(record.text.unwrap(), encoder.encode_texts(&[tokens]).unwrap()[0].as_slice());
    }
}

#[test]
fn ingesting_again_adds_nothing_and_encodes_nothing() {
    let folder = shards();
    let (mut store, options, sources) = (store(), workers(2), [folder.path().to_owned()]);
    let first = encoder();
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&first), options: &options };
    let report = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
    let before = records(&store);

    let encoded = AtomicUsize::new(0);
    let counting = altered(|_, batch| {
        encoded.fetch_add(batch, Ordering::Relaxed);
        Ok(())
    });
    let again = IngestJob { vectors: Vectors::Encode(&counting), ..job };
    let second = ingest(again, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
    assert_eq!((second.accepted, second.already_present, second.rejected), (0, report.accepted, report.rejected));
    assert_eq!(second.generation, None);
    assert_eq!(encoded.load(Ordering::Relaxed), 0);
    assert_eq!(records(&store), before);
}

#[test]
fn changed_rows_that_may_replace_nothing_are_listed_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, rejects) = (folder.path().join("a.parquet"), folder.path().join("rejects.parquet"));
    let (mut store, encoder) = (store(), encoder());
    let options = IngestOptions { rejects: Some(rejects.clone()), on_change: OnChange::Reject, ..workers(2) };
    let sources = [file.clone()];
    let mut again = |pictures: [usize; 3], captions: [&str; 3]| {
        let columns = vec![("image", binary(pictures.map(|i| Some(jpeg(i))))), ("caption", text(captions.map(Some)))];
        write(&file, columns);
        let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
        let report = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
        (report, records(&store))
    };
    let (first, before) = again([1, 2, 3], ["a", "b", "c"]);
    assert_eq!(first.accepted, 3);
    let (second, after) = again([1, 2, 9], ["a", "another", "c"]);
    assert_eq!((second.accepted, second.already_present), (0, 1));
    assert_eq!(reasons(&second), [("key_changed", 2)]);
    assert_eq!(after, before);
    let listed: Vec<(u64, String)> = read_rejects(&rejects).into_iter().map(|(_, row, code, _)| (row, code)).collect();
    assert_eq!(listed, [(1, "key_changed".to_owned()), (2, "key_changed".to_owned())]);
}

#[test]
fn content_hashes_are_of_picture_and_caption() {
    use sha2::{Digest, Sha256};
    let folder = shards();
    let record = run(folder.path(), &workers(1)).records().remove(0);
    let expected = Sha256::new()
        .chain_update(record.picture.as_ref().unwrap())
        .chain_update([0])
        .chain_update(record.caption.as_ref().unwrap())
        .finalize();
    assert_eq!(record.content.0, <[u8; 32]>::from(expected));

    let bare = run(folder.path(), &IngestOptions { store_pictures: false, ..workers(1) }).records().remove(0);
    assert_eq!((bare.picture, bare.content), (None, record.content));
}

#[test]
fn one_row_that_the_encoder_fails_on_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("a.parquet"), 0, 40);
    // Fails on any batch, and on the fifth of the single pictures.
    let singles = AtomicUsize::new(0);
    let failing = altered(|tower, batch| match (tower, batch) {
        ("image", 1) if singles.fetch_add(1, Ordering::Relaxed) == 4 => Err("that one".to_owned()),
        ("image", 2..) => Err("out of memory".to_owned()),
        _ => Ok(()),
    });
    let run = run_with(&[folder.path().to_owned()], Vectors::Encode(&failing), &workers(1));
    assert_eq!((run.report().accepted, reasons(run.report())), (39, vec![("encode_failed", 1)]));
    assert!(run.records().iter().all(|r| r.source.row != 4));
}

#[test]
fn an_encoder_that_fails_on_everything_ends_the_run() {
    let folder = shards();
    let broken = altered(|_, _| Err("no device".to_owned()));
    let run = run_with(&[folder.path().to_owned()], Vectors::Encode(&broken), &workers(2));
    assert!(run.error().contains("no device"), "{}", run.error());
    assert!(matches!(run.result.unwrap_err().error, IngestError::EncoderFailing { rows: 64.., .. }));
}

#[test]
fn a_worker_that_panics_ends_the_run_with_an_error_and_no_hang() {
    let folder = shards();
    let panicking = altered(|_, _| panic!("a defect"));
    let run = run_with(&[folder.path().to_owned()], Vectors::Encode(&panicking), &workers(3));
    assert!(run.error().contains("a defect"), "{}", run.error());
}

#[test]
fn cancelling_keeps_what_is_complete_and_the_next_run_does_the_rest() {
    let folder = shards();
    let (mut store, options, sources) = (store(), workers(2), [folder.path().to_owned()]);
    let cancel = Cancel::default();
    let batches = AtomicUsize::new(0);
    let cancelling = altered(|_, _| {
        if batches.fetch_add(1, Ordering::Relaxed) == 10 {
            cancel.cancel();
        }
        Ok(())
    });
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&cancelling), options: &options };
    let report = ingest(job, &mut store, &mut NoProgress, &cancel).unwrap();
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert!(report.accepted > 0 && report.rows_read < 330, "{report:?}");
    assert_eq!(store.status().rows, report.accepted);
    assert_eq!(report.rows_read, report.accepted + report.rejected + report.already_present);

    let rest = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
    assert_eq!((rest.already_present, rest.rows_read), (report.accepted, 330));
    let whole = run(folder.path(), &options);
    let mut keys = [records(&store), whole.records()].map(|all| all.into_iter().map(|r| r.key).collect::<Vec<_>>());
    keys.iter_mut().for_each(|k| k.sort());
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_later_file_that_is_damaged_takes_nothing_back() {
    let folder = shards();
    fs::write(folder.path().join("b.parquet"), b"no parquet at all").unwrap();
    let rejects = folder.path().join("rejects.parquet");
    let run = run(folder.path(), &IngestOptions { rejects: Some(rejects.clone()), ..workers(2) });
    assert!(run.error().contains("b.parquet"), "{}", run.error());
    assert_eq!(run.store.status().rows, 200);
    let report = run.result.unwrap_err().report.unwrap();
    assert_eq!((report.accepted, report.generation), (200, Some(1)));
    assert!(rejects.exists());
}

#[test]
fn a_file_damaged_in_the_middle_gives_the_rows_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.parquet");
    let pictures = (0..200).map(|i| Some(jpeg(i)));
    write_groups(&file, vec![("image", binary(pictures)), ("caption", text((0..200).map(|i| Some(format!("c {i}")))))], 50);
    let mut bytes = fs::read(&file).unwrap();
    // The header of a page in the third row group.
    let at = bytes.windows(11).position(|w| w == b"picture 100").unwrap();
    bytes[at - 17..at - 7].fill(0xff);
    fs::write(&file, bytes).unwrap();
    let run = run(&file, &workers(2));
    assert!(run.error().contains("a.parquet is damaged"), "{}", run.error());
    assert_eq!(run.store.status().rows, 100);
}

#[test]
fn there_is_a_commit_every_commit_rows() {
    let folder = shards();
    let run = run(folder.path(), &IngestOptions { commit_rows: 100, ..workers(2) });
    let generation = run.report().generation.unwrap();
    assert!((3..=4).contains(&generation), "{generation}");
}

#[test]
fn a_reject_list_is_replaced_whole_and_leaves_nothing_beside_it() {
    let folder = shards();
    let out = tempfile::tempdir().unwrap();
    let rejects = out.path().join("rejects.parquet");
    let options = IngestOptions { rejects: Some(rejects.clone()), ..workers(2) };
    run(folder.path(), &options);
    assert!(!read_rejects(&rejects).is_empty());
    run(folder.path().join("a.parquet"), &options);
    assert!(read_rejects(&rejects).is_empty());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);

    let nowhere = IngestOptions { rejects: Some(out.path().join("no/such/rejects.parquet")), ..workers(1) };
    let failed = run(folder.path(), &nowhere);
    assert!(failed.error().contains("cannot write the reject list"), "{}", failed.error());
    assert_eq!(failed.store.status().rows, 0);
}

#[test]
fn progress_is_told_up_to_the_last_row() {
    let folder = shards();
    let (mut store, options, sources, encoder) = (store(), workers(2), [PathBuf::from(folder.path())], encoder());
    let mut updates: Vec<ProgressUpdate> = Vec::new();
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
    ingest(job, &mut store, &mut |update: &ProgressUpdate| updates.push(*update), &Cancel::default()).unwrap();
    let last = updates.last().unwrap();
    assert_eq!((last.rows_done, last.rows_total), (330, Some(330)));
    assert!(updates.windows(2).all(|w| w[0].rows_done <= w[1].rows_done));
}

#[test]
fn what_is_left_is_told_also_of_files_that_do_not_count_their_rows_and_counts_commits_once_there_was_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.tar");
    let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
    for i in 0..400 {
        for (ending, bytes) in [("jpg", jpeg(i)), ("txt", b"words".to_vec())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{i:05}.{ending}"), &bytes[..]).unwrap();
        }
    }
    tar.into_inner().unwrap();
    let (mut store, encoder, sources) = (store(), encoder(), [file]);
    let options = IngestOptions { commit_rows: 100, ..workers(1) };
    let mut updates: Vec<ProgressUpdate> = Vec::new();
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
    let report = ingest(job, &mut store, &mut |update: &ProgressUpdate| updates.push(*update), &Cancel::default()).unwrap();
    assert!(updates.iter().all(|at| at.rows_total.is_none() && at.remaining.is_some()), "{updates:?}");
    let counted: Vec<bool> = updates.iter().map(|at| at.commits_counted).collect();
    assert!(!counted[0] && counted[counted.len() - 1] && counted.is_sorted(), "{counted:?}");
    let (early, last) = (updates[counted.len() / 2], updates[counted.len() - 1]);
    assert!(last.remaining < early.remaining, "{early:?} {last:?}");
    assert!(report.stages.reading_held_up >= 0.0 && report.stages.workers_idle > 0.0, "{:?}", report.stages);
}

/// What is asked of a run by flags or by a request is the same list; here by a request.
#[test]
fn a_request_becomes_the_options_it_names() {
    let request: IngestRequest = serde_json::from_str(
        r#"{"sources": ["a.tar"], "caption_scripts": ["Latin"], "keep_half": true, "near_duplicates": 0.5, "on_change": "upsert",
            "no_pictures": true, "read_again": true, "text_vector_column": "v", "max_rejects": 3}"#,
    )
    .unwrap();
    assert!(request.names_vectors() && !IngestRequest::default().names_vectors());
    let options = request.options().unwrap();
    assert_eq!((options.on_change, options.max_rejects, options.store_pictures), (OnChange::Upsert, Some(3), false));
    assert_eq!((options.filters.near_duplicate, options.filters.scripts.len()), (Some(0.5), 1));
    let plain = format!("{:?}", IngestRequest::default().options().unwrap());
    assert_eq!(plain, format!("{:?}", IngestOptions::default()), "nothing asked is every default");
    let elvish = IngestRequest { caption_scripts: vec!["Elvish".to_owned()], ..IngestRequest::default() };
    assert!(elvish.options().unwrap_err().to_string().contains("Elvish"));
    assert!(serde_json::from_str::<IngestRequest>(r#"{"colour": "red"}"#).is_err());
}

#[test]
fn a_reader_that_is_held_up_says_so() {
    let folder = shards();
    let slow = altered(|_, _| {
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(10) {}
        Ok(())
    });
    let run = run_with(
        &[folder.path().to_owned()],
        Vectors::Encode(&slow),
        &IngestOptions { limits: Limits { chunk_rows: 8, ..Limits::default() }, ..workers(1) },
    );
    let stages = run.report().stages;
    assert!(stages.reading_held_up > 0.1 && stages.reading_held_up > stages.reading, "{stages:?}");
}

#[test]
fn the_summary_says_what_the_last_run_did_however_it_ended() {
    let (folder, out) = (shards(), tempfile::tempdir().unwrap());
    let path = out.path().join("pool.ingest.json");
    let options = IngestOptions { summary: Some(path.clone()), ..workers(2) };
    let read = || -> Summary { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
    let whole = run(folder.path(), &options);
    let summary = read();
    // Times as they are written and read again differ in their last digit.
    let counts = |report: &IngestReport| IngestReport {
        stages: Default::default(),
        seconds: 0.0,
        images_per_second: 0.0,
        ..report.clone()
    };
    assert_eq!((summary.report.as_ref().map(counts), &summary.error), (Some(counts(whole.report())), &None));
    assert!((summary.report.unwrap().seconds - whole.report().seconds).abs() < 1e-9 && summary.ended > 1_700_000_000);
    assert_eq!(summary.sources, [folder.path()]);

    fs::write(folder.path().join("b.parquet"), b"no parquet at all").unwrap();
    let failed = run(folder.path(), &options);
    let summary = read();
    assert!(summary.error.unwrap().contains("b.parquet is damaged") && failed.result.is_err());
    assert_eq!(summary.report.unwrap().accepted, 200, "what was kept before the fault");
    assert!(run(folder.path().join("none"), &options).result.is_err());
    assert!(read().report.is_none());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "nothing is left beside it");

    // A summary that cannot be written takes nothing back.
    let nowhere = IngestOptions { summary: Some(out.path().join("no/such/place.json")), ..workers(1) };
    let run = run(folder.path().join("a.parquet"), &nowhere);
    assert!(run.error().contains("cannot write the summary") && run.store.status().rows == 200, "{}", run.error());
}

/// A slow first chunk must hold the reader up, not let everything behind it pile up in memory.
#[test]
fn no_more_chunks_are_in_flight_than_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(&folder.path().join("a.parquet"), 0, 400);
    let workers_count = 2;
    let started = AtomicUsize::new(0);
    let (leak, leaked) = crossbeam_channel::bounded::<usize>(400);
    let over = AtomicUsize::new(0);
    // One picture batch a chunk, so that batches count chunks.
    let slow_first = altered(|tower, _| {
        if tower == "image" {
            let number = started.fetch_add(1, Ordering::SeqCst);
            if number == 0 {
                // Held until a chunk beyond the bound has come through, or for long enough that it would have.
                if leaked.recv_timeout(std::time::Duration::from_millis(200)).is_ok() {
                    over.fetch_add(1, Ordering::SeqCst);
                }
            } else if number >= chunks_in_flight(workers_count) {
                let _ = leak.try_send(number);
            }
        }
        Ok(())
    });
    let limits = Limits { chunk_rows: 4, ..Limits::default() };
    let options = IngestOptions { limits, ..workers(workers_count) };
    let run = run_with(&[folder.path().to_owned()], Vectors::Encode(&slow_first), &options);
    assert_eq!(run.report().accepted, 400);
    assert_eq!(over.load(Ordering::SeqCst), 0);
    assert_eq!(started.load(Ordering::SeqCst), 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_accepted_rejected_or_present(
        rows in prop::collection::vec((0..5_u8, 0..4_u8, 0..12_u8), 1..120), count in 1..4_usize, chunk_rows in 1..40_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.parquet");
        let picture = |kind: u8, i: usize| match kind { 0 => None, 1 => Some(b"junk".to_vec()), _ => Some(jpeg(i)) };
        let pictures = rows.iter().enumerate().map(|(i, r)| picture(r.0, i));
        let captions = rows.iter().map(|r| (r.1 != 0).then(|| "word ".repeat(usize::from(r.1) * 30)));
        let keys = rows.iter().enumerate().map(|(i, r)| Some(if r.2 == 0 { "same".to_owned() } else { format!("k{i}") }));
        write(&file, vec![("image", binary(pictures)), ("caption", text(captions)), ("key", text(keys))]);
        let columns = anchorite_ingest::ColumnOptions { key: Some("key".to_owned()), ..Default::default() };
        let limits = Limits { chunk_rows, ..Limits::default() };
        let options = IngestOptions { columns, limits, ..workers(count) };
        let run = run(&file, &options);
        // A broken encoder is not among the cases, so the run ends well.
        let report = run.report();
        prop_assert_eq!(report.rows_read, rows.len() as u64);
        prop_assert_eq!(report.rows_read, report.accepted + report.rejected + report.already_present);
        prop_assert_eq!(report.rejected, report.rejected_by_reason.values().sum::<u64>());
        prop_assert_eq!(report.accepted, run.store.status().rows);
        prop_assert!(run.records().iter().all(|r| r.image.as_ref().is_some_and(|v| v.len() == DIM)));
    }
}
