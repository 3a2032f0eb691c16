//! Every image's outcome as a parquet table: `model, set, row, label, predicted, rank, confidence` for labelled sets, so that others can
//! test what we did not think of.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;

use super::{EvalError, Evaluator, ModelOutcome, run::Kind};

impl Evaluator {
    /// Writes the outcomes of every model on every labelled set.
    ///
    /// # Errors
    /// [`EvalError::Io`], [`EvalError::Write`].
    pub fn write_predictions(&self, models: &[ModelOutcome], path: &Path) -> Result<(), EvalError> {
        let io = |source| EvalError::Io { action: "write", path: path.to_owned(), source };
        let failed = |reason: String| EvalError::Write { path: path.to_owned(), reason };
        let mut writer: Option<ArrowWriter<File>> = None;
        for (model, set) in models.iter().flat_map(|m| m.sets.iter().map(move |set| (m, set))) {
            let Kind::Labels(outcomes) = &set.kind else { continue };
            let number = |of: fn(&super::measure::Outcome) -> usize| {
                Arc::new(outcomes.iter().map(|o| of(o) as u32).collect::<UInt32Array>()) as ArrayRef
            };
            let text = |text: &str| Arc::new(StringArray::from_iter_values(outcomes.iter().map(|_| text))) as ArrayRef;
            let confidence = outcomes.iter().map(|o| o.confidence).collect::<Float64Array>();
            let batch = RecordBatch::try_from_iter([
                ("model", text(&model.record.name)),
                ("set", text(&set.record.name)),
                ("row", Arc::new(StringArray::from_iter_values(&set.rows)) as ArrayRef),
                ("label", number(|o| o.label)),
                ("predicted", number(|o| o.predicted)),
                ("rank", number(|o| o.rank)),
                ("confidence", Arc::new(confidence) as ArrayRef),
            ])
            .map_err(|e| failed(e.to_string()))?;
            let open = match writer.take() {
                Some(writer) => writer,
                None => ArrowWriter::try_new(File::create(path).map_err(io)?, batch.schema(), None)
                    .map_err(|e| failed(e.to_string()))?,
            };
            writer.insert(open).write(&batch).map_err(|e| failed(e.to_string()))?;
        }
        writer.map_or(Ok(()), |writer| writer.close().map(|_| ()).map_err(|e| failed(e.to_string())))
    }
}
