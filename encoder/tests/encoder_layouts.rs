//! Every way in which a dual encoder is laid out or declared gives the embeddings that Python's ONNX Runtime gives. Models and
//! goldens: `fixtures/models/make_layouts.py` and `make_exports.py`.

#![expect(clippy::unwrap_used, reason = "tests and what they share fail by panicking")]

mod model_support;

use anchorite_encoder::model::{Dtype, Folder, Layout, ModelOptions, SimilarityKind};
use anchorite_encoder::{Encode, Encoder, EncoderOptions};
use model_support::{Golden, engine, fixture, lone, open_with, preparation};

const EXACT: f64 = 0.999_999;

fn open(path: &str) -> Encoder {
    open_with(&format!("layouts/{path}"), &ModelOptions::default(), 7)
}

fn check(path: &str, image: Option<&str>, text: Option<&str>) -> Encoder {
    let golden = Golden::read("layouts/golden.json");
    let encoder = open(path);
    if let Some(file) = image {
        golden.check(&format!("{path}/{file}#image"), &encoder.encode_images(&golden.pictures()).unwrap(), EXACT);
    }
    if let Some(file) = text {
        golden.check(&format!("{path}/{file}#text"), &encoder.encode_texts(&golden.captions()).unwrap(), EXACT);
    }
    encoder
}

#[test]
fn hugging_face_with_files_in_the_onnx_folder() {
    let encoder = check("hf", Some("onnx/vision_model.onnx"), Some("onnx/text_model.onnx"));
    assert_eq!(encoder.describe().layout, Layout::HuggingFace);
    assert_eq!(encoder.dim(), 6);
}

#[test]
fn hugging_face_at_the_root_with_mask_and_extra_outputs() {
    let encoder = check("hf_root_extra", Some("vision_model.onnx"), Some("text_model.onnx"));
    assert_eq!(encoder.describe().image.unwrap().output.name, "image_embeds");
}

#[test]
fn open_clip_with_batch_one_int32_ids_and_a_fixed_length() {
    let encoder = check("open_clip", Some("visual/model.onnx"), Some("textual/model.onnx"));
    let text = encoder.describe().text.unwrap();
    assert_eq!((text.input.batch, text.input.sequence), (Some(1), Some(7)));
    assert_eq!(encoder.describe().layout, Layout::OpenClip);
}

#[test]
fn jina_with_int32_mask_and_unnamed_outputs() {
    assert_eq!(check("jina", Some("visual.onnx"), Some("textual.onnx")).describe().layout, Layout::Jina);
}

#[test]
fn a_combined_model_is_cut_into_its_towers() {
    let encoder = check("combined", Some("onnx/model.onnx"), Some("onnx/model.onnx"));
    let described = encoder.describe();
    assert_eq!(described.layout, Layout::Combined);
    assert_eq!(described.image.unwrap().input.pixels.name, "pixel_values");
    assert_eq!(described.text.unwrap().input.ids.name, "input_ids");
}

#[test]
fn a_folder_with_one_tower_has_only_that_tower() {
    let encoder = check("single_vision", Some("model.onnx"), None);
    assert_eq!(encoder.describe().layout, Layout::SingleTower);
    let error = encoder.encode_texts(&Golden::read("layouts/golden.json").captions()).unwrap_err();
    assert_eq!(error.to_string(), "this model has no text tower");
}

#[test]
fn segment_and_position_inputs_are_fed() {
    check("single_text", None, Some("model.onnx"));
}

#[test]
fn two_folders_of_one_tower_each_make_one_encoder() {
    let golden = Golden::read("layouts/golden.json");
    let open = |path: &str| Folder::open(&fixture(path), &ModelOptions::default()).unwrap();
    let folder = Folder::pair(open("layouts/single_vision"), open("layouts/single_text")).unwrap();
    let encoder = Encoder::open(folder, preparation(8, 7), engine(), EncoderOptions::default()).unwrap();
    golden.check("single_vision/model.onnx#image", &encoder.encode_images(&golden.pictures()).unwrap(), EXACT);
    golden.check("single_text/model.onnx#text", &encoder.encode_texts(&golden.captions()).unwrap(), EXACT);
    assert_eq!(encoder.describe().layout, Layout::Pair);
}

#[test]
fn float16_inputs_and_outputs_are_converted() {
    let golden = Golden::read("layouts/golden.json");
    let options = ModelOptions { image_dtype: Dtype::Fp16, text_dtype: Dtype::Quantized, ..ModelOptions::default() };
    let encoder = open_with("layouts/fp16_only", &options, 7);
    let images = encoder.encode_images(&golden.pictures()).unwrap();
    golden.check("fp16_only/onnx/vision_model_fp16.onnx#image", &images, EXACT);
}

#[test]
fn siglip_is_padded_to_its_context_and_scored_by_sigmoid() {
    let golden = Golden::read("layouts/golden.json");
    let encoder = open_with("layouts/siglip", &ModelOptions::default(), 9);
    // The image tower takes three at a time: two leave one place to fill.
    let two = encoder.encode_images(&golden.pictures()[..2]).unwrap();
    let three = encoder.encode_images(&golden.pictures()).unwrap();
    assert_eq!(two[..], three[..2]);
    golden.check("siglip/onnx/vision_model.onnx#image", &three, EXACT);
    golden.check("siglip/onnx/text_model.onnx#text", &encoder.encode_texts(&golden.captions()).unwrap(), EXACT);
    let similarity = encoder.similarity();
    assert_eq!((similarity.kind, similarity.bias), (SimilarityKind::Sigmoid, -12.93));
    assert!((similarity.scale - 117.44).abs() < 0.1);
}

#[test]
fn a_tiny_clip_exported_by_transformers_gives_pytorchs_embeddings() {
    let golden = Golden::read("exports/golden.json");
    let encoder = open_with("exports/clip", &ModelOptions::default(), 16);
    golden.check("clip#image", &encoder.encode_images(&golden.pictures()).unwrap(), 0.99999);
    golden.check("clip#text", &encoder.encode_texts(&golden.captions()).unwrap(), 0.99999);
    assert_eq!(encoder.dim(), 24);
}

#[test]
fn a_tiny_siglip_exported_by_transformers_gives_pytorchs_embeddings() {
    let golden = Golden::read("exports/golden.json");
    // SigLIP's padding is id 1.
    let folder = Folder::open(&fixture("exports/siglip"), &ModelOptions::default()).unwrap();
    let text = Box::new(PadOne);
    let preparation = anchorite_encoder::Preparation { picture: None, text: Some(text) };
    let encoder = Encoder::open(folder, preparation, engine(), EncoderOptions::default()).unwrap();
    golden.check("siglip#image", &encoder.encode_images(&golden.pictures()).unwrap(), 0.99999);
    golden.check("siglip#text", &encoder.encode_texts(&golden.captions()).unwrap(), 0.99999);
}

struct PadOne;

impl anchorite_encoder::PrepareText for PadOne {
    fn prepare(&self, _: &str) -> Result<anchorite_encoder::Tokens, anchorite_encoder::TextError> {
        Ok(model_support::tokens(&[2]))
    }

    fn pad_id(&self) -> u32 {
        1
    }

    fn context_length(&self) -> usize {
        12
    }
}

#[test]
fn weights_in_a_file_beside_the_model_are_read_by_us() {
    let golden = Golden::read("exports/golden.json");
    let encoder = open_with("exports/clip_external", &lone(), 16);
    golden.check("clip#image", &encoder.encode_images(&golden.pictures()).unwrap(), 0.99999);
}
