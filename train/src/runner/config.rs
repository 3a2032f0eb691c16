//! The run file: everything that decides what a run does, as data. A run file, its data and its model give one result.
//!
//! Read from TOML; a field that is not known is refused, a field that is left out has the default written here. Paths are taken
//! from the folder the program is started in.

use std::path::{Path, PathBuf};

use anchorite_anchors::{Policy, policy::Templates};
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::{
    optim,
    step::{Objective, Plan},
};

/// A run in full. [`RunConfig::default`] is FLYP's recipe, less what must be named: model, data, output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The model that training starts from: a folder in one of the encoder's layouts, or a hub id.
    pub model: String,
    /// The run's folder: metrics, checkpoints, and at the end the model.
    pub output: PathBuf,
    /// Decides every order, draw and initial weight. Default 0.
    pub seed: u64,
    /// Passes over the finetune set, where `steps` does not say otherwise. Default 10, as FLYP trains.
    pub epochs: u64,
    /// Optimizer steps. Default: as many as `epochs` have.
    pub steps: Option<u64>,
    /// Pairs of the finetune set a step. Default 128; FLYP has 512, which the gradient cache allows on any memory.
    pub batch: usize,
    /// Batches whose gradients are added up before the optimizer moves. Default 1: a larger batch is better than several.
    pub accumulate: usize,
    /// Tokens of a caption, special ones included; longer ones are cut. Default: as many as the model takes.
    pub tokens: Option<usize>,
    /// Where weights start.
    pub start: Start,
    /// The finetune set.
    pub task: Task,
    /// A second caption for the finetune set's pictures (TCAG). Default: none.
    pub captions: Option<Captions>,
    /// Pairs that keep what the model knew (ITAR). Default: none.
    pub anchors: Option<Anchors>,
    /// Random resized crops. Default: none; the picture as the model's own preprocessing has it.
    pub augment: Option<Augment>,
    /// The classifier's head, where `step.objective` is `classifier`.
    pub head: Head,
    /// What a step computes: losses, which parameters, optimizer, memory. Its seed is the run's.
    pub step: Plan,
    /// The learning rate over the run.
    pub schedule: Schedule,
    /// How data is read.
    pub data: Data,
    /// What is kept for going on.
    pub checkpoint: Checkpoints,
    /// What is told.
    pub log: Log,
    /// What comes out.
    pub export: Export,
}

/// What the classifier's head starts as.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Head {
    /// From class prompts or from the finetune set.
    pub start: HeadStart,
    /// Weight decay of the probe: `mean cross-entropy + l2 / 2 |W|^2`. Default 1e-4: on unit embeddings, whose logits must reach ten or
    /// more, little enough not to hold them back.
    pub l2: f64,
}

/// Where the classifier's head comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    /// The mean embedding of a class's prompts times the logit scale, as WiSE-FT starts.
    #[default]
    ZeroShot,
    /// Logistic regression on the frozen image tower's embeddings of the finetune set, as LP-FT (Kumar et al. 2022) starts.
    Probe,
}

impl Default for Head {
    fn default() -> Self {
        Self { start: HeadStart::default(), l2: 1e-4 }
    }
}

/// Where weights start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// From the model as it is.
    #[default]
    Given,
    /// From noise in the model's shapes.
    Random,
}

/// The finetune set: pictures with a class or a caption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Task {
    /// Files, folders and patterns, as `anchorite ingest` reads them.
    pub sources: Vec<PathBuf>,
    /// What is paired with a picture. Default: a prompt of its class.
    pub text: TaskText,
    /// The column of classes: names, or numbers into `class_names`. Default `label`.
    pub label: String,
    /// The classes' names by number, where `label` holds numbers.
    pub class_names: Vec<String>,
    /// A file with a class name a line, instead of `class_names`.
    pub class_names_file: Option<PathBuf>,
    /// Prompts around a class name; each sample draws one. Default: OpenAI's 80, as FLYP has it.
    pub templates: Templates,
    /// The column of pictures. Default: found by name and type.
    pub image: Option<String>,
    /// The column of captions, for `text = "caption"`. Default: found by name.
    pub caption: Option<String>,
    /// The column that `captions.file` names pictures by.
    pub key: Option<String>,
    /// Only rows whose column of this name has one of these values, as `{ split = ["train"] }`. Default: all rows.
    pub only: crate::data::Only,
    /// The loss's weight. Default 1.
    pub weight: f64,
    /// What two pictures of one class are to each other in a batch. Default `negatives`, as FLYP has it.
    pub same_class: SameClass,
}

