//! Which files make a dual encoder, by the layouts that are in use. Looks at names only.
//!
//! | layout | image tower | text tower |
//! |---|---|---|
//! | Hugging Face, transformers.js | `onnx/vision_model{dtype}.onnx` (also at the root) | `onnx/text_model{dtype}.onnx` |
//! | open_clip, immich | `visual/model{dtype}.onnx` | `textual/model{dtype}.onnx` |
//! | jina | `visual{dtype}.onnx` | `textual{dtype}.onnx` |
//! | combined (optimum), or one tower (fastembed) | `onnx/model{dtype}.onnx` (also at the root) | the same file, or another folder |
//!
//! The first layout of which any file is there is taken; a folder that holds both separate and combined files is read by its
//! separate ones, which load faster.

use std::str::FromStr;

use super::files::Root;
use super::{MissingTower, ModelError, ModelOptions, Tower};

/// The element type that a file name's suffix stands for. Chosen by the user, never guessed: they embed differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// No suffix: as exported, usually float32. The default.
    #[default]
    Plain,
    /// `_fp16`.
    Fp16,
    /// `_int8`.
    Int8,
    /// `_uint8`.
    Uint8,
    /// `_quantized`.
    Quantized,
    /// `_q4`.
    Q4,
    /// `_q4f16`.
    Q4f16,
    /// `_bnb4`.
    Bnb4,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Plain, Self::Fp16, Self::Int8, Self::Uint8, Self::Quantized, Self::Q4, Self::Q4f16, Self::Bnb4];

    /// What stands before `.onnx`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Fp16 => "_fp16",
            Self::Int8 => "_int8",
            Self::Uint8 => "_uint8",
            Self::Quantized => "_quantized",
            Self::Q4 => "_q4",
            Self::Q4f16 => "_q4f16",
            Self::Bnb4 => "_bnb4",
        }
    }

    /// As the user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.suffix().strip_prefix('_').unwrap_or("plain")
    }
}

/// A name that is no [`Dtype`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no element type of a model file; one of plain, fp16, int8, uint8, quantized, q4, q4f16, bnb4")]
pub struct UnknownDtype(pub String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        Self::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| UnknownDtype(name.to_owned()))
    }
}

/// How the files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// `vision_model.onnx` and `text_model.onnx`, in `onnx/` or at the root.
    HuggingFace,
    /// `visual/model.onnx` and `textual/model.onnx`.
    OpenClip,
    /// `visual.onnx` and `textual.onnx`.
    Jina,
    /// One `model.onnx` with both towers.
    Combined,
    /// One `model.onnx` with one tower.
    SingleTower,
    /// Two folders of one tower each.
    Pair,
}

/// Where one layout keeps its files, without suffix and `.onnx`.
struct Places {
    layout: Layout,
    image: &'static str,
    text: &'static str,
}

const PLACES: [Places; 6] = [
    Places { layout: Layout::HuggingFace, image: "onnx/vision_model", text: "onnx/text_model" },
    Places { layout: Layout::HuggingFace, image: "vision_model", text: "text_model" },
    Places { layout: Layout::OpenClip, image: "visual/model", text: "textual/model" },
    Places { layout: Layout::Jina, image: "visual", text: "textual" },
    Places { layout: Layout::Combined, image: "onnx/model", text: "onnx/model" },
    Places { layout: Layout::Combined, image: "model", text: "model" },
];

/// The files of the layout that was found. One of the two may be missing: a folder may hold one tower only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) layout: Layout,
    pub(crate) image: Option<String>,
    pub(crate) text: Option<String>,
}

pub(crate) fn detect(root: &Root, options: &ModelOptions) -> Result<Found, ModelError> {
    let present = |place: &str| Dtype::ALL.into_iter().filter(|d| root.has(&file(place, *d))).collect::<Vec<_>>();
    for Places { layout, image: image_place, text: text_place } in PLACES {
        let (images, texts) = (present(image_place), present(text_place));
        if images.is_empty() && texts.is_empty() {
            continue;
        }
        let image = choose(root, image_place, &images, options.image_dtype, Tower::Image)?;
        let text = choose(root, text_place, &texts, options.text_dtype, Tower::Text)?;
        let lone = match (&image, &text) {
            (Some(present), None) => Some((present, file(text_place, options.text_dtype))),
            (None, Some(present)) => Some((present, file(image_place, options.image_dtype))),
            _ => None,
        };
        if let Some((present, missing)) = lone.filter(|_| options.missing_tower == MissingTower::Refuse) {
            let (path, present) = (root.path().to_owned(), present.clone());
            return Err(ModelError::MissingTower { path, missing, present });
        }
        return Ok(Found { layout, image, text });
    }
    Err(ModelError::NoLayout { path: root.path().to_owned(), found: onnx_files(root) })
}

fn file(place: &str, dtype: Dtype) -> String {
    format!("{place}{}.onnx", dtype.suffix())
}

fn choose(root: &Root, place: &str, present: &[Dtype], wanted: Dtype, tower: Tower) -> Result<Option<String>, ModelError> {
    if present.is_empty() {
        return Ok(None);
    }
    if present.contains(&wanted) {
        return Ok(Some(file(place, wanted)));
    }
    let found = present.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
    let flag = match tower {
        Tower::Image => "--image-dtype (or --dtype for both towers)",
        Tower::Text => "--text-dtype (or --dtype for both towers)",
    };
    Err(ModelError::NoSuchDtype { path: root.path().to_owned(), wanted: file(place, wanted), flag, found })
}

fn onnx_files(root: &Root) -> String {
    let folders = ["", "onnx", "visual", "textual"];
    let within = |folder: &str| {
        let join = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
        root.list(folder, ".onnx").into_iter().map(join).collect::<Vec<_>>()
    };
    let names: Vec<String> = folders.into_iter().flat_map(within).take(20).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
