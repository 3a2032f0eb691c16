//! Weights to hits: for each picture of each set whether its label scored highest.

use std::collections::BTreeMap;

use anchorite::{
    encoder::Encode,
    train::{
        eval::{Cache, ClassList, EvalConfig, EvalLimits, Evaluator, Heads, ModelUnderTest, Names, SetConfig},
        frozen::Weights,
        graph::Tensor,
    },
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    Lab,
    arms::HEAD,
    base::templates,
    bench::{CATEGORIES, Role},
};

/// One mix on every set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Share of the finetuned weights.
    pub(crate) alpha: f64,
    /// By set: a 1 for each picture that is right, a 0 for each that is not.
    pub(crate) sets: BTreeMap<String, String>,
}

/// Evaluates the sets of the wanted roles; the others are not opened.
pub(crate) fn evaluator(lab: &Lab<'_>, wanted: impl Fn(Role) -> bool) -> Result<Evaluator> {
    let sets = lab.sets.list.iter().filter(|set| wanted(set.role) && !set.classes.is_empty());
    let set = |set: &super::bench::Set| SetConfig {
        name: set.name.clone(),
        sources: vec![lab.sets.path(&set.name).display().to_string()],
        classes: Some(set.classes.clone()),
        label_column: Some(if set.classes == CATEGORIES { "category" } else { "label" }.to_owned()),
        ..SetConfig::default()
    };
    let sets: Vec<SetConfig> = sets.map(set).collect();
    let list = |(name, names): (&String, &Vec<String>)| {
        let used = sets.iter().any(|set| set.classes.as_ref() == Some(name));
        used.then(|| (name.clone(), ClassList { names: Names::Here(names.clone()), templates: templates() }))
    };
    let config = EvalConfig {
        seed: 0,
        // Intervals are made over seeds and pictures together, later.
        bootstrap: 0,
        confidence: 0.95,
        cache: None,
        models: Vec::new(),
        compare: Vec::new(),
        classes: lab.sets.classes.iter().filter_map(list).collect(),
        sets,
        probes: Vec::new(),
        base: ".".into(),
    };
    Ok(Evaluator::new(config, EvalLimits::default())?)
}

/// Hits of one model on the evaluator's sets.
pub(crate) fn hits(lab: &Lab<'_>, evaluator: &Evaluator, weights: &Weights) -> Result<BTreeMap<String, String>> {
    let encoder = lab.frozen.encoder(weights)?;
    let head = weights.get(HEAD).and_then(Tensor::f32s).map(|values| Heads::given(CATEGORIES, encoder.dim(), values));
    let model = under_test(&encoder, weights, head.as_ref());
    let outcome = evaluator.run(model, &mut Cache::in_memory(), &lab.cancel, &|_, _| ())?;
    let digits = |hits: Vec<bool>| hits.into_iter().map(|hit| if hit { '1' } else { '0' }).collect();
    Ok(outcome.hits().map(|(set, hits)| (set.to_owned(), digits(hits))).collect())
}

/// The categories' zero-shot head, times the scale: what a classifier starts from.
pub(crate) fn zero_shot_head(lab: &Lab<'_>, weights: &Weights) -> Result<Tensor> {
    let evaluator = evaluator(lab, |role| role == Role::Validation)?;
    let encoder = lab.frozen.encoder(weights)?;
    let heads = evaluator.heads(under_test(&encoder, weights, None), &mut Cache::in_memory(), &lab.cancel)?;
    let values = heads.of(CATEGORIES).context("the validation set has categories")?;
    let rows = values.len() / encoder.dim();
    Tensor::from_f32([rows, encoder.dim()], values).context("a head has a row for each category")
}

fn under_test<'a>(encoder: &'a dyn Encode, weights: &Weights, heads: Option<&'a Heads>) -> ModelUnderTest<'a> {
    let scale = weights.get("logit_scale").and_then(Tensor::f32s).and_then(|v| v.first().copied()).unwrap_or_default();
    ModelUnderTest { name: "heads", encoder, scale: f64::from(scale).exp(), scale_assumed: false, heads }
}

/// Share of ones.
pub(crate) fn share(digits: &str) -> f64 {
    digits.bytes().filter(|&digit| digit == b'1').count() as f64 / digits.len().max(1) as f64
}
