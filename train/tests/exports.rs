//! Promise: whichever exporter a CLIP comes from, a step's gradients are those of PyTorch's autograd in float64, what is trained is
//! what PyTorch calls parameters, and ten steps of AdamW give PyTorch's losses.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anchorite_encoder::model::{Folder, ModelOptions};
use anchorite_train::Limits;
use anchorite_train::optim::AdamW;
use anchorite_train::step::{Form, InputSizes, Pictures, Plan, StreamBatch, Towers, Trainer};
use serde_json::Value;
use support::{pixels, trainer};

const EXPORTS: [&str; 6] =
    ["hf_dynamo", "hf_opset14_mask", "open_clip_torchscript", "open_clip_dynamo", "open_clip_resnet", "efficientnet"];
const TOKENS: usize = 8;
/// Share of the largest gradient of a tensor, and of a loss.
const TOLERANCE: f64 = 1e-4;
/// Attention's key biases have no gradient, since softmax is blind to them: PyTorch's is at most this share of the largest of all
/// (noise of float64), ours at most the second (noise of float32).
const ZERO: f64 = 1e-12;
const NOISE: f64 = 1e-6;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exports").join(name)
}

struct Golden {
    json: Value,
    gradients: Vec<f32>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let bytes = fs::read(folder(name).join("golden.bin")).unwrap();
        let gradients = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Self { json: serde_json::from_str(&fs::read_to_string(folder(name).join("golden.json")).unwrap()).unwrap(), gradients }
    }

    fn integers(&self, field: &str) -> Option<Vec<i64>> {
        Some(self.json[field].as_array()?.iter().map(|v| v.as_i64().unwrap()).collect())
    }

    fn gradient(&self, name: &str) -> &[f32] {
        let place = &self.json["gradients"][name];
        let (start, len) = (place[0].as_u64().unwrap() as usize, place[1].as_u64().unwrap() as usize);
        &self.gradients[start..start + len]
    }

    /// Pictures' rows and columns: 16 where the file does not say.
    fn side(&self) -> usize {
        self.json["size"].as_u64().unwrap_or(16) as usize
    }

    fn batch(&self) -> StreamBatch {
        StreamBatch {
            name: "pairs".to_owned(),
            weight: 1.0,
            pairs: 4,
            pictures: Pictures::Own(pixels(4 * 3 * self.side() * self.side())),
            tokens: self.integers("captions").unwrap(),
            mask: self.integers("mask"),
            groups: None,
        }
    }

    fn trainer(&self, name: &str, chunk: usize, form: Form) -> Trainer {
        let folder = Folder::open(&folder(name), &ModelOptions::default()).unwrap();
        let log_scale = self.json["log_scale"].as_f64().unwrap() as f32;
        let towers = Towers { log_scale, ..Towers::open(&folder, &Limits::default()).unwrap() };
        let plan = Plan { chunk, form, threads: 1, optimizer: AdamW::default(), ..Plan::default() };
        trainer(towers, &plan, InputSizes { height: self.side(), width: self.side(), tokens: TOKENS })
    }
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())))
}

fn check_gradients(name: &str, chunk: usize, form: Form) {
    let golden = Golden::read(name);
    let mut trainer = golden.trainer(name, chunk, form);
    trainer.accumulate(&[golden.batch()], &AtomicBool::new(false)).unwrap();
    let found = trainer.gradients();
    let expected = golden.json["gradients"].as_object().unwrap();
    let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<std::collections::BTreeSet<String>>();
    assert_eq!(names(found.keys().collect()), names(expected.keys().collect()), "{name}: what is trained");
    let overall = largest(&golden.gradients);
    let mut zeros = 0;
    for (tensor, values) in &found {
        let (values, reference) = (values.f32s().unwrap(), golden.gradient(tensor));
        assert_eq!(values.len(), reference.len(), "{name} {tensor}");
        let pairs = values.iter().zip(reference);
        let difference = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        if largest(reference) <= ZERO * overall {
            assert!(tensor.ends_with("k_proj.bias"), "{name} {tensor} has no gradient");
            assert!(difference <= NOISE * overall, "{name} {tensor}: {difference:e} of {overall:e}");
            zeros += 1;
            continue;
        }
        let error = difference / largest(reference);
        assert!(error <= TOLERANCE, "{name} {tensor}: {error:e}");
    }
    let layers = match name {
        "hf_dynamo" | "hf_opset14_mask" => 4,
        // The attention that pools; elsewhere the key's bias is a part of a larger tensor.
        "open_clip_resnet" => 1,
        _ => 0,
    };
    assert_eq!(zeros, layers, "{name}");
}

#[test]
fn cached_gradients_are_those_of_pytorch() {
    for name in EXPORTS {
        // Three and one: the last chunk is filled up.
        check_gradients(name, 3, Form::Cached);
    }
}

#[test]
fn direct_gradients_are_those_of_pytorch() {
    for name in EXPORTS {
        check_gradients(name, 4, Form::Auto);
    }
}

#[test]
fn ten_steps_give_the_losses_of_pytorch() {
    for name in EXPORTS {
        let golden = Golden::read(name);
        let mut trainer = golden.trainer(name, 3, Form::Auto);
        let (batch, rate) = ([golden.batch()], golden.json["rate"].as_f64().unwrap());
        for (step, expected) in golden.json["losses"].as_array().unwrap().iter().enumerate() {
            let expected = expected.as_f64().unwrap();
            let found = trainer.step(&batch, rate, &AtomicBool::new(false)).unwrap().loss;
            assert!((found - expected).abs() <= TOLERANCE * expected, "{name} step {step}: {found} {expected}");
        }
    }
}
