//! A model file is judged before ONNX Runtime sees it. No test here loads ONNX Runtime: what is refused is refused by us. The files
//! come from `fixtures/models/make_attacks.py`.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

#[expect(dead_code, reason = "other test binaries use the rest")]
mod model_support;

use std::os::unix::fs::symlink;
use std::path::Path;

use anchorite_encoder::model::{FileProblem, Folder, ModelError, ModelLimits, ModelOptions, ScanError, scan};
use model_support::{fixture, lone};
use proptest::prelude::*;
use tempfile::TempDir;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("attacks/{name}.onnx"))).unwrap()
}

fn judge(name: &str) -> Result<(), ScanError> {
    scan(&read(name), &ModelLimits::default()).map(|_| ())
}

/// A folder in jina's layout whose image tower is the named file.
fn folder_with(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("visual.onnx"), read(name)).unwrap();
    folder
}

fn open(folder: &Path) -> Result<Folder, ModelError> {
    Folder::open(folder, &lone())
}

fn problem(folder: &Path) -> FileProblem {
    match open(folder) {
        Err(ModelError::File(error)) => error.problem,
        other => panic!("expected a file error, got {other:?}"),
    }
}

fn weights() -> Vec<u8> {
    std::fs::read(fixture("attacks/w.bin")).unwrap()
}

#[test]
fn a_plain_model_passes() {
    for name in ["good", "operator_contrib_allowed", "nesting_3", "external_plain", "external_offset"] {
        assert_eq!(judge(name), Ok(()), "{name}");
    }
}

#[test]
fn external_data_with_any_other_location_than_a_plain_name_is_refused() {
    let names =
        ["parent", "deep_parent", "absolute", "folder", "dot", "dotdot", "empty", "backslash", "drive", "newline", "memory"];
    for name in names {
        let found = judge(&format!("location_{name}"));
        assert!(matches!(found, Err(ScanError::External { .. })), "{name}: {found:?}");
    }
}

#[test]
fn external_data_that_is_described_oddly_is_refused() {
    let names = [
        "external_no_location",
        "external_marker_only",
        "external_without_marker",
        "external_twice_location",
        "external_unknown_key",
        "external_wrong_length",
        "external_huge_offset",
        "external_signed_offset",
        "external_string",
        "external_and_inline",
    ];
    for name in names {
        assert!(matches!(judge(name), Err(ScanError::External { .. })), "{name}: {:?}", judge(name));
    }
    assert!(matches!(judge("external_marker_above_32_bits"), Err(ScanError::Invalid { .. })));
    assert!(matches!(judge("marker_unknown_value"), Err(ScanError::External { .. })));
}

#[test]
fn external_data_anywhere_but_in_plain_initializers_is_refused() {
    let names = [
        "attribute_tensor",
        "attribute_tensors",
        "attribute_sparse",
        "attribute_sparse_indices",
        "attribute_sparses",
        "sparse_initializer_values",
        "sparse_initializer_indices",
        "subgraph_initializer",
        "subgraph_attribute",
    ];
    for name in names {
        let found = judge(&format!("place_{name}"));
        assert!(matches!(found, Err(ScanError::ExternalPlace { .. })), "{name}: {found:?}");
    }
}

#[test]
fn foreign_operators_are_refused_wherever_they_stand() {
    for name in ["domain_foreign", "domain_foreign_in_subgraph", "operator_epcontext", "operator_name_with_newline"] {
        assert!(matches!(judge(name), Err(ScanError::Operator { .. })), "{name}: {:?}", judge(name));
    }
    assert!(!judge("operator_name_with_newline").unwrap_err().to_string().contains('\n'));
}

#[test]
fn functions_and_training_information_are_refused() {
    assert!(matches!(judge("functions"), Err(ScanError::Carries { .. })));
    assert!(matches!(judge("training_info"), Err(ScanError::Carries { .. })));
}

#[test]
fn impossible_shapes_and_deep_nesting_are_refused() {
    assert!(matches!(judge("shape_negative"), Err(ScanError::Invalid { .. })));
    assert!(matches!(judge("shape_overflow"), Err(ScanError::Invalid { .. })));
    assert!(matches!(judge("nesting_20"), Err(ScanError::Limit { what: "nested graphs", .. })), "{:?}", judge("nesting_20"));
}

#[test]
fn protobuf_tricks_are_refused() {
    assert!(matches!(judge("graph_twice"), Err(ScanError::Invalid { .. })));
    assert!(matches!(judge("initializer_name_twice"), Err(ScanError::Invalid { .. })));
    assert_eq!(judge("unknown_field"), Err(ScanError::UnknownField { message: "ModelProto", number: 99 }));
    assert_eq!(judge("ort_format_hidden"), Err(ScanError::OrtFormat));
}

#[test]
fn limits_are_kept() {
    let bytes = read("good");
    let few_nodes = ModelLimits { max_nodes: 1, ..ModelLimits::default() };
    assert!(matches!(scan(&bytes, &few_nodes), Err(ScanError::Limit { what: "nodes", found: 2, max: 1 })));
    let no_tensors = ModelLimits { max_tensors: 0, ..ModelLimits::default() };
    assert!(matches!(scan(&bytes, &no_tensors), Err(ScanError::Limit { what: "tensors", .. })));
    let no_external = ModelLimits { max_external_bytes: 100, ..ModelLimits::default() };
    assert!(matches!(scan(&read("external_plain"), &no_external), Err(ScanError::Limit { .. })));
    let small = ModelOptions { limits: ModelLimits { max_model_bytes: 10, ..ModelLimits::default() }, ..lone() };
    let refused = Folder::open(folder_with("good").path(), &small).unwrap_err().to_string();
    assert!(refused.contains("visual.onnx") && refused.contains("at most 10"), "{refused}");
}

