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
//! Not here: how pictures and captions are prepared. That comes in as [`PreparePicture`] and [`PrepareText`].

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use half::f16;
use ort::session::SessionInputValue;
use ort::value::{DynValue, Tensor};

use crate::model::scan::{ElementType, Port};
use crate::model::{
    Folder, ImageBinding, Input, Layout, ModelError, NotPicked, Similarity, TextBinding, TextPadding, Tower, TowerModel,
};
use crate::session::{Engine, SessionError, SessionOptions, Sessions};
use crate::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};

/// Picture bytes to pixels, as the model's preprocessing file says.
pub trait PreparePicture: Send + Sync {
    /// Decodes, resizes, crops, normalises.
    ///
    /// # Errors
    /// [`ImageError`].
    fn prepare(&self, bytes: &[u8]) -> Result<Pixels, ImageError>;

    /// Rows and columns of what comes out, when they do not depend on the picture.
    fn size(&self) -> Option<(usize, usize)>;
}

/// A caption to tokens, as the model's tokenizer file says.
pub trait PrepareText: Send + Sync {
    /// Cleans, tokenizes, cuts to the context; adds no padding.
    ///
    /// # Errors
    /// [`TextError`].
    fn prepare(&self, text: &str) -> Result<Tokens, TextError>;

    /// The id that fills short captions.
    fn pad_id(&self) -> u32;

    /// The most tokens that `prepare` gives.
    fn context_length(&self) -> usize;
}

/// How inputs are prepared. A part that is missing makes its tower refuse raw input; prepared input still works.
#[derive(Default)]
pub struct Preparation {
    /// For the image tower.
    pub picture: Option<Box<dyn PreparePicture>>,
    /// For the text tower.
    pub text: Option<Box<dyn PrepareText>>,
}

impl std::fmt::Debug for Preparation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |there: bool| if there { "given" } else { "missing" };
        let (picture, text) = (part(self.picture.is_some()), part(self.text.is_some()));
        f.debug_struct("Preparation").field("picture", &picture).field("text", &text).finish()
    }
}

/// When towers are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// On first use: a server that never sees a caption never pays for the text tower. The default.
    #[default]
    OnUse,
    /// Both while opening, so that a model that cannot run is found then.
    Now,
    /// The image tower while opening, the other on use.
    ImageNow,
    /// The text tower while opening, the other on use.
    TextNow,
}

/// How an [`Encoder`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Sessions of the image tower, hence pictures' batches in parallel. Default 1.
    pub image_sessions: NonZeroUsize,
    /// Sessions of the text tower. Default 1.
    pub text_sessions: NonZeroUsize,
    /// Threads inside one run. Default 0, all cores; ingest does better with one session a core and 1 here.
    pub threads: usize,
    /// Whether idle threads spin. Default no: it starves a server's other threads.
    pub spinning: bool,
    /// Pictures a run. Default 16: more adds latency and memory, not speed.
    pub max_image_batch: NonZeroUsize,
    /// Captions a run. Default 32.
    pub max_text_batch: NonZeroUsize,
    /// When towers are loaded.
    pub load: Load,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        let count = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Self {
            image_sessions: count(1),
            text_sessions: count(1),
            threads: 0,
            spinning: false,
            max_image_batch: count(16),
            max_text_batch: count(32),
            load: Load::OnUse,
        }
    }
}

/// Why an encoder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// A tower's file changed or cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// ONNX Runtime does not take a tower.
    #[error("the {tower} tower: {source}")]
    Session {
        /// Which tower.
        tower: Tower,
        /// Why.
        source: SessionError,
    },
    /// The preprocessing file belongs to another model.
    #[error(
        "the image tower takes pictures of {graph_height} x {graph_width}, but the preprocessing file makes {height} x {width}; \
         take the preprocessing file that came with this model"
    )]
    PictureSize {
        /// Rows the graph fixes.
        graph_height: usize,
        /// Columns the graph fixes.
        graph_width: usize,
        /// Rows that come out of preprocessing.
        height: usize,
        /// Columns that come out of preprocessing.
        width: usize,
    },
    /// The tokenizer gives more tokens than the graph takes.
    #[error("the text tower takes {graph} tokens, but the tokenizer gives up to {tokenizer}; set its maximum length to {graph}")]
    Context {
        /// Tokens the graph fixes.
        graph: usize,
        /// Tokens that may come out of the tokenizer.
        tokenizer: usize,
    },
    /// Nothing says how many values an embedding has.
    #[error("neither the graphs nor config.json say how many values an embedding has; add \"projection_dim\" to config.json")]
    UnknownDimension,
    /// A trial run failed.
    #[error("a trial run failed: {0}")]
    Trial(EncodeError),
}

