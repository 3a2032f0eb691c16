//! Small datasets, good and bad, and lists of rejects read back.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, BinaryArray, RecordBatch, StringArray,
    builder::{FixedSizeListBuilder, Float32Builder},
    cast::AsArray,
    types::UInt64Type,
};
use flate2::{Compression, Crc, write::ZlibEncoder};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::program::data;

/// A picture with its caption.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) picture: Vec<u8>,
    pub(crate) caption: String,
}

/// The first `count` of the bundled pairs.
pub(crate) fn samples(count: usize) -> Vec<Sample> {
    let mut all = Vec::new();
    for batch in batches(&data().join("pairs.parquet"), count) {
        let pictures = batch.column_by_name("image").unwrap().as_struct().column_by_name("bytes").unwrap().clone();
        let captions = batch.column_by_name("caption").unwrap().clone();
        for row in 0..batch.num_rows() {
            let caption = captions.as_string::<i32>().value(row).to_owned();
            all.push(Sample { picture: pictures.as_binary::<i32>().value(row).to_vec(), caption });
        }
    }
    all
}

fn batches(path: &Path, rows: usize) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.with_limit(rows).build().unwrap().map(Result::unwrap).collect()
}

/// A parquet file of any columns.
pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A parquet file of pictures and captions, either of which may be null.
pub(crate) fn write_rows(path: &Path, rows: &[(Option<Vec<u8>>, Option<&str>)]) {
    write(path, vec![("image", pictures(rows.iter().map(|r| r.0.clone()))), ("caption", words(rows.iter().map(|r| r.1)))]);
}

/// A parquet file of `samples` as they are.
pub(crate) fn write_samples(path: &Path, samples: &[Sample]) {
    let rows: Vec<_> = samples.iter().map(|s| (Some(s.picture.clone()), Some(s.caption.as_str()))).collect();
    write_rows(path, &rows);
}

pub(crate) fn pictures(values: impl IntoIterator<Item = Option<Vec<u8>>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BinaryArray>())
}

pub(crate) fn words<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

/// Vectors of `dim` values as a fixed-size list.
pub(crate) fn vectors(rows: &[Vec<f32>]) -> ArrayRef {
    let mut list = FixedSizeListBuilder::new(Float32Builder::new(), i32::try_from(rows[0].len()).unwrap());
    for row in rows {
        list.values().append_slice(row);
        list.append(true);
    }
    Arc::new(list.finish())
}

/// A numpy file of `rows`, as `numpy.save` writes float32.
pub(crate) fn write_npy(path: &Path, rows: &[Vec<f32>]) {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows.len(), rows[0].len());
    // The data begins at a multiple of 64 bytes; 10 bytes stand before the header, a newline ends it.
    header.extend(std::iter::repeat_n(' ', 63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.into_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|v| v.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// A sound PNG of 20,000 x 20,000 black pixels in some 50 KB.
pub(crate) fn bomb() -> Vec<u8> {
    const EDGE: u32 = 20_000;
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    let row = vec![0; 1 + EDGE as usize / 8];
    (0..EDGE).for_each(|_| packed.write_all(&row).unwrap());
    let header = [&EDGE.to_be_bytes()[..], &EDGE.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", header), (b"IDAT", packed.finish().unwrap()), (b"IEND", Vec::new())] {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(&body);
        png.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        png.extend(kind);
        png.extend(body);
        png.extend(crc.sum().to_be_bytes());
    }
    png
}

/// A copy of the bundled model that a test may spoil.
pub(crate) fn copy_of_model(to: &Path) -> PathBuf {
    let folder = to.join("model");
    fs::create_dir_all(folder.join("onnx")).unwrap();
    let from = data().join("model");
    for entry in fs::read_dir(&from).unwrap().chain(fs::read_dir(from.join("onnx")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.strip_prefix(&from).unwrap())).unwrap();
        }
    }
    folder
}

/// One line of a list of rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) file: String,
    pub(crate) row: u64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// The list of rejects at `path`.
pub(crate) fn read_rejects(path: impl AsRef<Path>) -> Vec<Rejected> {
    let mut all = Vec::new();
    for batch in batches(path.as_ref(), usize::MAX) {
        let text = |name: &str, i: usize| batch.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
        let rows = batch.column_by_name("row").unwrap().as_primitive::<UInt64Type>().clone();
        all.extend((0..rows.len()).map(|i| Rejected {
            file: text("source_file", i),
            row: rows.value(i),
            code: text("code", i),
            message: text("message", i),
        }));
    }
    all
}
