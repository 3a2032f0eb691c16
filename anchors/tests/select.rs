//! Selection against a slow, obvious one that keeps no state but what was taken, on many small random cases; then each rule by itself.

use anchorite_anchors::{
    End, Reason,
    policy::{ClassBounds, Diversity, Percentile, PercentileScope, Select},
    select::{Asker, Item, Offer, Selection, order_offers, select},
};
use anchorite_index::ContentHash;
use proptest::prelude::*;

fn content(n: u8) -> ContentHash {
    ContentHash([n; 32])
}

/// A unit vector at this many degrees.
fn at(degrees: f32) -> Vec<f32> {
    vec![degrees.to_radians().cos(), degrees.to_radians().sin()]
}

fn item(n: u8, degrees: f32) -> Item {
    Item { content: content(n), refusal: None, vector: Some(at(degrees)) }
}

fn asker(class: Option<usize>, offers: &[(usize, f32)]) -> Asker {
    let offers = offers.iter().map(|&(item, score)| Offer { item, score }).collect();
    Asker { class, k: None, offers, complete: true }
}

/// No rule at all but `k`.
fn only_k(k: usize) -> Select {
    Select { k: Some(k), near_duplicate: None, ..Select::default() }
}

fn taken(selection: &Selection) -> Vec<(usize, usize)> {
    selection.chosen.iter().map(|c| (c.asker, c.item)).collect()
}

// ---- The reference ----

fn cos(a: &Item, b: &Item) -> f32 {
    match (&a.vector, &b.vector) {
        (Some(a), Some(b)) => a.iter().zip(b).map(|(x, y)| x * y).sum(),
        _ => 0.0,
    }
}

fn cutoff(rules: &Select, askers: &[Asker], items: &[Item], class: Option<usize>) -> f32 {
    let mut cut = rules.threshold.unwrap_or(f32::NEG_INFINITY);
    if let Some(p) = rules.percentile {
        let same = |a: &&Asker| p.per == PercentileScope::All || a.class == class;
        let mut scores: Vec<f32> = Vec::new();
        for asker in askers.iter().filter(same) {
            let fine: Vec<f32> = asker.offers.iter().filter(|o| items[o.item].refusal.is_none()).map(|o| o.score).collect();
            scores.extend(fine.iter().take(rules.k.unwrap_or(100)));
        }
        scores.sort_by(|a, b| b.total_cmp(a));
        if !scores.is_empty() {
            let kept = (scores.len() as f64 * p.keep).ceil() as usize;
            cut = cut.max(scores[kept.max(1) - 1]);
        }
    }
    cut
}

/// The offers an asker may take, in the order in which it would.
fn wishes(rules: &Select, asker: &Asker, items: &[Item], cut: f32) -> Vec<usize> {
    let mut fine: Vec<usize> = (0..asker.offers.len())
        .filter(|&o| asker.offers[o].score >= cut && items[asker.offers[o].item].refusal.is_none())
        .collect();
    let tail = fine.split_off(rules.diversity.shortlist().min(fine.len()));
    let (lambda, of) = match rules.diversity {
        Diversity::None => (1.0, None),
        Diversity::Mmr { lambda, .. } => (lambda, Some(true)),
        Diversity::Coverage { lambda, .. } => (lambda, Some(false)),
    };
    let Some(is_mmr) = of else { return fine.into_iter().chain(tail).collect() };
    let mut picked: Vec<usize> = Vec::new();
    let between = |a: usize, b: usize| {
        if a == b { 1.0 } else { cos(&items[asker.offers[a].item], &items[asker.offers[b].item]) }
    };
    let near = |to: usize, picked: &[usize]| picked.iter().map(|&p| between(to, p)).fold(f32::NEG_INFINITY, f32::max);
    while picked.len() < fine.len() {
        let value = |&o: &usize| {
            let score = asker.offers[o].score;
            if is_mmr {
                let near = if picked.is_empty() { 0.0 } else { near(o, &picked) };
                return lambda * score - (1.0 - lambda) * near;
            }
            let total = |picked: &[usize]| fine.iter().map(|&m| near(m, picked).max(0.0)).sum::<f32>();
            let with: Vec<usize> = picked.iter().copied().chain([o]).collect();
            lambda * score + (1.0 - lambda) * (total(&with) - total(&picked)) / fine.len() as f32
        };
        let left: Vec<usize> = fine.iter().copied().filter(|o| !picked.contains(o)).collect();
        // The earliest of those within rounding of the best.
        let best = left.iter().map(value).fold(f32::NEG_INFINITY, f32::max);
        picked.push(*left.iter().find(|o| value(o) >= best - 1e-6).expect("set up"));
    }
    picked.into_iter().chain(tail).collect()
}

