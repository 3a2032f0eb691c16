//! A model folder as graphs that can be mixed, and back to a folder.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anchorite_encoder::model::{Folder, ModelError, ModelLimits, ModelOptions};
use serde_json::Value;

use super::mean::{MixError, mix};
use crate::{
    checkpoint::tensors,
    graph::{ExternalFiles, MAX_MODEL_BYTES, Model, ReadError, Tensor, widen},
};

/// Files beside a model that belong to its configuration: everything small that is no weights.
const MAX_CONFIGURATION_BYTES: u64 = 64 << 20;
/// Endings of files that hold weights, or words about them.
const NOT_COPIED: [&str; 6] = ["onnx", "onnx_data", "data", "safetensors", "bin", "md"];
/// A checkpoint's weights.
const WEIGHTS: &str = "weights.safetensors";
/// Files that state the logit scale.
const STATING: [&str; 2] = ["config.json", "open_clip_config.json"];

/// Which weights are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All weights of both towers, and the logit scale's logarithm; the zero-shot head is made anew by the mixed text tower. The default.
    #[default]
    Both,
    /// The image tower's weights; the text tower is the first model's.
    Image,
    /// The text tower's weights; the image tower is the first model's.
    Text,
    /// The image tower's weights and the two models' zero-shot heads (each with its own scale), as WiSE-FT and CaRot do. There is no text tower
    /// that gives such a head, so this can be evaluated and not be written.
    ImageHead,
}

/// One graph of a folder.
#[derive(Clone, Debug)]
pub struct TowerFile {
    /// Relative to the folder.
    pub file: String,
    /// As it was read; empty for one that was made here.
    bytes: Vec<u8>,
    model: Model,
}

/// A folder's graphs and the rest of it.
#[derive(Clone, Debug)]
pub struct Towers {
    name: String,
    /// Where configuration is copied from.
    source: PathBuf,
    image: TowerFile,
    text: TowerFile,
    log_scale: Option<f64>,
}

/// Why a folder cannot be read, mixed or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TowersError {
    /// No model folder.
    #[error(transparent)]
    Model(Box<ModelError>),
    /// A tower is missing.
    #[error("{} has no {tower} tower; both are needed", path.display())]
    NoTower {
        /// The folder.
        path: PathBuf,
        /// "image" or "text".
        tower: &'static str,
    },
    /// A graph that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ReadError>,
    },
    /// The graphs do not fit.
    #[error("the {tower} towers: {source}")]
    Mix {
        /// "image" or "text".
        tower: &'static str,
        /// Why.
        source: Box<MixError>,
    },
    /// Larger than a file may be.
    #[error("{}: {bytes} bytes; an ONNX file holds at most {MAX_MODEL_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: usize,
    },
    /// No checkpoint of this model.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A mix of heads is no model.
    #[error("image-head mixes heads, for which there is no text tower: it can be evaluated, not written; use both or image")]
    NoSuchModel,
    /// The operating system said no.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TowersError {
    let path = path.to_owned();
    move |source| TowersError::Io { action, path, source }
}

impl Towers {
    /// Reads the folder's towers, the files without suffix of an element type.
    ///
    /// # Errors
    /// [`TowersError`].
    pub fn open(path: &Path) -> Result<Self, TowersError> {
        let folder = Folder::open(path, &ModelOptions::default()).map_err(|e| TowersError::Model(Box::new(e)))?;
        let missing = |tower| TowersError::NoTower { path: path.to_owned(), tower };
        let image = folder.image().ok_or_else(|| missing("image"))?.file().to_owned();
        let text = folder.text().ok_or_else(|| missing("text"))?.file().to_owned();
        Ok(Self {
            name: path.display().to_string(),
            source: path.to_owned(),
            image: read(path, image)?,
            text: read(path, text)?,
            log_scale: STATING.iter().find_map(|name| stated_scale(&path.join(name))),
        })
    }

