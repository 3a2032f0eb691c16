//! What the models' outcomes say together: estimates with intervals, means of groups, differences.

use std::collections::BTreeMap;

use super::{
    Average, Difference, Estimate, EvalError, Evaluation, Evaluator, Metric, ModelOutcome, SetResult,
    bootstrap::{Replicates, two_sided},
    run::SetOutcome,
};

impl Evaluator {
    pub(super) fn estimates(&self, figures: &[(Metric, f64)], replicates: &Replicates) -> BTreeMap<Metric, Estimate> {
        let of = |&(metric, value): &(Metric, f64)| (metric, self.estimate(value, replicates_of(replicates, metric)));
        figures.iter().map(of).collect()
    }

    fn estimate(&self, value: f64, replicates: &[f64]) -> Estimate {
        let ends = self.bootstrap().interval(replicates);
        Estimate { value, low: ends.map(|e| e.0), high: ends.map(|e| e.1) }
    }

    /// Joins the models' outcomes.
    ///
    /// # Errors
    /// [`EvalError::OtherImages`] where two models did not read the same images; a comparison of models that are not there.
    pub fn finish(&self, models: &[ModelOutcome]) -> Result<Evaluation, EvalError> {
        let Some(first) = models.first() else {
            return Err(EvalError::field("models", "there is no model to evaluate"));
        };
        for model in &models[1..] {
            let other =
                model.sets.iter().zip(&first.sets).find(|(a, b)| a.rows != b.rows || a.record.content != b.record.content);
            if let Some((set, _)) = other {
                let (model, first) = (model.record.name.clone(), first.record.name.clone());
                return Err(EvalError::OtherImages { set: set.record.name.clone(), model, first });
            }
        }
        let result = |model: &ModelOutcome, set: &SetOutcome| SetResult {
            model: model.record.name.clone(),
            set: set.record.name.clone(),
            figures: self.estimates(&set.figures, &set.replicates),
        };
        let measured = |set: &&SetOutcome| !set.figures.is_empty();
        let results = models.iter().flat_map(|m| m.sets.iter().filter(measured).map(move |set| result(m, set))).collect();
        let grouped: Vec<Grouped> = models.iter().map(Grouped::of).collect();
        Ok(Evaluation {
            format: Evaluation::FORMAT,
            written_by: concat!("anchorite ", env!("CARGO_PKG_VERSION")).to_owned(),
            config: self.config().clone(),
            models: models.iter().map(|m| m.record.clone()).collect(),
            sets: first.sets.iter().map(|s| s.record.clone()).collect(),
            results,
            averages: self.averages(models, &grouped),
            differences: self.differences(models, &grouped)?,
            probes: models.iter().flat_map(|m| m.probes.clone()).collect(),
        })
    }

    fn averages(&self, models: &[ModelOutcome], grouped: &[Grouped]) -> Vec<Average> {
        let one = |(model, groups): (&ModelOutcome, &Grouped)| {
            let average = |(name, mean): &(String, Mean)| Average {
                model: model.record.name.clone(),
                group: name.clone(),
                figures: self.estimates(&mean.figures, &mean.replicates),
            };
            groups.0.iter().map(average).collect::<Vec<_>>()
        };
        models.iter().zip(grouped).flat_map(one).collect()
    }

    fn differences(&self, models: &[ModelOutcome], grouped: &[Grouped]) -> Result<Vec<Difference>, EvalError> {
        let find = |name: &String| {
            let missing = || EvalError::field("compare", format!("no model {name:?}"));
            models.iter().position(|m| &m.record.name == name).ok_or_else(missing)
        };
        let pairs: Vec<(usize, usize)> = match self.config().compare.is_empty() {
            true => (1..models.len()).map(|m| (m, 0)).collect(),
            false => {
                let pair = |[a, b]: &[String; 2]| Ok((find(a)?, find(b)?));
                self.config().compare.iter().map(pair).collect::<Result<_, EvalError>>()?
            }
        };
        let mut all = Vec::new();
        for (model, baseline) in pairs {
            let names = [&models[model].record.name, &models[baseline].record.name];
            for (a, b) in models[model].sets.iter().zip(&models[baseline].sets) {
                let on = On { name: &a.record.name, group: false };
                all.extend(self.difference(names, on, (&a.figures, &a.replicates), (&b.figures, &b.replicates)));
            }
            for ((name, a), (_, b)) in grouped[model].0.iter().zip(&grouped[baseline].0) {
                let on = On { name, group: true };
                all.extend(self.difference(names, on, (&a.figures, &a.replicates), (&b.figures, &b.replicates)));
            }
        }
        Ok(all)
    }

    fn difference(&self, [model, baseline]: [&String; 2], on: On<'_>, a: Measured<'_>, b: Measured<'_>) -> Vec<Difference> {
        let one = |(&(metric, value), &(_, base)): (&(Metric, f64), &(Metric, f64))| {
            let pairs = replicates_of(a.1, metric).iter().zip(replicates_of(b.1, metric));
            let differences: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
            Difference {
                model: model.clone(),
                baseline: baseline.clone(),
                on: on.name.to_owned(),
                group: on.group,
                metric,
                estimate: self.estimate(value - base, &differences),
                p: two_sided(&differences),
            }
        };
        a.0.iter().zip(b.0).map(one).collect()
    }
}

type Measured<'a> = (&'a [(Metric, f64)], &'a Replicates);

/// What models are compared on.
#[derive(Clone, Copy)]
struct On<'a> {
    name: &'a str,
    group: bool,
}

fn replicates_of(replicates: &Replicates, metric: Metric) -> &[f64] {
    replicates.iter().find(|(m, _)| *m == metric).map_or(&[], |(_, values)| values)
}

/// Figures and replicates of a mean of sets.
struct Mean {
    figures: Vec<(Metric, f64)>,
    replicates: Replicates,
}

/// One model's means, by group in the order of the sets.
struct Grouped(Vec<(String, Mean)>);

impl Grouped {
    fn of(model: &ModelOutcome) -> Self {
        let mut groups: Vec<(String, Vec<&SetOutcome>)> = Vec::new();
        for set in model.sets.iter().filter(|s| !s.figures.is_empty()) {
            let Some(group) = &set.record.group else { continue };
            match groups.iter_mut().find(|(name, _)| name == group) {
                Some((_, sets)) => sets.push(set),
                None => groups.push((group.clone(), vec![set])),
            }
        }
        Self(groups.into_iter().map(|(name, sets)| (name, Mean::of(&sets))).collect())
    }
}

impl Mean {
    fn of(sets: &[&SetOutcome]) -> Self {
        let value = |set: &SetOutcome, metric| set.figures.iter().find(|(m, _)| *m == metric).map(|(_, v)| *v);
        let shared = |metric: &Metric| sets.iter().all(|set| value(set, *metric).is_some());
        let metrics: Vec<Metric> = sets[0].figures.iter().map(|(m, _)| *m).filter(shared).collect();
        let n = sets.len() as f64;
        let figures = metrics.iter().map(|&m| (m, sets.iter().filter_map(|set| value(set, m)).sum::<f64>() / n)).collect();
        let replicates = metrics
            .iter()
            .map(|&m| {
                let columns: Vec<&[f64]> = sets.iter().map(|set| replicates_of(&set.replicates, m)).collect();
                let resamples = columns.iter().map(|c| c.len()).min().unwrap_or(0);
                (m, (0..resamples).map(|r| columns.iter().map(|c| c[r]).sum::<f64>() / n).collect())
            })
            .collect();
        Self { figures, replicates }
    }
}
