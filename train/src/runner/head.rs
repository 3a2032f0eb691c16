//! The classifier's first head, and its file.
//!
//! ```text
//!   class names ──prompts──► text tower ──mean, unit length, times the logit scale──► zero-shot head (WiSE-FT)
//!   finetune set ──image tower, frozen──► logistic regression ──► probed head (LP-FT)
//! ```

use std::path::Path;

use anchorite_encoder::{Embedding, Encode, EncoderOptions, Pixels, model::ModelOptions, open};
use anchorite_index::Cancel;
use rayon::prelude::*;

use super::{HeadStart, Machine, Opened, RunConfig, RunError};
use crate::{
    data::{DataError, PairSet},
    eval::{Cache, EvalLimits, HeadMaker, Intercept, Matrix, Probe},
    graph::Tensor,
};

/// Pictures embedded together for a probed head: as many as the encoder runs at once, several times, so that preparing has all cores.
const TOGETHER: usize = 64;

/// What a head is made from.
#[derive(Clone, Copy, Debug)]
pub struct HeadSource<'a> {
    /// The run.
    pub config: &'a RunConfig,
    /// The folder of the model that training starts from.
    pub folder: &'a Path,
    /// The finetune set: its classes, and for a probed head its pictures.
    pub task: &'a PairSet,
    /// What computes.
    pub machine: Machine<'a>,
    /// Ends it.
    pub cancel: &'a Cancel,
}

impl Opened {
    /// Gives a classifier the head that the run file asks for; a run of another loss has none.
    ///
    /// # Errors
    /// [`RunError::Head`]: class prompts that cannot be embedded. [`RunError::Probe`]. [`RunError::Data`]: the rows.
    pub fn give_head(&mut self, from: &HeadSource<'_>) -> Result<(), RunError> {
        if !from.config.is_classifier() {
            return Ok(());
        }
        let threads = from.config.step.threads;
        let options = EncoderOptions { threads, ..EncoderOptions::default() };
        let encoder = open(from.machine.runtime, from.machine.provider, from.folder, &ModelOptions::default(), options)?;
        let head = match from.config.head.start {
            HeadStart::ZeroShot => zero_shot(from, &encoder, self.trainer.logit_scale())?,
            HeadStart::Probe => probe(from, &encoder, self)?,
        };
        Ok(self.trainer.set_head(&head)?)
    }
}

fn tensor(rows: usize, dim: usize, values: &[f32]) -> Result<Tensor, RunError> {
    let made = Tensor::from_f32([rows, dim], values);
    made.ok_or(RunError::Value { field: "task", rule: "has classes with prompts" })
}

fn zero_shot(from: &HeadSource<'_>, encoder: &dyn Encode, scale: f64) -> Result<Tensor, RunError> {
    let limits = EvalLimits::default();
    let maker = HeadMaker { model: &from.config.model, encoder, limits: &limits, cancel: from.cancel };
    let head = maker.head(&from.task.classes, &from.config.task.templates, &mut Cache::in_memory());
    let head = head.map_err(|source| RunError::Head { source: Box::new(source) })?;
    let scaled: Vec<f32> = head.values.iter().map(|&v| (f64::from(v) * scale) as f32).collect();
    tensor(head.rows(), head.dim, &scaled)
}

/// The logistic regression without a constant, since the head has none.
fn probe(from: &HeadSource<'_>, encoder: &dyn Encode, opened: &Opened) -> Result<Tensor, RunError> {
    let mut images = Matrix::new(encoder.dim());
    let spool = &from.task.spool;
    let rows: Vec<usize> = (0..spool.len()).collect();
    for block in rows.chunks(TOGETHER) {
        if from.cancel.is_cancelled() {
            return Err(DataError::Cancelled.into());
        }
        let embedded = encoder.encode_images(&pictures(from.task, block, opened)?).map_err(DataError::from)?;
        embedded.into_iter().map(Embedding::into_vec).for_each(|row| images.push(&row));
    }
    let labels: Vec<usize> = rows.iter().map(|&row| spool.group(row) as usize).collect();
    let classes = from.task.classes.len();
    let fitted = Probe::fit(&images, &labels, classes, from.config.head.l2, Intercept::None);
    if !fitted.converged() {
        return Err(RunError::Probe { l2: from.config.head.l2, gradient: fitted.minimum.gradient });
    }
    let weights: Vec<f32> = fitted.weights().iter().map(|&w| w as f32).collect();
    tensor(classes, encoder.dim(), &weights)
}

/// Rows prepared as the model has it: no random crop, which the regression would see once only.
fn pictures(task: &PairSet, rows: &[usize], opened: &Opened) -> Result<Vec<Pixels>, RunError> {
    let (height, width) = opened.preparer.picture_size();
    let one = |&row: &usize| -> Result<Pixels, DataError> {
        let pair = task.spool.get(row)?;
        let values = opened.preparer.whole(&pair.picture);
        let values = values.map_err(|e| DataError::Row { set: "task", row, reason: e.to_string() })?;
        Ok(Pixels { values, height, width })
    };
    Ok(rows.par_iter().map(one).collect::<Result<_, DataError>>()?)
}
