//! Promise: the same command again does what is left and nothing twice; changed rows take the place of what they were.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anchorite_index::{Cancel, Record, memory::MemoryStore};
use anchorite_ingest::{
    ColumnOptions, Earlier, Filters, IngestFailure, IngestJob, IngestOptions, IngestReport, Limits, OnChange, ProgressUpdate,
    Vectors, ingest,
};
use support::{binary, encoder, jpeg, named, read_rejects, reasons, records, store, text, write, write_pairs};

/// A dataset and a pool with its reject list.
struct Place {
    folder: tempfile::TempDir,
    store: MemoryStore,
    options: IngestOptions,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rejects = Some(folder.path().join("pool.rejects.parquet"));
        let options = IngestOptions {
            workers: NonZeroUsize::new(1),
            rejects,
            commit_rows: 40,
            limits: Limits { chunk_rows: 8, ..Limits::default() },
            ..IngestOptions::default()
        };
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder, store: store(), options }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    fn list(&self) -> Vec<(String, u64, String, String)> {
        read_rejects(self.options.rejects.as_ref().unwrap())
    }

    fn ingest(&mut self) -> IngestReport {
        self.ingest_until(u64::MAX).unwrap()
    }

    /// Interrupts once as many rows are decided.
    fn ingest_until(&mut self, rows: u64) -> Result<IngestReport, IngestFailure> {
        let (encoder, sources, cancel) = (encoder(), [self.data()], Cancel::default());
        let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &self.options };
        let mut progress = |at: &ProgressUpdate| {
            if at.rows_done >= rows {
                cancel.cancel();
            }
        };
        ingest(job, &mut self.store, &mut progress, &cancel)
    }

    fn records(&self) -> Vec<Record> {
        records(&self.store)
    }
}

/// Thirty rows of which some are no good.
fn write_bad(path: &Path) {
    let pictures = (0..30).map(|i| (i % 4 != 0).then(|| jpeg(1_000 + i)));
    write(
        path,
        vec![("image", binary(pictures)), ("caption", text((0..30).map(|i| (i % 5 != 1).then(|| format!("caption {i}")))))],
    );
}

fn three_files(place: &Place) {
    write_bad(&place.file("a.parquet"));
    write_pairs(&place.file("b.parquet"), 0, 220);
    write_bad(&place.file("c.parquet"));
}

/// Other bytes of the same length and age: whoever reads the file meets them.
fn spoil(path: &Path) {
    let info = path.metadata().unwrap();
    fs::write(path, vec![0; info.len() as usize]).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(info.modified().unwrap()).unwrap();
}

#[test]
fn finished_files_are_passed_over_without_being_read() {
    let mut place = Place::new();
    three_files(&place);
    let (first, list, pairs) = (place.ingest(), place.list(), place.records());
    assert!(first.rejected > 10 && first.accepted > 200, "{first:?}");
    for name in ["a.parquet", "b.parquet", "c.parquet"] {
        spoil(&place.file(name));
    }
    let second = place.ingest();
    assert_eq!((second.accepted, second.already_present, second.rejected), (0, first.accepted, first.rejected));
    assert_eq!((second.rows_read, second.rows_passed_over), (first.rows_read, first.rows_read));
    assert_eq!((second.rejected_by_reason, second.generation), (first.rejected_by_reason, None));
    assert_eq!((place.list(), place.records()), (list, pairs));
}

#[test]
fn an_interrupted_run_goes_on_in_the_middle_of_a_file() {
    let (mut whole, mut broken) = (Place::new(), Place::new());
    three_files(&whole);
    three_files(&broken);
    let uninterrupted = whole.ingest();
    for rows in [1, 100, 180, 210] {
        let part = broken.ingest_until(rows).unwrap();
        assert!(part.rows_passed_over <= part.rows_read && part.rows_read < uninterrupted.rows_read, "{part:?}");
    }
    let last = broken.ingest();
    assert!(last.rows_passed_over > 200, "{last:?}");
    assert_eq!((last.rows_read, last.rejected), (uninterrupted.rows_read, uninterrupted.rejected));
    assert_eq!(last.rejected_by_reason, uninterrupted.rejected_by_reason);
    assert_eq!(last.accepted + last.already_present, uninterrupted.accepted);
    assert_eq!((broken.records(), broken.list()), (whole.records(), whole.list()));
}

#[test]
fn a_file_or_a_setting_that_changed_is_read_again_and_only_new_rows_go_in() {
    let mut place = Place::new();
    three_files(&place);
    let first = place.ingest();
    write_pairs(&place.file("b.parquet"), 0, 230);
    let longer = place.ingest();
    assert_eq!((longer.accepted, longer.replaced, longer.rejected), (10, 0, first.rejected));
    assert_eq!(longer.rows_passed_over, 60);
    place.options.filters = Filters { max_caption_words: Some(3), ..Filters::default() };
    let filtered = place.ingest();
    assert_eq!((filtered.accepted, filtered.rows_passed_over), (0, 0));
}

