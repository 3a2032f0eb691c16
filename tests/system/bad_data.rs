//! Promise: nothing in a dataset stops an ingest without a clear word, or takes back what was accepted before.

use std::{fs, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Int64Array};
use serde_json::{Value as Json, json};

use crate::{
    datasets::{Rejected, bomb, pictures, read_rejects, samples, words, write, write_rows, write_samples},
    program::{Ended, data, model, run, text},
};

/// A folder with a pool of a few good pairs, to which a test adds what is bad.
struct Workplace {
    folder: tempfile::TempDir,
}

/// Pairs that are in the pool before anything bad comes.
const GOOD: u64 = 4;

impl Workplace {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        write_samples(&place.file("good.parquet"), &samples(GOOD as usize));
        let report = place.ingest("good.parquet", &["--json"]).with(0).json();
        assert_eq!((&report["accepted"], &report["rejected"]), (&json!(GOOD), &json!(0)));
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pool(&self) -> String {
        text(self.file("pool"))
    }

    fn ingest(&self, name: &str, more: &[&str]) -> Ended {
        let source = text(self.file(name));
        run(&[&["ingest", &source, "--pool", &self.pool(), "--model", model(), "--threads", "2"], more].concat())
    }

    fn rows(&self) -> Json {
        run(&["pool", "info", &self.pool(), "--json"]).with(0).json()["rows"].clone()
    }

    /// The default list of rejects.
    fn rejects(&self) -> Vec<Rejected> {
        read_rejects(self.file("pool.rejects.parquet"))
    }

    /// Asserts that the pool is sound and has the good pairs and `more`.
    #[track_caller]
    fn keeps(&self, more: u64) {
        assert_eq!(self.rows(), GOOD + more);
        run(&["pool", "verify", &self.pool()]).with(0);
        let found =
            run(&["search", "--pool", &self.pool(), "--model", model(), "--text", &samples(1)[0].caption, "--json"]).with(0);
        assert!(found.stdout.contains(&samples(1)[0].caption), "{}", found.stdout);
    }
}

#[test]
fn rows_that_cannot_be_read_are_listed_with_reasons_and_the_rest_is_taken() {
    let place = Workplace::new();
    let all = samples(20);
    let good = |i: usize| Some(all[i].picture.clone());
    let cut = |i: usize| Some(all[i].picture[..all[i].picture.len() / 2].to_vec());
    let long = "a very long tale of a cat and a dog that went to sea ".repeat(12);
    let rows = [
        (good(10), Some("a good row")),
        (None, Some("no picture")),
        (good(11), None),
        (good(12), Some("   ")),
        (Some(b"<html>not found</html>".to_vec()), Some("a page, no picture")),
        (Some(Vec::new()), Some("an empty picture")),
        (cut(13), Some("half a picture")),
        (Some(bomb()), Some("a bomb")),
        (good(14), Some(&long)),
        (good(15), Some("another good row")),
    ];
    write_rows(&place.file("bad.parquet"), &rows);
    let report = place.ingest("bad.parquet", &["--json"]).with(0).json();
    assert_eq!((&report["rows_read"], &report["accepted"], &report["rejected"]), (&json!(10), &json!(3), &json!(7)));
    assert_eq!(report["truncated_captions"], 1);

    let rejects = place.rejects();
    let found: Vec<(u64, &str)> = rejects.iter().map(|r| (r.row, r.code.as_str())).collect();
    let wanted = [
        (1, "image_null"),
        (2, "caption_null"),
        (3, "caption_null"),
        (4, "image_unknown_format"),
        (5, "image_empty"),
        (6, "image_damaged"),
        (7, "image_too_large"),
    ];
    assert_eq!(found, wanted);
    assert!(rejects.iter().all(|r| r.file.ends_with("/bad.parquet") && !r.message.is_empty()), "{rejects:?}");
    assert!(rejects[6].message.contains("20000 x 20000"), "{}", rejects[6].message);
    place.keeps(3);

    let people = place.ingest("bad.parquet", &[]).with(0).stdout;
    for part in ["10 rows: 0 accepted, 3 there already, 7 rejected", "2 x caption_null", "are listed in", "pool.rejects.parquet"]
    {
        assert!(people.contains(part), "no {part:?} in {people}");
    }
}

#[test]
fn more_rejects_than_allowed_are_code_3_and_the_accepted_rows_are_there() {
    let place = Workplace::new();
    let all = samples(8);
    let rows = [(None, Some("no picture")), (Some(all[6].picture.clone()), Some("good")), (None, Some("no picture either"))];
    write_rows(&place.file("bad.parquet"), &rows);
    let ended = place.ingest("bad.parquet", &["--max-rejects", "1"]).with(3);
    assert!(ended.stdout.contains("2 rejected"), "{}", ended.stdout);
    ended.says(&["--max-rejects"]);
    place.keeps(1);
    place.ingest("bad.parquet", &["--max-rejects", "2"]).with(0);
}

