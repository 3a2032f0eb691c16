//! Datasets of the hub, from a stand-in on the loopback interface: only what is asked for comes, of one commit, checked, and is known by the
//! dataset's name whatever the commit.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../encoder/tests/hub_support/mod.rs"]
mod hub_support;
mod support;

use std::{collections::BTreeMap, fs, path::Path};

use anchorite_encoder::hub::{HubError, HubOptions};
use anchorite_index::Cancel;
use anchorite_ingest::{Fetched, HubSource, IngestJob, IngestOptions, NoProgress, Vectors, ingest};
use hub_support::{COMMIT, Hub, Server};
use support::{encoder, fixture, jpeg, records, store, write_pairs};

fn pairs(folder: &Path, first: usize) -> Vec<u8> {
    let file = folder.join("pairs.parquet");
    write_pairs(&file, first, 5);
    fs::read(file).unwrap()
}

/// Two shards, a tar, pictures with captions, and files that are no sources.
fn dataset(folder: &Path, first: usize) -> Hub {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| files.insert(name.to_owned(), bytes);
    put("README.md", b"# pairs".to_vec());
    put(".gitattributes", b"*.parquet lfs".to_vec());
    put("data/train-00000-of-00002.parquet", pairs(folder, first));
    put("data/train-00001-of-00002.parquet", pairs(folder, first + 100));
    put("tars/00000.tar", fs::read(fixture("webdataset/cc3m-train-0000.tar")).unwrap());
    for i in 0..3 {
        put(&format!("loose/{i}.jpg"), jpeg(1_000 + i));
        put(&format!("loose/{i}.txt"), format!("loose picture {i}").into_bytes());
    }
    put("loose/model.safetensors", vec![0; 100]);
    Hub::of("datasets/org/pairs", files)
}

fn fetch(argument: &str, options: &HubOptions) -> Result<Fetched, HubError> {
    HubSource::parse(Path::new(argument)).unwrap().fetch(options, &|_| {})
}

#[test]
fn a_dataset_is_downloaded_once_and_its_rows_are_known_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(dataset(folder.path(), 0));
    let options = server.options(folder.path());
    let fetched = fetch("hf://datasets/org/pairs", &options).unwrap();
    assert_eq!(fetched.pinned, format!("hf://datasets/org/pairs@{COMMIT}"));
    let asked = server.requests().join(" ");
    assert!(!asked.contains("README") && !asked.contains("safetensors") && !asked.contains(".git"), "{asked}");
    let (mut store, encoder, ingest_options) = (store(), encoder(), IngestOptions::default());
    let mut run = |sources: &[std::path::PathBuf]| {
        let job = IngestJob { sources, vectors: Vectors::Encode(&encoder), options: &ingest_options };
        ingest(job, &mut store, &mut NoProgress, &Cancel::default()).unwrap()
    };
    let report = run(&fetched.sources);
    assert_eq!((report.accepted, report.rejected), (5 + 5 + 4 + 3, 0), "{:?}", report.rejected_by_reason);
    assert!(report.sources.iter().all(|source| source.revision.as_deref() == Some(COMMIT)), "{:?}", report.sources);

    // Once more, and without the hub: nothing is downloaded.
    let before = server.requests().len();
    assert_eq!(fetch("hf://datasets/org/pairs", &options).unwrap(), fetched);
    assert_eq!(server.requests().len(), before + 1, "only the listing is asked for again");
    let offline = HubOptions { offline: true, endpoint: Some("http://127.0.0.1:1".to_owned()), ..options.clone() };
    assert_eq!(fetch("hf://datasets/org/pairs", &offline).unwrap(), fetched);
    assert_eq!(run(&fetched.sources).accepted, 0);

    // A later commit: rows that differ take the places of those that were, others are known.
    let later = Hub { sha: "f".repeat(40), ..dataset(folder.path(), 50) };
    let server = Server::new(later);
    let newer = fetch("hf://datasets/org/pairs", &server.options(folder.path())).unwrap();
    assert_ne!(newer, fetched);
    let report = run(&newer.sources);
    assert_eq!((report.replaced, report.already_present, report.rejected), (10, 7, 0), "{report:?}");
    let names: std::collections::BTreeSet<String> = records(&store).into_iter().map(|r| r.source.file).collect();
    assert!(
        names.contains("org/pairs/data/train-00000-of-00002.parquet") && names.contains("org/pairs/loose/0.jpg"),
        "{names:?}"
    );
}

