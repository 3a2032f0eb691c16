//! Hits to claims: what was expected, what was found, and whether it could be tested at all.
//!
//! The claims and their thresholds were written down before any run. Groups are unweighted means of
//! their sets. Intervals and p-values are over seeds and pictures (`eval::TwoLevel`), Holm-adjusted over the claims.

use std::collections::BTreeMap;

use anchorite::train::eval::{Draw, Paired, TwoLevel, holm};
use anyhow::Result;
use serde::Serialize;

use super::{
    Lab,
    arms::{self, Arm},
    base,
    bench::Role,
    measure,
};

/// ID accuracy within which two arms count as equal.
pub(crate) const EQUAL: f64 = 0.005;
/// Adjusted p-value below which a difference counts as shown.
const SIGNIFICANT: f64 = 0.05;
/// Tenths of a mix: the finetuned model itself.
const WHOLE: usize = 10;

/// Whether a claim held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Shown,
    NotShown,
    /// Its precondition does not hold, or an arm was not run.
    NotTestable,
}

impl Verdict {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::NotShown => "not shown",
            Self::NotTestable => "not testable",
        }
    }
}

/// A claim and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Claim {
    pub(crate) id: &'static str,
    pub(crate) text: &'static str,
    pub(crate) figure: Option<Paired>,
    /// Holm-adjusted.
    pub(crate) adjusted: Option<f64>,
    pub(crate) verdict: Verdict,
    pub(crate) remark: String,
}

/// Everything the page says.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) seeds: u64,
    pub(crate) first_seed: u64,
    pub(crate) resamples: usize,
    pub(crate) sets: Vec<SetAbout>,
    /// By arm and set: each seed's share right.
    pub(crate) shares: BTreeMap<Arm, BTreeMap<String, Vec<f64>>>,
    /// Finetuned contrastively less the base, by group.
    pub(crate) forgotten: Vec<(&'static str, Option<Paired>)>,
    pub(crate) claims: Vec<Claim>,
    /// Pairs of arms, by group.
    pub(crate) contrasts: Vec<Contrast>,
    /// By arm: ID, shift and zero-shot of each tenth of the way from the base.
    pub(crate) curves: BTreeMap<Arm, Vec<[f64; 3]>>,
    /// By arm: wall seconds of training and measuring, mean over seeds.
    pub(crate) seconds: BTreeMap<Arm, (f64, f64)>,
}

/// A test set, for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SetAbout {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) pictures: usize,
    pub(crate) labels: usize,
}

/// One arm less another.
#[derive(Debug, Serialize)]
pub(crate) struct Contrast {
    pub(crate) arms: (Arm, Arm),
    pub(crate) by_group: Vec<(&'static str, Option<Paired>)>,
}

/// Groups of sets.
pub(crate) const GROUPS: [(&str, Role); 4] =
    [("ID", Role::Id), ("same style, new concepts", Role::Resample), ("shift", Role::Shift), ("zero-shot", Role::ZeroShot)];

/// Pairs of arms that are compared beside the claims.
const CONTRASTS: [(Arm, Arm); 12] = [
    (Arm::Flyp, Arm::ZeroShot),
    (Arm::Captions, Arm::Flyp),
    (Arm::Retrieved, Arm::Flyp),
    (Arm::Arf, Arm::Flyp),
    (Arm::Arf, Arm::FlypCompute),
    (Arm::Arf, Arm::Random),
    (Arm::Arf, Arm::Shuffled),
    (Arm::Arf, Arm::NoTestStyles),
    (Arm::Raw, Arm::Arf),
    (Arm::Protected, Arm::Arf),
    (Arm::LpFt, Arm::CrossEntropy),
    (Arm::Flyp, Arm::CrossEntropy),
];

/// All arms' hits: by arm and tenth, then seed, then set.
struct Results {
    sets: Vec<SetAbout>,
    seeds: usize,
    hits: BTreeMap<(Arm, usize), Vec<Vec<Vec<bool>>>>,
    seconds: BTreeMap<Arm, (f64, f64)>,
    level: TwoLevel,
}

impl Results {
    fn load(lab: &Lab<'_>, arms: &[Arm]) -> Result<Self> {
        let tests = lab.sets.list.iter().filter(|set| GROUPS.iter().any(|(_, role)| *role == set.role));
        let about = |set: &super::bench::Set| SetAbout {
            name: set.name.clone(),
            role: set.role,
            pictures: set.rows,
            labels: lab.sets.classes.get(&set.classes).map_or(0, Vec::len),
        };
        let sets: Vec<SetAbout> = tests.map(about).collect();
        let level = TwoLevel { seed: 0, resamples: lab.setting.size.resamples, confidence: 0.95 };
        let seeds = lab.setting.seeds as usize;
        let mut results = Self { sets, seeds, hits: BTreeMap::new(), seconds: BTreeMap::new(), level };
        for &arm in arms {
            for seed in lab.setting.every_seed() {
                // Done already: the rate is not used.
                results.add(&arms::result(lab, arm, seed, 0.0)?);
            }
        }
        Ok(results)
    }

