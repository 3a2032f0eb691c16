//! What was done, told: counts by reason, protected matches, and every decision as a manifest's entry.

use std::collections::HashMap;

use super::{Round, Work, classes::Classes};
use crate::{
    Curated, Entry, ProtectedPair, Report,
    draw::lot,
    exclude::spaced,
    policy::Policy,
    reason::Reason,
    select::{Offer, Selection},
};

impl Work<'_> {
    pub(super) fn account(&self, policy: &Policy, round: &Round, classes: &Classes, requested: usize) -> Curated {
        let selection = &round.selection;
        let mut report = Report {
            queries: self.questions.list.len() as u64,
            queries_rejected: self.questions.rejected,
            requested: requested as u64,
            found: selection.chosen.len() as u64,
            shortfall: (requested as u64).saturating_sub(selection.chosen.len() as u64),
            fetched: round.askers.iter().map(|a| a.offers.len() as u64).sum(),
            pairs: self.items.len() as u64,
            degraded: round.degraded,
            dropped: selection.dropped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            unlisted: selection.unlisted,
            protected: self.protected.sets().to_vec(),
            pictures_not_compared: self.not_compared,
            ..Report::default()
        };
        if !round.control {
            selection.ends.iter().for_each(|end| *report.ended.entry(end.code().to_owned()).or_insert(0) += 1);
            report.classes = classes.reports(policy);
            for class in selection.chosen.iter().filter_map(|c| classes.of_query[c.asker]) {
                report.classes[class].found += 1;
            }
            report.classes.iter_mut().for_each(|c| c.shortfall = c.wanted.saturating_sub(c.found));
        }
        self.report_matches(&mut report);
        let entries = self.entries(policy, round, &mut report);
        let ends = if round.control { Vec::new() } else { selection.ends.clone() };
        Curated { entries, ends, report }
    }

    fn report_matches(&self, report: &mut Report) {
        for (item, matched) in &self.matches {
            let fact = &self.facts[*item];
            let by_how = report.matched.entry(matched.set.clone()).or_default();
            *by_how.entry(matched.how.code().to_owned()).or_insert(0) += 1;
            if report.matches.len() < self.surroundings.limits.max_matches {
                report.matches.push(ProtectedPair { key: fact.key.clone(), row: fact.row, matched: matched.clone() });
            }
        }
        report.matches.sort_by_key(|pair| pair.row);
    }

    fn entries(&self, policy: &Policy, round: &Round, report: &mut Report) -> Vec<Entry> {
        let groups = self.caption_groups(&round.selection);
        let mut entries = Vec::new();
        for (asker, decisions) in round.selection.decisions.iter().enumerate() {
            for decision in decisions {
                let Offer { item, score } = round.askers[asker].offers[decision.offer];
                let fact = &self.facts[item];
                let kept = decision.reason.is_none();
                let group = groups.get(&item).copied().filter(|_| kept);
                let validation = kept && self.is_validation(policy, item);
                report.in_caption_groups += u64::from(group.is_some());
                report.validation += u64::from(validation);
                entries.push(Entry {
                    query: (!round.control).then_some(asker),
                    rank: decision.offer,
                    score: (!round.control).then_some(score),
                    row: fact.row,
                    key: fact.key.clone(),
                    content: self.items[item].content,
                    caption: fact.caption.clone(),
                    detail: decision.reason.as_ref().and_then(|reason| self.detail(reason, round.control)),
                    reason: decision.reason.clone(),
                    group,
                    validation,
                });
            }
        }
        entries
    }

    fn detail(&self, reason: &Reason, control: bool) -> Option<String> {
        match reason {
            Reason::ExcludedWord { word } => Some(word.clone()),
            Reason::ExcludedField { column } => Some(column.clone()),
            Reason::Protected(found) => Some(format!("{}/{} {}", found.set, found.picture, found.value)),
            Reason::SameContent { of } => Some(self.facts[*of].key.to_string()),
            Reason::NearDuplicate { of, cosine } => Some(format!("{} {cosine}", self.facts[*of].key)),
            Reason::AlreadyTaken { by } if !control => Some(self.questions.list[*by].id.clone()),
            _ => None,
        }
    }

    /// Numbers for captions that several anchors have, by item.
    fn caption_groups(&self, selection: &Selection) -> HashMap<usize, u32> {
        let items: Vec<usize> = selection.chosen.iter().map(|chosen| chosen.item).collect();
        let captions: Vec<Option<&str>> = items.iter().map(|&item| self.facts[item].caption.as_deref()).collect();
        items.into_iter().zip(numbered_captions(&captions)).filter_map(|(item, group)| Some((item, group?))).collect()
    }

    /// By caption, so that no caption is on both sides.
    fn is_validation(&self, policy: &Policy, item: usize) -> bool {
        let caption = self.facts[item].caption.as_deref().map(spaced);
        let name = caption.unwrap_or_else(|| self.facts[item].key.to_string());
        (lot(policy.seed, b"validation", &name) as f64) < policy.validation * 2_f64.powi(64)
    }
}

/// A number for each caption that is there more than once, in the order of first appearance; white space does not tell captions apart.
pub(crate) fn numbered_captions(captions: &[Option<&str>]) -> Vec<Option<u32>> {
    let mut members: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, caption) in captions.iter().enumerate() {
        if let Some(caption) = caption {
            members.entry(spaced(caption)).or_default().push(place);
        }
    }
    let mut shared: Vec<Vec<usize>> = members.into_values().filter(|places| places.len() > 1).collect();
    shared.sort_unstable();
    let mut groups = vec![None; captions.len()];
    for (number, places) in (0_u32..).zip(shared) {
        places.into_iter().for_each(|place| groups[place] = Some(number));
    }
    groups
}
