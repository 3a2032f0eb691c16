//! Filters leave rows out, count each by reason, list it, and are no rejects; a plan says how long and how big.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use anchorite_encoder::Encode;
use anchorite_index::{Cancel, PairStore as _};
use anchorite_ingest::{Filters, IngestJob, IngestOptions, IngestReport, NoProgress, Outcome, Vectors, ingest, plan};
use support::{binary, encoder, fixture, jpeg, read_rejects, run, run_ready, store, text, vectors, write, write_pairs};

fn with(filters: Filters) -> IngestOptions {
    IngestOptions { filters, max_rejects: Some(0), ..Default::default() }
}

fn filtered(report: &IngestReport) -> Vec<(&str, u64)> {
    assert_eq!(report.rows_read, report.accepted + report.rejected + report.filtered + report.already_present);
    report.filtered_by_reason.iter().map(|(code, count)| (code.as_str(), *count)).collect()
}

#[test]
fn captions_of_too_few_or_too_many_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    let captions = ["one", "one two", "  one\ttwo three ", "one two three four"];
    write(&file, vec![("image", binary((0..4).map(|i| Some(jpeg(i))))), ("caption", text(captions.map(Some)))]);
    let rejects = folder.path().join("rejects.parquet");
    let filters = Filters { min_caption_words: Some(2), max_caption_words: Some(3), ..Default::default() };
    let run = run(&file, &IngestOptions { rejects: Some(rejects.clone()), ..with(filters) });
    assert_eq!(filtered(run.report()), [("filtered_caption_long", 1), ("filtered_caption_short", 1)]);
    // Not wanted is not wrong: no row counts against the limit, and every row is listed.
    assert_eq!((run.report().outcome, run.report().accepted, run.report().rejected), (Outcome::Done, 2, 0));
    let listed: Vec<_> = read_rejects(&rejects).into_iter().map(|(_, row, code, _)| (row, code)).collect();
    assert_eq!(listed, [(0, "filtered_caption_short".to_owned()), (3, "filtered_caption_long".to_owned())]);
}

/// One row for each caption, with the reason for which it was left out.
fn left_out(captions: &[&str], filters: Filters) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let (file, rejects) = (folder.path().join("data.parquet"), folder.path().join("rejects.parquet"));
    let pictures = binary((0..captions.len()).map(|i| Some(jpeg(i))));
    write(&file, vec![("image", pictures), ("caption", text(captions.iter().map(Some)))]);
    let run = run(&file, &IngestOptions { rejects: Some(rejects.clone()), ..with(filters) });
    assert_eq!(run.report().rows_read, captions.len() as u64);
    let listed = read_rejects(&rejects);
    (0..captions.len() as u64).map(|row| listed.iter().find(|r| r.1 == row).map(|r| r.2.clone())).collect()
}

#[test]
fn captions_in_other_scripts() {
    let captions = ["a red apple", "красное яблоко", "赤いリンゴ", "Москва seen from the river", "12 %", "Ein Würfel in Łódź"];
    let only = |scripts: &[&str]| Filters { scripts: scripts.iter().map(|s| s.parse().unwrap()).collect(), ..Default::default() };
    let out = |filters| left_out(&captions, filters).iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(out(only(&["Latin"])), [false, true, true, false, false, false]);
    assert_eq!(out(only(&["latin", "cyrillic"])), [false, false, true, false, false, false]);
    assert_eq!(out(only(&["Han", "Hiragana", "Katakana"])), [true, true, false, true, false, true]);
    assert_eq!(left_out(&captions, only(&["Latin"]))[1].as_deref(), Some("filtered_caption_script"));
    assert!("Klingon".parse::<anchorite_ingest::Script>().unwrap_err().to_string().contains("Latin, Cyrillic"));
}

#[test]
fn captions_that_repeat_themselves() {
    let captions = ["sale Sale SALE sale", "a man and a dog", "one", "buy now buy now"];
    let out = left_out(&captions, Filters { max_repetition: Some(0.4), ..Default::default() });
    let reason = Some("filtered_caption_repetition".to_owned());
    assert_eq!(out, [reason.clone(), None, None, reason]);
}

#[test]
fn pictures_smaller_than_wanted_by_their_header() {
    let of = |edge| {
        run(fixture("webdataset/cc3m-train-0000.tar"), &with(Filters { min_image_edge: Some(edge), ..Default::default() }))
    };
    assert_eq!(of(12).report().accepted, 4);
    assert_eq!(filtered(of(13).report()), [("filtered_image_small", 4)]);
}

