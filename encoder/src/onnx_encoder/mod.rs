//! The real encoder: a model folder, prepared inputs, ONNX Runtime. Implements [`Encode`].
//!
//! ```text
//!   Folder ─┐                                     Pixels / Tokens
//!   Engine ─┼─► Encoder ── a session of the tower's pool ── batches of one shape ──► rows ──► Embedding, unit length
//!   Preparation ┘
//! ```
//!
//! A batch is ordered by shape (pictures by size, captions by length), cut into runs of at most the batch size, and put back
//! into its order; a caption is padded to the longest of its run, or as far as the graph or the model's training demands.
//! Towers load on first use unless asked for earlier.
//!
//! | file | |
//! | --- | --- |
//! | `options.rs` | preparation, sessions, batches; why an encoder cannot be opened |
//! | `describe.rs` | what it is made of |
//! | `runs.rs` | batches in runs of one shape |
//! | `tensors.rs` | inputs and outputs as ONNX Runtime has them |
//!
//! Not here: how pictures and captions are prepared. That comes in as [`PreparePicture`] and [`PrepareText`].

mod describe;
mod options;
mod runs;
mod tensors;

use std::borrow::Cow;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::session::SessionInputValue;
use ort::value::DynValue;

use crate::model::{Folder, ImageBinding, Layout, Similarity, TextBinding, TextPadding, Tower, TowerModel};
use crate::session::{Engine, SessionOptions, Sessions};
use crate::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};
use runs::{in_runs, runs};
use tensors::{check_pixels, check_tokens, extract, floats, integers};

pub use describe::{Description, TowerDescription};
pub use options::{EncoderError, EncoderOptions, Load, Preparation, PreparePicture, PrepareText};

/// A dual encoder on ONNX Runtime.
#[derive(Debug)]
pub struct Encoder {
    name: String,
    fingerprint: String,
    dim: usize,
    layout: Layout,
    similarity: Similarity,
    padding: TextPadding,
    context: Option<usize>,
    image: Option<Loaded<ImageBinding>>,
    text: Option<Loaded<TextBinding>>,
    preparation: Preparation,
    engine: Engine,
    options: EncoderOptions,
}

/// A tower and, once it has been used, its sessions.
#[derive(Debug)]
struct Loaded<B> {
    tower: Tower,
    model: TowerModel<B>,
    options: SessionOptions,
    loading: Mutex<()>,
    sessions: OnceLock<Sessions>,
}

impl<B> Loaded<B> {
    fn new(tower: Tower, model: TowerModel<B>, options: SessionOptions) -> Self {
        Self { tower, model, options, loading: Mutex::new(()), sessions: OnceLock::new() }
    }

    fn sessions(&self, engine: &Engine) -> Result<&Sessions, EncoderError> {
        if let Some(sessions) = self.sessions.get() {
            return Ok(sessions);
        }
        // Loading is not repeated by callers that came in meanwhile; one that failed is tried again by the next.
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = self.sessions.get() {
            return Ok(sessions);
        }
        let model = self.model.load()?;
        let made = Sessions::create(engine, model, self.options);
        let sessions = made.map_err(|source| EncoderError::Session { tower: self.tower, source })?;
        Ok(self.sessions.get_or_init(|| sessions))
    }

    /// Loads the tower now, or lets go of what was read of it until it is used.
    fn load_if(&self, now: bool, engine: &Engine) -> Result<(), EncoderError> {
        if now {
            return self.sessions(engine).map(|_| ());
        }
        self.model.release();
        Ok(())
    }

    fn describe(&self) -> TowerDescription<B>
    where
        B: Clone,
    {
        TowerDescription {
            file: self.model.file().to_owned(),
            input: self.model.binding().clone(),
            output: self.model.output().clone(),
            sessions: self.options.count.get(),
            loaded: self.sessions.get().is_some(),
            batch_sensitive: self.model.is_batch_sensitive(),
            whole_last_layer: self.model.picked().err(),
        }
    }
}

impl Encoder {
    /// Puts a folder, its input preparation and ONNX Runtime together, and loads the towers that are wanted now.
    ///
    /// # Errors
    /// [`EncoderError`]: the parts do not fit each other, or a tower does not load.
    pub fn open(folder: Folder, preparation: Preparation, engine: Engine, options: EncoderOptions) -> Result<Self, EncoderError> {
        check_picture_size(&folder, &preparation)?;
        check_context(&folder, &preparation)?;
        let session = |count| SessionOptions { count, threads: options.threads, spinning: options.spinning };
        let (declared, config) = (folder.declared_dim(), folder.config_dim());
        let tokenizer_context = preparation.text.as_ref().map(|t| t.context_length());
        let context = folder.text().and_then(|t| t.binding().sequence).or(tokenizer_context).or(folder.context_length());
        let (name, fingerprint) = (folder.name().to_owned(), folder.fingerprint().to_owned());
        let (layout, similarity, padding) = (folder.layout(), folder.similarity(), folder.text_padding());
        let (image, text) = folder.into_towers();
        let mut encoder = Self {
            name,
            fingerprint,
            dim: declared.unwrap_or(0),
            layout,
            similarity,
            padding,
            context,
            image: image.map(|model| Loaded::new(Tower::Image, model, session(options.image_sessions))),
            text: text.map(|model| Loaded::new(Tower::Text, model, session(options.text_sessions))),
            preparation,
            engine,
            options,
        };
        encoder.load()?;
        if declared.is_none() {
            encoder.dim = encoder.measured_dim()?.or(config).ok_or(EncoderError::UnknownDimension)?;
        }
        Ok(encoder)
    }

