//! Which pairs meet in one loss: those of a stream, or all of a step.

use super::compiled::Feeds;
use super::rows::{Rows, floats};
use super::{Objective, Plan, Scope, StepError, StreamBatch};
use crate::loss::Targets;

/// Pairs of one loss, as rows of the embedded pictures and captions.
#[derive(Debug)]
pub(super) struct Unit {
    /// For each pair: its stream, its row among the pictures, its row among the captions.
    pub(super) pairs: Vec<(usize, usize, usize)>,
    /// Weight of each pair: the stream's, divided by the stream's pairs.
    weights: Vec<f32>,
    targets: Targets,
    labels: Vec<u32>,
}

/// The losses of a step.
pub(super) fn units(plan: &Plan, streams: &[StreamBatch], pictures: &Rows, captions: &Rows) -> Vec<Unit> {
    let own = |i: usize| unit(plan, &[i], streams, pictures, captions);
    match (plan.scope, plan.objective) {
        (Scope::Joint, Objective::Softmax | Objective::Sigmoid) => {
            let all: Vec<usize> = (0..streams.len()).collect();
            vec![unit(plan, &all, streams, pictures, captions)]
        }
        _ => (0..streams.len()).map(own).collect(),
    }
}

fn unit(plan: &Plan, of: &[usize], streams: &[StreamBatch], pictures: &Rows, captions: &Rows) -> Unit {
    let pairs: Vec<(usize, usize, usize)> = of
        .iter()
        .flat_map(|&s| (0..streams[s].pairs).map(move |row| (s, pictures.starts[s] + row, captions.starts[s] + row)))
        .collect();
    let weight = |&(s, ..): &(usize, usize, usize)| streams[s].weight / streams[s].pairs as f32;
    let given = |s: usize, row: usize| streams[s].groups.as_ref().map(|groups| groups[row]);
    // Groups that are given are 32 bits wide; above them every pair without one has its own.
    let own_group = |position: usize| (1_u64 << 32) + position as u64;
    let labels: Vec<Option<u32>> = of.iter().flat_map(|&s| (0..streams[s].pairs).map(move |row| given(s, row))).collect();
    let groups = labels.iter().enumerate().map(|(i, group)| group.map_or_else(|| own_group(i), u64::from)).collect();
    let targets = Targets::new(groups, plan.same_group).with_pictures(pairs.iter().map(|pair| pair.1).collect());
    Unit {
        weights: pairs.iter().map(weight).collect(),
        targets,
        labels: labels.into_iter().map(Option::unwrap_or_default).collect(),
        pairs,
    }
}

impl Unit {
    /// What the loss is fed beside embeddings and parameters, with `prefix` before each name.
    pub(super) fn feeds(&self, objective: Objective, classes: usize, prefix: &str) -> Result<Feeds, String> {
        let n = self.pairs.len();
        let named = |name: &str| format!("{prefix}{name}");
        let mut feeds: Feeds = vec![(named("weights"), floats([n], self.weights.clone())?)];
        let mut square = |name: &str, values: Vec<f32>| {
            feeds.push((named(name), floats([n, n], values)?));
            Ok::<(), String>(())
        };
        match objective {
            Objective::Softmax => {
                square("targets", self.targets.positives())?;
                square("penalties", self.targets.penalties())?;
            }
            Objective::Sigmoid => square("signs", self.targets.signs())?,
            Objective::Classifier => {
                let hot = |&label: &u32| (0..classes).map(move |class| f32::from(u8::from(class == label as usize)));
                feeds.push((named("labels"), floats([n, classes], self.labels.iter().flat_map(hot).collect())?));
            }
        }
        Ok(feeds)
    }
}

/// That a classifier's streams have a class of the head for every picture.
pub(super) fn check_labels(stream: &StreamBatch, classes: usize) -> Result<(), StepError> {
    let refuse = |reason: String| Err(StepError::Batch { stream: stream.name.clone(), reason });
    if classes == 0 {
        return refuse("the classifier has no head yet".to_owned());
    }
    let Some(labels) = &stream.groups else { return refuse("the classifier needs a class for each picture".to_owned()) };
    match labels.iter().find(|&&label| label as usize >= classes) {
        Some(label) => refuse(format!("class {label} is none of the head's {classes}")),
        None => Ok(()),
    }
}
