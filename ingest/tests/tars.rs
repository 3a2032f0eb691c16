//! WebDataset tars, as the real writers make them (`data/make_webdataset.py`) and as an attacker or a crash does.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anchorite_index::Value;
use anchorite_ingest::{ColumnOptions, IngestOptions, Limits};
use support::{fixture, jpeg, named, read_rejects, reasons, run, run_ready};

fn defaults() -> IngestOptions {
    IngestOptions::default()
}

fn captions(run: &support::Run) -> Vec<String> {
    run.records().into_iter().map(|r| r.caption.unwrap()).collect()
}

/// A tar in a fresh folder.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// A member with any name, as a tool would refuse to write it.
    fn add(mut self, name: &str, kind: tar::EntryType, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.add(name, tar::EntryType::Regular, bytes)
    }

    fn sample(self, key: &str, seed: usize) -> Self {
        self.file(&format!("{key}.jpg"), &jpeg(seed)).file(&format!("{key}.txt"), format!("caption {seed}").as_bytes())
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn write(self) -> (tempfile::TempDir, PathBuf) {
        written(&self.bytes())
    }
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn webdatasets_own_tars_plain_and_gzip() {
    for name in ["webdataset/cc3m-train-0000.tar", "webdataset/cc3m-train-0001.tar.gz"] {
        let run = run(fixture(name), &defaults());
        assert_eq!((run.report().accepted, run.report().rejected, run.report().images), (4, 0, 4), "{name}");
        assert_eq!(captions(&run), ["caption 0", "caption 1", "caption 2", "caption 3"]);
        let records = run.records();
        assert_eq!((records[2].source.file.as_str(), records[2].source.row), (name, 2));
        assert_eq!(records[2].fields["__key__"], Value::Text("part/000000002".to_owned()));
        assert!(records[2].picture.as_ref().unwrap().starts_with(b"RIFF"));
        let source = &run.report().sources[0];
        assert_eq!((source.rows, &source.columns.skipped[..]), (4, &["cls".to_owned()][..]));
    }
}

#[test]
fn a_gzip_tar_of_any_name_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("cc3m-train-0000.tar", "a"), ("cc3m-train-0001.tar.gz", "b.bin")] {
        fs::copy(fixture("webdataset").join(from), folder.path().join(to)).unwrap();
        assert_eq!(run(folder.path().join(to), &defaults()).report().accepted, 4);
    }
}

