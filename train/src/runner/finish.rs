//! The end of a run: the trained towers as a model folder, compared with the live ones.

use std::path::{Path, PathBuf};

use anchorite_encoder::{
    EncoderOptions, Pixels, Tokens,
    model::{Dtype, ModelOptions},
    open,
};
use anchorite_index::Cancel;

use super::{METRICS_FILE, Machine, Opened, RunConfig, RunError, Start};
use crate::{
    data::Streams,
    export::{
        CLASSES_FILE, CLASSIFIER_FILE, Card, ClassifierHead, ExportError, ExportJob, HEAD_FILE, Live, TOLERANCE, TOLERANCE_F16,
        TowerFile, compare, compare_classifier, export,
    },
    step::{Pictures, StreamBatch},
};

/// The exported model's folder in a run's folder.
const FOLDER: &str = "model";
/// Pairs that the written model is compared on: the shapes of a batch and of a part of one.
const PROBES: usize = 20;

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The model's folder.
    pub model: PathBuf,
    /// Greatest difference of a component between written and live embeddings.
    pub difference: f32,
}

/// Exports what `opened` has become after `steps`.
///
/// # Errors
/// [`RunError::Export`], [`RunError::Train`], [`RunError::Data`].
pub fn finish(
    config: &RunConfig,
    (source, opened, streams): (&Path, &mut Opened, &Streams),
    steps: u64,
    machine: Machine<'_>,
    cancel: &Cancel,
) -> Result<Finished, RunError> {
    let live = live(opened, streams, cancel)?;
    let (vision, text) = opened.trainer.export_towers()?;
    let job = ExportJob {
        source,
        vision: TowerFile { file: opened.vision_file.clone(), model: vision },
        text: TowerFile { file: opened.text_file.clone(), model: text },
        logit_scale: opened.trainer.logit_scale(),
        logit_bias: opened.trainer.logit_bias(),
        head: head(opened, streams),
        f16: config.export.f16,
        card: card(config, opened, streams, steps, machine)?,
    };
    let difference = std::cell::Cell::new(0.0);
    let check = |folder: &Path| {
        difference.set(reopened(folder, Dtype::Plain, machine, &live, TOLERANCE)?);
        if config.export.f16 {
            reopened(folder, Dtype::Fp16, machine, &live, TOLERANCE_F16)?;
        }
        if let Some(head) = &job.head {
            let engine = anchorite_encoder::engine(machine.runtime, machine.provider);
            compare_classifier(folder, &engine, &live, head, TOLERANCE)?;
        }
        Ok(())
    };
    let model = export(&job, &config.output.join(FOLDER), &check)?;
    Ok(Finished { model, difference: difference.get() })
}

fn head(opened: &Opened, streams: &Streams) -> Option<ClassifierHead> {
    let (classes, embedding) = (streams.task().classes.clone(), opened.image_output.clone());
    opened.trainer.head().map(|weights| ClassifierHead { classes, weights, embedding })
}

/// Opens the written model as every other command does, and compares.
fn reopened(folder: &Path, dtype: Dtype, machine: Machine<'_>, live: &Live, tolerance: f32) -> Result<f32, ExportError> {
    let options = ModelOptions { image_dtype: dtype, text_dtype: dtype, ..ModelOptions::default() };
    let encoder = open(machine.runtime, machine.provider, folder, &options, EncoderOptions::default())?;
    compare(&encoder, live, tolerance)
}

/// Some pairs of the finetune set and what the live towers make of them.
fn live(opened: &mut Opened, streams: &Streams, cancel: &Cancel) -> Result<Live, RunError> {
    let batch = streams.batch(0)?;
    let Some(task) = batch.streams.into_iter().next() else { return Ok(Live::default()) };
    let (height, width) = opened.preparer.picture_size();
    let (values, tokens) = (3 * height * width, opened.preparer.tokens());
    let pairs = task.pairs.min(PROBES);
    let probe = StreamBatch { pairs, groups: None, ..cut(task, pairs, values, tokens) };
    let trainer = &mut opened.trainer;
    let embedded = trainer.embeddings(std::slice::from_ref(&probe), cancel.flag());
    let [images, captions] = embedded
        .map_err(|source| RunError::Step { step: trainer.steps_done(), source: Box::new(source), last: None })?
        .map(|all| unit(&all, pairs));
    let Pictures::Own(pixels) = &probe.pictures else { return Ok(Live::default()) };
    let pictures = pixels.chunks_exact(values).map(|v| Pixels { values: v.to_vec(), height, width }).collect();
    let texts = (0..pairs).map(|row| tokens_of(&probe, row, tokens)).collect();
    Ok(Live { pictures, texts, images, captions })
}

fn cut(task: StreamBatch, pairs: usize, values: usize, tokens: usize) -> StreamBatch {
    let pictures = match task.pictures {
        Pictures::Own(mut pixels) => {
            pixels.truncate(pairs * values);
            Pictures::Own(pixels)
        }
        other => other,
    };
    let short = |mut list: Vec<i64>| {
        list.truncate(pairs * tokens);
        list
    };
    StreamBatch { pictures, tokens: short(task.tokens), mask: task.mask.map(short), ..task }
}

/// A text's ids with as much padding as it was trained with, unless a mask says what is padding.
fn tokens_of(probe: &StreamBatch, row: usize, tokens: usize) -> Tokens {
    let range = row * tokens..(row + 1) * tokens;
    let used = probe.mask.as_ref().map_or(tokens, |mask| mask[range.clone()].iter().filter(|m| **m == 1).count());
    let ids = probe.tokens[range].iter().take(used).map(|&id| id as u32).collect();
    Tokens { ids, truncated: false }
}

fn unit(all: &[f32], rows: usize) -> Vec<Vec<f32>> {
    let dim = all.len() / rows.max(1);
    let row = |row: &[f32]| {
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|v| (f64::from(*v) / length) as f32).collect()
    };
    all.chunks_exact(dim.max(1)).map(row).collect()
}

fn card(config: &RunConfig, opened: &Opened, streams: &Streams, steps: u64, machine: Machine<'_>) -> Result<Card, RunError> {
    let (task, estimate) = (streams.task(), opened.trainer.estimate(config.rows())?);
    let metrics = std::fs::read_to_string(config.output.join(METRICS_FILE)).unwrap_or_default();
    Ok(Card {
        base: config.model.clone(),
        base_fingerprint: opened.fingerprint.clone(),
        command: if config.start == Start::Random { "pretrain" } else { "finetune" },
        run: config.to_toml(),
        steps,
        data: format!(
            "{} pairs, {} classes or captions, {} rows unusable, SHA-256 `{}`",
            task.spool.len(),
            task.spool.groups(),
            task.rejected,
            task.spool.fingerprint()
        ),
        anchors: streams.anchors().map(|a| format!("{}; `{}`", a.describe(), a.fingerprint())),
        last: metrics.lines().last().unwrap_or_default().to_owned(),
        runtime: format!("{}, {}", machine.runtime.version(), machine.provider),
        head: opened.trainer.head().map(|head| {
            format!("`{HEAD_FILE}`, {}; classes in `{CLASSES_FILE}`; with the image tower `{CLASSIFIER_FILE}`", head.kind())
        }),
        parameters: format!("{} trained of {}", estimate.trained, estimate.parameters),
    })
}