#[test]
fn every_truncation_of_a_model_is_an_error() {
    let bytes = read("good");
    for len in 0..bytes.len() {
        assert!(scan(&bytes[..len], &ModelLimits::default()).is_err(), "cut at {len}");
    }
}

#[test]
fn no_flipped_bit_panics() {
    for name in ["good", "external_plain", "nesting_3", "place_attribute_sparse"] {
        let mut bytes = read(name);
        for i in 0..bytes.len() * 8 {
            bytes[i / 8] ^= 1 << (i % 8);
            let _ = scan(&bytes, &ModelLimits::default());
            bytes[i / 8] ^= 1 << (i % 8);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan(&bytes, &ModelLimits::default());
    }
}

#[test]
fn external_data_beside_the_model_is_accepted() {
    let folder = folder_with("external_plain");
    std::fs::write(folder.path().join("w.bin"), weights()).unwrap();
    assert!(open(folder.path()).is_ok());
}

#[test]
fn external_data_through_a_symbolic_link_is_refused() {
    let (folder, other) = (folder_with("external_plain"), TempDir::new().unwrap());
    std::fs::write(other.path().join("secret"), weights()).unwrap();
    symlink(other.path().join("secret"), folder.path().join("w.bin")).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::Symlink));
}

#[test]
fn external_data_through_a_link_inside_the_folder_is_refused_as_well() {
    let folder = folder_with("external_plain");
    std::fs::write(folder.path().join("real.bin"), weights()).unwrap();
    symlink("real.bin", folder.path().join("w.bin")).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::Symlink));
}

#[test]
fn external_data_through_a_hard_link_is_refused() {
    let folder = folder_with("external_plain");
    std::fs::write(folder.path().join("secret"), weights()).unwrap();
    std::fs::hard_link(folder.path().join("secret"), folder.path().join("w.bin")).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::HardLink { links: 2 }));
}

#[test]
fn external_data_that_is_no_regular_file_is_refused() {
    let folder = folder_with("external_plain");
    std::fs::create_dir(folder.path().join("w.bin")).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::NotRegular));
    std::fs::remove_dir(folder.path().join("w.bin")).unwrap();
    // A pipe without a writer: opening it must not wait for one.
    let pipe = folder.path().join("w.bin");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::NotRegular));
}

#[test]
fn external_data_that_is_missing_or_too_short_is_named() {
    let folder = folder_with("external_plain");
    let missing = open(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("w.bin") && missing.contains("No such file"), "{missing}");
    std::fs::write(folder.path().join("w.bin"), &weights()[..100]).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::Short { offset: 0, bytes: 192, len: 100 }));
    let folder = folder_with("external_offset");
    std::fs::write(folder.path().join("w.bin"), weights()).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::Short { offset: 64, bytes: 192, len: 192 }));
}

#[test]
fn a_model_file_that_is_a_link_is_refused_outside_a_hub_cache() {
    let (folder, other) = (TempDir::new().unwrap(), folder_with("good"));
    symlink(other.path().join("visual.onnx"), folder.path().join("visual.onnx")).unwrap();
    assert!(matches!(problem(folder.path()), FileProblem::Symlink));
}

/// The hub cache's shape: `models--org--name/snapshots/<revision>/onnx/file -> ../../../blobs/<name>`.
fn hub_cache(model: &str) -> (TempDir, std::path::PathBuf) {
    let cache = TempDir::new().unwrap();
    let repo = cache.path().join("models--org--name");
    let snapshot = repo.join("snapshots/0123");
    std::fs::create_dir_all(snapshot.join("onnx")).unwrap();
    std::fs::create_dir(repo.join("blobs")).unwrap();
    std::fs::write(repo.join("blobs/aa"), read(model)).unwrap();
    std::fs::write(repo.join("blobs/bb"), weights()).unwrap();
    symlink("../../../blobs/aa", snapshot.join("onnx/vision_model.onnx")).unwrap();
    (cache, snapshot)
}

#[test]
fn links_of_a_hub_cache_lead_into_its_own_blobs() {
    let (_cache, snapshot) = hub_cache("external_plain");
    symlink("../../../blobs/bb", snapshot.join("onnx/w.bin")).unwrap();
    assert!(open(&snapshot).is_ok());
}

#[test]
fn links_of_a_hub_cache_lead_nowhere_else() {
    let (cache, snapshot) = hub_cache("external_plain");
    std::fs::create_dir(cache.path().join("blobs")).unwrap();
    std::fs::write(cache.path().join("blobs/secret"), weights()).unwrap();
    for target in ["../../../../blobs/secret", "/etc/hostname", "../../../blobs/../blobs/bb/..", "../../../blobs"] {
        symlink(target, snapshot.join("onnx/w.bin")).unwrap();
        assert!(open(&snapshot).is_err(), "{target}");
        std::fs::remove_file(snapshot.join("onnx/w.bin")).unwrap();
    }
    // A blob that is itself a link.
    symlink("/etc/hostname", snapshot.join("../../blobs/cc")).unwrap();
    symlink("../../../blobs/cc", snapshot.join("onnx/w.bin")).unwrap();
    assert!(matches!(problem(&snapshot), FileProblem::Symlink));
}