#[test]
fn captions_and_metadata_come_from_the_json_member() {
    let file = fixture("webdataset/json.tar");
    let found = run(&file, &defaults());
    assert_eq!(reasons(found.report()), [("caption_null", 1), ("image_null", 1)]);
    assert_eq!(captions(&found), ["in the json", "by another name", "the txt wins"]);
    let first = found.records().remove(0);
    assert_eq!((&first.fields["width"], &first.fields["score"]), (&Value::Int(16), &Value::Float(0.5)));
    assert_eq!(first.fields["good"], Value::Bool(true));
    assert!(["caption", "nested", "nothing"].iter().all(|name| !first.fields.contains_key(*name)));

    let columns = ColumnOptions { caption: named("TEXT"), key: Some("id".to_owned()), ..Default::default() };
    let found = run(&file, &IngestOptions { columns, ..defaults() });
    assert_eq!(captions(&found), ["by another name", "not read"]);
    assert_eq!(found.records()[1].key.as_str(), "row-c");

    let columns = ColumnOptions { key: Some("__key__".to_owned()), ..Default::default() };
    let found = run(&file, &IngestOptions { columns, ..defaults() });
    assert_eq!(found.records().iter().map(|r| r.key.as_str().to_owned()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn img2dataset_webdataset_output_without_its_files_beside_the_tars() {
    let run = run(fixture("img2dataset_webdataset"), &defaults());
    assert_eq!((run.report().accepted, run.report().rejected, run.report().sidecars), (4, 0, 4));
    assert_eq!(run.report().failed_before, 2, "what img2dataset could not fetch is told, although no row of the tars");
    assert_eq!(captions(&run), ["caption of 0.jpg", "caption of 1.jpg", "caption of 2.jpg", "caption of 3.jpg"]);
    let last = run.records().remove(3);
    assert_eq!((last.source.file.as_str(), last.source.row), ("img2dataset_webdataset/00001.tar", 0));
    assert_eq!((&last.fields["status"], &last.fields["width"]), (&Value::Text("success".to_owned()), &Value::Int(16)));
}

#[test]
fn a_samples_picture_has_any_of_the_usual_endings() {
    let webp = [&b"RIFF\x04\0\0\0WEBP"[..], b"1"].concat();
    let png = [&b"\x89PNG\r\n\x1a\n"[..], b"2"].concat();
    let mut tar = Tar::new();
    for (key, ending, bytes) in
        [("0", "jpg", jpeg(0)), ("1", "jpeg", jpeg(1)), ("2", "png", png), ("3", "webp", webp), ("4", "WEBP", jpeg(4))]
    {
        tar = tar.file(&format!("{key}.{ending}"), &bytes).file(&format!("{key}.txt"), format!("caption {key}").as_bytes());
    }
    let (_folder, path) = tar.write();
    let run = run(path, &defaults());
    assert_eq!((run.report().accepted, run.report().rejected), (5, 0), "{:?}", run.report().rejected_by_reason);
    assert_eq!(captions(&run), ["caption 0", "caption 1", "caption 2", "caption 3", "caption 4"]);
}

#[test]
fn members_that_no_writer_makes_reject_their_sample_and_no_other() {
    use tar::EntryType;
    let (folder, file) = Tar::new()
        .sample("./00", 0)
        .sample("/etc/passwd", 1)
        .sample("../up", 2)
        .add("link.jpg", EntryType::Symlink, b"")
        .file("link.txt", b"a link")
        .add("hard.jpg", EntryType::Link, b"")
        .add("null.jpg", EntryType::Char, b"")
        .sample("a/../b", 3)
        .file("twice.jpg", &jpeg(4))
        .file("twice.JPG", &jpeg(5))
        .file("latin.txt", b"caf\xe9")
        .file("object.json", b"[1, 2]")
        .add("folder.jpg/", EntryType::Directory, b"")
        .file("README", b"no sample")
        .sample("99", 6)
        .write();
    let rejects = folder.path().join("rejects.parquet");
    let run = run(&file, &IngestOptions { rejects: Some(rejects.clone()), ..defaults() });
    assert_eq!(captions(&run), ["caption 0", "caption 6"]);
    assert_eq!(run.records()[0].fields["__key__"], Value::Text("00".to_owned()));
    let found: Vec<_> = read_rejects(&rejects).into_iter().map(|(_, row, code, _)| (row, code)).collect();
    let expected = [
        (1, "path_invalid"),
        (2, "path_invalid"),
        (3, "path_refused"),
        (4, "path_refused"),
        (5, "path_refused"),
        (6, "path_invalid"),
        (7, "member_duplicate"),
        (8, "text_invalid"),
        (9, "metadata_invalid"),
    ];
    assert_eq!(found, expected.map(|(row, code)| (row, code.to_owned())));
}

#[test]
fn members_above_their_limits_are_rejects() {
    let (_folder, file) = Tar::new()
        .file("a.jpg", &jpeg(0).repeat(100))
        .file("a.txt", b"x")
        .file("b.jpg", &jpeg(1))
        .file("b.txt", b"too long")
        .file("c.jpg", &jpeg(2))
        .file("c.json", br#"{"caption": "long"}"#)
        .sample("d", 3)
        .write();
    let limits = Limits { max_picture_bytes: 100, max_caption_bytes: 3, ..Limits::default() };
    let run = run(&file, &IngestOptions { limits, ..defaults() });
    assert_eq!(reasons(run.report()), [("image_too_many_bytes", 1), ("text_too_long", 3)]);
}

#[test]
fn a_tar_cut_anywhere_gives_the_samples_before_and_names_itself() {
    let whole = Tar::new().sample("a", 0).sample("b", 1).sample("c", 2).bytes();
    // Six members of a header and a block each, and two blocks of end mark.
    assert_eq!(whole.len(), 14 * 512);
    for length in (1..12 * 512).step_by(97).chain([512, 1_024, 4 * 512, 12 * 512]) {
        let (_folder, file) = written(&whole[..length]);
        let run = run(&file, &defaults());
        assert!(run.error().contains("shard.tar is damaged") && run.error().contains("cut short"), "{length}: {}", run.error());
        // A sample is whole when the member after it, which has another key, is there: a header and a picture of 12 bytes.
        let whole_samples = (1..3).filter(|k| length >= (4 * k + 1) * 512 + 12).count();
        assert_eq!(run.records().len(), whole_samples, "{length}");
    }
    let (_folder, file) = written(&whole[..13 * 512]);
    assert_eq!(run(&file, &defaults()).report().accepted, 3);
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_or_rejects_but_never_a_panic() {
    let whole = Tar::new().sample("a", 0).sample("b", 1).bytes();
    // Every byte that says something, and some of the padding.
    for at in (0..whole.len()).filter(|at| whole[*at] != 0 || at % 31 == 0) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        let (_folder, file) = written(&bytes);
        let options = IngestOptions { workers: std::num::NonZeroUsize::new(1), ..defaults() };
        if let Ok(report) = &run(&file, &options).result {
            assert_eq!(report.rows_read, report.accepted + report.rejected, "byte {at}");
        }
    }
}

#[test]
fn huge_declared_sizes_allocate_nothing_and_are_named_errors() {
    use tar::EntryType;
    let declared = |kind: EntryType, bytes: u64| {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..5].copy_from_slice(b"a.jpg");
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_cksum();
        [Tar::new().sample("0", 0).sample("1", 1).bytes().split_at(8 * 512).0, header.as_bytes(), &[0; 1_024]].concat()
    };
    let cases = [
        (EntryType::Regular, u64::MAX, "size of a member"),
        (EntryType::Regular, 1 << 50, "size of a member"),
        (EntryType::Regular, 1 << 31, "cut short"),
        (EntryType::GNULongName, 1 << 31, "member's name"),
        (EntryType::XHeader, 1 << 31, "member's header"),
        (EntryType::XGlobalHeader, 1 << 50, "size of a member"),
    ];
    for (kind, bytes, message) in cases {
        let (_folder, file) = written(&declared(kind, bytes));
        let run = run(&file, &defaults());
        assert!(run.error().contains(message), "{kind:?} {bytes}: {}", run.error());
        assert_eq!(run.records().len(), 1, "{kind:?} {bytes}");
    }
}

#[test]
fn what_is_no_tar_is_a_named_error() {
    for bytes in [&b""[..], b"no tar at all", &[7; 4_096], &[0x1f, 0x8b, 8, 0, 1, 2, 3]] {
        let (_folder, file) = written(bytes);
        let error = run(&file, &defaults()).error();
        assert!(error.contains("shard.tar is damaged or no such file"), "{error}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&Tar::new().sample("a", 0).bytes()).unwrap();
    let whole = gzip.finish().unwrap();
    let (_folder, file) = written(&whole[..whole.len() - 9]);
    assert!(run(&file, &defaults()).error().contains("damaged"));
}

#[test]
fn long_names_by_gnu_and_by_pax() {
    let long = format!("{}/{}", "f".repeat(90), "n".repeat(90));
    let mut gnu = tar::Builder::new(Vec::new());
    for (ending, bytes) in [("jpg", jpeg(0)), ("txt", b"long".to_vec())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        gnu.append_data(&mut header, format!("{long}.{ending}"), &bytes[..]).unwrap();
    }
    let mut pax = tar::Builder::new(Vec::new());
    for (ending, bytes) in [("jpg", jpeg(0)), ("txt", b"long".to_vec())] {
        let name = format!("{long}.{ending}");
        pax.append_pax_extensions([("path", name.as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_path("short").unwrap();
        header.set_cksum();
        pax.append(&header, &bytes[..]).unwrap();
    }
    for builder in [gnu, pax] {
        let (_folder, file) = written(&builder.into_inner().unwrap());
        let run = run(&file, &defaults());
        assert_eq!(captions(&run), ["long"]);
        assert_eq!(run.records()[0].fields["__key__"], Value::Text(long.clone()));
    }
}

#[test]
fn a_tar_has_no_ready_vectors() {
    let error = run_ready(fixture("webdataset/json.tar"), 8, &defaults()).error();
    assert!(error.contains("no image vector column"), "{error}");
}

#[test]
fn a_folder_in_the_place_of_a_tar_is_walked_and_a_device_refused() {
    let error = run(Path::new("/dev/null"), &defaults()).error();
    assert!(error.contains("no plain file"), "{error}");
}