    fn add(&mut self, result: &arms::ArmResult) {
        for measured in &result.measured {
            let tenth = (measured.alpha * 10.0).round() as usize;
            let hits = |set: &SetAbout| -> Vec<bool> {
                measured.sets.get(&set.name).map(|digits| digits.bytes().map(|d| d == b'1').collect()).unwrap_or_default()
            };
            let all = self.sets.iter().map(hits).collect();
            self.hits.entry((result.arm, tenth)).or_default().push(all);
        }
        let seconds = self.seconds.entry(result.arm).or_default();
        let share = 1.0 / self.seeds.max(1) as f64;
        *seconds = (seconds.0 + result.seconds.0 * share, seconds.1 + result.seconds.1 * share);
    }

    fn has(&self, arms: &[Arm]) -> bool {
        arms.iter().all(|&arm| self.hits.contains_key(&(arm, WHOLE)))
    }

    /// Mean over seeds and the role's sets.
    fn mean(&self, draw: &Draw, at: (Arm, usize), role: Role) -> f64 {
        let Some(seeds) = self.hits.get(&at) else { return f64::NAN };
        let sets: Vec<usize> = (0..self.sets.len()).filter(|&i| self.sets[i].role == role).collect();
        let one = |&seed: &usize| sets.iter().map(|&set| draw.share(set, &seeds[seed][set])).sum::<f64>() / sets.len() as f64;
        draw.seeds.iter().map(one).sum::<f64>() / draw.seeds.len() as f64
    }

    fn figure(&self, of: impl Fn(&Draw) -> f64 + Sync) -> Paired {
        let sizes: Vec<usize> = self.sets.iter().map(|set| set.pictures).collect();
        self.level.of(self.seeds, &sizes, of)
    }

    /// One arm less another in a group; none where there is no such arm or set.
    fn less(&self, (a, b): (Arm, Arm), role: Role) -> Option<Paired> {
        let there = self.has(&[a, b]) && self.sets.iter().any(|set| set.role == role);
        there.then(|| self.figure(|draw| self.mean(draw, (a, WHOLE), role) - self.mean(draw, (b, WHOLE), role)))
    }

