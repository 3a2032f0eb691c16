//! A model folder to what a run works with: a trainer, and how pictures and texts are prepared.

use std::{path::Path, sync::Arc};

use anchorite_encoder::{
    OpenError,
    image::Preprocess,
    model::{Folder, ModelOptions, SimilarityKind, TowerModel},
    runtime::{Provider, Runtime},
    text::{Tokenizer, TokenizerOptions},
};

use super::{RunConfig, RunError, Start, initial::from_noise};
use crate::{
    Limits,
    data::Preparer,
    graph::widen,
    step::{InputSizes, Plan, Towers, Trainer},
};

/// CLIP's logit scale before training, as a logarithm: ln(1 / 0.07).
const FIRST_LOG_SCALE: f32 = 2.659_26;

/// ONNX Runtime and where it computes.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The loaded library.
    pub runtime: &'a Runtime,
    /// What computes.
    pub provider: Provider,
}

/// A model ready for training.
#[derive(Debug)]
pub struct Opened {
    /// Gradients and the optimizer.
    pub trainer: Trainer,
    /// Pictures and texts to what towers take.
    pub preparer: Arc<Preparer>,
    /// Fingerprint of the folder.
    pub fingerprint: String,
    /// The image tower's file, relative to the folder.
    pub vision_file: String,
    /// The text tower's file.
    pub text_file: String,
    /// The image tower's output that is its embedding.
    pub image_output: String,
}

impl Opened {
    /// Opens the model in `dir` as the run file wants it trained. The provider is checked before anything is read.
    ///
    /// # Errors
    /// [`RunError::Model`]: provider, files. [`RunError::Train`]: a tower that cannot be trained, by node and operator.
    pub fn open(dir: &Path, config: &RunConfig, machine: Machine<'_>) -> Result<Self, RunError> {
        machine.runtime.check_provider(machine.provider).map_err(OpenError::from)?;
        let folder = Folder::open(dir, &ModelOptions::default()).map_err(OpenError::from)?;
        let limits = Limits::default();
        let mut towers = Towers::open(&folder, &limits)?;
        let stated = match config.start {
            Start::Given => folder.similarity().kind,
            Start::Random => SimilarityKind::Softmax,
        };
        towers.vision.model = widen(towers.vision.model);
        towers.text.model = widen(towers.text.model);
        if config.start == Start::Random {
            towers.vision.model = from_noise(&towers.vision.model, config.seed, 0);
            towers.text.model = from_noise(&towers.text.model, config.seed, 1);
            (towers.log_scale, towers.bias) = (FIRST_LOG_SCALE, 0.0);
        }
        let towers = towers.for_objective(config.step.objective, stated);
        let binding = folder.text().map(TowerModel::binding);
        let fixed = binding.and_then(|b| b.sequence);
        let context_length = fixed.or(config.tokens);
        let text = TokenizerOptions { context_length, ..TokenizerOptions::default() };
        let text = Tokenizer::find_with(dir, &text).map_err(OpenError::from)?;
        let picture = Preprocess::find(dir).map_err(OpenError::from)?;
        let masked = binding.is_some_and(|b| b.mask.is_some());
        let preparer = Arc::new(Preparer::new(picture, text, config.augment, masked));
        let (height, width) = preparer.picture_size();
        let sizes = InputSizes { height, width, tokens: preparer.tokens() };
        let plan = Plan { seed: config.seed, ..config.step.clone() };
        let engine = anchorite_encoder::engine(machine.runtime, machine.provider);
        let file = |name: Option<&str>| name.unwrap_or_default().to_owned();
        Ok(Self {
            trainer: Trainer::new(towers, &plan, sizes, &engine, &limits)?,
            preparer,
            fingerprint: folder.fingerprint().to_owned(),
            vision_file: file(folder.image().map(TowerModel::file)),
            text_file: file(folder.text().map(TowerModel::file)),
            image_output: file(folder.image().map(|tower| tower.output().name.as_str())),
        })
    }
}