/// What is paired with a picture of the finetune set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskText {
    /// A prompt of its class.
    #[default]
    Class,
    /// Its caption.
    Caption,
}

/// What two pairs of one class (or one caption) are to each other in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SameClass {
    /// Negatives, like any other two.
    #[default]
    Negatives,
    /// What `step.same_group` says.
    Grouped,
}

impl Default for Task {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            text: TaskText::Class,
            label: "label".to_owned(),
            class_names: Vec::new(),
            class_names_file: None,
            templates: Templates::default(),
            image: None,
            caption: None,
            key: None,
            only: crate::data::Only::new(),
            weight: 1.0,
            same_class: SameClass::default(),
        }
    }
}

/// Captions for the finetune set's pictures: from one of its columns, or from a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Captions {
    /// A column of the finetune set.
    pub column: Option<String>,
    /// A table (parquet, CSV, TSV, JSON lines) of captions; `task.key` names the pictures in it.
    pub file: Option<PathBuf>,
    /// The file's column of keys. Default `key`.
    pub file_key: String,
    /// The file's column of captions; a key may have several rows, of which each sample draws one. Default `caption`.
    pub file_caption: String,
    /// The loss's weight, lambda_cap. Default 1.
    pub weight: f64,
}

impl Default for Captions {
    fn default() -> Self {
        let (file_key, file_caption) = ("key".to_owned(), "caption".to_owned());
        Self { column: None, file: None, file_key, file_caption, weight: 1.0 }
    }
}

/// Where anchors come from: a manifest with a pool, a pool asked on demand, or a server asked on demand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anchors {
    /// A manifest of `anchorite anchors`; its pictures are read from `pool`.
    pub manifest: Option<PathBuf>,
    /// A pool: the manifest's, or the one that is asked while training.
    pub pool: Option<PathBuf>,
    /// A server that is asked while training, such as `http://127.0.0.1:7801`.
    pub server: Option<String>,
    /// The server's pool. Default: its only one.
    pub server_pool: Option<String>,
    /// The file that holds the server's key. Default: none.
    pub server_key_file: Option<PathBuf>,
    /// On demand: which pairs are anchors of a picture. Default: the four nearest pictures.
    pub policy: Policy,
    /// On demand: the model that filled the pool. Default: the one that training starts from.
    pub encoder: Option<String>,
    /// Anchors a step. Default: as many as `batch`.
    pub batch: Option<usize>,
    /// The loss's weight, lambda_ret. Default 1.
    pub weight: f64,
    /// What two anchors of one caption are to each other in a batch. Default `grouped`: they are the same words.
    pub same_caption: SameClass,
    /// Seconds that one request may take. Default 60: a batch of 512 queries with pictures takes a few.
    pub timeout_s: f64,
    /// Times that a request is made again before the run stops with a checkpoint; the first pause is half a second, each next twice the last.
    /// Default 5, together 15 seconds: a server that is restarted is back by then.
    pub retries: u32,
    /// Go on when the server's pool changes while training. Default no: such a run cannot be repeated.
    pub follow_generations: bool,
}

impl Default for Anchors {
    fn default() -> Self {
        Self {
            manifest: None,
            pool: None,
            server: None,
            server_pool: None,
            server_key_file: None,
            policy: Policy::default(),
            encoder: None,
            batch: None,
            weight: 1.0,
            same_caption: SameClass::Grouped,
            timeout_s: 60.0,
            retries: 5,
            follow_generations: false,
        }
    }
}

/// open_clip's random resized crop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Least and most share of the picture's area. Default 0.9 to 1, open_clip's own.
    pub scale: (f64, f64),
    /// Least and most ratio of width to height. Default 3/4 to 4/3, open_clip's own.
    pub ratio: (f64, f64),
}

impl Default for Augment {
    fn default() -> Self {
        Self { scale: (0.9, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) }
    }
}

/// The learning rate over the run: linear warm-up, then a cosine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The rate after warm-up. Default 1e-5, FLYP's.
    pub rate: f64,
    /// Steps of warm-up. Default: 500, FLYP's, but no more than a tenth of the run.
    pub warmup: Option<u64>,
    /// The rate at the end. Default 0.
    pub last_rate: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { rate: 1e-5, warmup: None, last_rate: 0.0 }
    }
}

