//! The loop. It knows no files but its own: metrics and checkpoints.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anchorite_index::Cancel;

use super::{
    Engine, RunConfig, RunError,
    metrics::{Metrics, MetricsWriter},
};
use crate::{
    checkpoint::{Checkpoints, Identity},
    data::{Batch, DataError, Prefetch, Streams},
    optim::Schedule,
    step::{StepError, StepReport, TrainState},
};

/// A run that is ready.
pub struct Job<'a> {
    /// The run file.
    pub config: &'a RunConfig,
    /// Fingerprint of the model that training starts from.
    pub model: &'a str,
    /// All batches.
    pub streams: Arc<Streams>,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// Ends the run after the step at hand, with a checkpoint.
    pub cancel: &'a Cancel,
    /// Hears of steps and checkpoints.
    pub told: &'a dyn Fn(&Told<'_>),
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("config", self.config).field("resume", &self.resume).finish_non_exhaustive()
    }
}

/// What happens on the way.
#[derive(Debug)]
pub enum Told<'a> {
    /// A step was made.
    Step {
        /// What it did.
        metrics: &'a Metrics,
        /// Steps of the run.
        steps: u64,
        /// Time to the end at the mean pace so far.
        left: Duration,
    },
    /// A checkpoint is on disk.
    Saved(&'a Path),
    /// Training went on from a checkpoint.
    Resumed(u64),
    /// Something a person should know.
    Note(&'a str),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Done {
        /// Steps.
        steps: u64,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// Cancelled; the checkpoint is where it goes on.
    Interrupted {
        /// Steps done.
        step: u64,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

impl RunConfig {
    /// Optimizer steps of the run, when an epoch has so many batches.
    #[must_use]
    pub fn total_steps(&self, batches_per_epoch: u64) -> u64 {
        let per_step = self.accumulate as u64;
        self.steps.unwrap_or_else(|| (self.epochs * batches_per_epoch / per_step).max(1))
    }
}

/// Trains to the end, or until cancelled, with checkpoints on the way.
///
/// # Errors
/// [`RunError`]. Data that fails while training leaves a checkpoint of the step before; a step that fails leaves the last one.
pub fn train(job: &Job<'_>, engine: &mut dyn Engine) -> Result<Ended, RunError> {
    let config = job.config;
    let steps = config.total_steps(job.streams.per_epoch());
    let generation = job.streams.generation();
    let identity = Identity { generation, ..Identity::new(config, job.model, &job.streams.fingerprint(), steps) };
    let checkpoints = Checkpoints::of(&config.output, config.checkpoint.keep, identity);
    let first = start(job, engine, &checkpoints)?;
    let accumulate = config.accumulate as u64;
    let streams = Arc::clone(&job.streams);
    let make = move |number| streams.batch(number);
    let range = first * accumulate..steps * accumulate;
    let metrics = MetricsWriter::open(&config.output, first, config.log.tensorboard)?;
    let looping = Loop {
        job,
        engine,
        checkpoints,
        metrics,
        prefetch: Prefetch::start(range, config.data.workers, config.data.prefetch, make),
        rates: config.schedule.over(steps),
        pace: Pace::start(),
        first,
        steps,
        saved: (first > 0).then_some(first),
    };
    looping.run()
}

/// Puts the state of the newest checkpoint back, if the run is to go on; the step to go on from.
fn start(job: &Job<'_>, engine: &mut dyn Engine, checkpoints: &Checkpoints) -> Result<u64, RunError> {
    let output = &job.config.output;
    if !job.resume {
        return match checkpoints.steps()?.last() {
            Some(&step) => Err(RunError::Exists { path: output.clone(), step }),
            None => Ok(0),
        };
    }
    let found = checkpoints.latest()?.ok_or_else(|| RunError::NothingToResume { path: output.clone() })?;
    found.damaged.iter().for_each(|what| (job.told)(&Told::Note(&format!("passed over: {what}"))));
    let step = found.state.step;
    engine.restore(&found.state)?;
    (job.told)(&Told::Resumed(step));
    Ok(step)
}

struct Loop<'a, 'j> {
    job: &'a Job<'j>,
    engine: &'a mut dyn Engine,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    prefetch: Prefetch<Batch>,
    rates: Schedule,
    pace: Pace,
    first: u64,
    steps: u64,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
}

impl Loop<'_, '_> {
    fn run(mut self) -> Result<Ended, RunError> {
        let mut step = self.first;
        while step < self.steps {
            if self.job.cancel.is_cancelled() {
                return self.interrupted(step);
            }
            let batches = match self.batches() {
                Ok(batches) => batches,
                Err(DataError::Cancelled) if self.job.cancel.is_cancelled() => return self.interrupted(step),
                Err(source) => {
                    let path = self.save(step)?;
                    return Err(RunError::DataWhileTraining { step, path, source: Box::new(source) });
                }
            };
            let streams: Vec<_> = batches.into_iter().map(|batch| batch.streams).collect();
            let report = match self.engine.step(&streams, self.rates.rate(step), self.job.cancel) {
                Ok(report) => report,
                Err(StepError::Cancelled) => return self.interrupted(step),
                Err(source) => return Err(RunError::Step { step: step + 1, source: Box::new(source), last: self.last() }),
            };
            step += 1;
            self.tell(step, &report)?;
            if step.is_multiple_of(self.job.config.checkpoint.every) || step == self.steps {
                self.save(step)?;
            }
        }
        let checkpoint = self.checkpoints.path(self.steps);
        Ok(Ended::Done { steps: self.steps, checkpoint })
    }

    fn batches(&mut self) -> Result<Vec<Batch>, DataError> {
        let mut batches = Vec::with_capacity(self.job.config.accumulate);
        for _ in 0..self.job.config.accumulate {
            let next = self.prefetch.take()?.ok_or(DataError::Cancelled)?;
            self.pace.waiting += next.waited;
            batches.push(next.item);
        }
        Ok(batches)
    }

    fn tell(&mut self, step: u64, report: &StepReport) -> Result<(), RunError> {
        self.pace.examples += report.pairs;
        if !step.is_multiple_of(self.job.config.log.every) && step != self.steps {
            return Ok(());
        }
        let batches = step * self.job.config.accumulate as u64;
        let (seconds, waiting, examples_per_second) = self.pace.lap();
        let metrics = Metrics {
            step,
            epoch: batches as f64 / self.job.streams.per_epoch() as f64,
            loss: report.loss,
            losses: report.streams.iter().map(|s| (s.name.clone(), s.loss)).collect(),
            rate: self.rates.rate(step - 1),
            grad_norm: report.gradient_norm,
            logit_scale: report.logit_scale,
            logit_bias: report.logit_bias,
            seconds,
            examples_per_second,
            waiting,
        };
        self.metrics.write(&metrics)?;
        let left = self.pace.left(step - self.first, self.steps - step);
        (self.job.told)(&Told::Step { metrics: &metrics, steps: self.steps, left });
        Ok(())
    }

    fn last(&self) -> Option<PathBuf> {
        self.saved.map(|step| self.checkpoints.path(step))
    }

    fn save(&mut self, step: u64) -> Result<PathBuf, RunError> {
        if self.saved == Some(step) {
            return Ok(self.checkpoints.path(step));
        }
        let state = self.engine.state();
        let saved = self.checkpoints.save(&TrainState { step, ..state });
        let path = saved.map_err(|source| RunError::Save { step, last: self.last(), source: Box::new(source) })?;
        self.saved = Some(step);
        (self.job.told)(&Told::Saved(&path));
        Ok(path)
    }

    fn interrupted(mut self, step: u64) -> Result<Ended, RunError> {
        let checkpoint = self.save(step)?;
        Ok(Ended::Interrupted { step, checkpoint })
    }
}

/// How fast it goes.
struct Pace {
    begun: Instant,
    lap: Instant,
    waiting: Duration,
    examples: usize,
}

impl Pace {
    fn start() -> Self {
        let now = Instant::now();
        Self { begun: now, lap: now, waiting: Duration::ZERO, examples: 0 }
    }

    /// Seconds, share of waiting, and examples a second since the last lap.
    fn lap(&mut self) -> (f64, f64, f64) {
        let now = Instant::now();
        let seconds = (now - self.lap).as_secs_f64().max(1e-9);
        let lap = (seconds, self.waiting.as_secs_f64() / seconds, self.examples as f64 / seconds);
        *self = Self { begun: self.begun, lap: now, waiting: Duration::ZERO, examples: 0 };
        lap
    }

    fn left(&self, done: u64, left: u64) -> Duration {
        self.begun.elapsed().div_f64(done.max(1) as f64).mul_f64(left as f64)
    }
}
