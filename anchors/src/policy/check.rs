//! What a policy may say; each refusal names the field and the rule.

use super::{Diversity, Policy, Templates};
use crate::{Limits, PolicyError};

impl Policy {
    pub(super) fn check_directions(&self) -> Result<(), PolicyError> {
        require(!self.directions.is_empty(), "directions", "names at least one direction")?;
        for (i, direction) in self.directions.iter().enumerate() {
            require(direction.weight.is_finite() && direction.weight > 0.0, "directions.weight", "is above 0")?;
            let twice = self.directions[..i].iter().any(|d| (d.from, d.to) == (direction.from, direction.to));
            require(!twice, "directions", "names each direction once")?;
        }
        Ok(())
    }

    pub(super) fn check_select(&self) -> Result<(), PolicyError> {
        let select = &self.select;
        require(select.k != Some(0), "select.k", "is at least 1, or left out")?;
        require(select.target != Some(0), "select.target", "is at least 1, or left out")?;
        let bounded = select.k.is_some() || select.target.is_some() || select.class.most() < usize::MAX;
        require(bounded, "select", "has a k, a target or a class maximum, so that it ends")?;
        let class = select.class;
        let alone = class.quota.is_none() || (class.minimum.is_none() && class.maximum.is_none());
        require(alone, "select.class.quota", "stands alone: it is minimum and maximum")?;
        require(class.most() > 0, "select.class", "allows at least 1")?;
        require(class.least() <= class.most(), "select.class.minimum", "is not above the maximum")?;
        require(cosine(select.threshold), "select.threshold", "is a cosine between -1 and 1")?;
        require(cosine(select.near_duplicate), "select.near_duplicate", "is a cosine between -1 and 1")?;
        let share = select.percentile.is_none_or(|p| p.keep > 0.0 && p.keep <= 1.0);
        require(share, "select.percentile.keep", "is above 0 and at most 1")?;
        if let Diversity::Mmr { lambda, shortlist } | Diversity::Coverage { lambda, shortlist } = select.diversity {
            require((0.0..=1.0).contains(&lambda), "select.diversity.lambda", "is between 0 and 1")?;
            let max = Limits::default().max_shortlist;
            require((1..=max).contains(&shortlist), "select.diversity.shortlist", "is between 1 and 10,000")?;
        }
        Ok(())
    }

    pub(super) fn check_rest(&self) -> Result<(), PolicyError> {
        require((0.0..1.0).contains(&self.validation), "validation", "is at least 0 and below 1")?;
        if let Templates::Own(list) = &self.queries.templates {
            let fine = !list.is_empty() && list.iter().all(|t| t.contains("{}"));
            require(fine, "queries.templates", "has prompts with {} where the class name goes")?;
        }
        require(self.exclude.words.iter().all(|w| w.chars().any(char::is_alphanumeric)), "exclude.words", "has letters")?;
        let protect = &self.protect;
        require(protect.perceptual.is_none_or(|bits| bits <= 64), "protect.perceptual", "is at most 64")?;
        require(cosine(protect.similarity), "protect.similarity", "is a cosine between -1 and 1")?;
        require(cosine(protect.copy_similarity), "protect.copy_similarity", "is a cosine between -1 and 1")?;
        for (i, set) in protect.sets.iter().enumerate() {
            let twice = protect.sets[..i].iter().any(|s| s.name == set.name);
            require(!twice && !set.name.is_empty(), "protect.sets.name", "names each set, and each by another name")?;
        }
        Ok(())
    }
}

/// Whether it is a cosine, where it is there.
fn cosine(value: Option<f32>) -> bool {
    value.is_none_or(|v| (-1.0..=1.0).contains(&v))
}

pub(crate) fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), PolicyError> {
    if holds { Ok(()) } else { Err(PolicyError::Value { field, rule }) }
}