/// FLYP's warm-up.
const WARMUP: u64 = 500;

impl Schedule {
    /// The rate of each step of a run of `steps`.
    #[must_use]
    pub fn over(self, steps: u64) -> optim::Schedule {
        let warmup_steps = self.warmup.unwrap_or_else(|| WARMUP.min(steps / 10)).min(steps);
        optim::Schedule { peak: self.rate, warmup_steps, total_steps: steps, floor: self.last_rate }
    }
}

/// How data is read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Threads that make batches. Default 2: the step has the other cores. What they make does not depend on their number.
    pub workers: usize,
    /// Batches made ahead of the step. Default 4: a few seconds of a slow server.
    pub prefetch: usize,
    /// Rows that may be unusable (no picture, a damaged one, no class). Default 0: a set with damage is looked at before it is
    /// trained on. Every picture is decoded once before the first step, so that none ends the run later.
    pub max_rejects: u64,
}

impl Default for Data {
    fn default() -> Self {
        Self { workers: 2, prefetch: 4, max_rejects: 0 }
    }
}

/// What is kept for going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps from one to the next. Default 500.
    pub every: u64,
    /// How many are kept; each has the weights three times. Default 2: one may be found damaged.
    pub keep: usize,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { every: 500, keep: 2 }
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps from one line of `metrics.jsonl` to the next. Default 1.
    pub every: u64,
    /// Whether TensorBoard's event files are written as well. Default yes.
    pub tensorboard: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { every: 1, tensorboard: true }
    }
}

/// What comes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Also write both towers with float16 weights (`*_fp16.onnx`, computed in float32). Default no.
    pub f16: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            output: PathBuf::new(),
            seed: 0,
            epochs: 10,
            steps: None,
            batch: 128,
            accumulate: 1,
            tokens: None,
            start: Start::default(),
            task: Task::default(),
            captions: None,
            anchors: None,
            augment: None,
            head: Head::default(),
            step: Plan::default(),
            schedule: Schedule::default(),
            data: Data::default(),
            checkpoint: Checkpoints::default(),
            log: Log::default(),
            export: Export::default(),
        }
    }
}

