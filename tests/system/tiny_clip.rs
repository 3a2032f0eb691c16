//! A CLIP small enough to be trained in a test: transformers' own export of random weights (32 px pictures, 96 words), with the tokenizer and
//! preprocessing that it lacks.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, BinaryArray, StringArray};
use serde_json::json;

use crate::datasets::{samples, write};

/// Words of the transformer; 94 and 95 are its marks of beginning and end.
const WORDS: usize = 94;

/// The model in a folder of its own below `parent`.
pub(crate) fn tiny_clip(parent: &Path) -> PathBuf {
    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("encoder/tests/fixtures/models/exports/clip");
    let folder = parent.join("tiny-clip");
    fs::create_dir_all(folder.join("onnx")).unwrap();
    for file in ["config.json", "onnx/vision_model.onnx", "onnx/text_model.onnx"] {
        fs::copy(export.join(file), folder.join(file)).unwrap();
    }
    around(&folder, 32, WORDS, 16);
    folder
}

/// One of the exports with a convolutional image tower that gradients are compared on, with 62 words; pictures of `size` pixels a side.
pub(crate) fn tiny_convolutional(parent: &Path, export: &str, size: usize) -> String {
    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("train/tests/fixtures/exports").join(export);
    let folder = parent.join("tiny-convolutional");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "vision_model.onnx", "text_model.onnx"] {
        fs::copy(export.join(file), folder.join(file)).unwrap();
    }
    around(&folder, size, 62, 8);
    folder.to_str().unwrap().to_owned()
}

/// Preprocessing to `size` pixels a side, values from -1 to 1.
pub(crate) fn prepared_at(folder: &Path, size: usize) {
    let preprocessing = json!({
        "image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"shortest_edge": size}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": size, "width": size}, "do_rescale": true,
        "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": true
    });
    fs::write(folder.join("preprocessor_config.json"), preprocessing.to_string()).unwrap();
}

/// Preprocessing to `size` pixels a side and a tokenizer of so many words, whose marks of beginning and end come after them.
fn around(folder: &Path, size: usize, words: usize, tokens: usize) {
    prepared_at(folder, size);
    let put = |name: &str, value: serde_json::Value| fs::write(folder.join(name), value.to_string()).unwrap();
    let marks = json!({ "pad_token": "</s>", "eos_token": "</s>", "bos_token": "<s>" });
    let mut settings = marks.clone();
    settings["model_max_length"] = tokens.into();
    put("tokenizer_config.json", settings);
    put("special_tokens_map.json", marks);
    let mut vocabulary: serde_json::Map<String, serde_json::Value> = (0..words).map(|i| (format!("w{i}"), i.into())).collect();
    vocabulary.extend([("<s>".to_owned(), words.into()), ("</s>".to_owned(), (words + 1).into())]);
    let mark = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
    };
    let single = json!([
        { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
        { "SpecialToken": { "id": "</s>", "type_id": 0 } }
    ]);
    put(
        "tokenizer.json",
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [mark(words, "<s>"), mark(words + 1, "</s>")],
            "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": {
                "type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": {
                    "<s>": { "id": "<s>", "ids": [words], "tokens": ["<s>"] },
                    "</s>": { "id": "</s>", "ids": [words + 1], "tokens": ["</s>"] }
                }
            },
            "decoder": null, "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w0" }
        }),
    );
}

/// The caption of a picture by its number: no two have the same.
pub(crate) fn caption(number: usize) -> String {
    format!("w{} w{}", 1 + number % 40, 41 + number / 40)
}

/// A parquet file of bundled pictures with captions of the model's words, and as classes one of eight words.
pub(crate) fn write_pairs(path: &Path, count: usize) {
    let pictures: ArrayRef = Arc::new(samples(count).into_iter().map(|s| Some(s.picture)).collect::<BinaryArray>());
    let captions: ArrayRef = Arc::new((0..count).map(|i| Some(caption(i))).collect::<StringArray>());
    let labels: ArrayRef = Arc::new((0..count).map(|i| Some(format!("w{}", 80 + i % 8))).collect::<StringArray>());
    let keys: ArrayRef = Arc::new((0..count).map(|i| Some(format!("pair-{i}"))).collect::<StringArray>());
    write(path, vec![("image", pictures), ("caption", captions), ("label", labels), ("id", keys)]);
}
