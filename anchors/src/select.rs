//! Which of the hits become anchors: a pure function of rules, hits and stored vectors.
//!
//! Queries take their hits in rounds, one a round, so that every query has its first choice before any has its second. Within
//! a round the highest score goes first; ties go by content hash, then by the query's place. A query passes over what is refused, taken,
//! or too near to something taken, and takes the next. So the result does not depend on how many hits were fetched, as long as no query
//! ran dry: those that did are named ([`Selection::starved`]) and asked again with more hits, from the start.
//!
//! Phases: class minima within `k`; what is left of them beyond `k`; everything else. Scores, thresholds and percentiles end a query's
//! list; they are not passed over, because what follows scores lower.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use anchorite_index::ContentHash;

use crate::{
    cutoffs::Cutoffs,
    diversity,
    near::Nearness,
    policy::Select,
    reason::{End, Reason},
};

/// A pair of the pool, as far as selection looks at it.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it was made from: equal content is one anchor.
    pub content: ContentHash,
    /// Why it must not be taken, whatever its score.
    pub refusal: Option<Reason>,
    /// Of unit length; what near duplicates and diversity are told by.
    pub vector: Option<Vec<f32>>,
}

/// A hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Which item.
    pub item: usize,
    /// Cosine, or the weighted mean of several.
    pub score: f32,
}

/// One query and its hits.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Its class, as a small number.
    pub class: Option<usize>,
    /// How many it takes at most; the rules' `k` where there is none.
    pub k: Option<usize>,
    /// Best first ([`order_offers`]).
    pub offers: Vec<Offer>,
    /// Whether nothing follows these offers.
    pub complete: bool,
}

/// What became of one offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Its place among the query's offers: the rank.
    pub offer: usize,
    /// Why it was passed over; none when it was taken.
    pub reason: Option<Reason>,
}

/// An anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The query that took it.
    pub asker: usize,
    /// The rank among the query's offers.
    pub offer: usize,
    /// The pair.
    pub item: usize,
}

/// The anchors, and what became of every offer that was looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// In the order in which they were taken.
    pub chosen: Vec<Chosen>,
    /// For each query, in the order in which it looked at them. Of those passed over, the first; the rest is counted only.
    pub decisions: Vec<Vec<Decision>>,
    /// Offers passed over, by [`Reason::code`], listed or not.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Offers passed over that are not listed.
    pub unlisted: u64,
    /// Why each query took no more.
    pub ends: Vec<End>,
    /// Queries that ran out of offers although more could follow. While there is one, the rest is provisional.
    pub starved: Vec<usize>,
}

impl Selection {
    /// Adds what was selected for one query by itself, as query number `asker`.
    pub(crate) fn append(&mut self, asker: usize, one: Self) {
        self.chosen.extend(one.chosen.into_iter().map(|chosen| Chosen { asker, ..chosen }));
        self.decisions.extend(one.decisions);
        one.dropped.into_iter().for_each(|(reason, count)| *self.dropped.entry(reason).or_insert(0) += count);
        self.unlisted += one.unlisted;
        self.ends.extend(one.ends);
        self.starved.extend(one.starved.into_iter().map(|_| asker));
    }
}

/// The one order of hits: score descending, content ascending, item ascending.
pub fn order_offers(offers: &mut [Offer], items: &[Item]) {
    offers.sort_by(|a, b| precedes(a, b, items));
}

fn precedes(a: &Offer, b: &Offer, items: &[Item]) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| items[a.item].content.cmp(&items[b.item].content)).then(a.item.cmp(&b.item))
}

/// Selects. Offers must be ordered, and every `item` an index of `items`. Each query lists at most `listed` of the offers it passed over.
#[must_use]
pub fn select(rules: &Select, askers: &[Asker], items: &[Item], listed: usize) -> Selection {
    select_again(rules, askers, items, listed, &mut Nearness::of_taken())
}

/// As [`select`], where `nearness` knows what an earlier selection by the same rules among the same items (and fewer) compared.
pub(crate) fn select_again(
    rules: &Select,
    askers: &[Asker],
    items: &[Item],
    listed: usize,
    nearness: &mut Nearness,
) -> Selection {
    let mut run = Run::new(rules, askers, (items, nearness), listed);
    if rules.class.least() > 0 {
        run.rounds(Phase::Minimum { beyond_k: false });
        run.rounds(Phase::Minimum { beyond_k: true });
    }
    run.rounds(Phase::Fill);
    run.finish()
}

/// Proposals of a round that are compared at once with all before, and with each other.
const PROPOSALS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Minimum { beyond_k: bool },
    Fill,
}

/// A query on its way through its offers.
struct Walk {
    /// Offers in the order in which they are looked at.
    order: Vec<usize>,
    next: usize,
    taken: usize,
    /// Set when its list ended: by score, or by running out.
    end: Option<End>,
    starved: bool,
    log: Log,
}