impl RunConfig {
    /// Reads a run file and lays `set` over it: each `a.b.c=value`, the value as TOML writes it, or a bare word.
    ///
    /// # Errors
    /// [`RunError::ReadConfig`], [`RunError::Config`] with the line, [`RunError::Set`], [`RunError::Value`].
    pub fn read(path: &Path, set: &[String]) -> Result<Self, RunError> {
        let text = std::fs::read_to_string(path).map_err(|source| RunError::ReadConfig { path: path.to_owned(), source })?;
        let wrong = |e: toml::de::Error| RunError::Config { path: path.to_owned(), reason: e.to_string() };
        // The file alone first: its errors have lines.
        toml::from_str::<Self>(&text).map_err(wrong)?;
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        for assignment in set {
            assign(&mut table, assignment)?;
        }
        let config: Self = toml::Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| RunError::Set { assignment: set.join(" "), reason: e.message().to_owned() })?;
        config.checked()
    }

    /// Itself, if its values are sensible.
    ///
    /// # Errors
    /// [`RunError::Value`], naming the field.
    pub fn checked(self) -> Result<Self, RunError> {
        require(!self.model.is_empty(), "model", "names a model folder or a hub id")?;
        require(!self.output.as_os_str().is_empty(), "output", "names the folder for what comes out")?;
        require(!self.task.sources.is_empty(), "task.sources", "names at least one file or folder")?;
        require(self.batch >= 2, "batch", "is at least 2: a pair alone has nothing to be told from")?;
        require(self.accumulate >= 1, "accumulate", "is at least 1")?;
        require(self.steps.unwrap_or(1) >= 1 && self.epochs >= 1, "steps and epochs", "are at least 1")?;
        require(self.data.workers >= 1, "data.workers", "is at least 1")?;
        require(self.data.prefetch >= 1, "data.prefetch", "is at least 1")?;
        require(self.checkpoint.every >= 1 && self.checkpoint.keep >= 1, "checkpoint.every and keep", "are at least 1")?;
        require(self.log.every >= 1, "log.every", "is at least 1")?;
        let rate = |rate: f64| rate.is_finite() && rate >= 0.0;
        require(rate(self.schedule.rate) && rate(self.schedule.last_rate), "schedule.rate", "is a finite number, not below 0")?;
        require(weight(self.task.weight), "task.weight", WEIGHT)?;
        self.check_captions()?;
        self.check_anchors()?;
        self.augment.map_or(Ok(()), Augment::check)?;
        self.check_classifier()?;
        Ok(self)
    }

    /// Pictures and captions of one batch, over all streams.
    #[must_use]
    pub fn rows(&self) -> [usize; 2] {
        let anchors = self.anchors.as_ref().map_or(0, |anchors| anchors.batch.unwrap_or(self.batch));
        let captions = if self.captions.is_some() { self.batch } else { 0 };
        [self.batch + anchors, self.batch + captions + anchors]
    }

    /// Whether the loss is cross-entropy over a head.
    #[must_use]
    pub fn is_classifier(&self) -> bool {
        self.step.objective == Objective::Classifier
    }

    fn check_classifier(&self) -> Result<(), RunError> {
        require(self.head.l2.is_finite() && self.head.l2 > 0.0, "head.l2", "is a number above 0")?;
        if !self.is_classifier() {
            return Ok(());
        }
        let classes = self.task.text == TaskText::Class && self.captions.is_none() && self.anchors.is_none();
        require(
            classes,
            "step.objective",
            "is a contrastive loss where there are captions or anchors: the classifier has classes only",
        )?;
        require(self.start == Start::Given, "start", "is \"given\" for a classifier: its head is made by the model")
    }

    fn check_captions(&self) -> Result<(), RunError> {
        let Some(captions) = &self.captions else { return Ok(()) };
        let one = captions.column.is_some() != captions.file.is_some();
        require(one, "captions", "has a column or a file, not both")?;
        let keyed = captions.file.is_none() || self.task.key.is_some();
        require(keyed, "task.key", "names the column by which captions.file knows the pictures")?;
        require(weight(captions.weight), "captions.weight", WEIGHT)
    }

    fn check_anchors(&self) -> Result<(), RunError> {
        let Some(anchors) = &self.anchors else { return Ok(()) };
        let sources = (&anchors.manifest, &anchors.pool, &anchors.server);
        let source = matches!(sources, (Some(_), Some(_), None) | (None, Some(_), None) | (None, None, Some(_)));
        require(source, "anchors", "has a manifest with its pool, or a pool, or a server")?;
        require(anchors.batch.is_none_or(|n| n >= 2), "anchors.batch", "is at least 2")?;
        require(weight(anchors.weight), "anchors.weight", WEIGHT)?;
        let timeout = anchors.timeout_s.is_finite() && anchors.timeout_s > 0.0 && anchors.timeout_s <= 86_400.0;
        require(timeout, "anchors.timeout_s", "is above 0 and at most a day")
    }

    /// The run file as TOML, every default written out. Fields without a value are left out, as TOML has none for them.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|e| format!("# cannot be written as TOML: {e}\n"))
    }
}

const WEIGHT: &str = "is a finite number, not below 0";

fn weight(weight: f64) -> bool {
    weight.is_finite() && weight >= 0.0
}

fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), RunError> {
    if holds { Ok(()) } else { Err(RunError::Value { field, rule }) }
}

impl Augment {
    fn check(self) -> Result<(), RunError> {
        let (least, most) = self.scale;
        require(least > 0.0 && least <= most && most <= 1.0, "augment.scale", "is two shares above 0 and at most 1, in order")?;
        let (least, most) = self.ratio;
        require(least > 0.0 && least <= most && most.is_finite(), "augment.ratio", "is two ratios above 0, in order")
    }
}

/// Sets one field of the table: `a.b.c=value`.
fn assign(table: &mut toml::Table, assignment: &str) -> Result<(), RunError> {
    let refuse = |reason: &str| RunError::Set { assignment: assignment.to_owned(), reason: reason.to_owned() };
    let (path, word) = assignment.split_once('=').ok_or_else(|| refuse("give KEY=VALUE, such as schedule.rate=1e-4"))?;
    let value = toml::from_str::<toml::Table>(&format!("v = {word}")).ok().and_then(|mut t| t.remove("v"));
    let value = value.unwrap_or_else(|| toml::Value::String(word.to_owned()));
    let mut names: Vec<&str> = path.trim().split('.').collect();
    let last = names.pop().filter(|name| !name.is_empty()).ok_or_else(|| refuse("the key is empty"))?;
    let mut at = table;
    for name in names {
        let next = at.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(|| refuse("the key goes through a value that is no table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}
