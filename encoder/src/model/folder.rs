//! A model folder, opened: both towers found, read, scanned and bound; the fingerprint taken on the way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::bind::{self, ImageBinding, TextBinding, Tower};
use super::config::ModelConfig;
use super::files::{FileDigest, Links, Root};
use super::layout::{self, Found};
use super::pick::NotPicked;
use super::prune::{Cut, ExternalTensor};
use super::quantize::quantize;
use super::scan::{self, Port, Scanned};
use super::{Dtype, FileError, FileProblem, Layout, ModelError, ModelLimits, Similarity, TextPadding};

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

/// Tensors of at most this many bytes are put into the model: ONNX Runtime reads shapes from them while it loads, and finds
/// only what is inside.
const INLINE_BYTES: u64 = 64 << 10;

/// What makes the fingerprint of a model whose matrices are quantized here its own; the number is that of the way it is done.
const INT8_FORM: &[u8] = b"int8 1";

/// Operators that scale activations by the largest of the whole batch.
const BATCH_SENSITIVE: [&str; 4] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM"];

/// Which files of a folder are taken.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Element type of the image tower's file. Default: the file without suffix.
    pub image_dtype: Dtype,
    /// Element type of the text tower's file. Default: the file without suffix.
    pub text_dtype: Dtype,
    /// What to do when a layout of two files has only one of them.
    pub missing_tower: MissingTower,
    /// How much of the last layer is computed.
    pub last_layer: LastLayer,
    /// In how many bits matrices are multiplied.
    pub arithmetic: Arithmetic,
    /// What the folder may cost.
    pub limits: ModelLimits,
}

/// In how many bits the matrices of a tower's layers are multiplied. Other bits are other embeddings: part of the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// As the file says. The default.
    #[default]
    AsStored,
    /// In 8 bits where the file has float32: two to three times as fast. Check it on your own data first
    /// ([`Agreement`](crate::Agreement)).
    Int8,
}

/// How much of a tower's last layer is computed. Embeddings are the same, so it is no part of the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastLayer {
    /// What comes after its attention only for the token that becomes the embedding, where the graph has a form in which that is
    /// known. The default: a sixteenth less work in a ViT-B/32.
    #[default]
    PickedToken,
    /// All tokens, as the file says.
    Whole,
}

/// What to do when a layout of two files has only one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingTower {
    /// An error: most likely a download that was cut short. The default.
    #[default]
    Refuse,
    /// The folder is meant to have one tower.
    Accept,
}

/// A model folder whose files were read, scanned and bound.
#[derive(Debug)]
pub struct Folder {
    name: String,
    layout: Layout,
    fingerprint: String,
    image: Option<TowerModel<ImageBinding>>,
    text: Option<TowerModel<TextBinding>>,
    config: ModelConfig,
}

/// One tower's file: what it declares, and how to get it again.
#[derive(Debug)]
pub struct TowerModel<B> {
    binding: B,
    output: Port,
    file: String,
    batch_sensitive: bool,
    /// Whether the last layer is computed for the picked token only, or why not.
    picked: Result<(), NotPicked>,
    arithmetic: Arithmetic,
    digests: HashMap<String, FileDigest>,
    root: Arc<Root>,
    limits: ModelLimits,
    /// The bytes read by `open`, until they are used.
    kept: Mutex<Option<Arc<Vec<u8>>>>,
}

/// A tower as ONNX Runtime takes it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tensors: Vec<LoadedTensor>,
}

/// A tower's file as it lies there, with everything in it, and the files that hold its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TowerSource {
    /// The `.onnx` file.
    pub bytes: Vec<u8>,
    /// The files beside it that its tensors are in, by the name it gives them.
    pub external: HashMap<String, Vec<u8>>,
}

