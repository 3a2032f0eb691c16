//! What `ingest` says at its end, and with `--dry-run` instead of doing anything.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anchorite::{
    encoder::Encoder,
    ingest::{ColumnsUsed, Estimate, IngestJob, IngestOptions, IngestReport, PlannedSource, StageSeconds, Vectors, plan},
};
use anyhow::Result;

use super::Args;
use crate::{
    exit::Exit,
    output::{bytes, count, json, line},
};

/// Rows that a dry run prepares.
const CHECKED_ROWS: usize = 8;

/// The report for people.
pub(crate) fn describe(report: &IngestReport, rejects: Option<&Path>) {
    line(&format!(
        "{}: {} accepted, {} there already, {} rejected; {:.1} s, {:.1} pictures/s",
        count(report.rows_read, "row"),
        report.accepted,
        report.already_present,
        report.rejected,
        report.seconds,
        report.images_per_second
    ));
    if report.replaced > 0 {
        line(&format!("{} pairs were replaced, since their rows had changed", report.replaced));
    }
    if report.rows_passed_over > 0 {
        line(&format!("{} rows of unchanged files were settled by earlier runs and not read again", report.rows_passed_over));
    }
    if report.filtered > 0 {
        line(&format!("{} rows were filtered out", report.filtered));
    }
    if report.sidecars > 0 {
        line(&format!("{} files of img2dataset beside its shards are no sources and were passed over", report.sidecars));
    }
    if report.failed_before > 0 {
        line(&format!(
            "{} rows were never in these files: img2dataset could not download or resize them; its lists beside the shards name them",
            report.failed_before
        ));
    }
    if report.owned_pictures > 0 {
        line(&format!("{} pictures lie below a table and were read only as it names them", report.owned_pictures));
    }
    if !report.ignored_files.is_empty() {
        let kinds: Vec<String> = report.ignored_files.iter().map(|(ending, files)| format!("{files} x {ending}")).collect();
        line(&format!("files of kinds that are not read were passed over: {}", kinds.join(", ")));
    }
    if report.truncated_captions > 0 {
        line(&format!("{} captions were longer than the text tower reads and were cut", report.truncated_captions));
    }
    line(&stages(&report.stages));
    for (reason, count) in report.rejected_by_reason.iter().chain(&report.filtered_by_reason) {
        line(&format!("  {count} x {reason}"));
    }
    if let (Some(path), true) = (rejects, report.rejected + report.filtered > 0) {
        line(&format!("rows left out are listed in {}", path.display()));
    }
}

/// Says what would be done.
pub(super) fn dry_run(args: &Args, sources: &[PathBuf], options: &IngestOptions, encoder: Option<&Encoder>) -> Result<Exit> {
    let vectors = encoder.map_or(Vectors::Ready { dim: None }, |e| Vectors::Encode(e));
    let found = plan(IngestJob { sources, vectors, options }, CHECKED_ROWS)?;
    if args.json {
        json(&found)?;
        return Ok(Exit::Done);
    }
    let about = if found.estimated { "about " } else { "" };
    let (rows, files) = (count(found.rows, "row"), count(found.sources.len() as u64, "file"));
    line(&format!("{about}{rows} in {files} would be ingested into {}", args.pool.display()));
    let mut before: Option<&PlannedSource> = None;
    for source in &found.sources {
        let about = if source.estimated { "about " } else { "" };
        // Shards are alike: what has been said of one is not said of each.
        let alike = before.is_some_and(|before| before.columns == source.columns && before.schema == source.schema);
        let used = if alike { "the same columns".to_owned() } else { columns(&source.columns) };
        line(&format!("{}: {about}{}; {used}", source.name, count(source.rows, "row")));
        if !alike && !source.schema.is_empty() {
            let all: Vec<String> = source.schema.iter().map(|c| format!("{}: {}", c.name, c.data_type)).collect();
            line(&format!("  its columns: {}", all.join(", ")));
        }
        before = Some(source);
    }
    if let Some(estimate) = &found.estimate {
        line(&estimated(estimate));
    }
    for row in &found.checked {
        line(&format!("{} row {}: {}", row.file, row.row, row.problem.as_deref().unwrap_or("fine")));
    }
    Ok(Exit::Done)
}

/// Which columns serve, for people.
pub(super) fn columns(used: &ColumnsUsed) -> String {
    let parts = [
        ("picture", &used.image),
        ("caption", &used.caption),
        ("key", &used.key),
        ("image vector", &used.image_vector),
        ("text vector", &used.text_vector),
    ];
    let mut said: Vec<String> =
        parts.iter().filter_map(|(part, column)| column.as_ref().map(|column| format!("{part} {column}"))).collect();
    for (kind, names) in [("metadata", &used.fields), ("not used", &used.skipped)] {
        if !names.is_empty() {
            said.push(format!("{kind} {}", names.join(" ")));
        }
    }
    said.join(", ")
}

/// Where the time went, for people.
fn stages(spent: &StageSeconds) -> String {
    format!(
        "time: reading {:.1} s (and held up {:.1} s by what comes after), preparing {:.1} s, encoding {:.1} s, workers without rows {:.1} s, \
         writing {:.1} s",
        spent.reading, spent.reading_held_up, spent.preparing, spent.encoding, spent.workers_idle, spent.writing
    )
}

/// A time for people.
pub(super) fn duration(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3_600, time.as_secs() / 60 % 60, time.as_secs_f64() % 60.0);
    match (hours, minutes) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, _) => format!("{minutes} min {seconds:.0} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// How long and how big, for people.
fn estimated(estimate: &Estimate) -> String {
    let time = duration(Duration::from_secs_f64(estimate.seconds));
    format!(
        "by {} rows at {:.1} rows/s: about {time} to encode and {} of pool, the neighbour graphs not counted; {} of them would go in",
        estimate.sampled_rows,
        estimate.rows_per_second,
        bytes(estimate.pool_bytes),
        estimate.accepted
    )
}
