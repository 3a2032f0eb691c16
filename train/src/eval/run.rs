//! All sets of a configuration, for one model after the other, and what they say together.

use std::collections::{BTreeMap, HashMap};

use anchorite_encoder::Encode;
use anchorite_index::Cancel;
use serde::Serialize;

use super::{
    Cache, EvalConfig, EvalError, EvalLimits, Heads, Metric, ModelRecord, ProbeRecord, SetRecord, Task,
    bootstrap::{Bootstrap, Replicates},
    cache,
    config::{ProbeConfig, SetConfig},
    examples::{Examples, Reader},
    head::HeadMaker,
    matrix::Matrix,
    measure::{self, Outcome},
    probe::{Intercept, Probe},
    recall::{self, Ranks},
    targets::{Classes, Targets},
};
use crate::data::only::meant;

/// A model to be measured.
#[derive(Clone, Copy)]
pub struct ModelUnderTest<'a> {
    /// What it is called in tables.
    pub name: &'a str,
    /// The model.
    pub encoder: &'a dyn Encode,
    /// What cosines are multiplied by before the softmax: the exponential of CLIP's `logit_scale`.
    pub scale: f64,
    /// Whether `scale` is assumed.
    pub scale_assumed: bool,
    /// Heads that take the text tower's place, scaled already; `scale` is then not used. Default: none.
    pub heads: Option<&'a Heads>,
}

/// A configuration whose class lists and maps are read.
#[derive(Debug)]
pub struct Evaluator {
    config: EvalConfig,
    limits: EvalLimits,
    classes: BTreeMap<String, Classes>,
    /// By set; none for retrieval.
    targets: Vec<Option<Targets>>,
}

/// What one model did on every set.
#[derive(Clone, Debug)]
pub struct ModelOutcome {
    pub(crate) record: ModelRecord,
    pub(crate) sets: Vec<SetOutcome>,
    pub(super) probes: Vec<ProbeRecord>,
}

impl ModelOutcome {
    /// The labelled sets: name, and for each image whether its label scored highest.
    pub fn hits(&self) -> impl Iterator<Item = (&str, Vec<bool>)> {
        self.sets.iter().filter_map(|set| match &set.kind {
            Kind::Labels(outcomes) => Some((set.record.name.as_str(), outcomes.iter().map(|o| o.rank == 0).collect())),
            _ => None,
        })
    }
}

/// One model on one set.
#[derive(Clone, Debug)]
pub(crate) struct SetOutcome {
    pub(crate) record: SetRecord,
    pub(crate) rows: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) figures: Vec<(Metric, f64)>,
    pub(super) replicates: Replicates,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Labels(Vec<Outcome>),
    Captions(Ranks),
    Features,
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Each set.
    pub sets: Vec<PlannedSet>,
    /// Distinct prompts.
    pub prompts: usize,
}

/// A set as it would be evaluated, by its first rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedSet {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub task: Task,
    /// Labels that compete.
    pub labels: usize,
    /// Rows looked at.
    pub looked_at: u64,
    /// Of these, with a picture and an evaluated label or a caption.
    pub usable: u64,
    /// Why the first unusable one is not.
    pub problem: Option<String>,
}

