//! Rows of sources without a pool: all of them, in order, rejects among them.

use std::{fs::File, path::Path, sync::Arc};

use anchorite_ingest::{ColumnChoice, ColumnOptions, Limits, Rows, SourceError, VectorMode, code};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;

fn write(path: &Path, pictures: &[Option<&[u8]>]) {
    let labels: Vec<i64> = (0..pictures.len() as i64).collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("image", Arc::new(pictures.iter().copied().collect::<BinaryArray>()) as ArrayRef, true),
        ("label", Arc::new(Int64Array::from(labels)) as ArrayRef, false),
    ])
    .expect("columns of one length");
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
}

fn pictures_only() -> ColumnOptions {
    ColumnOptions { caption: ColumnChoice::Absent, ..ColumnOptions::default() }
}

#[test]
fn rows_of_a_folder_come_in_order_with_what_is_no_row_among_them() {
    let temporary = tempfile::tempdir().expect("a folder");
    // Rows are known by their file's folder and name.
    let folder = temporary.path().join("set");
    std::fs::create_dir(&folder).expect("a folder");
    let limits = Limits { max_picture_bytes: 4, ..Limits::default() };
    write(&folder.join("b.parquet"), &[Some(b"four")]);
    write(&folder.join("a.parquet"), &[Some(b"one"), None, Some(b"too long")]);
    let mut rows = Rows::open(&[folder], pictures_only(), VectorMode::Encode, limits).expect("opens");
    let mut seen = Vec::new();
    while let Some(row) = rows.next_row().expect("reads") {
        seen.push(match row {
            Ok(row) => format!("{}#{} {:?}", row.source.file, row.source.row, row.picture.map(|p| p.len())),
            Err(reject) => format!("{}#{} {}", reject.source.file, reject.source.row, reject.code),
        });
    }
    let too_long = format!("set/a.parquet#2 {}", code::IMAGE_TOO_MANY_BYTES);
    assert_eq!(seen, ["set/a.parquet#0 Some(3)", "set/a.parquet#1 None", too_long.as_str(), "set/b.parquet#0 Some(4)"]);
}

#[test]
fn what_is_missing_or_damaged_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = Rows::open(&[folder.path().join("none.parquet")], pictures_only(), VectorMode::Encode, Limits::default());
    assert!(matches!(missing, Err(SourceError::Open { .. })));
    let damaged = folder.path().join("bad.parquet");
    std::fs::write(&damaged, b"PAR1 but no parquet PAR1").expect("writes");
    let mut rows = Rows::open(&[damaged], pictures_only(), VectorMode::Encode, Limits::default()).expect("finds it");
    assert!(rows.next_row().is_err());
}
