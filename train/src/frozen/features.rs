//! What frozen trunks make of pictures and texts: each content is run once and remembered, on disk where a folder is given.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{Mutex, PoisonError, RwLock},
};

use anchorite_encoder::{
    Pixels, Tokens,
    image::Preprocess,
    session::{self, Engine, SessionOptions},
    text::Tokenizer,
};
use ort::{
    session::{Session, SessionInputValue},
    value::Tensor as Value,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::FrozenError;
use crate::{
    data::hex,
    eval::{Cache, cache as content},
    graph::Model,
    step::{Feed, Tower, Width},
};

/// Pictures or texts run at once: enough for every core, some 60 MB of a small tower's activations.
const TOGETHER: usize = 64;

/// Trunks and what they have made so far. Shared among threads.
pub struct Features {
    picture: Preprocess,
    text: Tokenizer,
    images: Side,
    texts: Side,
    fingerprint: String,
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Features").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// One tower's trunk.
pub(super) struct TrunkPlan<'a> {
    pub(super) name: &'static str,
    pub(super) tower: &'a Tower,
    pub(super) trunk: Model,
    pub(super) seam: &'a str,
}

struct Side {
    trunk: Mutex<Trunk>,
    kept: RwLock<Cache>,
    /// Sizes of one item's value at the seam.
    shape: Vec<usize>,
}

struct Trunk {
    name: &'static str,
    session: Session,
    inputs: Vec<(String, Feed)>,
    seam: String,
}

/// What a trunk made of some items.
type Made = (Vec<usize>, Vec<f32>);

impl Features {
    /// Trunks of the model `model` (a fingerprint); features are kept in `folder`.
    pub(super) fn open(
        (picture, text): (Preprocess, Tokenizer),
        plans: [TrunkPlan<'_>; 2],
        model: &str,
        folder: Option<&Path>,
        (engine, threads): (&Engine, usize),
    ) -> Result<Self, FrozenError> {
        let seams: Vec<&str> = plans.iter().map(|plan| plan.seam).collect();
        let fingerprint = hex(&Sha256::digest(format!("features of {model} at {}", seams.join(", "))));
        let (height, width) = picture.geometry().output();
        let blank = [Pixels { values: vec![0.0; 3 * height * width], height, width }];
        let words = [text.encode("a")?];
        let [vision, texts] = plans;
        let mut vision = Trunk::open(&vision, engine, threads)?;
        let mut caption = Trunk::open(&texts, engine, threads)?;
        let image_shape = vision.pictures(&blank)?.0;
        let text_shape = caption.texts(&words, text.pad_id())?.0;
        let side = |trunk: Trunk, shape: Vec<usize>| -> Result<Side, FrozenError> {
            let kept = match folder {
                Some(folder) => Cache::open(folder, &format!("{fingerprint} {}", trunk.name), shape.iter().product())?,
                None => Cache::in_memory(),
            };
            Ok(Side { trunk: Mutex::new(trunk), kept: RwLock::new(kept), shape })
        };
        let (images, texts) = (side(vision, image_shape)?, side(caption, text_shape)?);
        Ok(Self { picture, text, images, texts, fingerprint })
    }

    /// Hex SHA-256 over the model and where it was cut.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Sizes of a picture's value at the seam.
    #[must_use]
    pub fn picture_shape(&self) -> &[usize] {
        &self.images.shape
    }

    /// Sizes of a text's value at the seam.
    #[must_use]
    pub fn text_shape(&self) -> &[usize] {
        &self.texts.shape
    }

    /// A picture's values.
    ///
    /// # Errors
    /// [`FrozenError::Picture`], [`FrozenError::Runtime`].
    pub fn picture(&self, bytes: &[u8]) -> Result<Vec<f32>, FrozenError> {
        self.add_pictures(&[bytes])?;
        self.images.get(&content::picture(bytes))
    }

    /// A text's values.
    ///
    /// # Errors
    /// [`FrozenError::Text`], [`FrozenError::Runtime`].
    pub fn text(&self, text: &str) -> Result<Vec<f32>, FrozenError> {
        self.add_texts(&[text])?;
        self.texts.get(&content::text(text))
    }

    /// The picture as the whole image tower takes it.
    pub(super) fn pixels(&self, bytes: &[u8]) -> Result<Pixels, FrozenError> {
        Ok(self.picture.apply(bytes)?)
    }

    /// The text as the whole text tower takes it.
    pub(super) fn tokens(&self, text: &str) -> Result<Tokens, FrozenError> {
        Ok(self.text.encode(text)?)
    }

    /// Runs the trunk on those pictures that are not known.
    ///
    /// # Errors
    /// As [`Features::picture`].
    pub fn add_pictures(&self, pictures: &[&[u8]]) -> Result<(), FrozenError> {
        let missing = self.images.missing(pictures, content::picture);
        for part in missing.chunks(TOGETHER) {
            let prepared = part.par_iter().map(|(_, bytes)| self.picture.apply(bytes)).collect::<Result<Vec<_>, _>>()?;
            let made = self.images.trunk()?.pictures(&prepared)?;
            self.images.keep(part, &made)?;
        }
        Ok(())
    }

    /// Runs the trunk on those texts that are not known, the short ones together.
    ///
    /// # Errors
    /// As [`Features::text`].
    pub fn add_texts(&self, texts: &[&str]) -> Result<(), FrozenError> {
        let mut missing = self.texts.missing(texts, content::text);
        missing.sort_by_key(|(_, text)| text.len());
        for part in missing.chunks(TOGETHER) {
            let tokens = part.iter().map(|(_, text)| self.text.encode(text)).collect::<Result<Vec<_>, _>>()?;
            let made = self.texts.trunk()?.texts(&tokens, self.text.pad_id())?;
            self.texts.keep(part, &made)?;
        }
        Ok(())
    }
}

impl Side {
    fn trunk(&self) -> Result<std::sync::MutexGuard<'_, Trunk>, FrozenError> {
        // A trunk whose user panicked was only borrowed to ONNX Runtime, which had returned.
        Ok(self.trunk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn missing<'t, T: ?Sized>(&self, items: &[&'t T], content: fn(&T) -> [u8; 32]) -> Vec<([u8; 32], &'t T)> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let mut seen = std::collections::HashSet::new();
        let named = items.iter().map(|item| (content(item), *item));
        named.filter(|(name, _)| kept.get(name).is_none() && seen.insert(*name)).collect()
    }

    fn keep<T: ?Sized>(&self, part: &[([u8; 32], &T)], (_, values): &Made) -> Result<(), FrozenError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let width = values.len() / part.len().max(1);
        for ((name, _), values) in part.iter().zip(values.chunks_exact(width)) {
            kept.put(*name, values.to_vec())?;
        }
        Ok(kept.flush()?)
    }

    fn get(&self, name: &[u8; 32]) -> Result<Vec<f32>, FrozenError> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let lost =
            || FrozenError::Runtime { part: "memory of features".to_owned(), reason: "a value just made is gone".to_owned() };
        kept.get(name).map(<[f32]>::to_vec).ok_or_else(lost)
    }
}