/// An initializer that goes beside the model.
#[derive(Debug)]
pub(crate) struct LoadedTensor {
    pub(crate) name: String,
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

impl Folder {
    /// Finds the towers in `path`, reads their files, and checks that they belong together. Nothing is run.
    ///
    /// # Errors
    /// [`ModelError`], which names the file and what to do.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self, ModelError> {
        let root = Arc::new(Root::open(path)?);
        let found = layout::detect(&root, options)?;
        let mut reader = Reader { root: &root, options, limits: &options.limits, seen: Vec::new() };
        let config = reader.config()?;
        let (layout, image, text) = reader.towers(&found)?;
        reader.configuration()?;
        check_dimensions(path, image.as_ref(), text.as_ref())?;
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |n| n.to_string_lossy()).into_owned();
        Ok(Self { name, layout, fingerprint: reader.fingerprint(), image, text, config })
    }

    /// The image tower of one folder with the text tower of another, for models that are published as two repositories.
    /// Similarity and padding are the text folder's.
    ///
    /// # Errors
    /// [`ModelError::NotThisTower`], [`ModelError::Dimension`].
    pub fn pair(image: Self, text: Self) -> Result<Self, ModelError> {
        let missing = |folder: &Self, tower| ModelError::NotThisTower { path: folder.name.clone().into(), tower };
        let (image_print, text_print) = (image.fingerprint.clone(), text.fingerprint.clone());
        let name = format!("{} + {}", image.name, text.name);
        let image = image.image.ok_or(ModelError::NotThisTower { path: image.name.into(), tower: Tower::Image })?;
        if text.text.is_none() {
            return Err(missing(&text, Tower::Text));
        }
        check_dimensions(Path::new(&name), Some(&image), text.text.as_ref())?;
        let fingerprint = hex(&Sha256::digest(format!("anchorite pair 1\n{image_print}\n{text_print}\n")));
        Ok(Self { name, layout: Layout::Pair, fingerprint, image: Some(image), text: text.text, config: text.config })
    }

    /// The folder's own name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its files lie.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Hex SHA-256 over names, lengths and digests of all files that decide what an embedding is.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How cosines become scores.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.config.similarity
    }

    /// How far captions are padded when the graph leaves it open.
    #[must_use]
    pub fn text_padding(&self) -> TextPadding {
        self.config.padding
    }

    /// Tokens per caption as `config.json` states it.
    #[must_use]
    pub fn context_length(&self) -> Option<usize> {
        self.config.context
    }

    /// Values per embedding, if a graph or `config.json` says; otherwise it shows when a tower runs.
    #[must_use]
    pub fn declared_dim(&self) -> Option<usize> {
        let image = self.image.as_ref().and_then(|t| t.output.fixed(1));
        image.or_else(|| self.text.as_ref()?.output.fixed(1))
    }

    /// The image tower.
    #[must_use]
    pub fn image(&self) -> Option<&TowerModel<ImageBinding>> {
        self.image.as_ref()
    }

    /// The text tower.
    #[must_use]
    pub fn text(&self) -> Option<&TowerModel<TextBinding>> {
        self.text.as_ref()
    }

    pub(crate) fn into_towers(self) -> (Option<TowerModel<ImageBinding>>, Option<TowerModel<TextBinding>>) {
        (self.image, self.text)
    }

    pub(crate) fn config_dim(&self) -> Option<usize> {
        self.config.dim
    }
}

