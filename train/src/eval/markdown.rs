//! The results as Markdown tables.

use std::fmt::Write;

use super::{Estimate, Evaluation, Metric, evaluation::Difference};

impl Evaluation {
    /// Tables: models by sets, averages, paired differences, probes, and what was not evaluated. Shares in per cent.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::from("# Evaluation\n");
        self.leading(&mut out);
        self.details(&mut out);
        self.compared(&mut out);
        self.probed(&mut out);
        self.left_out(&mut out);
        out
    }

    /// One row a model, one column a set: the figure that sets are compared by.
    fn leading(&self, out: &mut String) {
        let sets: Vec<(&str, Metric)> = self.sets.iter().filter_map(|s| Some((s.name.as_str(), self.lead(&s.name)?))).collect();
        let groups: Vec<(&str, Metric)> = self.means().into_iter().filter_map(|g| Some((g, self.group_lead(g)?))).collect();
        let mut head = vec!["model".to_owned()];
        head.extend(sets.iter().map(|(set, metric)| format!("{set}, {metric}")));
        head.extend(groups.iter().map(|(group, metric)| format!("mean of {group}, {metric}")));
        let rows = self.models.iter().map(|model| {
            let mut row = vec![model.name.clone()];
            row.extend(sets.iter().map(|(set, metric)| shown(self.figure(&model.name, set, *metric))));
            row.extend(groups.iter().map(|(group, metric)| shown(self.average(&model.name, group, *metric))));
            row
        });
        let share = self.config.confidence * 100.0;
        let _ = writeln!(out, "\nPer cent, with {share} % intervals from {} resamples.\n", self.config.bootstrap);
        table(out, &head, rows);
    }

    /// Every figure of every set.
    fn details(&self, out: &mut String) {
        for set in &self.sets {
            let results: Vec<_> = self.results.iter().filter(|r| r.set == set.name).collect();
            let Some(first) = results.first() else { continue };
            let _ = writeln!(out, "\n## {}\n", set.name);
            let what = match set.labels {
                0 => format!("{} images, {} captions", set.images, set.captions),
                labels => format!("{} images, {labels} labels (chance {:.2} %)", set.images, 100.0 / labels as f64),
            };
            let _ = writeln!(out, "{what}; {} unreadable, {} with other labels.\n", set.unreadable, set.outside);
            let metrics: Vec<Metric> = first.figures.keys().copied().collect();
            let mut head = vec!["model".to_owned()];
            head.extend(metrics.iter().map(ToString::to_string));
            let rows = results.iter().map(|result| {
                let mut row = vec![result.model.clone()];
                row.extend(metrics.iter().map(|metric| shown(result.figures.get(metric))));
                row
            });
            table(out, &head, rows);
        }
    }

    fn compared(&self, out: &mut String) {
        let leading: Vec<&Difference> = self.shown_differences().collect();
        if leading.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n## Paired differences\n\nIn points; the same resamples for both models.\n");
        let head = ["model", "minus", "on", "figure", "difference", "p"].map(str::to_owned);
        let rows = leading.iter().map(|d| {
            let on = if d.group { format!("mean of {}", d.on) } else { d.on.clone() };
            let p = self.p_text(d.p);
            vec![d.model.clone(), d.baseline.clone(), on, d.metric.to_string(), signed(&d.estimate), p]
        });
        table(out, &head, rows);
    }

    fn probed(&self, out: &mut String) {
        if self.probes.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n## Linear probes\n");
        let head = ["probe", "model", "set", "l2", "top-1", "mean per class"].map(str::to_owned);
        let rows = self.probes.iter().map(|p| {
            let figure = |metric| shown(p.figures.get(&metric));
            let (l2, top1, per_class) = (format!("{:e}", p.l2), figure(Metric::Top1), figure(Metric::MeanPerClass));
            vec![p.probe.clone(), p.model.clone(), p.set.clone(), l2, top1, per_class]
        });
        table(out, &head, rows);
    }

    fn left_out(&self, out: &mut String) {
        for set in self.sets.iter().filter(|s| s.unreadable > 0) {
            let _ = writeln!(out, "\n## Not readable in {}: {}\n", set.name, set.unreadable);
            for row in &set.unreadable_rows {
                let _ = writeln!(out, "- `{}`: {} ({})", row.row, row.message, row.code);
            }
        }
        for model in self.models.iter().filter(|m| m.scale_assumed) {
            let _ = writeln!(out, "\n{} does not state its scale; {} was assumed for its ECE.", model.name, model.scale);
        }
    }

    /// The figure a set is compared by.
    #[must_use]
    pub fn lead(&self, set: &str) -> Option<Metric> {
        let first = self.results.iter().find(|r| r.set == set)?;
        first.figures.keys().copied().find(|m| m.leads())
    }

    /// The figure a group is compared by.
    #[must_use]
    pub fn group_lead(&self, group: &str) -> Option<Metric> {
        let first = self.averages.iter().find(|a| a.group == group)?;
        first.figures.keys().copied().find(|m| m.leads())
    }
}

/// `41.7 (40.1, 43.3)`.
fn shown(estimate: Option<&Estimate>) -> String {
    let Some(e) = estimate else { return String::new() };
    match (e.low, e.high) {
        (Some(low), Some(high)) => format!("{:.1} ({:.1}, {:.1})", e.value * 100.0, low * 100.0, high * 100.0),
        _ => format!("{:.1}", e.value * 100.0),
    }
}

fn signed(e: &Estimate) -> String {
    match (e.low, e.high) {
        (Some(low), Some(high)) => format!("{:+.1} ({:+.1}, {:+.1})", e.value * 100.0, low * 100.0, high * 100.0),
        _ => format!("{:+.1}", e.value * 100.0),
    }
}

fn table(out: &mut String, head: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "{}\n|{}", line(head), "---|".repeat(head.len()));
    rows.for_each(|row| {
        let _ = writeln!(out, "{}", line(&row));
    });
}
