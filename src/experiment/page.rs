//! Findings as Markdown and as one HTML file, made of the same parts.

use std::{fmt::Write, fs, path::PathBuf};

use anchorite::train::report::{
    html::Page,
    svg::{Axis, Chart, Point, Series},
};
use anyhow::{Context, Result};

use super::{
    Lab,
    arms::Arm,
    base::{self, TEMPLATES},
    bench::Role,
    claims::{Findings, GROUPS, SetAbout, points},
    tune::Rates,
};

/// The same text twice.
struct Document {
    page: Page,
    text: String,
}

impl Document {
    fn section(&mut self, title: &str) {
        self.page.section(title);
        let _ = write!(self.text, "\n## {title}\n\n");
    }

    fn text(&mut self, text: &str) {
        self.page.text(text);
        let _ = write!(self.text, "{text}\n\n");
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
        self.page.table(&head, rows);
        let line =
            |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
        self.text.push_str(&line(&head));
        self.text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
        rows.iter().for_each(|row| self.text.push_str(&line(row)));
        self.text.push('\n');
    }
}

/// Writes `report.html`, `report.md` and `findings.json`; the page's place.
pub(crate) fn write(lab: &Lab<'_>, found: &Findings, rates: &Rates) -> Result<PathBuf> {
    let title = "arf-mini: does it keep what the model knew?";
    let mut document = Document { page: Page::new(title), text: format!("# {title}\n\n") };
    setting(&mut document, lab, found, rates);
    preconditions(&mut document, found);
    claims(&mut document, found);
    groups(&mut document, found);
    contrasts(&mut document, found);
    curves(&mut document, found);
    sets(&mut document, found);
    cost(&mut document, found);
    let path = lab.setting.out.join("report.html");
    let put = |path: &PathBuf, text: &str| fs::write(path, text).with_context(|| format!("write {}", path.display()));
    put(&lab.setting.out.join("report.md"), &document.text)?;
    put(&path, &document.page.finish())?;
    super::write_json(&lab.setting.out.join("findings.json"), found)?;
    Ok(path)
}

fn setting(document: &mut Document, lab: &Lab<'_>, found: &Findings, rates: &Rates) {
    let size = &lab.setting.size;
    document.section("Setting");
    document.text(&format!(
        "Finetune: {} pictures of {} categories ({:?} drawings), {} steps of {} pairs. Base: {} pool pairs, {} steps of {}. {} paired seeds from {} on, each \
         with its own base, anchors and order. {} numbers of both heads are trained; the towers (frozen, their features computed once) stay as \
         packaged, since training them as well takes a hundred times as long on a processor.",
        base::rows(lab, Role::Train),
        lab.sets.classes[super::bench::CATEGORIES].len(),
        lab.setting.style,
        size.steps,
        size.batch,
        base::rows(lab, Role::Pool),
        size.base_steps,
        size.base_batch,
        found.seeds,
        found.first_seed,
        lab.frozen.trained()
    ));
    document.text(
        "The pool is what the base was pretrained on: anchors are rehearsal here, not new data as in the paper. Captions are the packages' own \
         (name and keywords), not a captioner's. Pictures are drawings; the only photographs are a test set.",
    );
    document.text(&format!("Prompts in training and evaluation: {}.", TEMPLATES.join("; ")));
    let rows: Vec<Vec<String>> = rates
        .tried
        .iter()
        .flat_map(|(arm, tried)| {
            tried
                .iter()
                .map(move |(rate, share)| vec![arm.clone(), format!("{rate}"), percent(*share), chosen(rates, arm, *rate)])
        })
        .collect();
    if let Some(rate) = lab.setting.rate {
        document.text(&format!("Every arm at the rate {rate}, as given (--rate); none was chosen."));
        return;
    }
    document.text("Rates, chosen on ID validation before any test set was opened (hyperparameters.json):");
    document.table(&["tuned on", "rate", "validation %", ""], &rows);
}

fn chosen(rates: &Rates, arm: &str, rate: f64) -> String {
    if rates.chosen.get(arm) == Some(&rate) { "chosen".to_owned() } else { String::new() }
}

fn preconditions(document: &mut Document, found: &Findings) {
    document.section("Preconditions");
    document.text("The base on each set, mean of seeds, and what plain contrastive finetuning makes of it.");
    let share = |arm, set: &SetAbout| found.shares.get(&arm).and_then(|sets| sets.get(&set.name)).map(|seeds| mean(seeds));
    let row = |set: &SetAbout| {
        let (base, tuned) = (share(Arm::ZeroShot, set), share(Arm::Flyp, set));
        let difference = base.zip(tuned).map_or(String::new(), |(a, b)| format!("{:+.1}", 100.0 * (b - a)));
        let cell = |share: Option<f64>| share.map_or(String::new(), percent);
        vec![
            set.name.clone(),
            group(set.role).to_owned(),
            set.pictures.to_string(),
            percent(1.0 / set.labels.max(1) as f64),
            cell(base),
            cell(tuned),
            difference,
        ]
    };
    let rows: Vec<Vec<String>> = found.sets.iter().map(row).collect();
    document.table(&["set", "group", "pictures", "chance %", "base %", "finetuned %", "points"], &rows);
    for (group, figure) in &found.forgotten {
        if let Some(figure) = figure {
            let word = if figure.high < 0.0 { "forgotten" } else { "not forgotten" };
            document.text(&format!("{group}: {} points by plain finetuning: {word}.", points(figure)));
        }
    }
}