#[test]
fn half_rows_are_kept_when_asked_for() {
    let place = Workplace::new();
    let all = samples(8);
    let rows = [(None, Some("words alone")), (Some(all[6].picture.clone()), None), (None, None)];
    write_rows(&place.file("half.parquet"), &rows);
    let report = place.ingest("half.parquet", &["--json", "--keep-half"]).with(0).json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(2), &json!(1)));
    let info = run(&["pool", "info", &place.pool(), "--json"]).with(0).json();
    assert_eq!((&info["image_rows"], &info["text_rows"]), (&json!(GOOD + 1), &json!(GOOD + 1)));
}

#[test]
fn a_file_cut_short_is_named_and_takes_nothing_back() {
    let place = Workplace::new();
    let whole = fs::read(data().join("pairs.parquet")).unwrap();
    fs::write(place.file("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    place.ingest("cut.parquet", &[]).with(1).says(&["cut.parquet is damaged", "error: "]);
    fs::write(place.file("words.parquet"), "these are words").unwrap();
    place.ingest("words.parquet", &[]).with(1).says(&["words.parquet is damaged or no such file"]);
    place.keeps(0);
}

#[test]
fn a_damaged_file_among_good_ones_costs_only_itself_and_what_follows() {
    let place = Workplace::new();
    let shards = place.file("shards");
    fs::create_dir(&shards).unwrap();
    write_samples(&shards.join("a.parquet"), &samples(9)[4..]);
    fs::write(shards.join("b.parquet"), "PAR1 no more PAR1").unwrap();
    place.ingest("shards", &[]).with(1).says(&["b.parquet", "kept before the failure: 5 pairs"]);
    place.keeps(5);
}

#[test]
fn columns_of_the_wrong_type_or_name_say_what_is_there_and_which_flag_helps() {
    let place = Workplace::new();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let sample = samples(1).remove(0);
    let columns = vec![("image", numbers.clone()), ("caption", words([Some("a")]))];
    write(&place.file("numbers.parquet"), columns);
    let parts = ["numbers.parquet: no image column", "--image-column", "image: Int64, caption: Utf8"];
    place.ingest("numbers.parquet", &[]).with(1).says(&parts);
    let parts = ["column \"image\" is Int64", "--image-column needs"];
    place.ingest("numbers.parquet", &["--image-column", "image"]).with(1).says(&parts);

    let columns = vec![("image", pictures([Some(sample.picture)])), ("alt", words([Some("a good row")]))];
    write(&place.file("alt.parquet"), columns);
    place.ingest("alt.parquet", &[]).with(1).says(&["no caption column", "--caption-column", "alt: Utf8"]);
    place.keeps(0);
    place.ingest("alt.parquet", &["--caption-column", "alt"]).with(0);
    place.keeps(1);
}

#[test]
fn sources_with_nothing_in_them_are_errors_that_say_so() {
    let place = Workplace::new();
    write_rows(&place.file("empty.parquet"), &[]);
    place.ingest("empty.parquet", &[]).with(1).says(&["the dataset is empty: 0 rows in ", "/empty.parquet"]);
    fs::create_dir(place.file("nothing")).unwrap();
    place.ingest("nothing", &[]).with(1).says(&["no parquet file"]);
    place.ingest("not-there.parquet", &[]).with(1).says(&["cannot open", "not-there.parquet"]);
    place.keeps(0);
}

#[test]
fn the_same_file_again_adds_nothing_and_a_changed_row_is_replaced_or_listed() {
    let place = Workplace::new();
    let report = place.ingest("good.parquet", &["--json"]).with(0).json();
    assert_eq!((&report["accepted"], &report["already_present"], &report["rejected"]), (&json!(0), &json!(GOOD), &json!(0)));

    let mut changed = samples(GOOD as usize);
    changed[2].caption = "quite another caption".to_owned();
    write_samples(&place.file("good.parquet"), &changed);
    let report = place.ingest("good.parquet", &["--json", "--on-change", "reject"]).with(0).json();
    assert_eq!((&report["already_present"], &report["rejected"]), (&json!(GOOD - 1), &json!(1)));
    let rejects = place.rejects();
    assert_eq!((rejects.len(), rejects[0].row, rejects[0].code.as_str()), (1, 2, "key_changed"));
    assert!(rejects[0].message.contains("--key-column") || rejects[0].message.contains("name"), "{}", rejects[0].message);
    place.keeps(0);

    let report = place.ingest("good.parquet", &["--json", "--read-again"]).with(0).json();
    assert_eq!((&report["replaced"], &report["rejected"]), (&json!(1), &json!(0)));
    place.keeps(0);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let place = Workplace::new();
    write_rows(&place.file("bad.parquet"), &[(None, Some("no picture")), (Some(b"junk".to_vec()), Some("junk"))]);
    let told = place.ingest("bad.parquet", &["--dry-run"]).with(0).stdout;
    for part in [
        "2 rows in 1 file would be ingested",
        "picture image, caption caption",
        "row 0: image_null",
        "row 1: image_unknown_format",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    place.keeps(0);
}