/// What an encoder is made of, for `doctor` and `model check`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    /// Folder or hub id.
    pub name: String,
    /// How the files lie.
    pub layout: Layout,
    /// Values per embedding.
    pub dim: usize,
    /// Hex SHA-256 over everything that decides an embedding.
    pub fingerprint: String,
    /// Where it computes.
    pub provider: String,
    /// How cosines become scores.
    pub similarity: Similarity,
    /// The image tower, if there is one.
    pub image: Option<TowerDescription<ImageBinding>>,
    /// The text tower, if there is one.
    pub text: Option<TowerDescription<TextBinding>>,
    /// Rows and columns of a prepared picture, if they are fixed.
    pub picture_size: Option<(usize, usize)>,
    /// The most tokens of a caption, if that is known.
    pub context: Option<usize>,
    /// How far captions are padded where the graph leaves it open.
    pub padding: TextPadding,
}

/// One tower of a [`Description`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TowerDescription<B> {
    /// The model file, relative to the folder.
    pub file: String,
    /// What goes in.
    pub input: B,
    /// What comes out.
    pub output: Port,
    /// Sessions in its pool.
    pub sessions: usize,
    /// Whether it has been loaded.
    pub loaded: bool,
    /// Whether an embedding depends slightly on what else is in its batch (dynamic quantization).
    pub batch_sensitive: bool,
    /// Why the last layer is computed for all tokens; none where it is for the picked one only.
    pub whole_last_layer: Option<NotPicked>,
}

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

fn floats(input: &Input, shape: Vec<usize>, values: Vec<f32>) -> ort::Result<DynValue> {
    match input.element {
        ElementType::F16 => {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
        _ => Tensor::from_array((shape, values)).map(Tensor::into_dyn),
    }
}

fn integers(input: &Input, shape: Vec<usize>, values: Vec<u32>) -> ort::Result<DynValue> {
    match input.element {
        ElementType::I32 => {
            // Ids beyond a vocabulary of 2^31 do not exist; ONNX Runtime refuses the negative number they become.
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
        _ => {
            let values: Vec<i64> = values.into_iter().map(i64::from).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
    }
}

fn extract(output: &DynValue) -> ort::Result<(Vec<i64>, Cow<'_, [f32]>)> {
    if let Ok((shape, values)) = output.try_extract_tensor::<f16>() {
        return Ok((shape.to_vec(), values.iter().map(|v| v.to_f32()).collect()));
    }
    let (shape, values) = output.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), Cow::Borrowed(values)))
}

/// Positions of `keys` in an order in which equal ones are neighbours, cut where `together` says or a run is full.
fn runs<K: Ord>(keys: &[K], max: usize, together: fn(&K, &K) -> bool) -> (Vec<usize>, Vec<Range<usize>>) {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| &keys[i]);
    let mut ranges = Vec::new();
    let mut start = 0;
    for end in 1..=order.len() {
        let full = end - start == max;
        if end == order.len() || full || !together(&keys[order[end - 1]], &keys[order[end]]) {
            ranges.push(start..end);
            start = end;
        }
    }
    (order, ranges)
}

/// Runs a batch in its runs, and puts the rows back into the order of the batch.
fn in_runs<T>(
    batch: &[T],
    (order, ranges): (Vec<usize>, Vec<Range<usize>>),
    mut run: impl FnMut(&[&T]) -> Result<Vec<Vec<f32>>, EncodeError>,
) -> Result<Vec<Embedding>, EncodeError> {
    let mut embeddings: Vec<Option<Embedding>> = vec![None; batch.len()];
    for range in ranges {
        let items = &order[range];
        let rows = run(&items.iter().map(|&item| &batch[item]).collect::<Vec<_>>())?;
        for (&item, row) in items.iter().zip(rows) {
            let made = Embedding::normalized(row).map_err(|source| EncodeError::Embedding { item, source })?;
            embeddings[item] = Some(made);
        }
    }
    Ok(embeddings.into_iter().map(|e| e.expect("the runs cover the batch, and each gives a row an item")).collect())
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

fn check_pixels(binding: &ImageBinding, pixels: &Pixels) -> Result<(), String> {
    let (height, width) = (pixels.height, pixels.width);
    let fits = |fixed: Option<usize>, found: usize| found > 0 && fixed.is_none_or(|f| f == found);
    if !fits(binding.height, height) || !fits(binding.width, width) {
        let show = |fixed: Option<usize>| fixed.map_or("any".to_owned(), |f| f.to_string());
        let (rows, columns) = (show(binding.height), show(binding.width));
        return Err(format!("{height} x {width} pixels where the model takes {rows} x {columns}"));
    }
    let values = height.checked_mul(width).and_then(|area| area.checked_mul(3));
    if values == Some(pixels.values.len()) {
        return Ok(());
    }
    Err(format!("{} values for 3 x {height} x {width} pixels", pixels.values.len()))
}

fn check_tokens(tokens: &Tokens, most: usize) -> Result<(), String> {
    match tokens.ids.len() {
        0 => Err("no tokens; a caption has at least its end mark".to_owned()),
        found if found > most => Err(format!("{found} tokens where the model takes at most {most}")),
        _ => Ok(()),
    }
}
