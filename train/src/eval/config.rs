//! `eval.toml`: models, sets, class lists. An unknown field is refused; a missing one has the default written here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anchorite_anchors::policy::Templates;
use serde::{Deserialize, Serialize};

use super::EvalError;

/// An evaluation as data.
///
/// ```
/// use anchorite_train::eval::EvalConfig;
///
/// let config = EvalConfig::from_toml(
///     r#"
///     [classes.fruit]
///     names = ["apple", "pear"]
///     templates = ["a photo of a {}."]
///     [[sets]]
///     name = "test"
///     sources = ["test.parquet"]
///     classes = "fruit"
///     "#,
///     ".",
/// )?;
/// assert_eq!(config.bootstrap, 1_000);
/// # Ok::<(), anchorite_train::eval::EvalError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Decides the bootstrap's draws. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Resamples of each set. Default 1,000: the ends of a 95 % interval are then known to about a tenth of its width. 0: no intervals.
    #[serde(default = "thousand")]
    pub bootstrap: usize,
    /// Share of resamples inside an interval. Default 0.95.
    #[serde(default = "ninety_five")]
    pub confidence: f64,
    /// Where embeddings are kept between runs, relative to this file. Default: `embeddings` in the output folder.
    #[serde(default)]
    pub cache: Option<String>,
    /// The models; more can be given by the caller.
    #[serde(default)]
    pub models: Vec<ModelSource>,
    /// Pairs of models to compare. Default: each with the first.
    #[serde(default)]
    pub compare: Vec<[String; 2]>,
    /// Class lists by name.
    #[serde(default)]
    pub classes: BTreeMap<String, ClassList>,
    /// The sets.
    pub sets: Vec<SetConfig>,
    /// Linear probes.
    #[serde(default)]
    pub probes: Vec<ProbeConfig>,
    /// The folder that relative paths start from.
    #[serde(skip)]
    pub base: PathBuf,
}

fn thousand() -> usize {
    1_000
}

fn ninety_five() -> f64 {
    0.95
}

/// A model by name and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// What it is called in tables.
    pub name: String,
    /// A folder (relative to this file when one is there) or a hub id.
    pub model: String,
}

/// Class names and the prompts made of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassList {
    /// The names; class 0 is the first.
    pub names: Names,
    /// Prompts with `{}` where the name goes. Default `openai-imagenet-80`.
    #[serde(default)]
    pub templates: Templates,
}

/// Class names, or classes by name or number: here or in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// Names.
    Here(Vec<String>),
    /// Numbers of a class list, counted from 0.
    Numbers(Vec<u64>),
    /// A text file with one a line, or a JSON list.
    File(String),
}

/// What a set is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Which class is it? The default where `classes` is given.
    #[default]
    Classify,
    /// Which caption belongs to which picture? The default elsewhere.
    Retrieve,
    /// Nothing by itself: pictures and labels for a probe.
    Features,
}

/// What the numbers in a label column count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSpace {
    /// The whole class list. The default.
    #[default]
    Classes,
    /// The set's own `subset`, in the order given.
    Subset,
}

/// What to do with a row whose label is not among those evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideRule {
    /// An error. The default.
    #[default]
    Refuse,
    /// Leave it out and count it: ObjectNet's 200 classes that ImageNet has not.
    Drop,
}

/// One label of a set and the classes that stand for it: the largest of their scores counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapEntry {
    /// The label as the set has it, a number in figures.
    pub label: String,
    /// Classes by name or number.
    pub classes: Names,
}

/// One set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetConfig {
    /// What it is called in tables.
    pub name: String,
    /// Sets of one group are averaged: `id`, `shift`, `zero-shot`. Default: none.
    pub group: Option<String>,
    /// What it is for.
    pub task: Option<Task>,
    /// Parquet files, folders or patterns, relative to this file.
    pub sources: Vec<String>,
    /// Only rows whose column of this name has one of these values, as `{ split = ["test"] }`. Default: all rows.
    pub only: crate::data::Only,
    /// The class list.
    pub classes: Option<String>,
    /// Only these classes compete (ImageNet-A and -R: 200 of 1,000).
    pub subset: Option<Names>,
    /// What the label column counts.
    pub labels: LabelSpace,
    /// Labels that stand for several classes each (ObjectNet), here or in a JSON file: label to list of class numbers or names.
    pub map: Option<Map>,
    /// Rows with other labels.
    pub outside: OutsideRule,
    /// The label column. Default `label`.
    pub label_column: Option<String>,
    /// The picture column. Default: found by name and type.
    pub image_column: Option<String>,
    /// The caption column of a set for retrieval. Default: found by name.
    pub caption_column: Option<String>,
}

/// A many-to-one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Map {
    /// Here.
    Here(Vec<MapEntry>),
    /// A JSON file.
    File(String),
}

