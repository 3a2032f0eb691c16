//! Promise: computing the end of the last layer for the picked token only changes no embedding, whichever exporter the model comes from, and
//! a model in which it cannot be done says why.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

#[expect(dead_code, reason = "shared with tests that use more of it")]
mod model_support;

use std::path::{Path, PathBuf};

use anchorite_encoder::model::{Folder, LastLayer, ModelOptions, NotPicked};
use anchorite_encoder::{Embedding, Encode, Encoder, EncoderOptions, Pixels, Tokens};
use model_support::{engine, fixture, lone, preparation, tokens};

/// Rounding of sums that a smaller matrix product takes in another order.
const ROUNDING: f32 = 1e-6;
const CONTEXT: usize = 8;

fn open(path: &Path, last_layer: LastLayer) -> Encoder {
    let folder = Folder::open(path, &ModelOptions { last_layer, ..lone() }).unwrap();
    let side = folder.image().and_then(|tower| tower.binding().height).unwrap_or(32);
    let context = folder.text().and_then(|tower| tower.binding().sequence).unwrap_or(CONTEXT);
    Encoder::open(folder, preparation(side, context), engine(), EncoderOptions::default()).unwrap()
}

fn of_exporter(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../train/tests/fixtures/exports").join(name)
}

fn noise(at: usize) -> f32 {
    ((at.wrapping_mul(2_654_435_761) >> 8) % 2001) as f32 / 1000.0 - 1.0
}

fn pictures(side: usize) -> Vec<Pixels> {
    let one = |n: usize| (0..3 * side * side).map(|at| noise(at + n * 9973)).collect();
    (0..5).map(|n| Pixels { values: one(n), height: side, width: side }).collect()
}

/// Captions whose end mark, the highest id, stands at different places; some have more after it.
fn captions(end: u32) -> Vec<Tokens> {
    let start = end - 1;
    [
        vec![start, 5, 6, end],
        vec![start, end],
        vec![start, 7, 8, 9, 10, 11, end],
        vec![start, 3, end, 2, 1, 4],
        vec![start, 12, 13, 14, 15, 16, 17, end],
    ]
    .iter()
    .map(|ids| tokens(ids))
    .collect()
}

fn assert_equal(whole: &[Embedding], picked: &[Embedding], what: &str) {
    for (item, (whole, picked)) in whole.iter().zip(picked).enumerate() {
        for (one, other) in whole.as_slice().iter().zip(picked.as_slice()) {
            assert!((one - other).abs() <= ROUNDING, "{what}, item {item}: {one} and {other}");
        }
    }
    assert_ne!(whole[0].as_slice(), whole[1].as_slice(), "{what}: items differ");
}

/// Both towers, computed both ways; whether each one's last layer is computed for the picked token only.
fn check(path: &Path, end: u32) -> [Option<NotPicked>; 2] {
    let (whole, picked) = (open(path, LastLayer::Whole), open(path, LastLayer::PickedToken));
    let what = path.file_name().unwrap().to_str().unwrap();
    let (described, as_it_is) = (picked.describe(), whole.describe());
    let (image, text) = (described.image.unwrap(), described.text.unwrap());
    assert_eq!(as_it_is.image.unwrap().whole_last_layer, Some(NotPicked::Off));
    assert_eq!(as_it_is.text.unwrap().whole_last_layer, Some(NotPicked::Off));
    assert_eq!(whole.fingerprint(), picked.fingerprint(), "embeddings are the same, so pools are too");
    let pictures = pictures(image.input.height.unwrap_or(32));
    assert_equal(&whole.encode_images(&pictures).unwrap(), &picked.encode_images(&pictures).unwrap(), what);
    let captions = captions(end);
    assert_equal(&whole.encode_texts(&captions).unwrap(), &picked.encode_texts(&captions).unwrap(), what);
    [image.whole_last_layer, text.whole_last_layer]
}

#[test]
fn every_exporters_clip_gives_the_same_embeddings_with_less_work() {
    for name in ["hf_dynamo", "hf_opset14_mask", "open_clip_torchscript", "open_clip_dynamo"] {
        assert_eq!(check(&of_exporter(name), 63), [None, None], "{name}");
    }
    assert_eq!(check(&fixture("exports/clip"), 95), [None, None]);
}

#[test]
fn weights_in_a_file_of_their_own_stay_there() {
    let path = fixture("exports/clip_external");
    let (whole, picked) = (open(&path, LastLayer::Whole), open(&path, LastLayer::PickedToken));
    assert_eq!(picked.describe().image.unwrap().whole_last_layer, None);
    let pictures = pictures(32);
    assert_equal(&whole.encode_images(&pictures).unwrap(), &picked.encode_images(&pictures).unwrap(), "external");
}

#[test]
fn siglip_picks_the_last_token_and_the_only_one() {
    assert_eq!(check(&fixture("exports/siglip"), 95), [None, None]);
}

#[test]
fn models_without_a_layer_before_the_pick_are_left_alone() {
    for layout in ["hf", "combined"] {
        let described = open(&fixture(&format!("layouts/{layout}")), LastLayer::PickedToken).describe();
        for tower in [described.image.unwrap().whole_last_layer, described.text.unwrap().whole_last_layer] {
            assert!(matches!(tower, Some(NotPicked::NoPick | NotPicked::NoLayer)), "{layout}: {tower:?}");
        }
    }
}
