//! How an encoder behaves: batches, threads, loading, and input that does not fit.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

#[expect(dead_code, reason = "other test binaries use the rest")]
mod model_support;

use std::num::NonZeroUsize;
use std::thread;

use anchorite_encoder::model::{Folder, ModelOptions};
use anchorite_encoder::{Embedding, Encode, Encoder, EncoderError, EncoderOptions, Load, Pixels, Preparation, Tokens};
use model_support::{Golden, cosine, engine, fixture, lone, open_with, preparation, tokens};

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn open(path: &str, options: EncoderOptions) -> Encoder {
    let folder = Folder::open(&fixture(path), &ModelOptions::default()).unwrap();
    let side = folder.image().and_then(|t| t.binding().height).unwrap_or(8);
    Encoder::open(folder, preparation(side, 16), engine(), options).unwrap()
}

fn close(a: &[Embedding], b: &[Embedding]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| cosine(a.as_slice(), b.as_slice()) > 0.999_999)
}

/// Captions of many lengths, each different.
fn captions(n: u32) -> Vec<Tokens> {
    (0..n).map(|i| tokens(&(0..=(i * 7) % 13).map(|j| 1 + (i + j) % 90).chain([95]).collect::<Vec<_>>())).collect()
}

#[test]
fn an_empty_batch_gives_no_embeddings() {
    let encoder = open_with("layouts/hf", &ModelOptions::default(), 7);
    assert_eq!(encoder.encode_images(&[]).unwrap(), []);
    assert_eq!(encoder.encode_texts(&[]).unwrap(), []);
}

#[test]
fn embeddings_have_unit_length() {
    let encoder = open_with("layouts/hf", &ModelOptions::default(), 7);
    for embedding in encoder.encode_images(&Golden::read("layouts/golden.json").pictures()).unwrap() {
        let length = embedding.as_slice().iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
    }
}

#[test]
fn a_batch_comes_back_in_its_order_however_it_is_cut() {
    let one = open("exports/clip", EncoderOptions::default());
    let options = EncoderOptions { max_text_batch: count(3), max_image_batch: count(2), ..EncoderOptions::default() };
    let cut = open("exports/clip", options);
    let captions = captions(40);
    let alone: Vec<Embedding> = captions.iter().map(|c| one.encode_texts(std::slice::from_ref(c)).unwrap().remove(0)).collect();
    assert!(close(&one.encode_texts(&captions).unwrap(), &alone));
    assert!(close(&cut.encode_texts(&captions).unwrap(), &alone));
    let pictures = Golden::read("exports/golden.json").pictures();
    assert!(close(&cut.encode_images(&pictures).unwrap(), &one.encode_images(&pictures).unwrap()));
}

#[test]
fn pictures_of_several_sizes_go_through_a_tower_that_takes_any() {
    let folder = Folder::open(&fixture("layouts/dynamic"), &lone()).unwrap();
    let encoder = Encoder::open(folder, Preparation::default(), engine(), EncoderOptions::default()).unwrap();
    let picture = |side: usize, value: f32| Pixels { values: vec![value; 3 * side * side], height: side, width: side };
    let mixed = [picture(8, 1.0), picture(8, -1.0), picture(8, 1.0)];
    let embeddings = encoder.encode_images(&mixed).unwrap();
    assert!(cosine(embeddings[0].as_slice(), embeddings[2].as_slice()) > 0.9999);
    assert!(cosine(embeddings[0].as_slice(), embeddings[1].as_slice()) < -0.9999);
}

#[test]
fn threads_share_an_encoder_and_get_their_own_answers() {
    let options = EncoderOptions { text_sessions: count(2), threads: 1, ..EncoderOptions::default() };
    let encoder = open("exports/clip", options);
    let captions = captions(24);
    let expected = encoder.encode_texts(&captions).unwrap();
    thread::scope(|scope| {
        for start in 0..6 {
            let (encoder, captions, expected) = (&encoder, &captions, &expected);
            scope.spawn(move || {
                for _ in 0..5 {
                    let range = start * 4..start * 4 + 4;
                    assert!(close(&encoder.encode_texts(&captions[range.clone()]).unwrap(), &expected[range]));
                }
            });
        }
    });
    assert_eq!(encoder.describe().text.unwrap().sessions, 2);
}

#[test]
fn a_tower_loads_when_it_is_first_used() {
    let encoder = open("exports/clip", EncoderOptions::default());
    let loaded = |e: &Encoder| (e.describe().image.unwrap().loaded, e.describe().text.unwrap().loaded);
    assert_eq!(loaded(&encoder), (false, false));
    encoder.encode_texts(&captions(1)).unwrap();
    assert_eq!(loaded(&encoder), (false, true));
    assert_eq!(loaded(&open("exports/clip", EncoderOptions { load: Load::Now, ..EncoderOptions::default() })), (true, true));
    let image = EncoderOptions { load: Load::ImageNow, ..EncoderOptions::default() };
    assert_eq!(loaded(&open("exports/clip", image)), (true, false));
}

