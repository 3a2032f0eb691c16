//! ARF's step on a small CLIP, for the tests of steps.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "test code; each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use anchorite_train::graph::Tensor;
use anchorite_train::step::{Form, InputSizes, Pictures, Plan, StreamBatch, Towers, Trainer};

use super::support::{pixels, towers, trainer};

pub const SIZES: InputSizes = InputSizes { height: 32, width: 32, tokens: 5 };
pub const PICTURE: usize = 3 * 32 * 32;

pub fn go() -> AtomicBool {
    AtomicBool::new(false)
}

pub fn plan(chunk: usize, form: Form) -> Plan {
    Plan { chunk, form, threads: 1, ..Plan::default() }
}

/// At a low scale: at CLIP's 100, embeddings' rounding is a hundred times as large in the logits.
pub fn clip(plan: &Plan) -> Trainer {
    let towers = Towers { log_scale: 1.5, ..towers("exports/clip") };
    trainer(towers, plan, SIZES)
}

/// Captions as the tokenizer would give them: begin 94, end and padding 95.
pub fn captions(first: usize, count: usize) -> Vec<i64> {
    (first..first + count).flat_map(|i| [94, 5 + (i * 7 % 80) as i64, 6 + (i * 3 % 80) as i64, 95, 95]).collect()
}

pub fn stream(name: &str, weight: f32, pictures: Pictures, first: usize, pairs: usize) -> StreamBatch {
    StreamBatch { name: name.to_owned(), weight, pairs, pictures, tokens: captions(first, pairs), mask: None, groups: None }
}

/// Class prompts and captions of the same seven pictures, and five anchors: ARF's step.
pub fn arf() -> Vec<StreamBatch> {
    let all = pixels(12 * PICTURE);
    let prompts = StreamBatch {
        groups: Some(vec![0, 1, 0, 2, 2, 3, 1]),
        ..stream("prompts", 1.0, Pictures::Own(all[..7 * PICTURE].to_vec()), 0, 7)
    };
    vec![
        prompts,
        stream("captions", 0.5, Pictures::SameAs(0), 7, 7),
        stream("anchors", 2.0, Pictures::Own(all[7 * PICTURE..].to_vec()), 20, 5),
    ]
}

pub fn gradients(trainer: &mut Trainer, streams: &[StreamBatch]) -> BTreeMap<String, Tensor> {
    trainer.accumulate(streams, &go()).unwrap();
    trainer.gradients()
}

/// Largest difference as a share of the tensor's largest value. Attention's key biases have no gradient, since softmax is blind to
/// them: theirs is rounding noise, so a share of the largest of all tensors.
pub fn difference(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let largest = |t: &Tensor| t.f32s().unwrap().iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
    let overall = a.values().map(largest).fold(0.0, f64::max);
    let of = |(name, x): (&String, &Tensor)| {
        let (x, y) = (x.f32s().unwrap(), b[name].f32s().unwrap());
        let worst = x.iter().zip(&y).map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max);
        worst / if name.ends_with("k_proj.bias") { overall } else { largest(&a[name]) }
    };
    a.iter().map(of).fold(0.0, f64::max)
}

/// Rounding of float32 over sums of a few dozen terms.
pub const ROUNDING: f64 = 2e-5;