    fn load(&self) -> Result<(), EncoderError> {
        let (image, text) = match self.options.load {
            Load::OnUse => (false, false),
            Load::Now => (true, true),
            Load::ImageNow => (true, false),
            Load::TextNow => (false, true),
        };
        self.image.as_ref().map_or(Ok(()), |tower| tower.load_if(image, &self.engine))?;
        self.text.as_ref().map_or(Ok(()), |tower| tower.load_if(text, &self.engine))
    }

    /// Values that come out of a trial run, for graphs that do not declare it. Text first: it needs no picture size.
    fn measured_dim(&self) -> Result<Option<usize>, EncoderError> {
        if let Some(tower) = &self.text {
            let blank = Tokens { ids: vec![self.pad_id()], truncated: false };
            return self.run_texts(tower, &[&blank]).map(|rows| rows.first().map(Vec::len)).map_err(EncoderError::Trial);
        }
        let Some((tower, (height, width))) = self.image.as_ref().zip(self.picture_size()) else { return Ok(None) };
        let blank = Pixels { values: vec![0.0; 3 * height * width], height, width };
        self.run_pictures(tower, &[&blank]).map(|rows| rows.first().map(Vec::len)).map_err(EncoderError::Trial)
    }

    fn pad_id(&self) -> u32 {
        self.preparation.text.as_ref().map_or(0, |text| text.pad_id())
    }

    fn picture_size(&self) -> Option<(usize, usize)> {
        let binding = self.image.as_ref().map(|tower| tower.model.binding());
        let fixed = binding.and_then(|b| b.height.zip(b.width));
        fixed.or_else(|| self.preparation.picture.as_ref()?.size())
    }

    /// Gives it another name, such as the hub id it was fetched by.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How cosines become scores.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// What it is made of.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description {
            name: self.name.clone(),
            layout: self.layout,
            dim: self.dim,
            fingerprint: self.fingerprint.clone(),
            provider: self.engine.provider_name(),
            similarity: self.similarity,
            image: self.image.as_ref().map(Loaded::describe),
            text: self.text.as_ref().map(Loaded::describe),
            picture_size: self.picture_size(),
            context: self.context,
            padding: self.padding,
        }
    }

    /// One run: pictures of one size.
    fn run_pictures(&self, tower: &Loaded<ImageBinding>, run: &[&Pixels]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let binding = tower.model.binding();
        let Some((first, last)) = run.first().zip(run.last()) else { return Ok(Vec::new()) };
        let rows = binding.batch.unwrap_or(run.len());
        let mut values: Vec<f32> = Vec::with_capacity(rows * first.values.len());
        // A fixed batch that is not full is filled with its last picture; those rows are dropped again.
        for pixels in run.iter().chain(std::iter::repeat(last)).take(rows) {
            values.extend_from_slice(&pixels.values);
        }
        let shape = vec![rows, 3, first.height, first.width];
        let input = floats(&binding.pixels, shape, values).map_err(|e| failed(Tower::Image, e))?;
        self.run(tower, vec![(binding.pixels.name.as_str(), input)], run.len())
    }

    /// One run: captions padded to one length.
    fn run_texts(&self, tower: &Loaded<TextBinding>, run: &[&Tokens]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let binding = tower.model.binding();
        let Some(last) = run.last() else { return Ok(Vec::new()) };
        let rows = binding.batch.unwrap_or(run.len());
        let length = self.padded_length(binding, run);
        let rows_of = || run.iter().chain(std::iter::repeat(last)).take(rows);
        let each = |value: fn(Option<u32>, usize, u32) -> u32| -> Vec<u32> {
            let row = |tokens: &Tokens| (0..length).map(|i| value(tokens.ids.get(i).copied(), i, self.pad_id())).collect();
            rows_of().flat_map(|tokens| -> Vec<u32> { row(tokens) }).collect()
        };
        let mut inputs = vec![(&binding.ids, each(|id, _, pad| id.unwrap_or(pad)))];
        inputs.extend(binding.mask.as_ref().map(|input| (input, each(|id, _, _| u32::from(id.is_some())))));
        inputs.extend(binding.segments.as_ref().map(|input| (input, each(|_, _, _| 0))));
        inputs.extend(binding.positions.as_ref().map(|input| (input, each(|_, i, _| i as u32))));
        let mut fed = Vec::new();
        for (input, values) in inputs {
            let value = integers(input, vec![rows, length], values).map_err(|e| failed(Tower::Text, e))?;
            fed.push((input.name.as_str(), value));
        }
        self.run(tower, fed, run.len())
    }

    fn padded_length(&self, binding: &TextBinding, run: &[&Tokens]) -> usize {
        let longest = run.iter().map(|t| t.ids.len()).max().unwrap_or(0);
        match (binding.sequence, self.padding) {
            (Some(fixed), _) => fixed,
            (None, TextPadding::Context) => longest.max(self.context.unwrap_or(0)),
            (None, TextPadding::Longest) => longest,
        }
    }

    /// Runs a free session and gives the first `keep` rows of what comes out.
    fn run<B>(&self, tower: &Loaded<B>, inputs: Vec<(&str, DynValue)>, keep: usize) -> Result<Vec<Vec<f32>>, EncodeError> {
        let fail = |reason: String| EncodeError::Runtime { tower: tower.tower.name(), reason };
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            inputs.into_iter().map(|(name, value)| (Cow::Borrowed(name), SessionInputValue::from(value))).collect();
        let sessions = tower.sessions(&self.engine).map_err(|e| fail(e.to_string()))?;
        let mut session = sessions.lease();
        let outputs = session.run(inputs).map_err(|e| fail(e.to_string()))?;
        let output = outputs.get(tower.model.output().name.as_str());
        let output = output.ok_or_else(|| fail("the output is missing".to_owned()))?;
        let (shape, values) = extract(output).map_err(|e| fail(e.to_string()))?;
        self.rows(&shape, &values, keep).map_err(fail)
    }

    fn rows(&self, shape: &[i64], values: &[f32], keep: usize) -> Result<Vec<Vec<f32>>, String> {
        let &[count, dim] = shape else { return Err(format!("it gave the shape {shape:?} instead of [batch, values]")) };
        let dim = usize::try_from(dim).ok().filter(|d| *d > 0 && (self.dim == 0 || *d == self.dim));
        let dim = dim.ok_or_else(|| format!("it gave the shape {shape:?}; embeddings of this model have {} values", self.dim))?;
        let rows: Vec<Vec<f32>> = values.chunks_exact(dim).take(keep).map(<[f32]>::to_vec).collect();
        if rows.len() == keep { Ok(rows) } else { Err(format!("it gave {count} rows for {keep} items")) }
    }
}