#[test]
fn rejects_are_listed_whatever_happens_to_the_list() {
    let mut place = Place::new();
    three_files(&place);
    place.ingest();
    let list = place.list();
    let path = place.options.rejects.clone().unwrap();
    // Removed, damaged, another pool's: the files with rejects are read again, the other is not.
    let damages: [&dyn Fn(); 3] =
        [&|| fs::remove_file(&path).unwrap(), &|| fs::write(&path, b"PAR1 nothing PAR1").unwrap(), &|| {
            write(&path, vec![("source_file", text([Some("x")]))]);
        }];
    for damage in damages {
        damage();
        assert_eq!(place.ingest().rows_passed_over, 220);
        assert_eq!(place.list(), list);
    }
    // A run without a list forgets nothing either.
    place.options.rejects = None;
    place.ingest();
    place.options.rejects = Some(path.clone());
    place.ingest();
    assert_eq!(place.list(), list);
}

#[test]
fn changed_rows_of_the_same_file_replace_their_pairs() {
    let mut place = Place::new();
    let write_three = |place: &Place, pictures: [usize; 3]| {
        let columns = vec![("image", binary(pictures.map(|i| Some(jpeg(i))))), ("caption", text(["a", "b", "c"].map(Some)))];
        write(&place.file("x.parquet"), columns);
    };
    write_three(&place, [1, 2, 3]);
    place.ingest();
    write_three(&place, [1, 22, 3]);
    let report = place.ingest();
    assert_eq!((report.accepted, report.replaced, report.already_present), (0, 1, 2));
    let mut pictures: Vec<_> = place.records().into_iter().map(|r| (r.source.row, r.picture.unwrap())).collect();
    pictures.sort();
    assert_eq!(pictures, [(0, jpeg(1)), (1, jpeg(22)), (2, jpeg(3))]);
}

#[test]
fn a_file_of_the_same_name_from_elsewhere_replaces_nothing_unless_told_to() {
    let mut place = Place::new();
    write_pairs(&place.file("train.parquet"), 0, 5);
    place.ingest();
    let before = place.records();
    // Another dataset whose folder and file have the same names.
    let other = Place::new();
    write_pairs(&other.file("train.parquet"), 50, 5);
    let mut place = Place { folder: other.folder, ..place };
    let report = place.ingest();
    assert_eq!((reasons(&report), report.replaced), (vec![("key_changed", 5)], 0));
    // Nor when it is tried twice.
    place.options.earlier = Earlier::ReadAgain;
    assert_eq!((place.ingest().replaced, place.records()), (0, before));
    place.options.earlier = Earlier::GoOn;
    place.options.on_change = OnChange::Upsert;
    assert_eq!(place.ingest().replaced, 5);
}

#[test]
fn rows_with_keys_replace_theirs_wherever_they_come_from() {
    let mut place = Place::new();
    place.options.columns = ColumnOptions { key: Some("id".to_owned()), ..ColumnOptions::default() };
    let write_one = |name: &str, picture: usize, place: &Place| {
        let columns = vec![("image", binary([Some(jpeg(picture))])), ("caption", text([Some("a")])), ("id", text([Some("k1")]))];
        write(&place.file(name), columns);
    };
    write_one("a.parquet", 1, &place);
    place.ingest();
    fs::remove_file(place.file("a.parquet")).unwrap();
    write_one("b.parquet", 2, &place);
    assert_eq!(place.ingest().replaced, 1);
    assert_eq!(place.records().len(), 1);
}

#[test]
fn reading_again_brings_back_what_was_deleted() {
    use anchorite_index::PairSink;
    let mut place = Place::new();
    write_pairs(&place.file("a.parquet"), 0, 20);
    place.ingest();
    let key = place.records()[3].key.clone();
    place.store.delete(&[key]).unwrap();
    place.store.commit(&Cancel::default()).unwrap();
    assert_eq!((place.ingest().accepted, place.records().len()), (0, 19));
    place.options.earlier = Earlier::ReadAgain;
    assert_eq!((place.ingest().accepted, place.records().len()), (1, 20));
}

#[test]
fn pictures_named_by_path_are_compared_again() {
    let mut place = Place::new();
    for name in ["1.jpg", "2.jpg"] {
        fs::write(place.file(name), jpeg(usize::from(name.as_bytes()[0]))).unwrap();
    }
    let columns = vec![("path", text([Some("1.jpg"), Some("2.jpg")])), ("caption", text([Some("a"), Some("b")]))];
    write(&place.file("list.parquet"), columns);
    place.options.columns = ColumnOptions { image: named("path"), ..ColumnOptions::default() };
    assert_eq!(place.ingest().accepted, 2);
    fs::write(place.file("2.jpg"), jpeg(7)).unwrap();
    let report = place.ingest();
    assert_eq!((report.rows_passed_over, report.already_present, report.replaced), (0, 1, 1));
}
