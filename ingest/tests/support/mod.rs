//! Small datasets, encoders that misbehave, and one call that ingests into a store in memory.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its part")]

pub mod parquet_bombs;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_encoder::{Encode, fake::FakeEncoder};
use anchorite_index::{Cancel, PairStore, Parts, Record, RowId, Spec, memory::MemoryStore};
use anchorite_ingest::{ColumnChoice, IngestFailure, IngestJob, IngestOptions, IngestReport, NoProgress, Vectors, ingest};
use arrow_array::{ArrayRef, BinaryArray, Float32Array, RecordBatch, StringArray, UInt64Array, cast::AsArray, types::UInt64Type};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::properties::WriterProperties,
};

pub const DIM: usize = 32;

pub fn encoder() -> FakeEncoder {
    FakeEncoder::new(DIM)
}

pub fn store() -> MemoryStore {
    MemoryStore::new(Spec { encoder: encoder().fingerprint().to_owned(), dim: DIM })
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Bytes that the fake encoder takes for a picture.
pub fn jpeg(seed: usize) -> Vec<u8> {
    [b"\xff\xd8\xff".to_vec(), format!("picture {seed}").into_bytes()].concat()
}

pub fn named(name: &str) -> ColumnChoice {
    ColumnChoice::Named(name.to_owned())
}

pub fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    write_groups(path, columns, 1_000_000);
}

pub fn write_groups(path: &Path, columns: Vec<(&str, ArrayRef)>, group_rows: usize) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub fn binary(values: impl IntoIterator<Item = Option<Vec<u8>>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BinaryArray>())
}

pub fn text<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

/// A good dataset: `rows` pictures with captions, from number `first`.
pub fn write_pairs(path: &Path, first: usize, rows: usize) {
    let numbers = first..first + rows;
    write_groups(
        path,
        vec![
            ("image", binary(numbers.clone().map(|i| Some(jpeg(i))))),
            ("caption", text(numbers.clone().map(|i| Some("word ".repeat(1 + i * 7 % 40) + &i.to_string())))),
            ("number", Arc::new(UInt64Array::from_iter_values(numbers.map(|i| i as u64)))),
        ],
        50,
    );
}

/// `rows` vectors of `dim` values as a fixed-size list.
pub fn vectors(rows: &[Option<Vec<f32>>], dim: i32) -> ArrayRef {
    use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
    let mut builder = FixedSizeListBuilder::new(Float32Builder::new(), dim);
    for row in rows {
        for i in 0..dim as usize {
            builder.values().append_value(row.as_ref().map_or(0.0, |r| r[i]));
        }
        builder.append(row.is_some());
    }
    Arc::new(builder.finish())
}

pub fn floats(values: &[f32]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

pub struct Run {
    pub store: MemoryStore,
    pub result: Result<IngestReport, IngestFailure>,
}

impl Run {
    #[track_caller]
    pub fn report(&self) -> &IngestReport {
        self.result.as_ref().unwrap()
    }

    /// The error with its sources, as a command line would print it.
    #[track_caller]
    pub fn error(&self) -> String {
        let failure = self.result.as_ref().unwrap_err();
        let mut text = failure.to_string();
        let mut at: &dyn std::error::Error = failure;
        while let Some(source) = at.source() {
            text += &format!(": {source}");
            at = source;
        }
        text
    }

    pub fn records(&self) -> Vec<Record> {
        records(&self.store)
    }
}

pub fn records(store: &MemoryStore) -> Vec<Record> {
    let rows: Vec<RowId> = (0..store.status().positions).map(RowId).collect();
    let parts = Parts { picture: true, vectors: true };
    store.get(&rows, parts).unwrap().into_iter().flatten().collect()
}

pub fn run(source: impl Into<PathBuf>, options: &IngestOptions) -> Run {
    run_with(&[source.into()], Vectors::Encode(&encoder()), options)
}

pub fn run_ready(source: impl Into<PathBuf>, dim: usize, options: &IngestOptions) -> Run {
    let mut store = MemoryStore::new(Spec { encoder: "ready".to_owned(), dim });
    let (sources, vectors) = ([source.into()], Vectors::Ready { dim: Some(dim) });
    let result = ingest(IngestJob { sources: &sources, vectors, options }, &mut store, &mut NoProgress, &Cancel::default());
    Run { store, result }
}

pub fn run_with(sources: &[PathBuf], vectors: Vectors<'_>, options: &IngestOptions) -> Run {
    let mut store = store();
    let result = ingest(IngestJob { sources, vectors, options }, &mut store, &mut NoProgress, &Cancel::default());
    Run { store, result }
}

/// (source file, row, code, message) of a reject list.
pub fn read_rejects(path: &Path) -> Vec<(String, u64, String, String)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut all = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let text = |name: &str, i: usize| batch.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
        let rows = batch.column_by_name("row").unwrap().as_primitive::<UInt64Type>().clone();
        for i in 0..rows.len() {
            all.push((text("source_file", i), rows.value(i), text("code", i), text("message", i)));
        }
    }
    all
}

/// Reasons by count, for comparison.
pub fn reasons(report: &IngestReport) -> Vec<(&str, u64)> {
    report.rejected_by_reason.iter().map(|(code, count)| (code.as_str(), *count)).collect()
}