/// What a query passed over and took: everything it took, and the first of the rest.
#[derive(Default)]
struct Log {
    decisions: Vec<Decision>,
    /// Passed over and listed.
    listed: usize,
    dropped: BTreeMap<&'static str, u64>,
}

impl Log {
    fn note(&mut self, offer: usize, reason: Option<Reason>, most: usize) {
        if let Some(reason) = &reason {
            *self.dropped.entry(reason.code()).or_insert(0) += 1;
            if self.listed >= most {
                return;
            }
            self.listed += 1;
        }
        self.decisions.push(Decision { offer, reason });
    }

    fn unlisted(&self) -> u64 {
        self.dropped.values().sum::<u64>() - self.listed as u64
    }
}

struct Run<'a> {
    rules: &'a Select,
    askers: &'a [Asker],
    items: &'a [Item],
    listed: usize,
    cutoffs: Cutoffs,
    walks: Vec<Walk>,
    chosen: Vec<Chosen>,
    nearness: &'a mut Nearness,
    /// By item: its place among the chosen.
    taken: HashMap<usize, usize>,
    contents: HashMap<ContentHash, usize>,
    class_counts: HashMap<usize, usize>,
}

impl<'a> Run<'a> {
    fn new(rules: &'a Select, askers: &'a [Asker], (items, nearness): (&'a [Item], &'a mut Nearness), listed: usize) -> Self {
        let cutoffs = Cutoffs::new(rules, askers, items);
        let walks = askers.iter().map(|asker| Walk::new(rules, asker, items, &cutoffs)).collect();
        Self {
            rules,
            askers,
            items,
            listed,
            cutoffs,
            walks,
            chosen: Vec::new(),
            nearness,
            taken: HashMap::new(),
            contents: HashMap::new(),
            class_counts: HashMap::new(),
        }
    }

    fn rounds(&mut self, phase: Phase) {
        loop {
            let mut proposals: Vec<(usize, usize)> = Vec::new();
            for asker in 0..self.askers.len() {
                if self.barred(asker, phase).is_none() {
                    proposals.extend(self.advance(asker).map(|offer| (asker, offer)));
                }
            }
            if proposals.is_empty() {
                return;
            }
            proposals.sort_by(|a, b| precedes(&self.offer(*a), &self.offer(*b), self.items).then(a.0.cmp(&b.0)));
            proposals.chunks(PROPOSALS).for_each(|block| self.consider(block, phase));
        }
    }

    /// Takes what may be taken of a round's proposals, in their order.
    fn consider(&mut self, block: &[(usize, usize)], phase: Phase) {
        if let Some(limit) = self.rules.near_duplicate {
            let proposed: Vec<usize> = block.iter().map(|&proposal| self.offer(proposal).item).collect();
            let items = self.items;
            if self.nearness.is_full() {
                let vectored = |chosen: &Chosen| Some((chosen.item, items[chosen.item].vector.as_deref()?));
                self.nearness.forget(self.chosen.iter().filter_map(vectored));
            }
            self.nearness.learn(&proposed, limit, &|item| items[item].vector.as_deref());
        }
        for &(asker, offer) in block {
            // The round itself may have filled the class or the set, or taken the pair.
            if self.barred(asker, phase).is_none() && self.advance(asker) == Some(offer) {
                self.take(asker, offer);
            }
        }
        if self.rules.near_duplicate.is_some() {
            let taken = &self.taken;
            self.nearness.settle(|item| taken.contains_key(&item));
        }
    }

    fn offer(&self, (asker, offer): (usize, usize)) -> Offer {
        self.askers[asker].offers[offer]
    }

    /// Why the query may take nothing in this phase.
    fn barred(&self, asker: usize, phase: Phase) -> Option<End> {
        let walk = &self.walks[asker];
        let of_class = self.askers[asker].class.map_or(0, |class| self.class_counts.get(&class).copied().unwrap_or(0));
        let sated = self.askers[asker].k.or(self.rules.k).is_some_and(|k| walk.taken >= k);
        match phase {
            _ if walk.end.is_some() => walk.end,
            _ if self.rules.target.is_some_and(|target| self.chosen.len() >= target) => {
                Some(if sated { End::Met } else { End::SetFull })
            }
            Phase::Minimum { .. } if self.askers[asker].class.is_none() || of_class >= self.rules.class.least() => Some(End::Met),
            Phase::Minimum { beyond_k: true } => None,
            _ if sated => Some(End::Met),
            _ if self.askers[asker].class.is_some() && of_class >= self.rules.class.most() => Some(End::ClassFull),
            _ => None,
        }
    }

