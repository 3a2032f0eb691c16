//! A policy carried out: queries to anchors, with an account of everything that was dropped.
//!
//! ```text
//!   Question ──gather──► hits ──look at each pair once──► Item (excluded? protected? vector) ──select──► anchors
//!                 ▲                                                                          │
//!                 └──────────── queries that ran dry are asked again, four times as deep ────┘
//! ```
//!
//! Memory: the queries' vectors, 16 bytes a hit, and one vector a pair that was looked at; each bounded by [`Limits`].
//!
//! | file | subject |
//! |---|---|
//! | `mod` | fetching, looking and selecting, until no query is starved |
//! | `classes` | the queries' classes, and what is asked for in all |
//! | `control` | draws from the pool in the place of retrieval |
//! | `account` | counts, matches and entries of what was done |

mod account;
mod classes;
mod control;

use std::collections::HashMap;

pub(crate) use account::numbered_captions;
use anchorite_index::{Cancel, Effort, Hit, Key, PairStore, Parts, Record, RowId, Side, StoreError};
use rayon::prelude::*;

use crate::{
    CurateError, Curated, Limits, Sample,
    curate::classes::{Classes, requested},
    draw::Stratum,
    exclude::Excluded,
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
    let excluded = Excluded::new(&policy.exclude, store, surroundings.cancel)?;
    let mut work = Work::new(store, &policy, (job, excluded), surroundings);
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
        round = work.run(&control::rules(&policy.select), askers, &Source::Draw(&draw))?;
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
        (&Job { questions, protected, sample, .. }, excluded): (&Job<'a>, Excluded<'a>),
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
            excluded,
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
                for (asker, (found, offers)) in block.iter().zip(gathered.iter().zip(self.offers(&gathered, source))) {
                    askers[*asker].offers = offers;
                    askers[*asker].complete = found.complete;
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

    /// What was found for each query, in the one order of hits; draws stay in theirs.
    fn offers(&self, gathered: &[Gathered], source: &Source<'_>) -> Vec<Vec<Offer>> {
        let (places, items, ordered) = (&self.places, &self.items, matches!(source, Source::Retrieval(_)));
        let offer = |hit: &Hit| places.get(&hit.row).map(|&item| Offer { item, score: hit.score });
        let offers = |found: &Gathered| {
            let mut offers: Vec<Offer> = found.hits.iter().filter_map(offer).collect();
            if ordered {
                order_offers(&mut offers, items);
            }
            offers
        };
        gathered.par_iter().map(offers).collect()
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
}
