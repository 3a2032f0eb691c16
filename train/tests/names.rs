//! Promise: what `model.safetensors` holds is the state of PyTorch's own module, name by name, shape by shape, value by value, whichever exporter the
//! model came from, so that transformers and open_clip load it.
//!
//! `fixtures/names.json` is of the modules themselves, written by `fixtures/make_names.py` after they had loaded these tensors without a missing one and
//! given the loss of the module that was exported.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anchorite_encoder::model::{Folder, ModelOptions};
use anchorite_train::Limits;
use anchorite_train::export::torch_names;
use anchorite_train::graph::Tensor;
use anchorite_train::step::Towers;
use serde_json::{Value as Json, json};
use support::fixture;

/// Where tensors are written for the script, if named.
const WRITE: &str = "ANCHORITE_WRITE_TENSORS";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn named(name: &str) -> BTreeMap<String, Tensor> {
    let folder = if name == "clip" { fixture("exports/clip") } else { fixtures().join("exports").join(name) };
    let towers = Towers::open(&Folder::open(&folder, &ModelOptions::default()).unwrap(), &Limits::default()).unwrap();
    let mut named = torch_names(&towers.vision.model);
    named.extend(torch_names(&towers.text.model));
    named
}

/// Changes with every value and its place.
fn weighed(values: &[f32]) -> f64 {
    values.iter().enumerate().map(|(i, &v)| f64::from(v) * (i % 11 + 1) as f64).sum()
}

#[test]
fn weights_have_pytorchs_names_shapes_and_values() {
    let read = fs::read(fixtures().join("names.json")).unwrap_or_else(|_| b"{}".to_vec());
    let golden: Json = serde_json::from_slice(&read).unwrap();
    for name in ["clip", "hf_dynamo", "hf_opset14_mask", "open_clip_torchscript", "open_clip_dynamo"] {
        let found = named(name);
        if let Some(folder) = std::env::var_os(WRITE) {
            let tensor = |t: &Tensor| json!({ "shape": t.shape(), "values": t.f32s().unwrap() });
            let all: BTreeMap<&String, Json> = found.iter().map(|(name, t)| (name, tensor(t))).collect();
            fs::write(Path::new(&folder).join(format!("{name}.json")), serde_json::to_vec(&all).unwrap()).unwrap();
            continue;
        }
        let expected = golden[name].as_object().unwrap();
        for (tensor, known) in expected {
            let ours = found.get(tensor).unwrap_or_else(|| panic!("{name} has no {tensor}; it has {:?}", found.keys()));
            let shape: Vec<usize> = known["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
            assert_eq!(ours.shape(), shape, "{name} {tensor}");
            let values = ours.f32s().unwrap();
            let (sum, size) = (weighed(&values), values.iter().map(|v| f64::from(v.abs()) * 11.0).sum::<f64>());
            assert!((sum - known["weighed"].as_f64().unwrap()).abs() <= 1e-6 * size, "{name} {tensor}");
        }
        // What is more is no weight: a causal mask, scales.
        let more: Vec<&String> = found.keys().filter(|tensor| !expected.contains_key(*tensor)).collect();
        assert!(more.iter().all(|tensor| found[*tensor].len() == 1 || tensor.starts_with("unsqueeze")), "{name}: {more:?}");
    }
}