    /// The next offer that nothing but nearness can refuse; notes the reasons of those before it.
    fn advance(&mut self, asker: usize) -> Option<usize> {
        loop {
            let walk = &mut self.walks[asker];
            let Some(&offer) = walk.order.get(walk.next) else {
                walk.starved = !self.askers[asker].complete;
                walk.end = Some(End::Exhausted);
                return None;
            };
            let Offer { item, score } = self.askers[asker].offers[offer];
            if let Some(reason) = self.cutoffs.refuses(self.askers[asker].class, score) {
                walk.end = Some(if reason == Reason::BelowThreshold { End::BelowThreshold } else { End::BelowPercentile });
                walk.log.note(offer, Some(reason), self.listed);
                return None;
            }
            match self.refusal(item) {
                None => return Some(offer),
                Some(reason) => self.walks[asker].pass(offer, Some(reason), self.listed),
            }
        }
    }

    fn refusal(&self, item: usize) -> Option<Reason> {
        if let Some(reason) = &self.items[item].refusal {
            return Some(reason.clone());
        }
        if let Some(&place) = self.taken.get(&item) {
            return Some(Reason::AlreadyTaken { by: self.chosen[place].asker });
        }
        self.contents.get(&self.items[item].content).map(|of| Reason::SameContent { of: *of })
    }

    fn take(&mut self, asker: usize, offer: usize) {
        let item = self.askers[asker].offers[offer].item;
        let twin = self.twin(item);
        let refused = twin.is_some();
        self.walks[asker].pass(offer, twin, self.listed);
        if refused {
            return;
        }
        self.walks[asker].taken += 1;
        self.taken.insert(item, self.chosen.len());
        self.chosen.push(Chosen { asker, offer, item });
        self.contents.insert(self.items[item].content, item);
        if let Some(class) = self.askers[asker].class {
            *self.class_counts.entry(class).or_insert(0) += 1;
        }
    }

    /// The nearest of what was taken, if one is too near; of equally near ones the first taken.
    fn twin(&self, item: usize) -> Option<Reason> {
        let taken = |&(other, cosine): &(usize, f32)| Some((cosine, *self.taken.get(&other)?, other));
        let near = self.nearness.of(item).iter().filter_map(taken);
        let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        nearest.map(|(cosine, _, of)| Reason::NearDuplicate { of, cosine })
    }

    fn finish(self) -> Selection {
        let ends = (0..self.askers.len()).map(|asker| self.barred(asker, Phase::Fill).unwrap_or(End::Met)).collect();
        let starved = (0..self.askers.len()).filter(|&asker| self.walks[asker].starved || self.cutoffs.starved[asker]).collect();
        let mut selection = Selection { chosen: self.chosen, ends, starved, ..Selection::default() };
        for Walk { log, .. } in self.walks {
            selection.unlisted += log.unlisted();
            log.dropped.iter().for_each(|(reason, count)| *selection.dropped.entry(reason).or_insert(0) += count);
            selection.decisions.push(log.decisions);
        }
        selection
    }
}

impl Walk {
    fn new(rules: &Select, asker: &Asker, items: &[Item], cutoffs: &Cutoffs) -> Self {
        let mut walk =
            Self { order: (0..asker.offers.len()).collect(), next: 0, taken: 0, end: None, starved: false, log: Log::default() };
        let wanted = rules.diversity.shortlist();
        if wanted > 0 {
            walk.starved = !walk.diversify(rules, asker, items, (wanted, cutoffs));
        }
        walk
    }

    /// Reorders the best hits that could be taken; false when there were too few and more could follow.
    fn diversify(&mut self, rules: &Select, asker: &Asker, items: &[Item], (wanted, cutoffs): (usize, &Cutoffs)) -> bool {
        let fits = |o: &Offer| items[o.item].refusal.is_none();
        let mut head = Vec::new();
        let mut shortlist = Vec::new();
        let mut seen = 0;
        let mut ended = false;
        for (place, offer) in asker.offers.iter().enumerate() {
            ended = cutoffs.refuses(asker.class, offer.score).is_some();
            if ended || shortlist.len() == wanted {
                break;
            }
            if fits(offer) {
                shortlist.push(place);
            } else {
                head.push(place);
            }
            seen = place + 1;
        }
        let members: Vec<(f32, Option<&[f32]>)> = shortlist
            .iter()
            .map(|&place| (asker.offers[place].score, items[asker.offers[place].item].vector.as_deref()))
            .collect();
        let reordered = diversity::order(rules.diversity, &members);
        let tail = seen..asker.offers.len();
        self.order = head.into_iter().chain(reordered.into_iter().map(|i| shortlist[i])).chain(tail).collect();
        shortlist.len() == wanted || ended || asker.complete
    }

    fn pass(&mut self, offer: usize, reason: Option<Reason>, listed: usize) {
        self.log.note(offer, reason, listed);
        self.next += 1;
    }
}
