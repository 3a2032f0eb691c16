//! Promise: the dependency directions of ARCHITECTURE.md hold, read from `cargo metadata`, and `unsafe` stays where it is allowed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What each workspace member may use of the others. `api` and `train` never know each other; `index` and `encoder` are leaves.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("anchorite-encoder", &[]),
    ("anchorite-index", &[]),
    ("anchorite-ingest", &["anchorite-encoder", "anchorite-index"]),
    ("anchorite-anchors", &["anchorite-encoder", "anchorite-index", "anchorite-ingest"]),
    ("anchorite-api", &["anchorite-anchors", "anchorite-encoder", "anchorite-index", "anchorite-ingest"]),
    ("anchorite-train", &["anchorite-anchors", "anchorite-encoder", "anchorite-index", "anchorite-ingest"]),
    (
        "anchorite",
        &["anchorite-anchors", "anchorite-api", "anchorite-encoder", "anchorite-index", "anchorite-ingest", "anchorite-train"],
    ),
    (
        "benches",
        &["anchorite-anchors", "anchorite-api", "anchorite-encoder", "anchorite-index", "anchorite-ingest", "anchorite-train"],
    ),
];

/// Packages a leaf must not use even from outside the workspace: what it is named not to know.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    ("anchorite-index", &["axum", "hyper", "tokio", "parquet", "arrow-array", "ort", "image", "tokenizers"]),
    ("anchorite-encoder", &["axum", "hyper", "tokio", "parquet", "arrow-array", "hnsw_rs", "memmap2"]),
    ("anchorite-ingest", &["axum", "hyper", "tokio", "ort", "hnsw_rs"]),
    ("anchorite-anchors", &["axum", "hyper", "ort", "hnsw_rs"]),
    ("anchorite-api", &["ort", "hnsw_rs", "memmap2"]),
    ("anchorite-train", &["axum", "hyper", "hnsw_rs"]),
];

/// Direct dependencies of every workspace member, build and normal kinds; development dependencies are tests' own business.
fn direct_dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |v: &Value| v.as_str().expect("a string").to_owned();
    let of = |package: &Value| {
        let all = package["dependencies"].as_array().expect("a list");
        all.iter().filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
    };
    metadata["packages"].as_array().expect("a list").iter().map(|p| (text(&p["name"]), of(p))).collect()
}

#[test]
fn every_member_uses_only_what_it_may() {
    let found = direct_dependencies();
    for (member, dependencies) in &found {
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| name == member).unwrap_or_else(|| panic!("{member} is not in MAY_USE"));
        for dependency in dependencies.iter().filter(|d| found.contains_key(*d)) {
            assert!(allowed.contains(&dependency.as_str()), "{member} must not use {dependency}");
        }
    }
    assert_eq!(found.len(), MAY_USE.len(), "a member of MAY_USE is gone");
}

#[test]
fn leaves_do_not_know_what_they_are_named_not_to_know() {
    let found = direct_dependencies();
    for (member, forbidden) in FORBIDDEN {
        for dependency in &found[member] {
            assert!(!forbidden.contains(&dependency.as_str()), "{member} must not use {dependency}");
        }
    }
}

/// The only files that may lift `unsafe_code = "deny"`.
const UNSAFE: [&str; 12] = [
    // The distance that the peer hnsw_rs is measured with.
    "benches/src/index/dot.rs",
    "encoder/src/image/jpeg_idct.rs",
    "encoder/src/image/jpeg_planes.rs",
    "encoder/src/image/libjpeg.rs",
    "encoder/src/image/resample.rs",
    "encoder/src/image/resample_avx2.rs",
    "encoder/src/image/webp.rs",
    "encoder/src/runtime/ffi.rs",
    "index/src/distance/neon.rs",
    "index/src/distance/tile.rs",
    "index/src/distance/x86.rs",
    "index/src/map.rs",
];

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn unsafe_is_lifted_only_where_it_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for member in ["src", "encoder/src", "index/src", "ingest/src", "anchors/src", "api/src", "train/src", "benches/src"] {
        rust_files(&root.join(member), &mut files);
    }
    let lifts = |path: &&PathBuf| {
        let text = fs::read_to_string(path).expect("a source file is UTF-8");
        text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code")
    };
    let found: Vec<&Path> = files.iter().filter(lifts).map(|p| p.strip_prefix(root).expect("below the root")).collect();
    for path in &found {
        assert!(UNSAFE.iter().any(|allowed| Path::new(allowed) == *path), "{} must not lift unsafe_code", path.display());
    }
    assert_eq!(found.len(), UNSAFE.len(), "a file of UNSAFE needs no exception any more");
}