#[test]
fn the_same_picture_and_caption_twice_in_a_run_and_again_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    let rows = [(0, "a"), (1, "a"), (0, "b"), (0, "a"), (1, "a")];
    write(&file, vec![("image", binary(rows.map(|r| Some(jpeg(r.0))))), ("caption", text(rows.map(|r| Some(r.1))))]);
    let options = with(Filters { drop_duplicates: true, ..Default::default() });
    let (mut store, encoder, sources) = (store(), encoder(), [file.clone()]);
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
    let first = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
    assert_eq!((first.accepted, filtered(&first)), (3, vec![("filtered_duplicate", 2)]));
    let second = ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap();
    assert_eq!((second.already_present, filtered(&second)), (3, vec![("filtered_duplicate", 2)]));
    assert_eq!(run(&file, &with(Filters::default())).report().accepted, 5);
}

#[test]
fn pairs_below_a_clip_score() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    write_pairs(&file, 0, 40);
    let encoder = encoder();
    let scores: Vec<f32> = run(&file, &IngestOptions::default())
        .records()
        .iter()
        .map(|r| r.image.iter().flatten().zip(r.text.iter().flatten()).map(|(a, b)| a * b).sum())
        .collect();
    let mut sorted = scores.clone();
    sorted.sort_by(f32::total_cmp);
    let middle = (sorted[19] + sorted[20]) / 2.0;
    let half = run(&file, &with(Filters { min_clip_score: Some(middle), ..Default::default() }));
    assert_eq!((half.report().accepted, filtered(half.report())), (20, vec![("filtered_clip_score", 20)]));
    assert!(half.records().iter().all(|r| scores[r.source.row as usize] > middle));
    assert_eq!(encoder.dim(), support::DIM);

    // Ready-made vectors are held to it too.
    let rows = |second: f32| vectors(&[Some(vec![1.0, 0.0]), Some(vec![second, 1.0])], 2);
    write(&file, vec![("image_embedding", rows(0.0)), ("text_embedding", rows(-2.0)), ("caption", text([Some("a"), Some("b")]))]);
    let run = run_ready(&file, 2, &with(Filters { min_clip_score: Some(0.5), ..Default::default() }));
    assert_eq!((run.report().accepted, filtered(run.report())), (1, vec![("filtered_clip_score", 1)]));
}

/// Unit vectors in a plane, by their angles in degrees.
fn at_angles(angles: &[Option<f32>]) -> arrow_array::ArrayRef {
    let unit = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
    vectors(&angles.iter().map(|angle| angle.map(unit)).collect::<Vec<_>>(), 2)
}

#[test]
fn near_duplicates_of_the_run_and_of_the_pool_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.parquet"), folder.path().join("second.parquet"));
    let rejects = folder.path().join("rejects.parquet");
    let put = |file: &std::path::Path, angles: &[Option<f32>]| {
        let names = (0..angles.len()).map(|i| Some(format!("{}-{i}", file.file_stem().unwrap().display())));
        write(
            file,
            vec![
                ("image_embedding", at_angles(angles)),
                ("text_embedding", at_angles(&vec![Some(45.0); angles.len()])),
                ("name", text(names)),
            ],
        );
    };
    // Cosine 0.95 is 18.2 degrees. Row 2 is near row 1, which is left out itself, and not near row 0: it stays.
    put(&first, &[Some(0.0), Some(15.0), Some(25.0), Some(90.0), None, None]);
    put(&second, &[Some(100.0), Some(140.0), Some(150.0), Some(26.0)]);
    let mut store = anchorite_index::memory::MemoryStore::new(anchorite_index::Spec { encoder: "v".to_owned(), dim: 2 });
    for workers in [1, 4] {
        let filters = Filters { near_duplicate: Some(0.95), ..Default::default() };
        let mut options =
            IngestOptions { rejects: Some(rejects.clone()), workers: std::num::NonZero::new(workers), ..with(filters) };
        options.missing = anchorite_ingest::Missing::KeepHalf;
        options.columns.key = Some("name".to_owned());
        let mut run = |file: &std::path::Path| {
            let sources = [file.to_owned()];
            let job = IngestJob { sources: &sources, vectors: Vectors::Ready { dim: Some(2) }, options: &options };
            ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap()
        };
        let (of_run, of_pool) = (run(&first), run(&second));
        // The second time round every row that is in is known by its key, and the others are left out again.
        let present = workers == 4;
        assert_eq!(
            (of_run.accepted, of_run.already_present, filtered(&of_run)),
            (if present { 0 } else { 5 }, if present { 5 } else { 0 }, vec![("filtered_near_duplicate", 1)])
        );
        assert_eq!((of_pool.accepted, of_pool.already_present), if present { (0, 1) } else { (1, 0) });
        assert_eq!(filtered(&of_pool), [("filtered_near_duplicate", 3)]);
        let listed = read_rejects(&rejects);
        let near = |row: u64| {
            listed.iter().find(|r| r.1 == row && r.0.ends_with("second.parquet")).map(|r| r.3.clone()).unwrap_or_default()
        };
        assert!(
            near(0).contains("pair first-3") && near(2).contains("pair second-1") && near(3).contains("pair first-2"),
            "{listed:?}"
        );
        assert_eq!(store.status().rows, 6);
    }
}