fn reference(rules: &Select, askers: &[Asker], items: &[Item]) -> Vec<(usize, usize)> {
    let wishes: Vec<Vec<usize>> = askers.iter().map(|a| wishes(rules, a, items, cutoff(rules, askers, items, a.class))).collect();
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    let mut dead: Vec<(usize, usize)> = Vec::new();
    let least = rules.class.least();
    for phase in 0..3 {
        let allowed = |a: usize, chosen: &[(usize, usize)]| {
            let own = chosen.iter().filter(|c| c.0 == a).count();
            let of_class = chosen.iter().filter(|c| askers[a].class.is_some() && askers[c.0].class == askers[a].class).count();
            let set_open = rules.target.is_none_or(|t| chosen.len() < t);
            let k_open = rules.k.is_none_or(|k| own < k);
            set_open
                && match phase {
                    0 => askers[a].class.is_some() && of_class < least && k_open,
                    1 => askers[a].class.is_some() && of_class < least,
                    _ => k_open && of_class < rules.class.most(),
                }
        };
        let next = |a: usize, chosen: &[(usize, usize)], dead: &[(usize, usize)]| {
            wishes[a].iter().copied().find(|&o| {
                let item = askers[a].offers[o].item;
                !dead.contains(&(a, o)) && !chosen.iter().any(|c| items[c.1].content == items[item].content)
            })
        };
        loop {
            let mut round: Vec<(usize, usize)> = (0..askers.len())
                .filter(|&a| allowed(a, &chosen))
                .filter_map(|a| next(a, &chosen, &dead).map(|o| (a, o)))
                .collect();
            if round.is_empty() {
                break;
            }
            round.sort_by(|x, y| {
                let (a, b) = (askers[x.0].offers[x.1], askers[y.0].offers[y.1]);
                let by_content = items[a.item].content.cmp(&items[b.item].content).then(a.item.cmp(&b.item));
                b.score.total_cmp(&a.score).then(by_content).then(x.0.cmp(&y.0))
            });
            for (a, o) in round {
                if allowed(a, &chosen) && next(a, &chosen, &dead) == Some(o) {
                    let item = askers[a].offers[o].item;
                    let near = rules.near_duplicate.is_some_and(|t| chosen.iter().any(|c| cos(&items[c.1], &items[item]) >= t));
                    if near { dead.push((a, o)) } else { chosen.push((a, item)) }
                }
            }
        }
    }
    chosen
}

// ---- Random cases ----

fn rules() -> impl Strategy<Value = Select> {
    let bounds = (prop::option::of(0_usize..4), prop::option::of(4_usize..7), prop::option::of(1_usize..5));
    let class = bounds.prop_map(|(minimum, maximum, quota)| match quota {
        Some(quota) if quota % 2 == 0 => ClassBounds { quota: Some(quota), ..ClassBounds::default() },
        _ => ClassBounds { minimum, maximum, quota: None },
    });
    let diversity = prop_oneof![
        2 => Just(Diversity::None),
        1 => (0_usize..5, 1_usize..6).prop_map(|(l, shortlist)| Diversity::Mmr { lambda: l as f32 / 4.0, shortlist }),
        1 => (0_usize..5, 1_usize..6).prop_map(|(l, shortlist)| Diversity::Coverage { lambda: l as f32 / 4.0, shortlist }),
    ];
    let scope = prop_oneof![Just(PercentileScope::All), Just(PercentileScope::Class)];
    let percentile =
        prop::option::of((1_u32..=10, scope).prop_map(|(tenths, per)| Percentile { keep: f64::from(tenths) / 10.0, per }));
    let parts = (
        prop::option::weighted(0.8, 1_usize..5),
        prop::option::of(1_usize..12),
        class,
        prop::option::of(0_u32..10),
        percentile,
        prop::option::of(Just(0.95_f32)),
        diversity,
    );
    parts.prop_map(|(k, target, class, threshold, percentile, near_duplicate, diversity)| Select {
        k,
        target,
        class,
        threshold: threshold.map(|t| t as f32 / 10.0),
        percentile,
        near_duplicate,
        diversity,
        ..Select::default()
    })
}