#[test]
fn a_model_that_changed_after_it_was_opened_is_not_run() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("visual.onnx");
    std::fs::copy(fixture("layouts/jina/visual.onnx"), &file).unwrap();
    let opened = Folder::open(folder.path(), &lone()).unwrap();
    let encoder = Encoder::open(opened, Preparation::default(), engine(), EncoderOptions::default()).unwrap();
    // Another weight in the same graph: only the digest tells.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(Folder::open(folder.path(), &lone()).is_ok());
    let error = encoder.encode_images(&Golden::read("layouts/golden.json").pictures()).unwrap_err().to_string();
    assert!(error.contains("visual.onnx: changed since"), "{error}");
}

#[test]
fn pixels_and_tokens_that_do_not_fit_are_refused_with_their_position() {
    let encoder = open_with("layouts/open_clip", &ModelOptions::default(), 7);
    let good = Golden::read("layouts/golden.json").pictures().remove(0);
    let small = Pixels { values: vec![0.0; 3 * 4 * 4], height: 4, width: 4 };
    let error = encoder.encode_images(&[good.clone(), small]).unwrap_err().to_string();
    assert_eq!(error, "the image tower failed: item 1 of the batch: 4 x 4 pixels where the model takes 8 x 8");
    let short = Pixels { values: vec![0.0; 5], ..good };
    assert!(encoder.encode_images(&[short]).unwrap_err().to_string().contains("5 values for 3 x 8 x 8"));
    let long = tokens(&[1; 8]);
    let error = encoder.encode_texts(&[tokens(&[1]), long]).unwrap_err().to_string();
    assert_eq!(error, "the text tower failed: item 1 of the batch: 8 tokens where the model takes at most 7");
    assert!(encoder.encode_texts(&[tokens(&[])]).unwrap_err().to_string().contains("no tokens"));
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error() {
    let encoder = open_with("layouts/hf", &ModelOptions::default(), 7);
    assert!(encoder.encode_texts(&[tokens(&[9_999])]).unwrap_err().to_string().contains("the text tower failed"));
    assert!(encoder.encode_texts(&[tokens(&[u32::MAX])]).is_err());
}

#[test]
fn pixels_that_are_no_numbers_give_no_embedding() {
    let encoder = open_with("layouts/hf", &ModelOptions::default(), 7);
    let mut picture = Golden::read("layouts/golden.json").pictures().remove(0);
    let good = picture.clone();
    picture.values[0] = f32::NAN;
    let error = encoder.encode_images(&[good, picture]).unwrap_err().to_string();
    assert!(error.contains("item 1 of the batch") && error.contains("not finite"), "{error}");
}

#[test]
fn preprocessing_and_tokenizer_of_another_model_are_refused() {
    let folder = || Folder::open(&fixture("layouts/open_clip"), &ModelOptions::default()).unwrap();
    let error = Encoder::open(folder(), preparation(224, 7), engine(), EncoderOptions::default()).unwrap_err();
    assert!(matches!(error, EncoderError::PictureSize { graph_height: 8, height: 224, .. }), "{error}");
    let error = Encoder::open(folder(), preparation(8, 77), engine(), EncoderOptions::default()).unwrap_err();
    assert!(matches!(error, EncoderError::Context { graph: 7, tokenizer: 77 }), "{error}");
}

#[test]
fn a_dimension_that_no_graph_declares_is_measured() {
    let encoder = open_with("layouts/undeclared_dim", &ModelOptions::default(), 7);
    assert_eq!(encoder.dim(), 6);
    let golden = Golden::read("layouts/golden.json");
    golden.check("hf/onnx/vision_model.onnx#image", &encoder.encode_images(&golden.pictures()).unwrap(), 0.999_999);
}

#[test]
fn a_description_holds_what_a_person_asks_for() {
    let described = open_with("layouts/open_clip", &ModelOptions::default(), 7).describe();
    let json = serde_json::to_value(&described).unwrap();
    assert_eq!(json["layout"], "open_clip");
    assert_eq!(json["provider"], "CPU");
    assert_eq!(json["picture_size"], serde_json::json!([8, 8]));
    assert_eq!(json["context"], 7);
    assert_eq!(json["image"]["input"]["pixels"]["name"], "image");
    assert_eq!(json["text"]["input"]["ids"]["element"], "i32");
    assert_eq!(json["fingerprint"].as_str().unwrap().len(), 64);
}

#[test]
fn prepared_input_is_needed_where_preparation_is_missing() {
    let folder = Folder::open(&fixture("layouts/hf"), &ModelOptions::default()).unwrap();
    let encoder = Encoder::open(folder, Preparation::default(), engine(), EncoderOptions::default()).unwrap();
    assert_eq!(encoder.prepare_image(b"x").unwrap_err().code(), "image_unsupported");
    assert_eq!(encoder.prepare_text("x").unwrap_err().code(), "text_tokenizer");
    assert!(encoder.encode_texts(&[tokens(&[3])]).is_ok());
}
