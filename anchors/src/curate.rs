//! A policy carried out: queries to anchors, with an account of everything that was dropped.
//!
//! ```text
//!   Question ──gather──► hits ──look at each pair once──► Item (excluded? protected? vector) ──select──► anchors
//!                 ▲                                                                          │
//!                 └──────────── queries that ran dry are asked again, four times as deep ────┘
//! ```
//!
//! Memory: the queries' vectors, 16 bytes a hit, and one vector a pair that was looked at; each bounded by [`Limits`].

use std::collections::{BTreeMap, HashMap};

use anchorite_index::{Cancel, Effort, Hit, Key, PairStore, Parts, Record, RowId, Side, StoreError};
use rayon::prelude::*;

use crate::{
    ClassReport, CurateError, Curated, Entry, Limits, ProtectedPair, Report, Sample,
    draw::{Stratum, apportion, lot},
    exclude::{Excluded, spaced},
    gather::{Gathered, Gatherer},
    near::Nearness,
    policy::{Control, Policy, Select, Shares},
    protect::Protected,
    questions::Questions,
    reason::{End, Match, Reason},
    select::{Asker, Item, Offer, Selection, order_offers, select, select_again},
};

/// Carries out `policy` on a pool. `told` hears of queries searched so far, and of how many.
///
/// # Errors
/// [`CurateError`].
pub fn curate(
    store: &dyn PairStore,
    policy: &Policy,
    questions: &Questions,
    protected: &Protected,
    surroundings: Surroundings<'_>,
) -> Result<Curated, CurateError> {
    carry_out(store, &Job { policy, questions, protected, sample: None }, surroundings)
}

/// As [`curate`], for training loops: each query is answered by itself, and of what it may have, `sample` draws a few.
///
/// # Errors
/// [`CurateError`]; also for a policy that speaks of the whole set (target, class bounds, percentile, validation).
pub fn curate_sample(
    store: &dyn PairStore,
    policy: &Policy,
    questions: &Questions,
    sample: &Sample,
    surroundings: Surroundings<'_>,
) -> Result<Curated, CurateError> {
    sample.check(policy)?;
    carry_out(store, &Job { policy, questions, protected: &Protected::default(), sample: Some(sample) }, surroundings)
}

/// Records that a thread reads at once: enough to be worth a thread, and few enough that a batch keeps every core busy.
const READ_RUN: usize = 64;

/// Hits fetched for each that a query may take, before it is known which it cannot.
const OVER_FETCH: usize = 2;
/// The same where every row is compared anyway and no picture has to be decoded: more hits cost next to nothing, asking again a pass over the pool.
const OVER_FETCH_EXACT: usize = 8;

/// What is to be done.
struct Job<'a> {
    policy: &'a Policy,
    questions: &'a Questions,
    protected: &'a Protected,
    sample: Option<&'a Sample>,
}

fn carry_out(store: &dyn PairStore, job: &Job<'_>, surroundings: Surroundings<'_>) -> Result<Curated, CurateError> {
    let policy = job.policy.clone().checked()?;
    let classes = Classes::new(&policy, job.questions)?;
    let mut work = Work::new(store, &policy, job, surroundings);
    let requested = match job.sample {
        Some(sample) => sample.k.saturating_mul(job.questions.list.len()),
        None => requested(&policy, job.questions, &classes),
    };
    let retrieves = !matches!(policy.control, Control::Random | Control::StratifiedRandom { shares: Shares::Pool, .. });
    let mut round = Round::default();
    if retrieves {
        let askers = classes.of_query.iter().map(|class| asker(*class, None)).collect();
        let gatherer = Gatherer::new(store, &policy, surroundings.limits.query_block);
        round = work.run(&policy.select, askers, &Source::Retrieval(&gatherer))?;
        work.draw_sample(&mut round);
    }
    if policy.control != Control::None {
        let draw = work.draw(&policy, &round, requested)?;
        let askers = draw.iter().map(|stratum| asker(None, Some(stratum.wanted))).collect();
        round = work.run(&control_rules(&policy.select), askers, &Source::Draw(&draw))?;
    }
    Ok(work.account(&policy, &round, &classes, requested))
}

