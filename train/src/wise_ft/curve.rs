//! Results along the line, and the picture of them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Which;
use crate::{
    eval::{Estimate, Evaluation, Metric},
    report::svg::{Axis, Chart, Point, Series},
};

/// Shares of the finetuned model, `start:end:step` or a list: `0:1:0.1`, `0,0.5,1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alphas(Vec<f64>);

/// Most shares of one line.
const MAX_ALPHAS: usize = 101;

/// What is no list of shares.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no list of shares; write start:end:step (0:1:0.1) or numbers between 0 and 1 with commas, at most {MAX_ALPHAS}"
)]
pub struct AlphasError {
    text: String,
}

impl Alphas {
    /// The shares, ascending.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

impl FromStr for Alphas {
    type Err = AlphasError;

    fn from_str(text: &str) -> Result<Self, AlphasError> {
        let refuse = || AlphasError { text: text.to_owned() };
        let number = |part: &str| part.trim().parse::<f64>().ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(refuse);
        let mut values = match text.split(':').collect::<Vec<_>>()[..] {
            [start, end, step] => {
                let (start, end, step) = (number(start)?, number(end)?, number(step)?);
                let count = ((end - start) / step + 1e-9).floor();
                if !(step > 0.0 && (0.0..MAX_ALPHAS as f64).contains(&count)) {
                    return Err(refuse());
                }
                // Rounded, so that the tenth step of 0.1 is 1 and not 0.9999999999999999.
                (0..=count as usize).map(|i| ((start + i as f64 * step) * 1e9).round() / 1e9).collect()
            }
            [list] => list.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
            _ => return Err(refuse()),
        };
        values.sort_by(f64::total_cmp);
        values.dedup();
        if values.is_empty() || values.len() > MAX_ALPHAS { Err(refuse()) } else { Ok(Self(values)) }
    }
}

/// One place on the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The finetuned model's share.
    pub alpha: f64,
    /// What the mixed model is called in the evaluation.
    pub model: String,
}

/// A line from one model to another, evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Where it starts, alpha 0.
    pub from: String,
    /// Where it ends, alpha 1.
    pub to: String,
    /// What was mixed.
    pub which: Which,
    /// The set that chose, if one did.
    pub chosen_by: Option<String>,
    /// The chosen share.
    pub chosen: Option<f64>,
    /// The places, ascending.
    pub points: Vec<CurvePoint>,
    /// All results.
    pub evaluation: Evaluation,
}

impl Curve {
    /// The share that does best on the set; the smallest of equals.
    #[must_use]
    pub fn best_on(&self, set: &str) -> Option<f64> {
        let lead = self.evaluation.lead(set)?;
        let value = |p: &CurvePoint| self.evaluation.figure(&p.model, set, lead).map(|e| e.value);
        let mut best: Option<(f64, f64)> = None;
        for point in &self.points {
            let found = value(point)?;
            if best.is_none_or(|(known, _)| found > known) {
                best = Some((found, point.alpha));
            }
        }
        best.map(|(_, alpha)| alpha)
    }

    /// A group's or a set's leading figure at each place.
    fn along(&self, name: &str) -> Option<(Metric, Vec<Estimate>)> {
        let group = self.evaluation.groups().contains(&name);
        let metric = if group { self.evaluation.group_lead(name)? } else { self.evaluation.lead(name)? };
        let value = |p: &CurvePoint| match group {
            true => self.evaluation.average(&p.model, name, metric).copied(),
            false => self.evaluation.figure(&p.model, name, metric).copied(),
        };
        Some((metric, self.points.iter().map(value).collect::<Option<_>>()?))
    }

    /// What stands against `id` where nobody names it: every other group, but for one of the set that chose alone.
    #[must_use]
    pub fn others(&self, id: &str) -> Vec<&str> {
        let sets = &self.evaluation.sets;
        let chose = |group: &str| {
            let mut of_group = sets.iter().filter(|set| set.group.as_deref() == Some(group));
            of_group.all(|set| Some(&set.name) == self.chosen_by.as_ref())
        };
        self.evaluation.groups().into_iter().filter(|group| *group != id && !chose(group)).collect()
    }

    /// In-distribution against `others`, one line each, every place marked: WiSE-FT's figure 1. Names are of groups or sets.
    #[must_use]
    pub fn chart(&self, id: &str, others: &[&str]) -> Option<Chart> {
        let (id_metric, across) = self.along(id)?;
        let series = |name: &&str| {
            let (metric, up) = self.along(name)?;
            let point = |((p, x), y): ((&CurvePoint, &Estimate), &Estimate)| Point {
                x: x.value * 100.0,
                y: y.value * 100.0,
                note: format!("α {} · {id} {:.1} · {name} {:.1}", p.alpha, x.value * 100.0, y.value * 100.0),
                mark: [(self.points.first(), "0"), (self.points.last(), "1")]
                    .into_iter()
                    .find(|(end, alpha)| *end == Some(p) && p.alpha.to_string() == *alpha)
                    .map(|(_, alpha)| format!("α {alpha}")),
            };
            let points = self.points.iter().zip(&across).zip(&up).map(point).collect();
            Some(Series { name: format!("{name}, {metric}"), points })
        };
        let series: Vec<Series> = others.iter().map(series).collect::<Option<_>>()?;
        // A single line has no legend: the axis says what it is.
        let up = if let [only] = &series[..] { format!("{}, %", only.name) } else { "%".to_owned() };
        let (x, y) = (Axis { label: format!("{id}, {id_metric}, %") }, Axis { label: up });
        Some(Chart { title: format!("From {} to {}", self.from, self.to), x, y, series })
    }
}