fn check_dimensions(
    path: &Path,
    image: Option<&TowerModel<ImageBinding>>,
    text: Option<&TowerModel<TextBinding>>,
) -> Result<(), ModelError> {
    let image = image.and_then(|t| t.output.fixed(1));
    let text = text.and_then(|t| t.output.fixed(1));
    match (image, text) {
        (Some(image), Some(text)) if image != text => Err(ModelError::Dimension { path: path.to_owned(), image, text }),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The files of one folder as they are read, each with what the fingerprint needs.
struct Reader<'a> {
    root: &'a Arc<Root>,
    options: &'a ModelOptions,
    limits: &'a ModelLimits,
    seen: Vec<(String, u64, FileDigest)>,
}

type Towers = (Layout, Option<TowerModel<ImageBinding>>, Option<TowerModel<TextBinding>>);

impl Reader<'_> {
    fn config(&self) -> Result<ModelConfig, ModelError> {
        let Some(name) = ["config.json", "open_clip_config.json"].into_iter().find(|n| self.root.has(n)) else {
            return Ok(ModelConfig::from_json(&serde_json::Value::Null));
        };
        let (bytes, _) = self.root.read(name, self.limits.max_config_bytes, Links::Any)?;
        let parsed = serde_json::from_slice(&bytes);
        let config = parsed.map_err(|e| ModelError::Config { path: self.root.path().join(name), reason: e.to_string() })?;
        Ok(ModelConfig::from_json(&config))
    }

    /// Hashes the configuration files that are there, at the root and beside the towers.
    fn configuration(&mut self) -> Result<(), ModelError> {
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
    fn fingerprint(mut self) -> String {
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

    fn towers(&mut self, found: &Found) -> Result<Towers, ModelError> {
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

/// The path of `file` in the folder of `model`.
fn beside(model: &str, file: &str) -> String {
    model.rsplit_once('/').map_or_else(|| file.to_owned(), |(folder, _)| format!("{folder}/{file}"))
}

impl<B> TowerModel<B> {
    /// Names, types and shapes of what goes in.
    pub fn binding(&self) -> &B {
        &self.binding
    }

    /// What comes out.
    pub fn output(&self) -> &Port {
        &self.output
    }

    /// The model file, relative to the folder.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether an item's embedding depends slightly on what else is in its batch (dynamic quantization).
    pub fn is_batch_sensitive(&self) -> bool {
        self.batch_sensitive
    }

    /// Whether the last layer is computed for the picked token only.
    ///
    /// # Errors
    /// [`NotPicked`]: it is computed for all tokens, for this reason.
    pub fn picked(&self) -> Result<(), NotPicked> {
        self.picked
    }

    /// Lets go of the bytes that `open` read; loading reads and verifies them again.
    pub(crate) fn release(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The file uncut, for training and export, verified to be what was scanned.
    ///
    /// # Errors
    /// [`ModelError`]: a file cannot be read, or is not what it was when the folder was opened.
    pub fn source(&self) -> Result<TowerSource, ModelError> {
        let bytes = self.bytes()?;
        let scanned = scan::scan(&bytes, &self.limits)
            .map_err(|source| ModelError::Scan { path: self.root.path().join(&self.file), source })?;
        let mut external = HashMap::new();
        for name in scanned.external_files() {
            let path = beside(&self.file, &name);
            let (content, digest) = self.root.read(&path, self.limits.max_external_bytes, Links::OnlyName)?;
            self.verify(&path, digest)?;
            external.insert(name, content);
        }
        Ok(TowerSource { bytes: Arc::unwrap_or_clone(bytes), external })
    }

    /// The file's bytes: those that `open` read if nobody took them, else read and verified again.
    fn bytes(&self) -> Result<Arc<Vec<u8>>, ModelError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        let (bytes, digest) = self.root.read(&self.file, self.limits.max_model_bytes, Links::Any)?;
        self.verify(&self.file, digest)?;
        Ok(Arc::new(bytes))
    }

    /// The tower's bytes and tensors, verified to be those that were scanned.
    pub(crate) fn load(&self) -> Result<LoadedModel, ModelError> {
        let bytes = self.bytes()?;
        // The digest is that of bytes that passed, so this cannot fail; were it to, the error is the right one.
        let scanned = scan::scan(&bytes, &self.limits)
            .map_err(|source| ModelError::Scan { path: self.root.path().join(&self.file), source })?;
        let mut cut = Cut::to_output(&scanned, &self.output.name).ok_or_else(|| self.changed(&self.file))?;
        if self.picked.is_ok() {
            // What could be done when the same bytes were opened can be done now.
            cut.pick_first().map_err(|_| self.changed(&self.file))?;
        }
        let tensors = self.read_tensors(cut.external())?;
        let (small, large): (Vec<LoadedTensor>, Vec<LoadedTensor>) =
            tensors.into_iter().partition(|t| t.data.len() as u64 <= INLINE_BYTES || !handed_over(t.data_type));
        let inline = small.iter().map(|t| (t.name.as_str(), t.data.as_slice())).collect();
        let written = match cut.write(&inline) {
            Cow::Owned(bytes) => Some(bytes),
            Cow::Borrowed(_) => None,
        };
        let model = LoadedModel { bytes: written.unwrap_or_else(|| Arc::unwrap_or_clone(bytes)), tensors: large };
        match self.arithmetic {
            Arithmetic::AsStored => Ok(model),
            Arithmetic::Int8 => {
                let path = || self.root.path().join(&self.file);
                let quantized = quantize(model, &self.output.name, &self.limits);
                let quantized = quantized.map_err(|source| ModelError::Scan { path: path(), source })?;
                quantized.ok_or_else(|| ModelError::NoMatrices { path: path() })
            }
        }
    }

    fn read_tensors(&self, tensors: Vec<ExternalTensor>) -> Result<Vec<LoadedTensor>, ModelError> {
        let mut files: HashMap<String, Vec<ExternalTensor>> = HashMap::new();
        for tensor in tensors {
            files.entry(beside(&self.file, &tensor.range.file)).or_default().push(tensor);
        }
        let mut loaded = Vec::new();
        for (name, tensors) in files {
            let ranges: Vec<(u64, u64)> = tensors.iter().map(|t| (t.range.offset, t.range.len)).collect();
            let (parts, digest) = self.root.read_ranges(&name, self.limits.max_external_bytes, &ranges)?;
            self.verify(&name, digest)?;
            loaded.extend(tensors.into_iter().zip(parts).map(|(tensor, data)| LoadedTensor {
                name: tensor.name,
                data_type: tensor.data_type,
                dims: tensor.dims,
                data,
            }));
        }
        Ok(loaded)
    }

    fn verify(&self, name: &str, digest: FileDigest) -> Result<(), ModelError> {
        if self.digests.get(name) == Some(&digest) { Ok(()) } else { Err(self.changed(name)) }
    }

    fn changed(&self, name: &str) -> ModelError {
        FileError { path: self.root.path().join(name), problem: FileProblem::Changed }.into()
    }
}

/// Element types that `ort` can make a tensor of; others go into the model whatever their size.
fn handed_over(data_type: i32) -> bool {
    matches!(data_type, 1 | 2 | 3 | 6 | 7 | 10 | 11)
}
