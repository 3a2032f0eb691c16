//! The classes of the queries, and what is asked for in all.

use std::collections::BTreeMap;

use crate::{ClassReport, CurateError, policy::Policy, questions::Questions};

/// The classes of the queries, numbered in the order of their names.
pub(super) struct Classes {
    names: Vec<String>,
    pub(super) of_query: Vec<Option<usize>>,
}

impl Classes {
    pub(super) fn new(policy: &Policy, questions: &Questions) -> Result<Self, CurateError> {
        let unclassed = questions.list.iter().find(|q| q.class.is_none());
        if let (true, Some(question)) = (policy.select.class.any(), unclassed) {
            return Err(CurateError::NoClass { query: question.id.clone() });
        }
        let mut numbers: BTreeMap<&str, usize> = questions.list.iter().filter_map(|q| Some((q.class.as_deref()?, 0))).collect();
        numbers.values_mut().enumerate().for_each(|(number, slot)| *slot = number);
        let of_query = questions.list.iter().map(|q| q.class.as_deref().and_then(|c| numbers.get(c).copied())).collect();
        let names: Vec<String> = numbers.into_keys().map(str::to_owned).collect();
        let (minimum, classes) = (policy.select.class.least(), names.len());
        match policy.select.target {
            Some(target) if minimum.saturating_mul(classes) > target => {
                Err(CurateError::MinimumAboveTarget { minimum, classes, target })
            }
            _ => Ok(Self { names, of_query }),
        }
    }

    pub(super) fn reports(&self, policy: &Policy) -> Vec<ClassReport> {
        let mut reports: Vec<ClassReport> =
            self.names.iter().map(|class| ClassReport { class: class.clone(), ..ClassReport::default() }).collect();
        for class in self.of_query.iter().flatten() {
            reports[*class].queries += 1;
        }
        let bounds = policy.select.class;
        for report in &mut reports {
            let by_k = policy.select.k.map_or(0, |k| k as u64 * report.queries).min(bounds.most() as u64);
            report.wanted = if bounds.least() > 0 { bounds.least() as u64 } else { by_k };
        }
        reports
    }
}

/// Anchors asked for in all: by each class what its queries and bounds allow, by the others `k`, in all no more than the target.
pub(super) fn requested(policy: &Policy, questions: &Questions, classes: &Classes) -> usize {
    let select = &policy.select;
    let mut queries = vec![0_usize; classes.names.len()];
    classes.of_query.iter().flatten().for_each(|class| queries[*class] += 1);
    let unclassed = questions.list.len() - queries.iter().sum::<usize>();
    let of = |queries: usize| select.k.map_or(usize::MAX, |k| k.saturating_mul(queries));
    let of_class = |queries: &usize| of(*queries).min(select.class.most()).max(select.class.least());
    let unbounded = if unclassed == 0 { 0 } else { of(unclassed) };
    let sum = queries.iter().map(of_class).fold(unbounded, usize::saturating_add);
    // Unbounded queries need a target; a policy without either is refused.
    sum.min(select.target.unwrap_or(usize::MAX))
}
