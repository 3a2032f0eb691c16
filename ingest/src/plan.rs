//! What a run would do, without doing it: sources, columns, row counts, and how the first rows fare.

use std::{path::PathBuf, sync::Arc};

use anchorite_encoder::Encode;
use serde::{Deserialize, Serialize};

use crate::{
    ColumnsUsed, IngestError, IngestJob, Limits, Reject, Row, RowResult, SourceError, Vectors,
    prepare::{Expected, missing_part},
    source::{self, Rows, Settings},
};

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    pub data_type: String,
}

/// A source as it would be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// Rows by its headers, or estimated.
    pub rows: u64,
    /// Whether `rows` is estimated by the size of the file and its first rows: a tar or a table does not say.
    pub estimated: bool,
    /// Every column.
    pub schema: Vec<PlannedColumn>,
    /// Which would serve.
    pub columns: ColumnsUsed,
}

/// How a row fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedRow {
    /// Source.
    pub file: String,
    /// Row within it.
    pub row: u64,
    /// Why it would be refused; none when picture and caption could be prepared.
    pub problem: Option<String>,
}

/// What a run would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The sources in the order in which they would be read.
    pub sources: Vec<PlannedSource>,
    /// Rows of all of them.
    pub rows: u64,
    /// Whether that is estimated in part.
    pub estimated: bool,
    /// Values of a ready-made vector, when the sources have such.
    pub dim: Option<usize>,
    /// The first rows of the first source.
    pub checked: Vec<CheckedRow>,
}

/// Looks at every source's headers, and prepares (but does not encode) the first `check_rows` rows.
///
/// # Errors
/// As [`crate::ingest`] would fail on sources: missing, damaged, without usable columns, or empty.
pub fn plan(job: IngestJob<'_>, check_rows: usize) -> Result<Plan, IngestError> {
    let options = job.options;
    let settings =
        Arc::new(Settings { columns: options.columns.clone(), mode: job.vectors.mode(), limits: options.limits.clone() });
    let mut plan = Plan::default();
    let found = source::find(job.sources, options.source_root.as_deref(), &options.limits)?.with_distinct_names()?;
    let mut rate = None;
    for shard in found.shards {
        let mut rows = shard.open(&settings)?;
        plan.dim = plan.dim.or(rows.dim());
        let known = rows.rows();
        let mut seen = 0;
        if plan.checked.len() < check_rows || (known.is_none() && rate.is_none()) {
            seen = plan.look_at(&mut *rows, check_rows, job)?;
        }
        rate = rate.or_else(|| rows_per_byte(&*rows, seen));
        let counted = known.or(rows.rows());
        let guessed = || (shard.file_bytes().unwrap_or(0) as f64 * rate.unwrap_or(0.0)).round() as u64;
        let count = counted.unwrap_or_else(guessed);
        plan.rows += count;
        plan.estimated |= counted.is_none();
        plan.sources.push(PlannedSource {
            name: shard.name.clone(),
            rows: count,
            estimated: counted.is_none(),
            schema: schema(&*rows),
            columns: rows.columns(),
        });
    }
    if plan.rows == 0 {
        let sources = plan.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(SourceError::Empty { sources }.into());
    }
    Ok(plan)
}

/// Whether the sources are clip-retrieval folders, which hold ready-made vectors and no pictures.
///
/// # Errors
/// A source that is not there.
pub fn holds_only_vectors(sources: &[PathBuf]) -> Result<bool, SourceError> {
    Ok(source::find(sources, None, &Limits::default())?.shards.iter().all(source::Shard::has_only_vectors))
}

impl Plan {
    /// Rows that were looked at.
    fn look_at(&mut self, rows: &mut dyn Rows, check_rows: usize, job: IngestJob<'_>) -> Result<u64, SourceError> {
        let expected = Expected::of(&rows.columns(), job.vectors);
        let Some(first) = rows.next_rows()? else { return Ok(0) };
        let room = check_rows.saturating_sub(self.checked.len());
        for row in first.iter().take(room) {
            self.dim = self.dim.or_else(|| row.as_ref().ok().and_then(vector_dim));
            self.checked.push(check(row, job, expected));
        }
        Ok(first.len() as u64)
    }
}

fn rows_per_byte(rows: &dyn Rows, seen: u64) -> Option<f64> {
    let (read, _) = rows.position().filter(|(read, _)| *read > 0 && seen > 0)?;
    Some(seen as f64 / read as f64)
}

fn schema(rows: &dyn Rows) -> Vec<PlannedColumn> {
    let fields = rows.schema().map(|schema| schema.fields().iter()).into_iter().flatten();
    fields.map(|f| PlannedColumn { name: f.name().clone(), data_type: f.data_type().to_string() }).collect()
}

fn vector_dim(row: &Row) -> Option<usize> {
    row.image_vector.as_ref().or(row.text_vector.as_ref()).map(Vec::len)
}

fn check(row: &RowResult, job: IngestJob<'_>, expected: Expected) -> CheckedRow {
    let refused = |reject: &Reject| format!("{}: {}", reject.code, reject.message);
    let (source, problem) = match row {
        Err(reject) => (&reject.source, Some(refused(reject))),
        Ok(row) => {
            let missing = missing_part(row, job.vectors, job.options.missing, expected);
            let problem = match (missing, job.vectors) {
                (Some(reject), _) => Some(refused(&reject)),
                (None, Vectors::Encode(encoder)) => prepare(row, encoder).err(),
                (None, Vectors::Ready { .. }) => None,
            };
            (&row.source, problem)
        }
    };
    CheckedRow { file: source.file.clone(), row: source.row, problem }
}

fn prepare(row: &Row, encoder: &dyn Encode) -> Result<(), String> {
    if let Some(picture) = &row.picture {
        encoder.prepare_image(picture).map_err(|e| format!("{}: {e}", e.code()))?;
    }
    if let Some(caption) = &row.caption {
        encoder.prepare_text(caption).map_err(|e| format!("{}: {e}", e.code()))?;
    }
    Ok(())
}
