//! What the model tests share: the fixtures' folder, ONNX Runtime, and an encoder with trivial preparation.

use std::path::PathBuf;
use std::sync::OnceLock;

use anchorite_encoder::model::{Folder, MissingTower, ModelOptions};
use anchorite_encoder::runtime::{self, RuntimeOptions};
use anchorite_encoder::session::Engine;
use anchorite_encoder::{
    Embedding, Encoder, EncoderOptions, ImageError, Pixels, Preparation, PreparePicture, PrepareText, TextError, Tokens,
};

/// A path among the checked-in models.
pub(crate) fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(path)
}

/// For fixtures that have one tower only.
pub(crate) fn lone() -> ModelOptions {
    ModelOptions { missing_tower: MissingTower::Accept, ..ModelOptions::default() }
}

/// ONNX Runtime, found or fetched as the program finds it, loaded once.
pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let load = || {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).expect("ONNX Runtime is found or can be fetched");
        Engine::cpu(runtime.environment().clone())
    };
    ENGINE.get_or_init(load).clone()
}

/// A tokenizer that is only asked for its padding and context.
pub(crate) struct Words {
    pub(crate) context: usize,
}

impl PrepareText for Words {
    fn prepare(&self, text: &str) -> Result<Tokens, TextError> {
        Ok(tokens(&[u32::try_from(text.len()).unwrap()]))
    }

    fn pad_id(&self) -> u32 {
        0
    }

    fn context_length(&self) -> usize {
        self.context
    }
}

/// Preprocessing that is only asked for its size.
pub(crate) struct Square {
    pub(crate) side: usize,
}

impl PreparePicture for Square {
    fn prepare(&self, _: &[u8]) -> Result<Pixels, ImageError> {
        Err(ImageError::Empty)
    }

    fn size(&self) -> Option<(usize, usize)> {
        Some((self.side, self.side))
    }
}

pub(crate) fn preparation(side: usize, context: usize) -> Preparation {
    Preparation { picture: Some(Box::new(Square { side })), text: Some(Box::new(Words { context })) }
}

pub(crate) fn tokens(ids: &[u32]) -> Tokens {
    Tokens { ids: ids.to_vec(), truncated: false }
}

pub(crate) fn open_with(path: &str, options: &ModelOptions, context: usize) -> Encoder {
    let folder = Folder::open(&fixture(path), options).unwrap();
    let side = folder.image().and_then(|t| t.binding().height).unwrap_or(8);
    Encoder::open(folder, preparation(side, context), engine(), EncoderOptions::default()).unwrap()
}

/// Inputs and what Python gave for them.
pub(crate) struct Golden {
    json: serde_json::Value,
}

impl Golden {
    pub(crate) fn read(path: &str) -> Self {
        Self { json: serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap() }
    }

    pub(crate) fn pictures(&self) -> Vec<Pixels> {
        let side = usize::try_from(self.json["size"].as_u64().unwrap()).unwrap();
        let one = |values| Pixels { values: floats(values), height: side, width: side };
        self.json["pictures"].as_array().unwrap().iter().map(one).collect()
    }

    pub(crate) fn captions(&self) -> Vec<Tokens> {
        let ids = |row: &serde_json::Value| -> Vec<u32> {
            row.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
        };
        self.json["captions"].as_array().unwrap().iter().map(|row| tokens(&ids(row))).collect()
    }

    /// Fails unless each embedding points where Python's does.
    pub(crate) fn check(&self, tower: &str, got: &[Embedding], least: f64) {
        let want = self.json["towers"][tower].as_array().unwrap_or_else(|| panic!("no golden for {tower}"));
        assert_eq!(got.len(), want.len(), "{tower}");
        for (item, (got, want)) in got.iter().zip(want).enumerate() {
            let cosine = cosine(got.as_slice(), &floats(want));
            assert!(cosine >= least, "{tower}, item {item}: cosine {cosine}");
        }
    }
}

fn floats(values: &serde_json::Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
