//! The files of a model folder to its towers: each read once, scanned, cut to its tower and bound; the fingerprint is taken on the way.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::bind::{self, ImageBinding, TextBinding, Tower};
use super::config::ModelConfig;
use super::files::{FileDigest, Links, Root};
use super::layout::Found;
use super::options::{Arithmetic, LastLayer, ModelOptions};
use super::pick::NotPicked;
use super::prune::{Cut, ExternalTensor};
use super::scan::{self, Port, Scanned};
use super::tower::{TowerModel, beside};
use super::{FileError, FileProblem, Layout, ModelError, ModelLimits};

/// Files beside the models that decide what an embedding is; those that are there are part of the fingerprint.
const CONFIGURATION: [&str; 15] = [
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "preprocess_cfg.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "bpe_simple_vocab_16e6.txt.gz",
];

/// The files of a model folder, relative to it, that decide what an embedding is besides the towers: those that are there, at the root and
/// beside the towers.
#[must_use]
pub fn configuration_files(dir: &Path) -> Vec<String> {
    let names = TOWER_FOLDERS.iter().flat_map(|folder| CONFIGURATION.map(|file| format!("{folder}{file}")));
    names.filter(|name| dir.join(name).is_file()).collect()
}

/// Where configuration files lie.
const TOWER_FOLDERS: [&str; 3] = ["", "visual/", "textual/"];

/// What makes the fingerprint of a model whose matrices are quantized here its own; the number is that of the way it is done.
const INT8_FORM: &[u8] = b"int8 1";

/// Operators that scale activations by the largest of the whole batch.
const BATCH_SENSITIVE: [&str; 4] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM"];

/// The files of one folder as they are read, each with what the fingerprint needs.
pub(super) struct Reader<'a> {
    root: &'a Arc<Root>,
    options: &'a ModelOptions,
    limits: &'a ModelLimits,
    seen: Vec<(String, u64, FileDigest)>,
}

type Towers = (Layout, Option<TowerModel<ImageBinding>>, Option<TowerModel<TextBinding>>);

impl<'a> Reader<'a> {
    pub(super) fn of(root: &'a Arc<Root>, options: &'a ModelOptions) -> Self {
        Self { root, options, limits: &options.limits, seen: Vec::new() }
    }

    pub(super) fn config(&self) -> Result<ModelConfig, ModelError> {
        let Some(name) = ["config.json", "open_clip_config.json"].into_iter().find(|n| self.root.has(n)) else {
            return Ok(ModelConfig::from_json(&serde_json::Value::Null));
        };
        let (bytes, _) = self.root.read(name, self.limits.max_config_bytes, Links::Any)?;
        let parsed = serde_json::from_slice(&bytes);
        let config = parsed.map_err(|e| ModelError::Config { path: self.root.path().join(name), reason: e.to_string() })?;
        Ok(ModelConfig::from_json(&config))
    }

    /// Hashes the configuration files that are there, at the root and beside the towers.
    pub(super) fn configuration(&mut self) -> Result<(), ModelError> {
        for folder in TOWER_FOLDERS {
            for file in CONFIGURATION {
                let name = format!("{folder}{file}");
                if self.root.has(&name) {
                    let (len, digest) = self.root.hash(&name, self.limits.max_config_bytes, Links::Any)?;
                    self.seen.push((name, len, digest));
                }
            }
        }
        Ok(())
    }

    /// Names sorted, so that the order of reading does not matter; lengths, so that no two lists of files read the same.
    pub(super) fn fingerprint(mut self) -> String {
        self.seen.sort();
        self.seen.dedup();
        let mut hash = Sha256::new();
        hash.update(b"anchorite model 1\n");
        for (name, len, digest) in &self.seen {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(len.to_le_bytes());
            hash.update(digest);
        }
        if self.options.arithmetic == Arithmetic::Int8 {
            hash.update(INT8_FORM);
        }
        hex(&hash.finalize())
    }

    pub(super) fn towers(&mut self, found: &Found) -> Result<Towers, ModelError> {
        let towers = match (&found.image, &found.text) {
            (Some(image), Some(text)) if found.layout == Layout::Combined => self.combined(image, text)?,
            (image, text) => {
                let image = image.as_deref().map(|file| self.separate(file, Tower::Image, bind::image)).transpose()?;
                let text = text.as_deref().map(|file| self.separate(file, Tower::Text, bind::text)).transpose()?;
                (found.layout, image, text)
            }
        };
        // A file that was only looked into is no part of the model.
        let (_, image, text) = &towers;
        let used = |name: &str| {
            let image = image.as_ref().is_some_and(|t| t.digests.contains_key(name));
            image || text.as_ref().is_some_and(|t| t.digests.contains_key(name))
        };
        self.seen.retain(|(name, ..)| used(name));
        Ok(towers)
    }

