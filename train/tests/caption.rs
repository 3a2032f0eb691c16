//! Promise: captions are token for token what transformers generates with the same weights, in every layout, in any batching and with or without
//! a cache, nucleus draws included (given the same random numbers); a nucleus depends on seed, picture and number alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anchorite_encoder::{
    Pixels,
    model::wire,
    runtime::{self, RuntimeOptions},
    session::Engine,
};
use anchorite_index::Cancel;
use anchorite_train::caption::{CaptionError, Captioner, Decoding, Method};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

fn engine() -> Engine {
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).expect("ONNX Runtime is found or can be fetched");
    Engine::cpu(runtime.environment().clone())
}

fn golden() -> Value {
    serde_json::from_str(include_str!("caption_golden/golden.json")).unwrap()
}

fn pictures(golden: &Value) -> Vec<Pixels> {
    let side = golden["shape"][2].as_u64().unwrap() as usize;
    let values: Vec<f32> = golden["pixels"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    values.chunks(3 * side * side).map(|v| Pixels { values: v.to_vec(), height: side, width: side }).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/caption_golden/vit-gpt2")
}

/// The folder without the decoder that goes on from a cache.
fn without_cache(to: &Path) -> PathBuf {
    fs::create_dir_all(to.join("onnx")).unwrap();
    for entry in fs::read_dir(folder()).unwrap().chain(fs::read_dir(folder().join("onnx")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("decoder_with_past_model.onnx") {
            fs::copy(&path, to.join(path.strip_prefix(folder()).unwrap())).unwrap();
        }
    }
    to.to_owned()
}

/// What `make_more.py` wrote: the other layouts, and nucleus draws.
fn more() -> Value {
    serde_json::from_str(include_str!("caption_golden/golden_more.json")).unwrap()
}

/// The folder with one decoder for both branches in place of two.
fn with_merged_decoder(to: &Path) -> PathBuf {
    let folder = without_cache(to);
    fs::remove_file(folder.join("onnx/decoder_model.onnx")).unwrap();
    let merged = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/caption_golden/merged/decoder_model_merged.onnx");
    fs::copy(merged, folder.join("onnx/decoder_model_merged.onnx")).unwrap();
    folder
}

fn beams(beams: usize) -> Method {
    Method::Beam { beams, early_stopping: false, length_penalty: 1.0 }
}

fn decodings() -> Vec<(&'static str, Decoding)> {
    let base = Decoding { max_new_tokens: 14, ..Decoding::default() };
    vec![
        ("greedy", base),
        ("beam3", Decoding { method: beams(3), ..base }),
        ("beam4_n2", Decoding { method: beams(4), captions: 2, ..base }),
        ("beam4_penalty", Decoding { method: Method::Beam { beams: 4, early_stopping: false, length_penalty: 2.0 }, ..base }),
        ("beam3_early", Decoding { method: Method::Beam { beams: 3, early_stopping: true, length_penalty: 1.0 }, ..base }),
        ("greedy_repetition", Decoding { repetition_penalty: 1.5, ..base }),
        ("greedy_ngram", Decoding { no_repeat_ngram: 2, ..base }),
        ("beam3_ngram", Decoding { method: beams(3), no_repeat_ngram: 2, ..base }),
    ]
}

/// What transformers gave: the prompt and what is after the end cut off.
fn expected(golden: &Value, name: &str) -> Vec<Vec<u32>> {
    let end = golden["eos"].as_u64().unwrap();
    let row = |row: &Value| {
        let ids: Vec<u64> = row.as_array().unwrap().iter().skip(1).map(|v| v.as_u64().unwrap()).collect();
        let length = ids.iter().position(|&id| id == end).map_or(ids.len(), |at| at + 1);
        ids[..length].iter().map(|&id| id as u32).collect()
    };
    golden["generated"][name].as_array().unwrap().iter().map(row).collect()
}

fn ids(captioner: &mut Captioner, pictures: &[Pixels], decoding: &Decoding) -> Vec<Vec<u32>> {
    let names: Vec<u64> = pictures.iter().map(|p| u64::from(p.values[0].to_bits())).collect();
    let all = captioner.ids(pictures, &names, decoding, &Cancel::default()).unwrap();
    all.into_iter().flatten().map(|g| g.ids).collect()
}

#[test]
fn every_strategy_gives_transformers_tokens_with_and_without_a_cache_and_in_any_batch() {
    let (golden, temporary, other) = (golden(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pictures = pictures(&golden);
    let plain = without_cache(temporary.path());
    let merged = with_merged_decoder(&other.path().join("merged"));
    let guarded = with_guarded_decoder(&other.path().join("guarded"));
    for folder in [folder(), plain, merged, guarded] {
        let mut captioner = Captioner::open(&engine(), &folder, 1).unwrap();
        for (name, decoding) in decodings() {
            let expected = expected(&golden, name);
            assert_eq!(ids(&mut captioner, &pictures, &decoding), expected, "{name} in {}", folder.display());
            let alone: Vec<Vec<u32>> =
                pictures.iter().flat_map(|p| ids(&mut captioner, std::slice::from_ref(p), &decoding)).collect();
            assert_eq!(alone, expected, "{name}, one picture at a time");
        }
    }
}

#[test]
fn a_nucleus_depends_on_seed_picture_and_number_alone() {
    let pictures = pictures(&golden());
    let mut captioner = Captioner::open(&engine(), &folder(), 1).unwrap();
    let drawn = |seed| Decoding {
        method: Method::Nucleus { top_p: 0.95, temperature: 2.0, seed },
        captions: 3,
        max_new_tokens: 14,
        ..Decoding::default()
    };
    let together = ids(&mut captioner, &pictures, &drawn(1));
    let alone: Vec<Vec<u32>> = pictures.iter().flat_map(|p| ids(&mut captioner, std::slice::from_ref(p), &drawn(1))).collect();
    assert_eq!(together, alone);
    assert_ne!(together, ids(&mut captioner, &pictures, &drawn(2)));
    assert_ne!(together[0], together[1]);
    // A nucleus of almost nothing is greedy.
    let narrow = Decoding {
        method: Method::Nucleus { top_p: 1e-6, temperature: 1.0, seed: 0 },
        max_new_tokens: 14,
        ..Decoding::default()
    };
    assert_eq!(ids(&mut captioner, &pictures, &narrow), expected(&golden(), "greedy"));
}

#[test]
fn blip_gives_transformers_tokens_and_ends_with_its_own_token() {
    let golden = more()["blip"].clone();
    let pictures = pictures(&golden);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/caption_golden/blip");
    let mut captioner = Captioner::open(&engine(), &folder, 1).unwrap();
    let base = Decoding { max_new_tokens: 12, ..Decoding::default() };
    let ways = [
        ("greedy", base),
        ("beam3", Decoding { method: beams(3), ..base }),
        ("greedy_ngram", Decoding { no_repeat_ngram: 2, ..base }),
    ];
    for (name, decoding) in ways {
        assert_eq!(ids(&mut captioner, &pictures, &decoding), expected(&golden, name), "{name}");
    }
    let ended = ids(&mut captioner, &pictures, &base).iter().filter(|ids| ids.last() == Some(&39)).count();
    assert!(ended > 0 && ended < pictures.len(), "some captions end by themselves, some at the limit");
}

#[test]
fn nucleus_draws_are_transformers_own_with_the_same_random_numbers() {
    let pictures = pictures(&golden());
    let temporary = tempfile::tempdir().unwrap();
    for folder in [folder(), with_merged_decoder(temporary.path())] {
        let mut captioner = Captioner::open(&engine(), &folder, 1).unwrap();
        for golden in more()["nucleus"].as_array().unwrap() {
            let number = |name: &str| golden[name].as_f64().unwrap();
            let method = Method::Nucleus {
                top_p: number("top_p") as f32,
                temperature: number("temperature") as f32,
                seed: number("seed") as u64,
            };
            let captions = number("captions") as usize;
            let decoding = Decoding { method, captions, max_new_tokens: 14, ..Decoding::default() };
            let row = |row: &Value| -> Vec<u32> {
                let ids: Vec<u32> = row.as_array().unwrap().iter().skip(1).map(|v| v.as_u64().unwrap() as u32).collect();
                let length = ids.iter().position(|&id| id == 39).map_or(ids.len(), |at| at + 1);
                ids[..length].to_vec()
            };
            let expected: Vec<Vec<u32>> = golden["generated"].as_array().unwrap().iter().map(row).collect();
            assert_eq!(ids(&mut captioner, &pictures, &decoding), expected);
        }
    }
}

#[test]
fn a_picture_file_becomes_transformers_pixels_and_its_tokens() {
    let golden: Value = serde_json::from_str(include_str!("caption_golden/golden_pictures.json")).unwrap();
    let mut captioner = Captioner::open(&engine(), &folder(), 1).unwrap();
    let list = |name: &str| golden[name].as_array().unwrap().clone();
    let files: Vec<Vec<u8>> = list("pictures").iter().map(|p| STANDARD.decode(p.as_str().unwrap()).unwrap()).collect();
    let pictures: Vec<Pixels> = files.iter().map(|bytes| captioner.preparation().apply(bytes).unwrap()).collect();
    for (ours, theirs) in pictures.iter().zip(list("pixels")) {
        let theirs: Vec<f64> = theirs.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(ours.values.len(), theirs.len());
        let worst = ours.values.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-5, "a pixel is off by {worst}");
    }
    let base = Decoding { max_new_tokens: 14, ..Decoding::default() };
    for (name, decoding) in [("greedy", base), ("beam3", Decoding { method: beams(3), ..base })] {
        assert_eq!(ids(&mut captioner, &pictures, &decoding), expected(&golden, name), "{name}");
    }
}

#[test]
fn captions_are_words_without_special_tokens() {
    let golden = golden();
    let mut captioner = Captioner::open(&engine(), &folder(), 1).unwrap();
    let decoding = Decoding { max_new_tokens: 14, ..Decoding::default() };
    let captions = captioner.captions(&pictures(&golden), &[0; 5], &decoding, &Cancel::default()).unwrap();
    let end = golden["eos"].as_u64().unwrap() as u32;
    for (caption, ids) in captions.iter().zip(expected(&golden, "greedy")) {
        let words: Vec<String> = ids.iter().filter(|&&id| id != end && id != end - 1).map(|id| format!("w{id}")).collect();
        assert_eq!(caption[0].text, words.join(" "));
    }
}

#[test]
fn what_is_missing_or_senseless_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = without_cache(temporary.path());
    let refused = |part: &str| {
        let error = Captioner::open(&engine(), &folder, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} not in {error:?}");
    };
    fs::write(folder.join("config.json"), "{}").unwrap();
    refused("decoder_start_token_id");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    refused("tokenizer.json");
    fs::write(folder.join("onnx/decoder_model.onnx"), b"no model").unwrap();
    refused("decoder_model.onnx");
    fs::remove_file(folder.join("onnx/encoder_model.onnx")).unwrap();
    refused("encoder_model.onnx");
    let wrong = [
        Decoding { captions: 2, ..Decoding::default() },
        Decoding { method: beams(0), ..Decoding::default() },
        Decoding { method: beams(2), captions: 3, ..Decoding::default() },
        Decoding { method: Method::Nucleus { top_p: 0.0, temperature: 1.0, seed: 0 }, ..Decoding::default() },
        Decoding { max_new_tokens: 0, ..Decoding::default() },
    ];
    assert!(wrong.iter().all(|d| matches!(d.checked(), Err(CaptionError::Setting { .. }))));
}

/// The merged decoder with a node beside its `If`, so that it is no plain choice any more and runs as the one graph that it is.
fn with_guarded_decoder(to: &Path) -> PathBuf {
    let folder = with_merged_decoder(to);
    let path = folder.join("onnx/decoder_model_merged.onnx");
    let bytes = fs::read(&path).unwrap();
    let mut node = Vec::new();
    for (number, text) in [(1, "input_ids"), (2, "beside"), (4, "Identity")] {
        wire::put_bytes(&mut node, number, text.as_bytes());
    }
    let mut changed = Vec::new();
    for field in wire::fields(&bytes).map(Result::unwrap) {
        match field.value {
            wire::Value::Bytes(graph) if field.number == 7 => {
                let mut graph = graph.to_vec();
                wire::put_bytes(&mut graph, 1, &node);
                wire::put_bytes(&mut changed, 7, &graph);
            }
            wire::Value::Bytes(other) => wire::put_bytes(&mut changed, field.number, other),
            wire::Value::Varint(value) => {
                wire::put_varint(&mut changed, u64::from(field.number) << 3);
                wire::put_varint(&mut changed, value);
            }
            _ => unreachable!("a model has integers and bytes"),
        }
    }
    fs::write(&path, changed).unwrap();
    folder
}

#[test]
fn cross_attention_of_the_pictures_is_computed_once_in_every_layout() {
    let scratch = tempfile::tempdir().unwrap();
    let open = |folder: &Path| Captioner::open(&engine(), folder, 1).unwrap().reads_pictures_once();
    assert!(open(&folder()), "with a cache");
    assert!(open(&without_cache(&scratch.path().join("plain"))), "without a cache");
    assert!(open(&with_merged_decoder(&scratch.path().join("merged"))), "merged: each branch for itself");
    assert!(!open(&with_guarded_decoder(&scratch.path().join("guarded"))), "what is no plain choice runs as it is");
}