impl Trunk {
    fn open(plan: &TrunkPlan<'_>, engine: &Engine, threads: usize) -> Result<Self, FrozenError> {
        if plan.tower.batch.is_some_and(|batch| batch != 1) {
            let reason = "its graph fixes how many items are run at once; export it with a free batch".to_owned();
            return Err(FrozenError::Cut { tower: plan.name, reason });
        }
        let session = open_session(&plan.trunk, engine, threads).map_err(|reason| runtime(plan.name, "trunk", reason))?;
        Ok(Self { name: plan.name, session, inputs: plan.tower.inputs.clone(), seam: plan.seam.to_owned() })
    }

    fn pictures(&mut self, pictures: &[Pixels]) -> Result<Made, FrozenError> {
        let Some(first) = pictures.first() else { return Ok((Vec::new(), Vec::new())) };
        let shape = vec![pictures.len(), 3, first.height, first.width];
        let values: Vec<f32> = pictures.iter().flat_map(|p| p.values.iter().copied()).collect();
        let value = Value::from_array((shape, values)).map_err(|e| runtime(self.name, "trunk", e.to_string()))?;
        let inputs: Vec<(String, SessionInputValue<'_>)> =
            self.inputs.iter().take(1).map(|(name, _)| (name.clone(), SessionInputValue::from(&value))).collect();
        run(&mut self.session, inputs, &self.seam).map_err(|reason| runtime(self.name, "trunk", reason))
    }

    fn texts(&mut self, texts: &[Tokens], pad: u32) -> Result<Made, FrozenError> {
        let longest = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0);
        let padded = |value: fn(Option<(usize, u32)>, u32) -> i64| -> Vec<i64> {
            let row = |t: &Tokens| (0..longest).map(|at| value(t.ids.get(at).map(|&id| (at, id)), pad)).collect::<Vec<_>>();
            texts.iter().flat_map(row).collect()
        };
        let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for (name, feed) in &self.inputs {
            let (width, values) = match feed {
                Feed::Ids(width) => (*width, padded(|id, pad| id.map_or(i64::from(pad), |(_, id)| i64::from(id)))),
                Feed::Mask(width) => (*width, padded(|id, _| i64::from(id.is_some()))),
                Feed::Positions(width) => (*width, (0..texts.len()).flat_map(|_| 0..longest as i64).collect()),
                Feed::Segments(width) => (*width, vec![0; texts.len() * longest]),
                Feed::Pixels => continue,
            };
            let shape = vec![texts.len(), longest];
            let made = match width {
                Width::Wide => Value::from_array((shape, values)).map(ort::value::Value::into_dyn),
                Width::Narrow => {
                    let narrow: Vec<i32> = values.iter().map(|&v| v as i32).collect();
                    Value::from_array((shape, narrow)).map(ort::value::Value::into_dyn)
                }
            };
            inputs.push((name.clone(), made.map_err(|e| runtime(self.name, "trunk", e.to_string()))?.into()));
        }
        run(&mut self.session, inputs, &self.seam).map_err(|reason| runtime(self.name, "trunk", reason))
    }
}

pub(super) fn runtime(tower: &str, part: &str, reason: String) -> FrozenError {
    FrozenError::Runtime { part: format!("{tower} {part}"), reason }
}

/// A session of a graph that was read, and thereby scanned, before.
pub(super) fn open_session(model: &Model, engine: &Engine, threads: usize) -> Result<Session, String> {
    let options = SessionOptions { count: NonZeroUsize::MIN, threads, spinning: false };
    let mut builder = session::builder(engine, options).map_err(|e| e.to_string())?;
    builder.commit_from_memory(&model.write()).map_err(|e| e.to_string())
}

/// Runs a session for one float output: the sizes of one item, and all values.
pub(super) fn run(session: &mut Session, inputs: Vec<(String, SessionInputValue<'_>)>, output: &str) -> Result<Made, String> {
    let outputs = session.run(inputs).map_err(|e| e.to_string())?;
    let value = outputs.get(output).ok_or_else(|| format!("it has no output {output:?}"))?;
    let (shape, values) = value.try_extract_tensor::<f32>().map_err(|e| e.to_string())?;
    Ok((shape.iter().skip(1).map(|&d| usize::try_from(d).unwrap_or(0)).collect(), values.to_vec()))
}