    /// The best of a role among the mixes whose ID accuracy is within [`EQUAL`] of the best.
    fn best(&self, draw: &Draw, arm: Arm, role: Role) -> f64 {
        let id: Vec<f64> = (0..=WHOLE).map(|tenth| self.mean(draw, (arm, tenth), Role::Id)).collect();
        let most = id.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let kept = (0..=WHOLE).filter(|&tenth| id[tenth] >= most - EQUAL);
        kept.map(|tenth| self.mean(draw, (arm, tenth), role)).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// How good the base is on the finetune set itself, before that is trained on: what the base's own steps are chosen by. No test set is opened.
pub(crate) fn base_alone(lab: &Lab<'_>) -> Result<String> {
    let evaluator = measure::evaluator(lab, |role| matches!(role, Role::Train | Role::Validation))?;
    let base = measure::hits(lab, &evaluator, &base::pretrained(lab, lab.setting.first_seed)?)?;
    let all: String = base.values().map(String::as_str).collect();
    let chance = 1.0 / lab.sets.classes[super::bench::CATEGORIES].len() as f64;
    Ok(format!(
        "the base, seed {}, on the {} pictures of the finetune and validation sets: {:.1} % (chance {:.1} %)",
        lab.setting.first_seed,
        all.len(),
        100.0 * measure::share(&all),
        100.0 * chance
    ))
}

/// Everything, from the arms' files.
pub(crate) fn all(lab: &Lab<'_>) -> Result<Findings> {
    let results = Results::load(lab, &lab.setting.arms)?;
    let forgotten: Vec<(&'static str, Option<Paired>)> =
        GROUPS.iter().map(|&(name, role)| (name, results.less((Arm::Flyp, Arm::ZeroShot), role))).collect();
    let forgets = |name: &str| forgotten.iter().any(|(group, figure)| *group == name && figure.is_some_and(|f| f.high < 0.0));
    let claims = claims(&results, forgets("shift"), forgets("zero-shot"));
    let contrast = |&arms: &(Arm, Arm)| Contrast {
        arms,
        by_group: GROUPS.iter().map(|&(name, role)| (name, results.less(arms, role))).collect(),
    };
    let contrasts = CONTRASTS.iter().filter(|(a, b)| results.has(&[*a, *b])).map(contrast).collect();
    Ok(Findings {
        seeds: lab.setting.seeds,
        first_seed: lab.setting.first_seed,
        resamples: lab.setting.size.resamples,
        shares: shares(&results),
        curves: curves(&results),
        seconds: results.seconds.clone(),
        sets: results.sets.clone(),
        forgotten,
        claims,
        contrasts,
    })
}

fn shares(results: &Results) -> BTreeMap<Arm, BTreeMap<String, Vec<f64>>> {
    let mut all: BTreeMap<Arm, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for ((arm, _), seeds) in results.hits.iter().filter(|((_, tenth), _)| *tenth == WHOLE) {
        for (at, set) in results.sets.iter().enumerate() {
            let share = |hits: &Vec<Vec<bool>>| hits[at].iter().filter(|hit| **hit).count() as f64 / hits[at].len().max(1) as f64;
            all.entry(*arm).or_default().insert(set.name.clone(), seeds.iter().map(share).collect());
        }
    }
    all
}

fn curves(results: &Results) -> BTreeMap<Arm, Vec<[f64; 3]>> {
    let sizes: Vec<usize> = results.sets.iter().map(|set| set.pictures).collect();
    let whole = Draw::whole(results.seeds, &sizes);
    let arms = results.hits.keys().filter(|(_, tenth)| *tenth == 0).map(|(arm, _)| *arm);
    let point = |arm, tenth| [Role::Id, Role::Shift, Role::ZeroShot].map(|role| results.mean(&whole, (arm, tenth), role));
    arms.map(|arm| (arm, (0..=WHOLE).map(|tenth| point(arm, tenth)).collect())).collect()
}

/// A claim before its p-value is adjusted.
struct Open {
    id: &'static str,
    text: &'static str,
    figure: Option<Paired>,
    /// Whether its precondition holds.
    testable: bool,
    /// What else must hold, and its words.
    also: bool,
    remark: String,
}

fn claims(results: &Results, shift_forgets: bool, zero_shot_forgets: bool) -> Vec<Claim> {
    let less = |a, b, role| results.less((a, b), role);
    let simple = |id, text, figure, testable| Open { id, text, figure, testable, also: true, remark: String::new() };
    let mut open = vec![
        simple(
            "C1",
            "contrastive finetuning beats cross-entropy under shift",
            less(Arm::Flyp, Arm::CrossEntropy, Role::Shift),
            true,
        ),
        simple("C2", "ARF beats plain contrastive finetuning under shift", less(Arm::Arf, Arm::Flyp, Role::Shift), shift_forgets),
        simple("C4", "the gain is on other styles, not on the finetune's own", interaction(results), shift_forgets),
        simple("C5a", "captions alone help under shift", less(Arm::Captions, Arm::Flyp, Role::Shift), shift_forgets),
        simple("C5b", "retrieved pairs alone help under shift", less(Arm::Retrieved, Arm::Flyp, Role::Shift), shift_forgets),
        simple("C5c", "captions alone help on new concepts", less(Arm::Captions, Arm::Flyp, Role::ZeroShot), zero_shot_forgets),
        simple(
            "C5d",
            "retrieved pairs alone help on new concepts",
            less(Arm::Retrieved, Arm::Flyp, Role::ZeroShot),
            zero_shot_forgets,
        ),
        kept(results, zero_shot_forgets),
        simple(
            "C7a",
            "ARF's mixes with the base are better under shift at equal ID accuracy",
            mixes(results, Role::Shift),
            shift_forgets,
        ),
        simple(
            "C7b",
            "ARF's mixes with the base are better on new concepts at equal ID accuracy",
            mixes(results, Role::ZeroShot),
            zero_shot_forgets,
        ),
    ];
    let equal = equivalence(results);
    let p: Vec<f64> = open.iter().map(|claim| claim.figure.map_or(1.0, |figure| figure.p)).chain([equal.1]).collect();
    let adjusted = holm(&p);
    let last = adjusted.last().copied();
    let mut claims: Vec<Claim> = open.drain(..).zip(&adjusted).map(|(claim, &p)| judged(claim, p)).collect();
    claims.insert(2, equivalent(equal.0, last));
    claims
}

fn judged(claim: Open, adjusted: f64) -> Claim {
    let Open { id, text, figure, testable, also, mut remark } = claim;
    let verdict = match figure {
        None => {
            remark = "an arm or a set that it needs was not run".to_owned();
            Verdict::NotTestable
        }
        Some(_) if !testable => {
            remark = "its precondition does not hold: plain finetuning does not forget there, so nothing can be kept".to_owned();
            Verdict::NotTestable
        }
        Some(figure) if figure.value > 0.0 && adjusted < SIGNIFICANT && also => Verdict::Shown,
        Some(_) => Verdict::NotShown,
    };
    Claim { id, text, figure, adjusted: figure.map(|_| adjusted), verdict, remark }
}

/// The gain on other styles less the gain on the finetune's own (on new concepts of it, where there are such sets).
fn interaction(results: &Results) -> Option<Paired> {
    let own = if results.sets.iter().any(|set| set.role == Role::Resample) { Role::Resample } else { Role::Id };
    let gain = |draw: &Draw, role| results.mean(draw, (Arm::Arf, WHOLE), role) - results.mean(draw, (Arm::Flyp, WHOLE), role);
    results.has(&[Arm::Arf, Arm::Flyp]).then(|| results.figure(|draw| gain(draw, Role::Shift) - gain(draw, own)))
}

/// Start at least ARF, ARF above plain finetuning.
fn kept(results: &Results, testable: bool) -> Open {
    let figure = results.less((Arm::Arf, Arm::Flyp), Role::ZeroShot);
    let above = results.less((Arm::ZeroShot, Arm::Arf), Role::ZeroShot);
    let (also, remark) = match above {
        Some(above) => (above.high >= 0.0, format!("base less ARF: {}", points(&above))),
        None => (true, String::new()),
    };
    Open { id: "C6", text: "new concepts: the base at least ARF, ARF above plain finetuning", figure, testable, also, remark }
}

fn mixes(results: &Results, role: Role) -> Option<Paired> {
    let mixed = |arm| results.hits.contains_key(&(arm, 0));
    (mixed(Arm::Arf) && mixed(Arm::Flyp))
        .then(|| results.figure(|draw| results.best(draw, Arm::Arf, role) - results.best(draw, Arm::Flyp, role)))
}

/// ARF's ID accuracy less plain finetuning's, and the larger p-value of two one-sided tests against [`EQUAL`].
fn equivalence(results: &Results) -> (Option<Paired>, f64) {
    let Some(figure) = results.less((Arm::Arf, Arm::Flyp), Role::Id) else { return (None, 1.0) };
    let of = |draw: &Draw| results.mean(draw, (Arm::Arf, WHOLE), Role::Id) - results.mean(draw, (Arm::Flyp, WHOLE), Role::Id);
    let above = results.figure(|draw| of(draw) - EQUAL);
    let below = results.figure(|draw| of(draw) + EQUAL);
    let one_sided = |paired: Paired, right_side: bool| if right_side { paired.p / 2.0 } else { 1.0 - paired.p / 2.0 };
    (Some(figure), one_sided(above, above.value < 0.0).max(one_sided(below, below.value > 0.0)))
}

fn equivalent(figure: Option<Paired>, adjusted: Option<f64>) -> Claim {
    let verdict = match (figure, adjusted) {
        (Some(_), Some(p)) if p < SIGNIFICANT => Verdict::Shown,
        (Some(_), _) => Verdict::NotShown,
        _ => Verdict::NotTestable,
    };
    let text = "ID accuracy is unharmed: ARF within half a point of plain finetuning (two one-sided tests)";
    Claim { id: "C3", text, figure, adjusted: figure.and(adjusted), verdict, remark: String::new() }
}

/// A difference in points with its interval.
pub(crate) fn points(figure: &Paired) -> String {
    format!("{:+.1} [{:+.1}, {:+.1}]", 100.0 * figure.value, 100.0 * figure.low, 100.0 * figure.high)
}
