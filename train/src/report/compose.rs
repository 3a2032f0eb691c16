//! Runs to sections of a page.

use super::{
    AnchorsView, ReportLimits, RunFolder,
    html::Page,
    svg::{Axis, Chart, Point, Series},
};
use crate::{
    eval::{Difference, Estimate, Evaluation, Metric, Task},
    wise_ft::Curve,
};

/// One page about several runs. `base` names the model that forgetting is counted from; default: each evaluation's first.
#[must_use]
pub fn report(title: &str, runs: &[RunFolder], base: Option<&str>, anchors: &[AnchorsView], limits: &ReportLimits) -> String {
    let mut page = Page::new(title);
    let evaluations: Vec<(&str, &Evaluation)> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.evaluation.as_ref()?))).collect();
    methods(&mut page, &evaluations);
    forgetting(&mut page, runs, base);
    curves(&mut page, runs);
    training(&mut page, runs, limits);
    anchors.iter().for_each(|view| view.show(&mut page, limits));
    left_out(&mut page, &evaluations);
    settings(&mut page, runs);
    page.finish()
}

/// One evaluation as a page.
#[must_use]
pub fn evaluation_page(evaluation: &Evaluation) -> String {
    let mut page = Page::new("Evaluation");
    let all = [("evaluation", evaluation)];
    methods(&mut page, &all);
    details(&mut page, evaluation);
    differences(&mut page, evaluation);
    left_out(&mut page, &all);
    page.section("Settings and hashes");
    hashes(&mut page, evaluation);
    page.finish()
}

/// `41.7 (40.1–43.3)`.
fn shown(e: Option<&Estimate>) -> String {
    match e {
        None => String::new(),
        Some(Estimate { value, low: Some(low), high: Some(high) }) => {
            format!("{:.1} ({:.1}–{:.1})", value * 100.0, low * 100.0, high * 100.0)
        }
        Some(e) => format!("{:.1}", e.value * 100.0),
    }
}

/// Every model of every run, by the figure that its sets and groups are compared by.
fn methods(page: &mut Page, evaluations: &[(&str, &Evaluation)]) {
    let Some((_, first)) = evaluations.first() else { return };
    page.section("Methods");
    let resamples = first.config.bootstrap;
    page.text(&format!(
        "Per cent; in brackets {} % bootstrap intervals over images ({resamples} resamples). Means are plain means of a group's sets.",
        first.config.confidence * 100.0
    ));
    let columns = columns(evaluations);
    let mut head = vec!["method".to_owned()];
    head.extend(columns.iter().map(Column::head));
    let several = evaluations.len() > 1;
    let mut rows = Vec::new();
    for (run, evaluation) in evaluations {
        for model in &evaluation.models {
            let mut row = vec![if several { format!("{run}: {}", model.name) } else { model.name.clone() }];
            row.extend(columns.iter().map(|c| shown(c.of(evaluation, &model.name))));
            rows.push(row);
        }
    }
    page.table(&head, &rows);
}

/// A set or a group, and its leading figure.
struct Column {
    name: String,
    group: bool,
    metric: Metric,
}

impl Column {
    fn head(&self) -> String {
        let what = if self.group { "mean of " } else { "" };
        format!("{what}{} ({})", self.name, self.metric)
    }

    fn of<'e>(&self, evaluation: &'e Evaluation, model: &str) -> Option<&'e Estimate> {
        match self.group {
            true => evaluation.average(model, &self.name, self.metric),
            false => evaluation.figure(model, &self.name, self.metric),
        }
    }
}

fn columns(evaluations: &[(&str, &Evaluation)]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for group in [false, true] {
        for (_, evaluation) in evaluations {
            let sets = evaluation.sets.iter().map(|s| s.name.as_str()).filter(|_| !group);
            let groups = evaluation.means().into_iter().filter(|_| group);
            for name in sets.chain(groups) {
                let metric = if group { evaluation.group_lead(name) } else { evaluation.lead(name) };
                let known = columns.iter().any(|c| c.name == name && c.group == group);
                if let Some(metric) = metric.filter(|_| !known) {
                    columns.push(Column { name: name.to_owned(), group, metric });
                }
            }
        }
    }
    columns
}

/// What each model lost against the base: base minus model, so that forgetting is positive. Of a line between two models it is its end.
fn forgetting(page: &mut Page, runs: &[RunFolder], base: Option<&str>) {
    let mut rows = Vec::new();
    for run in runs {
        let Some(evaluation) = &run.evaluation else { continue };
        let end = run.curve.as_ref().and_then(|curve| curve.points.last());
        let base = base.or(evaluation.models.first().map(|m| m.name.as_str())).unwrap_or_default();
        let of_base = |d: &&Difference| d.baseline == base && end.is_none_or(|end| end.model == d.model);
        rows.extend(evaluation.shown_differences().filter(of_base).map(|d| forgotten(&run.name, d, evaluation.p_text(d.p))));
    }
    if rows.is_empty() {
        return;
    }
    page.section("Forgetting");
    page.text("Points lost against the model that training started from: base minus method, resampled with the same draws. Negative: the method gained.");
    let head = ["run", "method", "base", "on", "lost (interval)", "p"].map(str::to_owned);
    page.table(&head, &rows);
}

