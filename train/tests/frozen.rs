//! Promise: heads over remembered features are the model: their embeddings, their loss, and, trained and written, a folder that every other command
//! opens.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use anchorite_encoder::{
    Encode, EncoderOptions,
    model::ModelOptions,
    open,
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::Cancel;
use anchorite_ingest::{ColumnOptions, Limits, Rows, VectorMode};
use anchorite_train::{
    data::Draw,
    export::Card,
    frozen::{Frozen, FrozenError, load, mix, save},
    runner::{Machine, Opened, RunConfig},
    step::{Pictures, Plan, StreamBatch},
};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model")
}

fn machine() -> Machine<'static> {
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).expect("ONNX Runtime is found or can be fetched");
    Machine { runtime, provider: Provider::Cpu }
}

fn heads(name: &str) -> bool {
    name.starts_with("head.") && !name.starts_with("head.reduce.")
}

fn frozen(kept: Option<&Path>) -> Frozen {
    Frozen::open(&model(), &heads, kept, machine(), 2).unwrap()
}

/// Some of the bundled pairs.
fn pairs(count: usize) -> Vec<(Vec<u8>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/pairs.parquet");
    let mut rows = Rows::open(&[path], ColumnOptions::default(), VectorMode::Encode, Limits::default()).unwrap();
    let mut pairs = Vec::new();
    while pairs.len() < count {
        let row = rows.next_row().unwrap().unwrap().unwrap();
        pairs.push((row.picture.unwrap(), row.caption.unwrap()));
    }
    pairs
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A batch as a preparer makes it.
fn batch(preparer: &anchorite_train::data::Preparer, pairs: &[(Vec<u8>, String)]) -> StreamBatch {
    let (mut pixels, mut tokens, mut mask) = (Vec::new(), Vec::new(), preparer.masked().then(Vec::new));
    for (picture, caption) in pairs {
        pixels.extend(preparer.pixels(picture, &mut Draw::at(&[0])).unwrap());
        preparer.text(caption, &mut tokens, &mut mask).unwrap();
    }
    let pictures = Pictures::Own(pixels);
    StreamBatch { name: "task".to_owned(), weight: 1.0, pairs: pairs.len(), pictures, tokens, mask, groups: None }
}

#[test]
fn heads_over_features_give_the_whole_models_embeddings_and_features_are_made_once() {
    let kept = tempfile::tempdir().unwrap();
    let frozen = frozen(Some(kept.path()));
    let heads = frozen.encoder(&frozen.weights()).unwrap();
    let m = machine();
    let whole = open(m.runtime, m.provider, &model(), &ModelOptions::default(), EncoderOptions::default()).unwrap();
    for (picture, caption) in pairs(6) {
        let image = |encoder: &dyn Encode| encoder.encode_images(&[encoder.prepare_image(&picture).unwrap()]).unwrap().remove(0);
        let text = |encoder: &dyn Encode| encoder.encode_texts(&[encoder.prepare_text(&caption).unwrap()]).unwrap().remove(0);
        assert!(far(image(&heads).as_slice(), image(&whole).as_slice()) < 1e-4, "{caption}");
        assert!(far(text(&heads).as_slice(), text(&whole).as_slice()) < 1e-4, "{caption}");
    }
    // What is on disk is what was made: another that opens the folder reads the same values.
    let again = self::frozen(Some(kept.path()));
    let (picture, caption) = pairs(1).remove(0);
    assert_eq!(frozen.features().picture(&picture).unwrap(), again.features().picture(&picture).unwrap());
    assert_eq!(frozen.features().text(&caption).unwrap(), again.features().text(&caption).unwrap());
}

#[test]
fn a_step_of_the_heads_has_the_whole_models_loss() {
    let pairs = pairs(8);
    let frozen = frozen(None);
    let plan = Plan { threads: 1, ..Plan::default() };
    let mut heads = frozen.trainer(&frozen.weights(), &plan, None).unwrap();
    let ours = heads.step(&[batch(&frozen.preparer(), &pairs)], 1e-3, Cancel::default().flag()).unwrap();
    let config = RunConfig { step: plan, ..RunConfig::default() };
    let mut whole = Opened::open(&model(), &config, machine()).unwrap();
    let theirs = whole.trainer.step(&[batch(&whole.preparer, &pairs)], 0.0, Cancel::default().flag()).unwrap();
    assert!((ours.loss - theirs.loss).abs() < 1e-4, "{} and {}", ours.loss, theirs.loss);
    assert!(heads.trained().iter().all(|name| name == "logit_scale" || name.contains(".head.")), "{:?}", heads.trained());
    let again = heads.step(&[batch(&frozen.preparer(), &pairs)], 1e-3, Cancel::default().flag()).unwrap();
    assert!(again.loss < ours.loss, "{} after {}", again.loss, ours.loss);
}

#[test]
fn trained_heads_are_written_as_a_whole_model_and_mixes_end_in_the_weights_themselves() {
    let (folder, pairs) = (tempfile::tempdir().unwrap(), pairs(8));
    let frozen = frozen(None);
    let base = frozen.weights();
    let mut trainer = frozen.trainer(&base, &Plan::default(), None).unwrap();
    trainer.step(&[batch(&frozen.preparer(), &pairs)], 1e-2, Cancel::default().flag()).unwrap();
    let tuned = frozen.taken(&trainer.state(), &base);
    assert_ne!(tuned, base);
    assert_eq!(mix(&base, &tuned, 0.0), base);
    assert_eq!(mix(&base, &tuned, 1.0), tuned);
    let path = folder.path().join("weights.safetensors");
    save(&tuned, &path).unwrap();
    assert_eq!(load(&path).unwrap(), tuned);
    let out = folder.path().join("model");
    let pictures: Vec<&[u8]> = pairs.iter().map(|(picture, _)| &picture[..]).collect();
    let texts: Vec<&str> = pairs.iter().map(|(_, caption)| caption.as_str()).collect();
    let difference = frozen.export(&tuned, &out, Card::default(), (&pictures, &texts), machine()).unwrap();
    assert!(difference < 1e-4);
    let (m, options) = (machine(), ModelOptions::default());
    let written = open(m.runtime, m.provider, &out, &options, EncoderOptions::default()).unwrap();
    let before = frozen.encoder(&base).unwrap();
    let image = |encoder: &dyn Encode| encoder.encode_images(&[encoder.prepare_image(pictures[0]).unwrap()]).unwrap().remove(0);
    assert!(far(image(&written).as_slice(), image(&before).as_slice()) > 1e-3, "training changed nothing");
}

#[test]
fn a_model_that_cannot_be_cut_says_why() {
    let refused = |trained: &dyn Fn(&str) -> bool, part: &str| {
        let error = Frozen::open(&model(), trained, None, machine(), 1).unwrap_err();
        assert!(matches!(error, FrozenError::Cut { .. }) && error.to_string().contains(part), "{error}");
    };
    refused(&|_| false, "no weight");
    refused(&|_| true, "nothing of it stays");
    // A weight of one branch alone: the other branch's value crosses as well.
    refused(&|name| name.starts_with("head.out."), "values lead into");
}
