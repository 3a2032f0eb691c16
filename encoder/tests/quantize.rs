//! Promise: a model quantized while it is loaded gives nearly the same embeddings, says that it is another model, and figures of
//! agreement tell a good approximation from a bad one.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

#[expect(dead_code, reason = "other test binaries use the rest")]
mod model_support;

use anchorite_encoder::model::{Arithmetic, ModelOptions};
use anchorite_encoder::{Agreement, AgreementLimits, Disagreement, Embedding, Encode, Encoder, Pixels, Tokens};
use model_support::{lone, open_with, tokens};

const ITEMS: usize = 40;

fn open(path: &str, arithmetic: Arithmetic) -> Encoder {
    open_with(path, &ModelOptions { arithmetic, ..lone() }, 16)
}

fn noise(at: usize) -> f32 {
    ((at.wrapping_mul(2_654_435_761) >> 8) % 2001) as f32 / 1000.0 - 1.0
}

fn pictures() -> Vec<Pixels> {
    let one = |n: usize| (0..3 * 32 * 32).map(|at| noise(at + n * 9973)).collect();
    (0..ITEMS).map(|n| Pixels { values: one(n), height: 32, width: 32 }).collect()
}

fn captions() -> Vec<Tokens> {
    let words = |n: usize| (0..3 + n % 6).map(move |at| 1 + (n * 31 + at * 17) as u32 % 90);
    (0..ITEMS).map(|n| tokens(&[vec![94], words(n).collect(), vec![95]].concat())).collect()
}

#[test]
fn quantized_towers_agree_with_their_originals_and_are_not_equal() {
    let (exact, quick) = (open("exports/clip", Arithmetic::AsStored), open("exports/clip", Arithmetic::Int8));
    assert_ne!(exact.fingerprint(), quick.fingerprint());
    for (exact, quick) in [
        (exact.encode_images(&pictures()).unwrap(), quick.encode_images(&pictures()).unwrap()),
        (exact.encode_texts(&captions()).unwrap(), quick.encode_texts(&captions()).unwrap()),
    ] {
        let agreement = Agreement::between(&exact, &quick);
        agreement.check(&AgreementLimits::default()).unwrap();
        assert!(agreement.lowest_cosine < 1.0, "nothing was quantized: {agreement:?}");
    }
    assert!(quick.describe().image.unwrap().batch_sensitive);
    assert!(!exact.describe().image.unwrap().batch_sensitive);
}

#[test]
fn weights_in_a_file_of_their_own_are_quantized_too() {
    let (inside, beside) = (open("exports/clip", Arithmetic::Int8), open("exports/clip_external", Arithmetic::Int8));
    assert_eq!(inside.encode_images(&pictures()).unwrap(), beside.encode_images(&pictures()).unwrap());
}

fn embeddings(value: impl Fn(usize, usize) -> f32) -> Vec<Embedding> {
    (0..ITEMS).map(|item| Embedding::normalized((0..8).map(|at| value(item, at)).collect()).unwrap()).collect()
}

#[test]
fn agreement_is_not_flattered_by_a_common_mean() {
    // All point nearly the same way; what sets them apart differs entirely.
    let one = embeddings(|item, at| if at == 0 { 10.0 } else { noise(item * 8 + at) });
    let other = embeddings(|item, at| if at == 0 { 10.0 } else { noise(item * 8 + at + 40_000) });
    let plain = |(a, b): (&Embedding, &Embedding)| -> f32 { a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| a * b).sum() };
    assert!(one.iter().zip(&other).map(plain).all(|cosine| cosine > 0.9));
    let refused = Agreement::between(&one, &other).check(&AgreementLimits::default()).unwrap_err();
    assert!(matches!(refused, Disagreement::Below { .. }), "{refused}");
    let itself = Agreement::between(&one, &one);
    assert!(itself.recall == 1.0 && itself.lowest_cosine > 0.999_999, "{itself:?}");
}

#[test]
fn a_few_items_tell_nothing() {
    let all = embeddings(|item, at| noise(item * 8 + at));
    let refused = Agreement::between(&all[..5], &all[..5]).check(&AgreementLimits::default()).unwrap_err();
    assert_eq!(refused, Disagreement::Few { found: 5, min: 32 });
}