#[test]
fn a_changed_row_is_no_near_duplicate_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    let filters = Filters { near_duplicate: Some(0.95), ..Default::default() };
    let mut options = with(filters);
    options.columns.key = Some("name".to_owned());
    let mut store = anchorite_index::memory::MemoryStore::new(anchorite_index::Spec { encoder: "v".to_owned(), dim: 2 });
    let mut run = |angle| {
        let rows = at_angles(&[Some(angle)]);
        write(&file, vec![("image_embedding", rows.clone()), ("text_embedding", rows), ("name", text([Some("a")]))]);
        let sources = [file.clone()];
        let job = IngestJob { sources: &sources, vectors: Vectors::Ready { dim: Some(2) }, options: &options };
        ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap()
    };
    assert_eq!((run(10.0).accepted, run(11.0).replaced), (1, 1));
}

#[test]
fn near_duplicates_are_found_across_the_commits_of_a_run_in_a_pool_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    // 60 directions, each fifteen times within a third of a degree, far from each other in the file.
    let angles: Vec<Option<f32>> = (0..900).map(|i| Some((i % 60) as f32 * 6.0 + (i / 60) as f32 * 0.02)).collect();
    write(&file, vec![("image_embedding", at_angles(&angles)), ("text_embedding", at_angles(&angles))]);
    let mut options = with(Filters { near_duplicate: Some(0.997), ..Default::default() });
    options.limits.near_rows = 10;
    let spec = anchorite_index::Spec { encoder: "v".to_owned(), dim: 2 };
    let mut writer = anchorite_index::pool::PoolWriter::open(folder.path().join("pool"), &spec, &Default::default()).unwrap();
    let sources = [file.clone()];
    let job = IngestJob { sources: &sources, vectors: Vectors::Ready { dim: Some(2) }, options: &options };
    let report = ingest(job, &mut writer, &mut NoProgress, &Cancel::default()).unwrap();
    assert_eq!((report.accepted, filtered(&report)), (60, vec![("filtered_near_duplicate", 840)]));
    assert!(report.generation > Some(2), "several commits: {report:?}");
}

#[test]
fn a_plan_estimates_time_size_and_the_rows_of_a_tar() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    write_pairs(&file, 0, 400);
    let (encoder, options) = (encoder(), IngestOptions::default());
    let planned = |source: &std::path::Path, check_rows| {
        let sources = [source.to_owned()];
        plan(IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options }, check_rows).unwrap()
    };
    let found = planned(&file, 8);
    let estimate = found.estimate.unwrap();
    assert_eq!((found.rows, found.estimated, found.checked.len()), (400, false, 8));
    assert_eq!((estimate.sampled_rows, estimate.accepted), (64, 64));
    assert!((estimate.seconds - 400.0 / estimate.rows_per_second).abs() < 1e-6);
    // Two vectors of 32 values of 3 bytes each, and at least the picture.
    assert!(estimate.pool_bytes > 400 * (192 + 12) && estimate.pool_bytes < 400 * 1_000, "{estimate:?}");
    assert_eq!(planned(&file, 0).estimate, None);

    // A tar does not say how many samples it has; its size and the first of them do, roughly.
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..1_000 {
        for (ending, bytes) in [("jpg", jpeg(i)), ("txt", b"words".to_vec())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{i:05}.{ending}"), &bytes[..]).unwrap();
        }
    }
    let tar_file = folder.path().join("0.tar");
    std::fs::write(&tar_file, tar.into_inner().unwrap()).unwrap();
    let found = planned(&tar_file, 8);
    assert!(found.estimated && found.sources[0].estimated);
    assert!((950..1_050).contains(&found.rows), "{}", found.rows);
    // With img2dataset's statistics beside it, it does say.
    let found = planned(&fixture("img2dataset_webdataset/00000.tar"), 8);
    assert_eq!((found.rows, found.estimated), (3, false));
}
