//! What a model folder is taken for: layouts, element types, errors that say what to do, and the fingerprint. Nothing is run.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

#[expect(dead_code, reason = "other test binaries use the rest")]
mod model_support;

use std::path::Path;

use anchorite_encoder::model::{Dtype, Folder, ModelError, ModelLimits, ModelOptions, scan};
use model_support::{fixture, lone};
use tempfile::TempDir;

fn open(path: &Path) -> Result<Folder, ModelError> {
    Folder::open(path, &lone())
}

fn refusal(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

/// A copy of fixture files, to be changed.
fn copy(from: &str, files: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in files {
        let to = folder.path().join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(fixture(from).join(file), to).unwrap();
    }
    folder
}

const HF: [&str; 3] = ["onnx/vision_model.onnx", "onnx/text_model.onnx", "config.json"];

#[test]
fn an_empty_folder_is_told_what_is_expected() {
    let folder = TempDir::new().unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("onnx/vision_model.onnx") && text.contains("that are there: none"), "{text}");
    std::fs::write(folder.path().join("other.onnx"), b"").unwrap();
    assert!(refusal(folder.path()).contains("other.onnx"));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    assert!(refusal(Path::new("does/not/exist")).starts_with("does/not/exist: No such file"));
}

#[test]
fn element_types_are_chosen_and_not_guessed() {
    let path = fixture("layouts/fp16_only");
    let text = refusal(&path);
    assert!(
        text.contains("onnx/vision_model.onnx is missing") && text.contains("--image-dtype") && text.contains(": fp16"),
        "{text}"
    );
    let options = ModelOptions { image_dtype: Dtype::Fp16, ..ModelOptions::default() };
    let text = Folder::open(&path, &options).unwrap_err().to_string();
    assert!(text.contains("--text-dtype") && text.contains("fp16, quantized"), "{text}");
    let options = ModelOptions { image_dtype: Dtype::Fp16, text_dtype: Dtype::Quantized, ..ModelOptions::default() };
    let folder = Folder::open(&path, &options).unwrap();
    assert_eq!(folder.text().unwrap().file(), "onnx/text_model_quantized.onnx");
}

#[test]
fn element_types_are_read_by_name() {
    assert!(Dtype::ALL.iter().all(|d| d.name().parse() == Ok(*d)));
    assert!("float".parse::<Dtype>().unwrap_err().to_string().contains("q4f16"));
}

#[test]
fn towers_of_two_models_are_refused() {
    let text = refusal(&fixture("layouts/mismatch"));
    assert!(text.contains("gives 5 values, the text tower 6"), "{text}");
}

#[test]
fn pictures_that_the_graph_wants_as_bytes_are_unsupported_with_a_reason() {
    let text = refusal(&fixture("layouts/uint8_nhwc"));
    assert!(text.contains("image is uint8 [1, 4, 4, 3]") && text.contains("float32"), "{text}");
}

#[test]
fn outputs_that_cannot_be_told_apart_are_listed() {
    let text = refusal(&fixture("layouts/ambiguous"));
    assert!(text.contains("a (float32 [batch, 6])") && text.contains("b (") && text.contains("image_embeds"), "{text}");
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let folder = copy("layouts/hf", &HF);
    std::fs::write(folder.path().join("onnx/text_model.onnx"), b"<!DOCTYPE html><html>").unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("text_model.onnx: refused: damaged"), "{text}");
}

#[test]
fn a_config_that_is_no_json_is_named() {
    let folder = copy("layouts/hf", &HF);
    std::fs::write(folder.path().join("config.json"), b"{").unwrap();
    assert!(refusal(folder.path()).contains("config.json: EOF"));
}

#[test]
fn the_fingerprint_does_not_depend_on_where_the_folder_lies() {
    let (a, b) = (copy("layouts/hf", &HF), copy("layouts/hf", &HF));
    let (a, b) = (open(a.path()).unwrap(), open(b.path()).unwrap());
    assert_eq!(a.fingerprint(), b.fingerprint());
    assert_eq!(a.fingerprint().len(), 64);
}

#[test]
fn every_file_that_decides_an_embedding_is_in_the_fingerprint() {
    let folder = copy("layouts/hf", &HF);
    let before = open(folder.path()).unwrap().fingerprint().to_owned();
    for (name, contents) in [("tokenizer.json", "{}"), ("preprocessor_config.json", "{}"), ("merges.txt", "a b")] {
        std::fs::write(folder.path().join(name), contents).unwrap();
        assert_ne!(open(folder.path()).unwrap().fingerprint(), before, "{name}");
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert_eq!(open(folder.path()).unwrap().fingerprint(), before);
    std::fs::write(folder.path().join("README.md"), "words").unwrap();
    assert_eq!(open(folder.path()).unwrap().fingerprint(), before);
    for file in &HF[..2] {
        let path = folder.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, flip_a_weight(&good)).unwrap();
        assert_ne!(open(folder.path()).unwrap().fingerprint(), before, "{file}");
        std::fs::write(&path, good).unwrap();
    }
}

/// One bit of a weight, so that it is still a model, but another one. Weights are the second half of these files.
fn flip_a_weight(model: &[u8]) -> Vec<u8> {
    let flipped = |i: usize| {
        let mut changed = model.to_vec();
        changed[i] ^= 1;
        changed
    };
    let passes = |bytes: &Vec<u8>| scan(bytes, &ModelLimits::default()).is_ok();
    (model.len() / 2..model.len()).map(flipped).find(passes).expect("a byte of the second half is data")
}

#[test]
fn external_data_is_in_the_fingerprint() {
    let files = ["onnx/vision_model.onnx", "onnx/vision_model.onnx_data"];
    let folder = copy("exports/clip_external", &files);
    let before = open(folder.path()).unwrap().fingerprint().to_owned();
    let data = folder.path().join(files[1]);
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    assert_ne!(open(folder.path()).unwrap().fingerprint(), before);
}

#[test]
fn one_tower_in_several_element_types_is_one_tower() {
    for (fixture_name, dtypes) in [("single_text", (Dtype::Plain, Dtype::Int8)), ("single_vision", (Dtype::Int8, Dtype::Plain))] {
        let folder = copy(&format!("layouts/{fixture_name}"), &["model.onnx"]);
        std::fs::copy(folder.path().join("model.onnx"), folder.path().join("model_int8.onnx")).unwrap();
        let options = ModelOptions { image_dtype: dtypes.0, text_dtype: dtypes.1, ..ModelOptions::default() };
        let opened = Folder::open(folder.path(), &options).unwrap();
        let file = opened.text().map(|t| t.file().to_owned()).or(opened.image().map(|t| t.file().to_owned()));
        assert_eq!(file.unwrap(), "model_int8.onnx", "{fixture_name}");
        assert!(opened.text().is_none() || opened.image().is_none());
    }
}

#[test]
fn a_tower_that_was_not_fetched_is_named() {
    let cases =
        [("hf", HF[0], HF[1]), ("open_clip", "visual/model.onnx", "textual/model.onnx"), ("jina", "visual.onnx", "textual.onnx")];
    for (layout, image, text) in cases {
        for (there, missing) in [(image, text), (text, image)] {
            let folder = copy(&format!("layouts/{layout}"), &[there]);
            let refused = Folder::open(folder.path(), &ModelOptions::default()).unwrap_err().to_string();
            assert!(refused.contains(&format!("{missing} is missing, while {there} is there")), "{refused}");
            assert!(open(folder.path()).is_ok());
        }
    }
}