/// What a curation needs from where it runs.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Bounds.
    pub limits: &'a Limits,
    /// Ends the work early.
    pub cancel: &'a Cancel,
    /// Hears of progress: queries searched, of how many.
    pub told: &'a dyn Fn(u64, u64),
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("limits", self.limits).finish_non_exhaustive()
    }
}

fn asker(class: Option<usize>, k: Option<usize>) -> Asker {
    Asker { class, k, offers: Vec::new(), complete: false }
}

/// Draws have no scores and no classes; what else is asked of anchors holds.
fn control_rules(rules: &Select) -> Select {
    Select { near_duplicate: rules.near_duplicate, compare: rules.compare, k: None, ..Select::default() }
}

/// The classes of the queries, numbered in the order of their names.
struct Classes {
    names: Vec<String>,
    of_query: Vec<Option<usize>>,
}

impl Classes {
    fn new(policy: &Policy, questions: &Questions) -> Result<Self, CurateError> {
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

    fn reports(&self, policy: &Policy) -> Vec<ClassReport> {
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
fn requested(policy: &Policy, questions: &Questions, classes: &Classes) -> usize {
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

/// Where hits come from.
enum Source<'a> {
    Retrieval(&'a Gatherer<'a>),
    Draw(&'a [Stratum]),
}

/// Askers with their offers, and what became of them.
#[derive(Default)]
struct Round {
    askers: Vec<Asker>,
    selection: Selection,
    degraded: u64,
    control: bool,
}

/// What is kept of a pair besides what selection looks at.
struct Fact {
    row: RowId,
    key: Key,
    caption: Option<String>,
    stratum: Option<String>,
}

struct Work<'a> {
    store: &'a dyn PairStore,
    questions: &'a Questions,
    protected: &'a Protected,
    sample: Option<&'a Sample>,
    surroundings: Surroundings<'a>,
    excluded: Excluded<'a>,
    audit: bool,
    query_images: Vec<&'a [f32]>,
    compare: Side,
    keep_vectors: bool,
    column: Option<String>,
    places: HashMap<RowId, usize>,
    facts: Vec<Fact>,
    items: Vec<Item>,
    matches: Vec<(usize, Match)>,
    not_compared: u64,
    /// How many times what a query may take is fetched for it at first.
    over_fetch: usize,
    /// What selections so far compared. Rules and items of one [`Work`] differ between its rounds in nothing that nearness depends on.
    nearness: Nearness,
}

impl<'a> Work<'a> {
    fn new(
        store: &'a dyn PairStore,
        policy: &'a Policy,
        &Job { questions, protected, sample, .. }: &Job<'a>,
        surroundings: Surroundings<'a>,
    ) -> Self {
        let query_images = match policy.protect.nearer_than_queries {
            true => questions.list.iter().filter_map(|q| q.vector(Side::Image)).collect(),
            false => Vec::new(),
        };
        let column = match &policy.control {
            Control::StratifiedRandom { column, .. } => Some(column.clone()),
            _ => None,
        };
        Self {
            store,
            questions,
            protected,
            sample,
            surroundings,
            excluded: Excluded::new(&policy.exclude),
            audit: policy.protect.audit,
            query_images,
            compare: policy.select.compare,
            keep_vectors: policy.select.near_duplicate.is_some() || policy.select.diversity.shortlist() > 0,
            column,
            places: HashMap::new(),
            facts: Vec::new(),
            items: Vec::new(),
            matches: Vec::new(),
            not_compared: 0,
            over_fetch: if policy.effort == Effort::Exact && !protected.needs_pictures() { OVER_FETCH_EXACT } else { OVER_FETCH },
            nearness: Nearness::default(),
        }
    }

    /// Fetches and selects until no query is starved or the search goes no deeper.
    fn run(&mut self, rules: &Select, mut askers: Vec<Asker>, source: &Source<'_>) -> Result<Round, CurateError> {
        let limits = self.surroundings.limits;
        let deepest = match source {
            Source::Retrieval(_) => self.store.max_k(),
            Source::Draw(strata) => strata.iter().map(|s| s.rows.len()).max().unwrap_or(0).max(1),
        };
        let most = askers.iter().filter_map(|a| a.k).max().or(rules.k).unwrap_or(25);
        let depth_for = |over| most.saturating_add(rules.diversity.shortlist()).saturating_mul(over).clamp(1, deepest);
        let fits = |depth: usize| askers.len().saturating_mul(depth) <= limits.max_hits;
        let over = if matches!(source, Source::Retrieval(_)) { self.over_fetch } else { OVER_FETCH };
        let mut depth = depth_for(if fits(depth_for(over)) { over } else { OVER_FETCH });
        let mut pending: Vec<usize> = (0..askers.len()).collect();
        let mut degraded = 0;
        loop {
            let mut done = 0;
            for block in pending.chunks(limits.query_block.max(1)) {
                let gathered = self.gather(source, block, depth)?;
                degraded += gathered.iter().filter(|g| g.degraded).count() as u64;
                self.look_at(&gathered)?;
                for (asker, found) in block.iter().zip(gathered) {
                    self.offer(&mut askers[*asker], &found, source);
                }
                done += block.len() as u64;
                (self.surroundings.told)(done, pending.len() as u64);
            }
            let mut selection = self.select(rules, &askers, source);
            let held: usize = askers.iter().map(|a| a.offers.len()).sum();
            let deeper = depth.saturating_mul(4).min(deepest);
            let fits = held.saturating_add(selection.starved.len().saturating_mul(deeper)) <= limits.max_hits;
            if selection.starved.is_empty() || depth >= deepest || !fits {
                for asker in std::mem::take(&mut selection.starved) {
                    if selection.ends[asker] == End::Exhausted {
                        selection.ends[asker] = End::SearchLimit;
                    }
                }
                return Ok(Round { askers, selection, degraded, control: matches!(source, Source::Draw(_)) });
            }
            pending.clone_from(&selection.starved);
            depth = deeper;
        }
    }

    /// A set shares its pairs out among the queries; where each query is sampled, each is answered by itself.
    fn select(&mut self, rules: &Select, askers: &[Asker], source: &Source<'_>) -> Selection {
        let listed = self.surroundings.limits.max_listed;
        if self.sample.is_none() || matches!(source, Source::Draw(_)) {
            return select_again(rules, askers, &self.items, listed, &mut self.nearness);
        }
        let items = &self.items;
        let alone = |asker| select(rules, std::slice::from_ref(asker), items, listed);
        let each: Vec<Selection> = askers.par_iter().map(alone).collect();
        let mut all = Selection::default();
        for (place, one) in each.into_iter().enumerate() {
            all.append(place, one);
        }
        all
    }

    fn draw_sample(&self, round: &mut Round) {
        let Some(sample) = self.sample else { return };
        let named = |asker: usize, offer: usize| {
            let item = round.askers[asker].offers[offer].item;
            (self.questions.list[asker].id.as_str(), self.facts[item].key.as_str())
        };
        sample.draw(&mut round.selection, named);
    }

    fn gather(&self, source: &Source<'_>, block: &[usize], depth: usize) -> Result<Vec<Gathered>, StoreError> {
        match source {
            Source::Retrieval(gatherer) => {
                let questions: Vec<_> = block.iter().map(|&i| &self.questions.list[i]).collect();
                gatherer.gather(&questions, depth, self.surroundings.cancel)
            }
            Source::Draw(strata) => Ok(block.iter().map(|&i| strata[i].first(depth)).collect()),
        }
    }

    fn offer(&self, asker: &mut Asker, found: &Gathered, source: &Source<'_>) {
        let offer = |hit: &Hit| self.places.get(&hit.row).map(|&item| Offer { item, score: hit.score });
        asker.offers = found.hits.iter().filter_map(offer).collect();
        asker.complete = found.complete;
        if matches!(source, Source::Retrieval(_)) {
            order_offers(&mut asker.offers, &self.items);
        }
    }

    /// Reads the pairs that were not looked at before.
    fn look_at(&mut self, gathered: &[Gathered]) -> Result<(), CurateError> {
        let mut rows: Vec<RowId> = gathered.iter().flat_map(|g| g.hits.iter().map(|h| h.row)).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.retain(|row| !self.places.contains_key(row));
        let limits = self.surroundings.limits;
        if self.items.len().saturating_add(rows.len()) > limits.max_items {
            return Err(CurateError::TooMany { what: "pairs among the hits", max: limits.max_items });
        }
        let parts =
            Parts { picture: self.protected.needs_pictures(), vectors: self.keep_vectors || self.protected.needs_vectors() };
        // With pictures a batch is bytes to decode; a few dozen keep every core busy.
        let batch = if parts.picture { limits.encode_batch } else { limits.read_batch };
        for part in rows.chunks(batch.max(1)) {
            if self.surroundings.cancel.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let store = self.store;
            let read = part.par_chunks(READ_RUN).map(|run| store.get(run, parts)).collect::<Result<Vec<_>, _>>()?;
            let records: Vec<Record> = read.into_iter().flatten().flatten().collect();
            let matches = self.protected.check(&records, &self.query_images)?;
            for (record, matched) in records.into_iter().zip(matches) {
                self.keep(record, matched);
            }
        }
        Ok(())
    }

    fn keep(&mut self, record: Record, matched: Option<Match>) {
        let place = self.items.len();
        if !self.protected.could_look(&record) {
            self.not_compared += 1;
        }
        let mut refusal = self.excluded.check(&record);
        if let Some(matched) = matched {
            self.matches.push((place, matched.clone()));
            if !self.audit {
                refusal = refusal.or(Some(Reason::Protected(matched)));
            }
        }
        let vector = match self.compare {
            _ if !self.keep_vectors => None,
            Side::Image => record.image.or(record.text),
            Side::Text => record.text.or(record.image),
        };
        let stratum = self.column.as_ref().and_then(|column| record.fields.get(column)).map(ToString::to_string);
        self.places.insert(record.row, place);
        self.items.push(Item { content: record.content, refusal, vector });
        self.facts.push(Fact { row: record.row, key: record.key, caption: record.caption, stratum });
    }

    /// Every row of the pool in the order of a draw, by stratum. The order depends on the seed and the keys, not on positions.
    fn draw(&self, policy: &Policy, retrieved: &Round, requested: usize) -> Result<Vec<Stratum>, CurateError> {
        let mut strata: BTreeMap<Option<String>, Vec<(u64, RowId)>> = BTreeMap::new();
        let rows = self.store.status().positions;
        let step = self.surroundings.limits.read_batch.max(1);
        let seed = self.sample.map_or(policy.seed, Sample::seed);
        for first in (0..rows).step_by(step) {
            if self.surroundings.cancel.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let numbers: Vec<RowId> = (first..rows.min(first.saturating_add(step as u64))).map(RowId).collect();
            for record in self.store.get(&numbers, Parts::default())?.into_iter().flatten() {
                let stratum = self.column.as_ref().and_then(|column| record.fields.get(column)).map(ToString::to_string);
                strata.entry(stratum).or_default().push((lot(seed, b"draw", record.key.as_str()), record.row));
            }
        }
        let weights = match &policy.control {
            Control::StratifiedRandom { shares: Shares::Retrieved, .. } => self.retrieved_shares(retrieved),
            _ => strata.iter().map(|(stratum, rows)| (stratum.clone(), rows.len())).collect(),
        };
        let wanted = match &policy.control {
            // As many as retrieval found, value by value.
            Control::StratifiedRandom { shares: Shares::Retrieved, .. } => weights,
            _ => apportion(requested, &weights),
        };
        let ordered = |(stratum, mut rows): (Option<String>, Vec<(u64, RowId)>)| {
            rows.sort_unstable();
            let wanted = wanted.get(&stratum).copied().unwrap_or(0);
            (wanted > 0).then(|| Stratum { wanted, rows: rows.into_iter().map(|(_, row)| row).collect() })
        };
        Ok(strata.into_iter().filter_map(ordered).collect())
    }

    fn retrieved_shares(&self, retrieved: &Round) -> BTreeMap<Option<String>, usize> {
        let mut shares = BTreeMap::new();
        for chosen in &retrieved.selection.chosen {
            *shares.entry(self.facts[chosen.item].stratum.clone()).or_insert(0) += 1;
        }
        shares
    }

    fn account(&self, policy: &Policy, round: &Round, classes: &Classes, requested: usize) -> Curated {
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