/// A difference in points with its sign; nothing is `-0.0`.
fn points(difference: f64) -> String {
    let rounded = (difference * 1000.0).round() / 10.0;
    if rounded == 0.0 { "0.0".to_owned() } else { format!("{rounded:+.1}") }
}

fn forgotten(run: &str, d: &Difference, p: String) -> Vec<String> {
    let e = d.estimate;
    let interval = match (e.low, e.high) {
        // The ends change places with the sign.
        (Some(low), Some(high)) => format!("{} ({} to {})", points(-e.value), points(-high), points(-low)),
        _ => points(-e.value),
    };
    let on = if d.group { format!("mean of {}", d.on) } else { d.on.clone() };
    vec![run.to_owned(), d.model.clone(), d.baseline.clone(), on, interval, p]
}

fn curves(page: &mut Page, runs: &[RunFolder]) {
    let with: Vec<(&RunFolder, &Curve)> = runs.iter().filter_map(|r| Some((r, r.curve.as_ref()?))).collect();
    if with.is_empty() {
        return;
    }
    page.section("Weight interpolation (WiSE-FT)");
    for (run, curve) in with {
        page.heading(&run.name);
        let groups = curve.evaluation.groups();
        let id = groups.iter().find(|g| **g == "id").or(groups.first());
        let others = id.map(|id| curve.others(id)).unwrap_or_default();
        match id.and_then(|id| curve.chart(id, &others)).filter(|_| !others.is_empty()) {
            Some(chart) => page.figure(&chart.to_svg()),
            None => page.text("No picture: it needs two groups of sets."),
        }
        if let (Some(chosen), Some(set)) = (curve.chosen, &curve.chosen_by) {
            page.text(&format!("α {chosen} does best on {set}."));
        }
        // Its figures stand among the methods, where its folder has them in full.
        if run.evaluation.is_none() {
            methods_of(page, &curve.evaluation);
        }
    }
}

fn methods_of(page: &mut Page, evaluation: &Evaluation) {
    let all = [("", evaluation)];
    let columns = columns(&all);
    let mut head = vec!["model".to_owned()];
    head.extend(columns.iter().map(Column::head));
    let row = |model: &crate::eval::ModelRecord| {
        let mut row = vec![model.name.clone()];
        row.extend(columns.iter().map(|c| shown(c.of(evaluation, &model.name))));
        row
    };
    page.table(&head, &evaluation.models.iter().map(row).collect::<Vec<_>>());
}

/// The curves that say most, if training wrote them.
const CURVES: [(&str, &str); 4] =
    [("loss", "loss"), ("rate", "learning rate"), ("grad_norm", "gradient norm"), ("logit_scale", "logit scale")];

fn training(page: &mut Page, runs: &[RunFolder], limits: &ReportLimits) {
    let with: Vec<&RunFolder> = runs.iter().filter(|r| !r.metrics.is_empty()).collect();
    if with.is_empty() {
        return;
    }
    page.section("Training");
    for (name, label) in CURVES {
        let mut series = Vec::new();
        for run in &with {
            series.extend(line(run, name, &run.name, limits));
            // A run's separate losses stand beside their sum, where there are several.
            let parts: Vec<&String> = run.metrics.keys().filter(|key| name == "loss" && key.starts_with("losses/")).collect();
            for part in parts.iter().filter(|_| parts.len() > 1) {
                series.extend(line(run, part, &format!("{}, {}", run.name, part.trim_start_matches("losses/")), limits));
            }
        }
        if !series.is_empty() {
            let (x, y) = (Axis { label: "step".to_owned() }, Axis { label: label.to_owned() });
            page.figure(&Chart { title: label.to_owned(), x, y, series }.to_svg());
        }
    }
}

fn line(run: &RunFolder, metric: &str, name: &str, limits: &ReportLimits) -> Option<Series> {
    let all = run.metrics.get(metric)?;
    let every = all.len().div_ceil(limits.max_curve_points.max(1)).max(1);
    let point = |&(x, y): &(f64, f64)| Point { x, y, note: format!("{name}, step {x}: {y:.4}"), mark: None };
    Some(Series { name: name.to_owned(), points: all.iter().step_by(every).map(point).collect() })
}

