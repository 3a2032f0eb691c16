//! A manifest as sections of a page: what was found, how it scored, which classes and styles, and what it looks like.

use std::collections::BTreeMap;

use anchorite_anchors::ManifestHit;

use super::{
    Gallery, ReportLimits,
    html::Page,
    svg::{Axis, Histogram},
};

/// Bars of the score histogram.
const BARS: usize = 40;
/// Rows of a table of classes or styles; the rest are summed.
const MAX_ROWS: usize = 24;

/// A manifest to be shown.
#[derive(Clone, Debug, Default)]
pub struct AnchorsView {
    /// What it is called.
    pub name: String,
    /// Its hits, in file order.
    pub hits: Vec<ManifestHit>,
    /// Anchors by the pool's style column, where it has one.
    pub styles: BTreeMap<String, u64>,
    /// Some of its queries with their anchors.
    pub gallery: Gallery,
    /// What the manifest says of itself.
    pub header: String,
}

/// One manifest as a page.
#[must_use]
pub fn anchors_page(view: &AnchorsView, limits: &ReportLimits) -> String {
    let mut page = Page::new(&format!("Anchors: {}", view.name));
    view.show(&mut page, limits);
    page.section("Settings and hashes");
    page.folded("The manifest's header", &view.header);
    page.finish()
}

impl AnchorsView {
    pub(super) fn show(&self, page: &mut Page, limits: &ReportLimits) {
        page.section(&format!("Anchors: {}", self.name));
        let kept = self.hits.iter().filter(|h| h.reason.is_none()).count();
        page.text(&format!("{kept} anchors; {} hits were passed over.", self.hits.len() - kept));
        self.scores(page);
        count_table(page, "Style", &self.styles);
        let (markup, left_out) = self.gallery.to_html(limits);
        if !self.gallery.tasks.is_empty() {
            page.heading("Gallery");
            page.text("Left of the line: a picture of the task, with its caption where there is one, or its class. Right of it: what was retrieved for it, the nearest first, with its own caption.");
            page.figure(&markup);
        }
        if left_out > 0 {
            page.text(&format!("{left_out} pictures are too large for this page or of a kind that browsers do not show."));
        }
        self.classes(page);
    }

    /// Scores of anchors, and of hits passed over by reason.
    fn scores(&self, page: &mut Page) {
        let scored: Vec<(f32, &str)> =
            self.hits.iter().filter_map(|h| Some((h.score?, h.reason.as_deref().unwrap_or("anchor")))).collect();
        let low = scored.iter().map(|s| s.0).fold(f32::INFINITY, f32::min);
        let high = scored.iter().map(|s| s.0).fold(f32::NEG_INFINITY, f32::max);
        if !(low.is_finite() && high > low) {
            page.text("No scores to draw: a control draws without them, or all are equal.");
            return;
        }
        let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (score, kind) in scored {
            let bar = (((score - low) / (high - low) * BARS as f32) as usize).min(BARS - 1);
            kinds.entry(kind).or_insert_with(|| vec![0; BARS])[bar] += 1;
        }
        let kinds = kinds.into_iter().map(|(kind, bars)| (kind.to_owned(), bars)).collect();
        let x = Axis { label: "score (cosine)".to_owned() };
        let range = (f64::from(low), f64::from(high));
        page.figure(&Histogram { title: "Scores of hits, by what became of them".to_owned(), x, range, kinds }.to_svg());
    }

    fn classes(&self, page: &mut Page) {
        let mut classes: BTreeMap<String, u64> = BTreeMap::new();
        for hit in self.hits.iter().filter(|h| h.reason.is_none()) {
            if let Some(class) = &hit.class {
                *classes.entry(class.clone()).or_default() += 1;
            }
        }
        count_table(page, "Class", &classes);
    }
}

/// Counts, the most frequent first; the tail is summed.
fn count_table(page: &mut Page, what: &str, counts: &BTreeMap<String, u64>) {
    if counts.is_empty() {
        return;
    }
    let total: u64 = counts.values().sum();
    let mut all: Vec<(&String, &u64)> = counts.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let row = |name: String, n: u64| vec![name, n.to_string(), format!("{:.1} %", n as f64 * 100.0 / total as f64)];
    let mut rows: Vec<Vec<String>> = all.iter().take(MAX_ROWS).map(|(name, n)| row((*name).clone(), **n)).collect();
    if all.len() > MAX_ROWS {
        rows.push(row(format!("{} others", all.len() - MAX_ROWS), all[MAX_ROWS..].iter().map(|(_, n)| **n).sum()));
    }
    page.heading(&format!("{what}, {} in all", all.len()));
    page.table(&[what.to_owned(), "anchors".to_owned(), "share".to_owned()], &rows);
}