/// Pairs at multiples of 7 degrees with few contents, and queries with scores that tie.
fn case() -> impl Strategy<Value = (Vec<Item>, Vec<Asker>)> {
    let one = (0_u8..24, 0_u16..52, prop::bool::weighted(0.15), prop::bool::weighted(0.1));
    let items = prop::collection::vec(one, 1..24).prop_map(|all| {
        all.into_iter()
            .map(|(c, angle, refused, blind)| Item {
                content: content(c),
                refusal: refused.then_some(Reason::ExcludedKey),
                vector: (!blind).then(|| at(f32::from(angle) * 7.0)),
            })
            .collect::<Vec<_>>()
    });
    items.prop_flat_map(|items| {
        let n = items.len();
        let scores = prop::collection::vec((prop::option::weighted(0.8, 0_usize..3), prop::collection::vec(0_u8..20, n)), 1..6);
        (Just(items), scores).prop_map(|(items, queries)| {
            let askers = queries
                .into_iter()
                .map(|(class, scores)| {
                    let offers = scores.iter().enumerate().map(|(item, s)| Offer { item, score: f32::from(*s) / 20.0 });
                    let mut offers: Vec<Offer> = offers.collect();
                    order_offers(&mut offers, &items);
                    Asker { class, k: None, offers, complete: true }
                })
                .collect();
            (items, askers)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn selection_is_what_the_slow_obvious_one_takes((items, askers) in case(), rules in rules()) {
        let selection = select(&rules, &askers, &items, usize::MAX);
        prop_assert_eq!(taken(&selection), reference(&rules, &askers, &items));
        prop_assert!(selection.starved.is_empty());
    }

    #[test]
    fn short_lists_refilled_give_the_same_as_whole_lists((items, askers) in case(), rules in rules(), depth in 1_usize..4) {
        let whole = select(&rules, &askers, &items, usize::MAX);
        let cut = |asker: &Asker, depth: usize| Asker {
            offers: asker.offers.iter().take(depth).copied().collect(),
            complete: depth >= asker.offers.len(),
            ..asker.clone()
        };
        let mut depths = vec![depth; askers.len()];
        let refilled = loop {
            let partial: Vec<Asker> = askers.iter().zip(&depths).map(|(a, d)| cut(a, *d)).collect();
            let selection = select(&rules, &partial, &items, usize::MAX);
            if selection.starved.is_empty() {
                break selection;
            }
            selection.starved.iter().for_each(|&a| depths[a] += 1);
        };
        prop_assert_eq!(taken(&whole), taken(&refilled));
        prop_assert_eq!(whole.decisions, refilled.decisions);
        prop_assert_eq!(whole.ends, refilled.ends);
    }

    #[test]
    fn bounds_hold_and_every_offer_is_decided_once((items, askers) in case(), rules in rules()) {
        let selection = select(&rules, &askers, &items, usize::MAX);
        prop_assert!(rules.target.is_none_or(|t| selection.chosen.len() <= t));
        for (a, asker) in askers.iter().enumerate() {
            let decided: Vec<usize> = selection.decisions[a].iter().map(|d| d.offer).collect();
            let mut once = decided.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), decided.len());
            let kept = selection.decisions[a].iter().filter(|d| d.reason.is_none()).count();
            prop_assert_eq!(kept, selection.chosen.iter().filter(|c| c.asker == a).count());
            let of_class = selection.chosen.iter().filter(|c| askers[c.asker].class == asker.class).count();
            prop_assert!(asker.class.is_none() || of_class <= rules.class.most().max(rules.class.least()));
        }
        for (i, x) in selection.chosen.iter().enumerate() {
            for y in &selection.chosen[..i] {
                prop_assert!(items[x.item].content != items[y.item].content);
                prop_assert!(rules.near_duplicate.is_none_or(|t| cos(&items[x.item], &items[y.item]) < t + 1e-6));
            }
        }
    }
}

// ---- One rule each ----

#[test]
fn every_query_has_its_first_choice_before_any_has_its_second() {
    let items: Vec<Item> = (0..4).map(|n| item(n, f32::from(n) * 40.0)).collect();
    let askers = [asker(None, &[(0, 0.9), (1, 0.8), (2, 0.7)]), asker(None, &[(1, 0.5), (3, 0.4)])];
    let selection = select(&Select { target: Some(2), ..only_k(3) }, &askers, &items, usize::MAX);
    assert_eq!(taken(&selection), [(0, 0), (1, 1)]);
    assert_eq!(selection.ends, [End::SetFull, End::SetFull]);
}

#[test]
fn a_near_duplicate_is_named_and_replaced_by_the_next_hit() {
    let items = [item(0, 0.0), item(1, 5.0), item(2, 60.0)];
    let askers = [asker(None, &[(0, 0.9), (1, 0.8), (2, 0.1)])];
    let selection = select(&Select { near_duplicate: Some(0.95), ..only_k(2) }, &askers, &items, usize::MAX);
    assert_eq!(taken(&selection), [(0, 0), (0, 2)]);
    assert!(matches!(selection.decisions[0][1].reason, Some(Reason::NearDuplicate { of: 0, cosine }) if cosine > 0.99));
}

#[test]
fn a_class_below_its_minimum_is_served_first_and_beyond_k() {
    let items: Vec<Item> = (0..6).map(|n| item(n, f32::from(n) * 30.0)).collect();
    let askers = [asker(Some(0), &[(0, 0.9), (1, 0.8), (2, 0.7)]), asker(Some(1), &[(3, 0.3), (4, 0.2), (5, 0.1)])];
    let class = ClassBounds { minimum: Some(2), ..ClassBounds::default() };
    let selection = select(&Select { class, target: Some(4), ..only_k(1) }, &askers, &items, usize::MAX);
    assert_eq!(taken(&selection), [(0, 0), (1, 3), (0, 1), (1, 4)]);
}

#[test]
fn what_the_pool_cannot_give_ends_as_exhausted() {
    let items = [item(0, 0.0)];
    let selection = select(&only_k(3), &[asker(None, &[(0, 0.9)])], &items, usize::MAX);
    assert_eq!(selection.ends, [End::Exhausted]);
    assert!(selection.starved.is_empty());
    let unsure = Asker { complete: false, ..asker(None, &[(0, 0.9)]) };
    assert_eq!(select(&only_k(3), &[unsure], &items, usize::MAX).starved, [0]);
}

#[test]
fn a_percentile_is_of_the_first_k_hits_of_the_class() {
    let items: Vec<Item> = (0..4).map(|n| item(n, f32::from(n) * 40.0)).collect();
    let askers = [asker(Some(0), &[(0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)])];
    let percentile = Some(Percentile { keep: 0.5, per: PercentileScope::Class });
    let selection = select(&Select { percentile, ..only_k(4) }, &askers, &items, usize::MAX);
    assert_eq!(taken(&selection), [(0, 0), (0, 1)]);
    assert_eq!(selection.ends, [End::BelowPercentile]);
}

#[test]
fn near_duplicates_are_told_among_thousands_and_in_many_dimensions() {
    // Unit vectors of 64 values, every tenth nearly its predecessor.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut items: Vec<Item> = Vec::new();
    for n in 0..6_000_u32 {
        let noise: Vec<f32> = (0..64).map(|_| random()).collect();
        let raw: Vec<f32> = match items.last().and_then(|i| i.vector.clone()).filter(|_| n % 10 == 9) {
            Some(before) => before.iter().zip(&noise).map(|(b, v)| b + v * 0.02).collect(),
            None => noise,
        };
        let length = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        let vector = Some(raw.into_iter().map(|v| v / length).collect());
        items.push(Item { content: ContentHash(hash), refusal: None, vector });
    }
    let offers: Vec<(usize, f32)> = (0..items.len()).map(|i| (i, 1.0 - i as f32 / 10_000.0)).collect();
    let rules = Select { near_duplicate: Some(0.95), ..only_k(6_000) };
    let selection = select(&rules, &[asker(None, &offers)], &items, usize::MAX);
    let dropped: Vec<usize> = selection.decisions[0].iter().filter(|d| d.reason.is_some()).map(|d| d.offer).collect();
    let mut slow: Vec<usize> = Vec::new();
    let mut kept: Vec<usize> = Vec::new();
    for i in 0..items.len() {
        if kept.iter().any(|&k| cos(&items[k], &items[i]) >= 0.95) { slow.push(i) } else { kept.push(i) }
    }
    assert_eq!(dropped, slow);
    assert!(dropped.len() >= 590);
    // The same as one round of thousands of queries: one hit each, in the same order.
    let askers: Vec<Asker> = offers.iter().map(|&offer| asker(None, &[offer])).collect();
    let selection = select(&rules, &askers, &items, usize::MAX);
    let dropped: Vec<usize> = (0..items.len()).filter(|&i| selection.decisions[i][0].reason.is_some()).collect();
    assert_eq!(dropped, slow);
}