/// A linear probe: logistic regression on frozen image embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// What it is called in tables.
    pub name: String,
    /// The set it learns from.
    pub train: String,
    /// The set that chooses among several `l2`.
    #[serde(default)]
    pub validate: Option<String>,
    /// The sets it is measured on.
    pub test: Vec<String>,
    /// Weight of half the squared norm of the weights, beside the mean cross-entropy; the bias is free. Default 1e-4: little
    /// for unit vectors. Several need `validate`.
    #[serde(default = "default_l2")]
    pub l2: Vec<f64>,
}

fn default_l2() -> Vec<f64> {
    vec![1e-4]
}

impl SetConfig {
    /// What the set is for.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task.unwrap_or(if self.classes.is_some() { Task::Classify } else { Task::Retrieve })
    }
}

impl EvalConfig {
    /// Reads TOML; relative paths start from `base`.
    ///
    /// # Errors
    /// [`EvalError::Config`] with line and field, [`EvalError::Field`].
    pub fn from_toml(text: &str, base: impl Into<PathBuf>) -> Result<Self, EvalError> {
        let mut config: Self = toml::from_str(text).map_err(|e| EvalError::Config { reason: e.to_string() })?;
        config.base = base.into();
        config.check()?;
        Ok(config)
    }

    /// A path of this file.
    #[must_use]
    pub fn path(&self, written: &str) -> PathBuf {
        self.base.join(Path::new(written))
    }

    fn check(&self) -> Result<(), EvalError> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(EvalError::field("confidence", format!("{} is not between 0 and 1", self.confidence)));
        }
        if self.sets.is_empty() {
            return Err(EvalError::field("sets", "give at least one [[sets]]"));
        }
        distinct("models", self.models.iter().map(|m| m.name.as_str()))?;
        distinct("sets", self.sets.iter().map(|s| s.name.as_str()))?;
        distinct("probes", self.probes.iter().map(|p| p.name.as_str()))?;
        self.sets.iter().try_for_each(|set| self.check_set(set))?;
        self.probes.iter().try_for_each(|probe| self.check_probe(probe))
    }

    fn check_set(&self, set: &SetConfig) -> Result<(), EvalError> {
        let field = |name: &str| format!("sets.{}.{name}", set.name);
        if set.sources.is_empty() {
            return Err(EvalError::field(field("sources"), "give at least one parquet file, folder or pattern"));
        }
        if set.task() == Task::Retrieve {
            let labelled = [("classes", set.classes.is_some()), ("subset", set.subset.is_some()), ("map", set.map.is_some())];
            return match labelled.iter().find(|(_, there)| *there) {
                Some((name, _)) => Err(EvalError::field(field(name), "a set for retrieval has captions, no classes")),
                None => Ok(()),
            };
        }
        let Some(list) = &set.classes else {
            return Err(EvalError::field(field("classes"), "name a [classes.NAME] list"));
        };
        if !self.classes.contains_key(list) {
            let there: Vec<&str> = self.classes.keys().map(String::as_str).collect();
            return Err(EvalError::field(field("classes"), format!("no list {list:?}; there are: {}", there.join(", "))));
        }
        if set.subset.is_some() && set.map.is_some() {
            return Err(EvalError::field(field("map"), "give subset or map, not both: a map names its classes"));
        }
        if set.labels == LabelSpace::Subset && set.subset.is_none() {
            return Err(EvalError::field(field("labels"), "there is no subset that labels could count"));
        }
        Ok(())
    }

    fn check_probe(&self, probe: &ProbeConfig) -> Result<(), EvalError> {
        let field = |name: &str| format!("probes.{}.{name}", probe.name);
        let labelled = |name: &String| self.sets.iter().any(|s| &s.name == name && s.task() != Task::Retrieve);
        let roles =
            [("train", vec![&probe.train]), ("validate", probe.validate.iter().collect()), ("test", probe.test.iter().collect())];
        for (role, sets) in roles {
            if let Some(missing) = sets.into_iter().find(|name| !labelled(name)) {
                return Err(EvalError::field(field(role), format!("no set {missing:?} with labels")));
            }
        }
        if probe.l2.is_empty() || probe.l2.iter().any(|&l2| !(l2 > 0.0 && l2.is_finite())) {
            return Err(EvalError::field(field("l2"), "give one or more numbers above 0"));
        }
        if probe.l2.len() > 1 && probe.validate.is_none() {
            return Err(EvalError::field(field("validate"), "several l2 need a set that chooses among them"));
        }
        Ok(())
    }
}

fn distinct<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), EvalError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(EvalError::field(format!("{field}.name"), "every one needs a name"));
        }
        if !seen.insert(name) {
            return Err(EvalError::field(format!("{field}.name"), format!("two are called {name:?}")));
        }
    }
    Ok(())
}
