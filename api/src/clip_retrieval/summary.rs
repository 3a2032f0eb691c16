//! `/metrics-summary`: where the time of searches went, as a table for people.

use std::fmt::Write as _;

use crate::metrics::Step;

/// What upstream says before the first search, or how many there were and what each of their steps took, the dearest first.
pub(super) fn summary(whole: &Step, mut steps: Vec<Step>) -> String {
    if whole.calls == 0 {
        return "No request yet, go do some".to_owned();
    }
    steps.sort_by(|a, b| b.average().total_cmp(&a.average()).then_with(|| a.name.cmp(&b.name)));
    let share = |step: &Step| if whole.average() > 0.0 { step.average() / whole.average() * 100.0 } else { 0.0 };
    let head = ["name", "description", "calls", "average", "proportion"].map(str::to_owned);
    let row = |step: &Step| {
        let (average, share) = (format!("{:.4}s", step.average()), format!("{:.1}%", share(step)));
        [step.name.clone(), step.description.clone(), step.calls.to_string(), average, share]
    };
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(steps.iter().map(row)).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut text = format!(
        "Among {} calls to the knn end point with an average latency of {:.4}s per request, the step costs are (in order): \n\n",
        whole.calls,
        whole.average()
    );
    for (number, row) in rows.iter().enumerate() {
        // The head has no number.
        let _ = write!(text, "{:<2}", number.checked_sub(1).map_or_else(String::new, |n| n.to_string()));
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}