fn details(page: &mut Page, evaluation: &Evaluation) {
    page.section("Sets");
    for set in &evaluation.sets {
        let results: Vec<_> = evaluation.results.iter().filter(|r| r.set == set.name).collect();
        let Some(first) = results.first() else { continue };
        page.heading(&set.name);
        let kind = match set.task {
            Task::Retrieve => format!("{} captions", set.captions),
            _ => format!("{} labels, chance {:.2} %", set.labels, 100.0 / set.labels.max(1) as f64),
        };
        page.text(&format!("{} images, {kind}; {} unreadable, {} with other labels.", set.images, set.unreadable, set.outside));
        let metrics: Vec<Metric> = first.figures.keys().copied().collect();
        let mut head = vec!["model".to_owned()];
        head.extend(metrics.iter().map(ToString::to_string));
        let row = |result: &&crate::eval::SetResult| {
            let mut row = vec![result.model.clone()];
            row.extend(metrics.iter().map(|metric| shown(result.figures.get(metric))));
            row
        };
        page.table(&head, &results.iter().map(row).collect::<Vec<_>>());
    }
    if !evaluation.probes.is_empty() {
        page.heading("Linear probes");
        let head = ["probe", "model", "set", "l2", "top-1"].map(str::to_owned);
        let row = |p: &crate::eval::ProbeRecord| {
            vec![p.probe.clone(), p.model.clone(), p.set.clone(), format!("{:e}", p.l2), shown(p.figures.get(&Metric::Top1))]
        };
        page.table(&head, &evaluation.probes.iter().map(row).collect::<Vec<_>>());
    }
}

fn differences(page: &mut Page, evaluation: &Evaluation) {
    let leading: Vec<&Difference> = evaluation.shown_differences().collect();
    if leading.is_empty() {
        return;
    }
    page.section("Paired differences");
    page.text("Points, resampled with the same draws; p is not corrected for the number of comparisons.");
    let row = |d: &&Difference| {
        let ends = d.estimate.low.zip(d.estimate.high);
        let ends = ends.map_or_else(String::new, |(l, h)| format!(" ({} to {})", points(l), points(h)));
        let on = if d.group { format!("mean of {}", d.on) } else { d.on.clone() };
        let value = format!("{}{ends}", points(d.estimate.value));
        vec![d.model.clone(), d.baseline.clone(), on, value, evaluation.p_text(d.p)]
    };
    let head = ["model", "minus", "on", "difference", "p"].map(str::to_owned);
    page.table(&head, &leading.iter().map(row).collect::<Vec<_>>());
}

fn left_out(page: &mut Page, evaluations: &[(&str, &Evaluation)]) {
    let sets = evaluations.iter().flat_map(|(run, e)| e.sets.iter().map(move |s| (run, s)));
    let with: Vec<_> = sets.filter(|(_, s)| s.unreadable > 0 || s.outside > 0).collect();
    if with.is_empty() {
        return;
    }
    page.section("Not evaluated");
    let head = ["set", "run", "unreadable", "with other labels", "the first unreadable"].map(str::to_owned);
    let row = |(run, s): &(&&str, &crate::eval::SetRecord)| {
        let first = s.unreadable_rows.first().map_or_else(String::new, |u| format!("{}: {}", u.row, u.message));
        vec![s.name.clone(), (**run).to_owned(), s.unreadable.to_string(), s.outside.to_string(), first]
    };
    page.table(&head, &with.iter().map(row).collect::<Vec<_>>());
}

fn settings(page: &mut Page, runs: &[RunFolder]) {
    page.section("Settings and hashes");
    for run in runs {
        page.heading(&run.name);
        let mut rows: Vec<Vec<String>> = run.hashes.iter().map(|(file, hash)| vec![file.clone(), hash.clone()]).collect();
        rows.extend(run.settings.iter().map(|(file, hash, _)| vec![file.clone(), hash.clone()]));
        page.table(&["file".to_owned(), "SHA-256".to_owned()], &rows);
        if let Some(evaluation) = run.evaluation.as_ref().or(run.curve.as_ref().map(|c| &c.evaluation)) {
            hashes(page, evaluation);
        }
        run.settings.iter().for_each(|(file, _, text)| page.folded(file, text));
    }
}

fn hashes(page: &mut Page, evaluation: &Evaluation) {
    let model = |m: &crate::eval::ModelRecord| vec![m.name.clone(), "model".to_owned(), m.fingerprint.clone()];
    let set = |s: &crate::eval::SetRecord| vec![s.name.clone(), format!("set of {} images", s.images), s.content.clone()];
    let mut rows: Vec<Vec<String>> = evaluation.models.iter().map(model).collect();
    rows.extend(evaluation.sets.iter().map(set));
    page.table(&["name".to_owned(), "what".to_owned(), "fingerprint".to_owned()], &rows);
    let config = serde_json::to_string_pretty(&evaluation.config).unwrap_or_default();
    page.folded(&format!("Evaluation's configuration (written by {})", evaluation.written_by), &config);
}