fn claims(document: &mut Document, found: &Findings) {
    document.section("Claims");
    document.text(&format!(
        "Points of accuracy with 95 % intervals over {} seeds and the pictures of each set ({} draws); p-values adjusted by Holm over the claims.",
        found.seeds, found.resamples
    ));
    let row = |claim: &super::claims::Claim| {
        let least = 1.0 / found.resamples as f64;
        let p = |p: f64| if p <= least { format!("< {least}") } else { format!("{p:.3}") };
        vec![
            claim.id.to_owned(),
            claim.text.to_owned(),
            claim.figure.as_ref().map_or(String::new(), points),
            claim.figure.map_or(String::new(), |figure| p(figure.p)),
            claim.adjusted.map_or(String::new(), p),
            claim.verdict.label().to_owned(),
            claim.remark.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = found.claims.iter().map(row).collect();
    document.table(&["", "claim", "points", "p", "adjusted", "verdict", "remark"], &rows);
}

fn groups(document: &mut Document, found: &Findings) {
    document.section("Arms");
    document.text("Mean of each group's sets, %; mean of seeds ± their standard deviation.");
    let cell = |arm: Arm, role: Role| {
        let names: Vec<&String> = found.sets.iter().filter(|set| set.role == role).map(|set| &set.name).collect();
        let seed = |seed: usize| names.iter().map(|name| found.shares[&arm][*name][seed]).sum::<f64>() / names.len() as f64;
        let all: Vec<f64> = (0..found.seeds as usize).map(seed).collect();
        if names.is_empty() { String::new() } else { format!("{} ± {:.1}", percent(mean(&all)), 100.0 * deviation(&all)) }
    };
    let row = |arm: &Arm| std::iter::once(arm.to_string()).chain(GROUPS.iter().map(|(_, role)| cell(*arm, *role))).collect();
    let rows: Vec<Vec<String>> = found.shares.keys().map(row).collect();
    let head: Vec<&str> = std::iter::once("arm").chain(GROUPS.iter().map(|(name, _)| *name)).collect();
    document.table(&head, &rows);
}

fn contrasts(document: &mut Document, found: &Findings) {
    document.section("Differences and controls");
    document.text("The first arm less the second, points with 95 % intervals, not adjusted.");
    let row = |contrast: &super::claims::Contrast| {
        let name = format!("{} − {}", contrast.arms.0, contrast.arms.1);
        let cells = contrast.by_group.iter().map(|(_, figure)| figure.as_ref().map_or(String::new(), points));
        std::iter::once(name).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = found.contrasts.iter().map(row).collect();
    let head: Vec<&str> = std::iter::once("arms").chain(GROUPS.iter().map(|(name, _)| *name)).collect();
    document.table(&head, &rows);
}

fn curves(document: &mut Document, found: &Findings) {
    if found.curves.is_empty() {
        return;
    }
    document.section("Mixes with the base (WiSE-FT)");
    for (at, name) in [(1, "shift"), (2, "zero-shot")] {
        let series = |(arm, points): (&Arm, &Vec<[f64; 3]>)| Series {
            name: arm.to_string(),
            points: points.iter().enumerate().map(|(tenth, p)| point(*p, at, tenth)).collect(),
        };
        let axis = |label: &str| Axis { label: format!("{label}, %") };
        let chart = Chart {
            title: format!("ID against {name}, from the base to the finetuned model"),
            x: axis("ID"),
            y: axis(name),
            series: found.curves.iter().map(series).collect(),
        };
        document.page.figure(&chart.to_svg());
    }
    let row = |(arm, points): (&Arm, &Vec<[f64; 3]>)| -> Vec<Vec<String>> {
        let one = |(tenth, p): (usize, &[f64; 3])| {
            let alpha = format!("{:.1}", tenth as f64 / 10.0);
            std::iter::once(arm.to_string()).chain([alpha]).chain(p.iter().map(|&v| percent(v))).collect()
        };
        points.iter().enumerate().map(one).collect()
    };
    let rows: Vec<Vec<String>> = found.curves.iter().flat_map(row).collect();
    document.table(&["arm", "alpha", "ID", "shift", "zero-shot"], &rows);
}

fn point(values: [f64; 3], at: usize, tenth: usize) -> Point {
    let mark = [0, 5, 10].contains(&tenth).then(|| format!("{}", tenth as f64 / 10.0));
    Point { x: 100.0 * values[0], y: 100.0 * values[at], note: format!("alpha {}", tenth as f64 / 10.0), mark }
}

fn sets(document: &mut Document, found: &Findings) {
    document.section("Every set and seed");
    document.text("Share right, %: the mean of seeds, then each seed.");
    let row = |(arm, sets): (&Arm, &std::collections::BTreeMap<String, Vec<f64>>)| -> Vec<Vec<String>> {
        let one = |set: &SetAbout| {
            let seeds = sets.get(&set.name)?;
            let each: Vec<String> = seeds.iter().map(|&share| percent(share)).collect();
            Some(vec![arm.to_string(), set.name.clone(), percent(mean(seeds)), each.join(" ")])
        };
        found.sets.iter().filter_map(one).collect()
    };
    let rows: Vec<Vec<String>> = found.shares.iter().flat_map(row).collect();
    document.table(&["arm", "set", "mean", "seeds"], &rows);
}

fn cost(document: &mut Document, found: &Findings) {
    document.section("Cost");
    let row = |(arm, (trained, measured)): (&Arm, &(f64, f64))| {
        vec![arm.to_string(), format!("{trained:.0}"), format!("{measured:.0}")]
    };
    let rows: Vec<Vec<String>> = found.seconds.iter().map(row).collect();
    document.text("Wall seconds of one seed, on the machine as busy as it was.");
    document.table(&["arm", "training", "measuring"], &rows);
}

fn group(role: Role) -> &'static str {
    GROUPS.iter().find(|(_, of)| *of == role).map_or("", |(name, _)| name)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of a sample; 0 for one value.
fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    (values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