    /// `model.onnx`: both towers in one file, in two files of different element types, or one tower alone.
    fn combined(&mut self, image: &str, text: &str) -> Result<Towers, ModelError> {
        let (layout, image_tower, text_tower) = self.one_file(image)?;
        match (layout, image_tower, text_tower) {
            towers if image == text => Ok(towers),
            (Layout::SingleTower, None, _) => self.one_file(text),
            (Layout::SingleTower, image, _) => Ok((layout, image, None)),
            (_, image, _) => Ok((layout, image, Some(self.separate(text, Tower::Text, bind::text)?))),
        }
    }

    fn separate<B>(&mut self, file: &str, tower: Tower, bind: Bind<B>) -> Result<TowerModel<B>, ModelError> {
        let source = self.source(file)?;
        let scanned = self.scan(&source)?;
        self.tower(&source, &scanned, tower, bind)
    }

    /// One file with both towers, or with one of them.
    fn one_file(&mut self, file: &str) -> Result<Towers, ModelError> {
        let source = self.source(file)?;
        let scanned = self.scan(&source)?;
        if bind::has_both(&scanned.outputs()) {
            let image = self.tower(&source, &scanned, Tower::Image, bind::image)?;
            let text = self.tower(&source, &scanned, Tower::Text, bind::text)?;
            return Ok((Layout::Combined, Some(image), Some(text)));
        }
        let inputs: Vec<Port> = scanned.inputs.iter().map(|i| i.port.clone()).collect();
        match bind::tower_of(&inputs) {
            Some(Tower::Text) => Ok((Layout::SingleTower, None, Some(self.tower(&source, &scanned, Tower::Text, bind::text)?))),
            // With both kinds of inputs but not both outputs, the image binding's error names what is there.
            _ => Ok((Layout::SingleTower, Some(self.tower(&source, &scanned, Tower::Image, bind::image)?), None)),
        }
    }

    fn source(&mut self, file: &str) -> Result<Source, ModelError> {
        let (bytes, digest) = self.root.read(file, self.limits.max_model_bytes, Links::Any)?;
        self.seen.push((file.to_owned(), bytes.len() as u64, digest));
        Ok(Source { file: file.to_owned(), bytes: Arc::new(bytes), digest })
    }

    fn scan<'b>(&self, source: &'b Source) -> Result<Scanned<'b>, ModelError> {
        scan::scan(&source.bytes, self.limits)
            .map_err(|error| ModelError::Scan { path: self.root.path().join(&source.file), source: error })
    }

    fn tower<B>(
        &mut self,
        source: &Source,
        scanned: &Scanned<'_>,
        tower: Tower,
        bind: Bind<B>,
    ) -> Result<TowerModel<B>, ModelError> {
        let fail = |error| ModelError::Bind { path: self.root.path().join(&source.file), source: error };
        let output = bind::output(tower, &scanned.outputs()).cloned().map_err(fail)?;
        let mut cut = Cut::to_output(scanned, &output.name);
        let inputs = cut.as_ref().map(Cut::inputs).unwrap_or_default();
        let binding = bind(&inputs).map_err(fail)?;
        let external = cut.as_ref().map(Cut::external).unwrap_or_default();
        let arithmetic = self.options.arithmetic;
        let batch_sensitive = arithmetic == Arithmetic::Int8 || cut.as_ref().is_some_and(|cut| cut.uses(&BATCH_SENSITIVE));
        let picked = match (self.options.last_layer, &mut cut) {
            (LastLayer::PickedToken, Some(cut)) => cut.pick_first(),
            _ => Err(NotPicked::Off),
        };
        let mut digests = HashMap::from([(source.file.clone(), source.digest)]);
        self.external(&source.file, &external, &mut digests)?;
        let kept = Mutex::new(Some(Arc::clone(&source.bytes)));
        let (root, limits) = (Arc::clone(self.root), self.limits.clone());
        Ok(TowerModel {
            binding,
            output,
            file: source.file.clone(),
            batch_sensitive,
            picked,
            arithmetic,
            digests,
            root,
            limits,
            kept,
        })
    }

    /// Hashes the files beside the model that hold its tensors, and checks that the tensors lie inside them.
    fn external(
        &mut self,
        model: &str,
        tensors: &[ExternalTensor],
        digests: &mut HashMap<String, FileDigest>,
    ) -> Result<(), ModelError> {
        for tensor in tensors {
            let name = beside(model, &tensor.range.file);
            let len = match self.seen.iter().find(|(seen, ..)| *seen == name) {
                Some((_, len, digest)) => {
                    digests.insert(name.clone(), *digest);
                    *len
                }
                None => {
                    let (len, digest) = self.root.hash(&name, self.limits.max_external_bytes, Links::OnlyName)?;
                    digests.insert(name.clone(), digest);
                    self.seen.push((name.clone(), len, digest));
                    len
                }
            };
            let (offset, bytes) = (tensor.range.offset, tensor.range.len);
            if offset.checked_add(bytes).is_none_or(|end| end > len) {
                let problem = FileProblem::Short { offset, bytes, len };
                return Err(FileError { path: self.root.path().join(name), problem }.into());
            }
        }
        Ok(())
    }
}

type Bind<B> = fn(&[Port]) -> Result<B, bind::BindError>;

struct Source {
    file: String,
    bytes: Arc<Vec<u8>>,
    digest: FileDigest,
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