    /// The model with the weights of a checkpoint of a run that started from it: a folder with `weights.safetensors`, or that file. Adapters are
    /// not merged; export such a run.
    ///
    /// # Errors
    /// [`TowersError::Io`], [`TowersError::Checkpoint`]: no safetensors, or a tensor that the model does not have.
    pub fn at_checkpoint(&self, path: &Path) -> Result<Self, TowersError> {
        let file = if path.is_dir() { path.join(WEIGHTS) } else { path.to_owned() };
        let wrong = |reason: String| TowersError::Checkpoint { path: file.clone(), reason };
        let mut weights = tensors::read(&fs::read(&file).map_err(failed("read", &file))?).map_err(wrong)?;
        let log_scale = weights.remove("logit_scale").and_then(|scale| scale.floats()?.first().copied());
        let _ = weights.remove("logit_bias");
        let mut towers = Self { name: path.display().to_string(), log_scale: log_scale.or(self.log_scale), ..self.clone() };
        for (prefix, tower) in [("vision.", &mut towers.image), ("text.", &mut towers.text)] {
            let own: BTreeMap<String, Tensor> = weights
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
                .collect();
            weights.retain(|name, _| !name.starts_with(prefix));
            // A run widens what is stored small, and its checkpoints have the wide weights' names.
            tower.model = widen(tower.model.clone());
            tower.bytes = Vec::new();
            let lacks = |name| wrong(format!("the tower {} has no weight {name:?} of that shape", tower.file));
            tower.model.set_weights(&own).map_err(lacks)?;
        }
        match weights.keys().next() {
            None => Ok(towers),
            Some(name) => Err(wrong(format!("{name:?} is no weight of a tower; is it another kind of run?"))),
        }
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mean of several, each with its share; what is not mixed is the first one's.
    ///
    /// # Errors
    /// [`TowersError::Mix`], naming the tensor.
    pub fn mean(all: &[&Self], shares: &[f64], which: Which) -> Result<Self, TowersError> {
        let first = all
            .first()
            .ok_or(TowersError::Mix { tower: "image", source: Box::new(MixError::Shares { models: 0, shares: shares.len() }) })?;
        let image = match which {
            Which::Text => first.image.clone(),
            _ => tower(all, shares, "image", |t| &t.image)?,
        };
        let text = match which {
            Which::Both | Which::Text => tower(all, shares, "text", |t| &t.text)?,
            _ => first.text.clone(),
        };
        let scales: Option<Vec<f64>> = all.iter().map(|t| t.log_scale).collect();
        let mixed = scales.filter(|_| which == Which::Both).map(|s| s.iter().zip(shares).map(|(s, share)| s * share).sum());
        let (at, alone) = sole(shares);
        // The logarithm of the only one that counts is taken as it is, not by arithmetic.
        let log_scale = if alone && which == Which::Both { all[at].log_scale } else { mixed.or(first.log_scale) };
        let source = if alone && which == Which::Both { all[at].source.clone() } else { first.source.clone() };
        Ok(Self { name: "the mean".to_owned(), source, image, text, log_scale })
    }

    /// Writes a folder in the same layout, with the source's configuration. The folder must not be there.
    ///
    /// # Errors
    /// [`TowersError::Io`], [`TowersError::TooLarge`].
    pub fn save(&self, out: &Path) -> Result<(), TowersError> {
        fs::create_dir(out).map_err(failed("create", out))?;
        self.copy_configuration(out)?;
        for tower in [&self.image, &self.text] {
            let path = out.join(&tower.file);
            let folder = path.parent().unwrap_or(out);
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
            let made = || tower.model.write();
            let bytes = if tower.bytes.is_empty() { made() } else { tower.bytes.clone() };
            if bytes.len() > MAX_MODEL_BYTES {
                return Err(TowersError::TooLarge { path, bytes: bytes.len() });
            }
            fs::write(&path, bytes).map_err(failed("write", &path))?;
        }
        Ok(())
    }

    fn copy_configuration(&self, out: &Path) -> Result<(), TowersError> {
        for entry in fs::read_dir(&self.source).map_err(failed("read", &self.source))? {
            let path = entry.map_err(failed("read", &self.source))?.path();
            let metadata = fs::metadata(&path).map_err(failed("read", &path))?;
            let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
            let wanted =
                metadata.is_file() && metadata.len() <= MAX_CONFIGURATION_BYTES && !NOT_COPIED.contains(&ending.as_str());
            let Some(name) = path.file_name().filter(|_| wanted) else { continue };
            let mut bytes = fs::read(&path).map_err(failed("read", &path))?;
            if let Some(changed) = self.with_scale(name.to_string_lossy().as_ref(), &bytes) {
                bytes = changed;
            }
            fs::write(out.join(name), bytes).map_err(failed("write", &out.join(name)))?;
        }
        Ok(())
    }

    /// The configuration file with the mixed scale; none where it stays as it is.
    fn with_scale(&self, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let scale = self.log_scale.filter(|_| STATING.contains(&name))?;
        let mut config: Value = serde_json::from_slice(bytes).ok()?;
        let stated = config.get("logit_scale")?.as_f64()?;
        if stated == scale {
            return None;
        }
        config["logit_scale"] = scale.into();
        serde_json::to_vec_pretty(&config).ok()
    }
}

/// The place of the largest share, and whether it is the only one.
fn sole(shares: &[f64]) -> (usize, bool) {
    let at = (1..shares.len()).fold(0, |best, i| if shares[i] > shares[best] { i } else { best });
    (at, shares.iter().enumerate().all(|(i, &s)| if i == at { s == 1.0 } else { s == 0.0 }))
}

fn tower(all: &[&Towers], shares: &[f64], name: &'static str, of: fn(&Towers) -> &TowerFile) -> Result<TowerFile, TowersError> {
    let models: Vec<(&str, &Model)> = all.iter().map(|t| (t.name.as_str(), &of(t).model)).collect();
    let model = mix(&models, shares)
        .or_else(|refusal| mix_widened(&models, shares).ok_or(refusal))
        .map_err(|source| TowersError::Mix { tower: name, source: Box::new(source) })?;
    let (at, alone) = sole(shares);
    match alone {
        true => Ok(of(all[at]).clone()),
        false => Ok(TowerFile { file: of(all[0]).file.clone(), bytes: Vec::new(), model }),
    }
}

/// The mean in float32: a finetuned model has the weights that its base stores as float16 in float32. Widening changes no value.
fn mix_widened(models: &[(&str, &Model)], shares: &[f64]) -> Option<Model> {
    let widened: Vec<Model> = models.iter().map(|(_, model)| widen((*model).clone())).collect();
    let named: Vec<(&str, &Model)> = models.iter().zip(&widened).map(|((name, _), model)| (*name, model)).collect();
    mix(&named, shares).ok()
}

fn read(folder: &Path, file: String) -> Result<TowerFile, TowersError> {
    let path = folder.join(&file);
    let bytes = fs::read(&path).map_err(failed("read", &path))?;
    let external = external(&path)?;
    let model = Model::read(&bytes, &external, &ModelLimits::default())
        .map_err(|source| TowersError::Read { path, source: Box::new(source) })?;
    // With data elsewhere the bytes alone are no model.
    let bytes = if external.is_empty() { bytes } else { Vec::new() };
    Ok(TowerFile { file, bytes, model })
}

/// Files of external data, under the names that exporters give them.
fn external(path: &Path) -> Result<ExternalFiles, TowersError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut files = ExternalFiles::new();
    for beside in [format!("{name}_data"), format!("{name}.data")] {
        let path = path.with_file_name(&beside);
        if path.is_file() {
            files.insert(beside, fs::read(&path).map_err(failed("read", &path))?);
        }
    }
    Ok(files)
}

fn stated_scale(path: &Path) -> Option<f64> {
    let config: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    config.get("logit_scale")?.as_f64()
}