impl Evaluator {
    /// Reads class lists and maps.
    ///
    /// # Errors
    /// [`EvalError`], naming field or file.
    pub fn new(config: EvalConfig, limits: EvalLimits) -> Result<Self, EvalError> {
        let read = |name: &String| Ok((name.clone(), Classes::read(&config, name, &limits)?));
        let classes: BTreeMap<String, Classes> = config.classes.keys().map(read).collect::<Result<_, EvalError>>()?;
        let target = |set: &SetConfig| match set.task() {
            Task::Retrieve => Ok(None),
            _ => {
                let list = set.classes.as_deref().and_then(|list| classes.get(list));
                list.map(|classes| Targets::of(&config, set, classes, &limits)).transpose()
            }
        };
        let targets = config.sets.iter().map(target).collect::<Result<_, EvalError>>()?;
        Ok(Self { config, limits, classes, targets })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &EvalConfig {
        &self.config
    }

    fn reader<'a>(&'a self, at: usize, cancel: &'a Cancel) -> Reader<'a> {
        Reader {
            config: &self.config,
            set: &self.config.sets[at],
            targets: self.targets[at].as_ref(),
            limits: &self.limits,
            cancel,
        }
    }

    /// Looks at the first rows of each set; encodes nothing.
    ///
    /// # Errors
    /// Sources that cannot be read.
    pub fn plan(&self, cancel: &Cancel) -> Result<Plan, EvalError> {
        let sets = (0..self.config.sets.len()).map(|at| self.plan_set(at, cancel)).collect::<Result<_, _>>()?;
        let used = |list: &str| self.config.sets.iter().any(|s| s.task() == Task::Classify && s.classes.as_deref() == Some(list));
        let of = |(name, classes): (&String, &Classes)| {
            let templates = self.config.classes.get(name).map(|list| list.templates.prompts("").len());
            if used(name) { classes.names.len() * templates.unwrap_or(0) } else { 0 }
        };
        Ok(Plan { sets, prompts: self.classes.iter().map(of).sum() })
    }

    fn plan_set(&self, at: usize, cancel: &Cancel) -> Result<PlannedSet, EvalError> {
        let (set, reader) = (&self.config.sets[at], self.reader(at, cancel));
        let labels = self.targets[at].as_ref().map_or(0, |t| t.names.len());
        let mut planned = PlannedSet { name: set.name.clone(), task: set.task(), labels, looked_at: 0, usable: 0, problem: None };
        let mut rows = reader.rows()?;
        while planned.looked_at < self.limits.dry_rows as u64 {
            let Some(row) =
                rows.next_row().map_err(|source| EvalError::Source { set: set.name.clone(), source: Box::new(source) })?
            else {
                break;
            };
            if matches!(&row, Ok(row) if !meant(&set.only, row)) {
                continue;
            }
            planned.looked_at += 1;
            let problem = match row {
                Err(reject) => Some(reject.message.into_owned()),
                Ok(row) if row.picture.is_none() => Some("the row has no picture".to_owned()),
                Ok(row) if set.task() == Task::Retrieve && row.caption.is_none() => Some("the row has no caption".to_owned()),
                Ok(row) => match reader.label(&row, &format!("{}#{}", row.source.file, row.source.row)) {
                    Ok(Some(_)) => None,
                    Ok(None) => Some("its label is not evaluated".to_owned()),
                    Err(error) => Some(error.to_string()),
                },
            };
            planned.usable += u64::from(problem.is_none());
            planned.problem = planned.problem.or(problem);
        }
        Ok(planned)
    }

    /// A model's heads for every class list that a set is classified by, times its scale.
    ///
    /// # Errors
    /// As [`Evaluator::run`].
    pub fn heads(&self, model: ModelUnderTest<'_>, cache: &mut Cache, cancel: &Cancel) -> Result<Heads, EvalError> {
        let maker = HeadMaker { model: model.name, encoder: model.encoder, limits: &self.limits, cancel };
        let mut heads = HashMap::new();
        for list in self.config.sets.iter().filter(|s| s.task() == Task::Classify).filter_map(|s| s.classes.as_ref()) {
            if let (Some(classes), Some(config)) = (self.classes.get(list), self.config.classes.get(list)) {
                let mut head = maker.head(&classes.names, &config.templates, cache)?;
                head.values.iter_mut().for_each(|v| *v = (f64::from(*v) * model.scale) as f32);
                heads.insert(list.clone(), head);
            }
        }
        cache.flush()?;
        Ok(Heads(heads))
    }

    /// Measures one model. `told` hears the set's name and rows read.
    ///
    /// # Errors
    /// [`EvalError`]; [`EvalError::Cancelled`] on request.
    pub fn run(
        &self,
        model: ModelUnderTest<'_>,
        cache: &mut Cache,
        cancel: &Cancel,
        told: &dyn Fn(&str, u64),
    ) -> Result<ModelOutcome, EvalError> {
        let maker = HeadMaker { model: model.name, encoder: model.encoder, limits: &self.limits, cancel };
        let mut heads: HashMap<String, Matrix> = HashMap::new();
        let (mut sets, mut kept) = (Vec::new(), HashMap::new());
        for (at, set) in self.config.sets.iter().enumerate() {
            let told = |rows| told(&set.name, rows);
            let examples = self.reader(at, cancel).read(model.name, model.encoder, cache, &told)?;
            let kind = match (set.task(), &self.targets[at], set.classes.as_deref()) {
                (Task::Classify, Some(targets), Some(list)) => {
                    let (head, scale) = match model.heads.and_then(|given| given.0.get(list)) {
                        Some(head) => (head, 1.0),
                        None => {
                            if !heads.contains_key(list) {
                                let templates = &self.config.classes[list].templates;
                                heads.insert(list.to_owned(), maker.head(&self.classes[list].names, templates, cache)?);
                            }
                            (&heads[list], model.scale)
                        }
                    };
                    Kind::Labels(measure::outcomes(&examples.images, &examples.labels, head, targets, scale))
                }
                (Task::Retrieve, ..) if model.heads.is_some() => {
                    let reason = "captions need a text tower; a mix of heads has none";
                    return Err(EvalError::field(format!("sets.{}", set.name), reason));
                }
                (Task::Retrieve, ..) => Kind::Captions(self.ranks(&maker, &examples, cache)?),
                _ => Kind::Features,
            };
            sets.push(self.outcome(at, set, &examples, kind));
            if self.config.probes.iter().any(|p| uses(p, &set.name)) {
                kept.insert(set.name.as_str(), (at, examples));
            }
        }
        cache.flush()?;
        let probes = self.config.probes.iter().map(|p| self.probe(p, model.name, &kept)).collect::<Result<Vec<_>, _>>()?;
        let record = ModelRecord {
            name: model.name.to_owned(),
            fingerprint: model.encoder.fingerprint().to_owned(),
            dim: model.encoder.dim(),
            scale: model.scale,
            scale_assumed: model.scale_assumed,
        };
        Ok(ModelOutcome { record, sets, probes: probes.into_iter().flatten().collect() })
    }

    fn ranks(&self, maker: &HeadMaker<'_>, examples: &Examples, cache: &mut Cache) -> Result<Ranks, EvalError> {
        maker.texts(examples.captions.iter().map(|(_, caption)| caption.as_str()), cache)?;
        let mut captions = Matrix::new(maker.encoder.dim());
        for (_, caption) in &examples.captions {
            let vector = cache.get(&cache::text(caption));
            captions.push(vector.ok_or_else(|| EvalError::Class {
                model: maker.model.to_owned(),
                class: caption.clone(),
                reason: "no vector for it".to_owned(),
            })?);
        }
        let owner: Vec<usize> = examples.captions.iter().map(|(image, _)| *image).collect();
        Ok(Ranks::of(&examples.images, &captions, &owner))
    }

    pub(super) fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.config.seed, resamples: self.config.bootstrap, confidence: self.config.confidence }
    }

    fn outcome(&self, at: usize, set: &SetConfig, examples: &Examples, kind: Kind) -> SetOutcome {
        let labels = self.targets[at].as_ref().map_or(0, |t| t.names.len());
        let (figures, replicates) = match &kind {
            Kind::Labels(outcomes) => self.label_figures(&set.name, outcomes, labels),
            Kind::Captions(ranks) => self.caption_figures(&set.name, ranks),
            Kind::Features => (Vec::new(), Vec::new()),
        };
        let record = SetRecord {
            name: set.name.clone(),
            group: set.group.clone(),
            task: set.task(),
            images: examples.rows.len() as u64,
            captions: examples.captions.len() as u64,
            labels,
            outside: examples.outside,
            unreadable: examples.unreadable_count,
            unreadable_rows: examples.unreadable.clone(),
            content: examples.content.clone(),
        };
        SetOutcome { record, rows: examples.rows.clone(), kind, figures, replicates }
    }

    fn label_figures(&self, set: &str, outcomes: &[Outcome], labels: usize) -> (Vec<(Metric, f64)>, Replicates) {
        let resampled = |drawn: &[usize]| measure::figures(drawn.iter().map(|&i| &outcomes[i]), labels);
        let mut replicates = self.bootstrap().of(set, outcomes.len(), resampled);
        replicates.retain(|(metric, _)| metric.has_interval());
        (measure::figures(outcomes.iter(), labels), replicates)
    }

    /// Captions are resampled for one direction, images for the other.
    fn caption_figures(&self, set: &str, ranks: &Ranks) -> (Vec<(Metric, f64)>, Replicates) {
        let (mut figures, mut replicates) = (Vec::new(), Vec::new());
        let ways = [(&ranks.text_to_image, Metric::TEXT_TO_IMAGE), (&ranks.image_to_text, Metric::IMAGE_TO_TEXT)];
        for (ranks, metrics) in ways {
            figures.extend(recall::figures(ranks.iter().copied(), metrics));
            let resampled = |drawn: &[usize]| recall::figures(drawn.iter().map(|&i| ranks[i]), metrics);
            replicates.extend(self.bootstrap().of(set, ranks.len(), resampled));
        }
        (figures, replicates)
    }

    fn probe(
        &self,
        probe: &ProbeConfig,
        model: &str,
        kept: &HashMap<&str, (usize, Examples)>,
    ) -> Result<Vec<ProbeRecord>, EvalError> {
        let get = |role: &str, name: &str| {
            let missing = || EvalError::field(format!("probes.{}.{role}", probe.name), format!("no set {name:?}"));
            kept.get(name).ok_or_else(missing)
        };
        let (train_at, train) = get("train", &probe.train)?;
        let targets = |at: usize| self.targets[at].as_ref().map_or(&[][..], |t| &t.names[..]);
        let classes = targets(*train_at);
        let same = |role: &str, name: &str, at: usize| match targets(at) == classes {
            true => Ok(()),
            false => Err(EvalError::field(
                format!("probes.{}.{role}", probe.name),
                format!("set {name:?} has other labels than {:?}, which the probe learns from", probe.train),
            )),
        };
        let fit = |l2: f64| {
            let fitted = Probe::fit(&train.images, &train.labels, classes.len(), l2, Intercept::Fitted);
            match fitted.converged() {
                true => Ok(fitted),
                false => Err(EvalError::NotConverged {
                    probe: probe.name.clone(),
                    steps: fitted.minimum.steps,
                    gradient: fitted.minimum.gradient,
                }),
            }
        };
        let mut best: Option<(f64, f64, Probe)> = None;
        for &l2 in &probe.l2 {
            let fitted = fit(l2)?;
            let share = match &probe.validate {
                None => 0.0,
                Some(name) => {
                    let (at, examples) = get("validate", name)?;
                    same("validate", name, *at)?;
                    let outcomes = fitted.outcomes(&examples.images, &examples.labels);
                    outcomes.iter().filter(|o| o.rank == 0).count() as f64 / outcomes.len() as f64
                }
            };
            if best.as_ref().is_none_or(|(known, ..)| share > *known) {
                best = Some((share, l2, fitted));
            }
        }
        let Some((_, l2, fitted)) = best else { return Ok(Vec::new()) };
        let measured = |name: &String| {
            let (at, examples) = get("test", name)?;
            same("test", name, *at)?;
            let outcomes = fitted.outcomes(&examples.images, &examples.labels);
            let (figures, replicates) = self.label_figures(name, &outcomes, classes.len());
            Ok(ProbeRecord {
                probe: probe.name.clone(),
                model: model.to_owned(),
                set: name.clone(),
                l2,
                loss: fitted.minimum.value,
                steps: fitted.minimum.steps,
                figures: self.estimates(&figures, &replicates),
            })
        };
        probe.test.iter().map(measured).collect()
    }
}

fn uses(probe: &ProbeConfig, set: &str) -> bool {
    probe.train == set || probe.validate.as_deref() == Some(set) || probe.test.iter().any(|t| t == set)
}