#[test]
fn only_what_a_path_or_pattern_names_comes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(dataset(folder.path(), 0));
    for (path, files) in [
        ("data", 2),
        ("data/", 2),
        ("data/*.parquet", 2),
        ("data/train-{00000..00001}-of-00002.parquet", 2),
        ("data/train-00001-of-00002.parquet", 1),
        ("**/*.tar", 1),
        ("loose", 6),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let before = server.requests().len();
        let fetched = fetch(&format!("hf://datasets/org/pairs@main/{path}"), &server.options(cache.path())).unwrap();
        let asked = server.requests().split_off(before).into_iter().filter(|path| path.contains("/resolve/"));
        let asked: std::collections::BTreeSet<String> = asked.collect();
        assert_eq!(asked.len(), files, "{path}: {asked:?}");
        assert!(fetched.pinned.contains(COMMIT) && !fetched.sources.is_empty());
    }
    for (path, word) in
        [("nope", "matches nothing"), ("data/{00000..00003}.tar", "matches nothing"), ("README.md", "nothing to ingest")]
    {
        let error = fetch(&format!("hf://datasets/org/pairs/{path}"), &server.options(folder.path())).unwrap_err();
        assert!(matches!(error, HubError::NothingChosen { .. }) && error.to_string().contains(word), "{path}: {error}");
    }
}

#[test]
fn what_is_damaged_missing_or_hostile_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut lying = dataset(folder.path(), 0);
    lying.lies.insert("data/train-00000-of-00002.parquet".to_owned(), "0".repeat(64));
    let server = Server::new(lying);
    let error = fetch("hf://datasets/org/pairs/data", &server.options(folder.path())).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { file, .. } if file.ends_with("train-00000-of-00002.parquet")), "{error:?}");

    let cache = tempfile::tempdir().unwrap();
    for name in ["../../../escape.parquet", "/etc/escape.parquet", "a/../../escape.parquet", "a\\..\\x.parquet", "x y.parquet"] {
        let hub = Hub::of("datasets/org/pairs", BTreeMap::from([(name.to_owned(), pairs(folder.path(), 0))]));
        let server = Server::new(hub);
        let error = fetch("hf://datasets/org/pairs", &server.options(cache.path())).unwrap_err();
        assert!(matches!(&error, HubError::BadAnswer { .. } | HubError::NothingChosen { .. }), "{name}: {error:?}");
    }
    assert!(!cache.path().join("escape.parquet").exists() && !cache.path().parent().unwrap().join("escape.parquet").exists());

    let server = Server::new(dataset(folder.path(), 0));
    for argument in ["hf://datasets/org/nope", "hf://datasets/org/pairs@v9"] {
        assert!(matches!(fetch(argument, &server.options(folder.path())), Err(HubError::NotFound { .. })), "{argument}");
    }
    for argument in
        ["hf://datasets/", "hf://datasets/org", "hf://datasets/org/..", "hf://datasets/-x/y", "hf://datasets/org/pairs@../x"]
    {
        let error = fetch(argument, &server.options(folder.path())).unwrap_err();
        assert!(matches!(error, HubError::NoDataset { .. }), "{argument}: {error:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let offline = HubOptions { offline: true, ..server.options(empty.path()) };
    assert!(matches!(fetch("hf://datasets/org/pairs", &offline), Err(HubError::NotCached { .. })));
}