fn check_picture_size(folder: &Folder, preparation: &Preparation) -> Result<(), EncoderError> {
    let graph = folder.image().and_then(|tower| tower.binding().height.zip(tower.binding().width));
    let made = preparation.picture.as_ref().and_then(|p| p.size());
    match (graph, made) {
        (Some(graph), Some(made)) if graph != made => {
            Err(EncoderError::PictureSize { graph_height: graph.0, graph_width: graph.1, height: made.0, width: made.1 })
        }
        _ => Ok(()),
    }
}

fn check_context(folder: &Folder, preparation: &Preparation) -> Result<(), EncoderError> {
    let graph = folder.text().and_then(|tower| tower.binding().sequence);
    let tokenizer = preparation.text.as_ref().map(|t| t.context_length());
    match (graph, tokenizer) {
        (Some(graph), Some(tokenizer)) if tokenizer > graph => Err(EncoderError::Context { graph, tokenizer }),
        _ => Ok(()),
    }
}

fn failed(tower: Tower, error: impl std::fmt::Display) -> EncodeError {
    EncodeError::Runtime { tower: tower.name(), reason: error.to_string() }
}

impl Encode for Encoder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        let missing = || ImageError::Unsupported { what: format!("encoding pictures: {} has no image tower", self.name) };
        self.preparation.picture.as_ref().ok_or_else(missing)?.prepare(bytes)
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        let missing = || TextError::Tokenizer { reason: format!("{} has no text tower", self.name) };
        self.preparation.text.as_ref().ok_or_else(missing)?.prepare(text)
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        let tower = self.image.as_ref().ok_or(EncodeError::NoTower { tower: "image" })?;
        let binding = tower.model.binding();
        for (item, pixels) in batch.iter().enumerate() {
            check_pixels(binding, pixels).map_err(|e| failed(Tower::Image, format!("item {item} of the batch: {e}")))?;
        }
        let sizes: Vec<(usize, usize)> = batch.iter().map(|p| (p.height, p.width)).collect();
        let max = binding.batch.unwrap_or(self.options.max_image_batch.get());
        in_runs(batch, runs(&sizes, max, |a, b| a == b), |run| self.run_pictures(tower, run))
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        let tower = self.text.as_ref().ok_or(EncodeError::NoTower { tower: "text" })?;
        let binding = tower.model.binding();
        let most = binding.sequence.or(self.context).unwrap_or(usize::MAX);
        for (item, tokens) in batch.iter().enumerate() {
            check_tokens(tokens, most).map_err(|e| failed(Tower::Text, format!("item {item} of the batch: {e}")))?;
        }
        let lengths: Vec<usize> = batch.iter().map(|t| t.ids.len()).collect();
        let max = binding.batch.unwrap_or(self.options.max_text_batch.get());
        in_runs(batch, runs(&lengths, max, |_, _| true), |run| self.run_texts(tower, run))
    }
}
