//! Parquet files whose pages would take far more than the file: by what they declare, and by what they hold.
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "one test file uses it")]

use std::{io::Write, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding},
    file::{
        metadata::{ParquetMetaDataReader, ParquetMetaDataWriter},
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    },
};

use super::jpeg;

/// Rows of the files with many; its varint has two bytes.
const ROWS: usize = 300;

/// A bomb: its name, what the refusal says, how it is written.
pub type Bomb = (&'static str, &'static str, fn(&Path));

/// Files that are refused as a whole.
pub const REFUSED: [Bomb; 12] = [
    ("a page of zeros by zstd.parquet", "above 67108864 it may have 2 times its bytes", |path| {
        zeros(path, zstd(), 100 << 20);
    }),
    ("a page that declares 128 MiB.parquet", "above 67108864 it may have 2 times its bytes", |path| {
        zeros(path, Compression::SNAPPY, 40 << 20);
        declare(path, [0xfe, 0xff, 0xff, 0x7f]);
    }),
    ("a page that declares 2 GiB.parquet", "the size of a page in bytes is 2147483647", |path| {
        zeros(path, Compression::SNAPPY, 136 << 20);
        declare(path, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
    }),
    ("a page that unpacks to more by LZ4.parquet", "is damaged", |path| {
        zeros(path, Compression::LZ4, 100 << 20);
        declare(path, [0x80, 0x90, 0x80, 0x00]);
    }),
    ("a page that unpacks to more by raw LZ4.parquet", "is damaged", |path| {
        zeros(path, Compression::LZ4_RAW, 100 << 20);
        declare(path, [0x80, 0x90, 0x80, 0x00]);
    }),
    ("a page that unpacks to more by LZ4 frames.parquet", "a page unpacks to more than the", lz4_frames),
    ("a page that unpacks to more by gzip.parquet", "a page unpacks to more than the 1024 bytes it declares", |path| {
        zeros(path, Compression::GZIP(Default::default()), 100 << 20);
        declare(path, [0x80, 0x90, 0x80, 0x00]);
    }),
    ("a page that unpacks to more by brotli.parquet", "a page unpacks to more than the 1024 bytes it declares", |path| {
        zeros(path, Compression::BROTLI(Default::default()), 100 << 20);
        declare(path, [0x80, 0x90, 0x80, 0x00]);
    }),
    ("a negative size.parquet", "a page declares", |path| {
        zeros(path, Compression::SNAPPY, 40 << 20);
        declare(path, [0xff, 0xff, 0xff, 0x7f]);
    }),
    ("nulls without number in a list.parquet", "the number of values in the lists of a row group", |path| {
        let mut lists = ListBuilder::new(StringBuilder::new());
        (0..17 << 20).for_each(|_| lists.values().append_null());
        lists.append(true);
        write(path, properties(zstd()), vec![("image", pictures(1)), ("caption", Arc::new(lists.finish()))]);
    }),
    ("a dictionary of more than its bytes.parquet", "claims 8191 entries", |path| {
        let numbers = Int64Array::from_iter_values((0..ROWS as i64).map(|i| i * 7));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| format!("words {i}"))));
        let columns = vec![("number", Arc::new(numbers) as ArrayRef), ("image", pictures(ROWS)), ("caption", words)];
        write(path, properties(Compression::UNCOMPRESSED), columns);
        // The dictionary's count: field 1 of field 7 of the first header.
        replace(path, &[0x15, 0xd8, 0x04], &[0x15, 0xfe, 0x7f]);
    }),
    ("lengths without number.parquet", "the lengths of a delta-encoded page do not fit its values", |path| {
        let texts = StringArray::from_iter_values((0..ROWS).map(|i| format!("words {i}")));
        let delta = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
        write(path, delta, vec![("caption", Arc::new(texts)), ("image", pictures(ROWS))]);
        // Blocks of 128 values in 4 parts, and the count.
        replace(path, &[0x80, 0x01, 0x04, 0xac, 0x02], &[0x80, 0x01, 0x04, 0xff, 0x7f]);
    }),
];

/// A text of 16 MiB once in the file, and 40 rows that have it.
pub fn repeated(path: &Path) {
    let long = "x".repeat(16 << 20);
    let texts = StringArray::from_iter_values(std::iter::repeat_n(&long, 40));
    let dictionary = properties(zstd()).set_dictionary_page_size_limit(1 << 30);
    write(path, dictionary, vec![("image", pictures(40)), ("caption", Arc::new(texts))]);
}

/// 20,000 small rows, and then 24 captions of 16 MiB in pages of their own: rows are no measure of each other.
pub fn uneven(path: &Path) {
    let long = "x".repeat(16 << 20);
    let texts = StringArray::from_iter_values((0..20_024).map(|i| if i < 20_000 { "few words" } else { &long }));
    let plain = WriterProperties::builder().set_dictionary_enabled(false).set_compression(zstd()).set_write_batch_size(1);
    write(path, plain, vec![("image", pictures(20_024)), ("caption", Arc::new(texts))]);
}

fn zstd() -> Compression {
    Compression::ZSTD(Default::default())
}

fn properties(compression: Compression) -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(compression)
}

/// One picture of zeros, in one page.
fn zeros(path: &Path, compression: Compression, bytes: usize) {
    let picture: ArrayRef = Arc::new(BinaryArray::from_iter_values([vec![0; bytes]]));
    write(
        path,
        properties(compression).set_dictionary_enabled(false),
        vec![("image", picture), ("caption", Arc::new(StringArray::from(vec!["words"])))],
    );
}

fn pictures(count: usize) -> ArrayRef {
    Arc::new((0..count).map(|i| Some(jpeg(i))).collect::<BinaryArray>())
}

fn write(path: &Path, properties: WriterPropertiesBuilder, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Puts another unpacked size into the first page's header, which begins behind the file's mark.
fn declare<const N: usize>(path: &Path, size: [u8; N]) {
    let mut bytes = std::fs::read(path).unwrap();
    assert_eq!((bytes[4], bytes[6]), (0x15, 0x15), "type, then the unpacked size");
    assert!(bytes[6 + N] < 0x80 && bytes[5 + N] >= 0x80, "a size of {N} bytes");
    bytes[7..7 + N].copy_from_slice(&size);
    std::fs::write(path, bytes).unwrap();
}

/// A page of numbers whose bytes are an LZ4 frame of 400 MiB of zeros, in a file whose footer says that pages are packed by LZ4: writers of
/// old put frames there, and readers still take them.
fn lz4_frames(path: &Path) {
    let mut frame = frame_of_zeros(400 << 20);
    // The page has whole numbers; who unpacks the frame has far too much before this is reached.
    frame.resize(frame.len().next_multiple_of(8), 0);
    let numbers = Int64Array::from_iter_values(frame.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)));
    let rows = numbers.len();
    let captions = StringArray::from_iter_values(std::iter::repeat_n("words", rows));
    let one_page = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_write_batch_size(rows)
        .set_data_page_row_count_limit(rows)
        .set_data_page_size_limit(1 << 30);
    write(path, one_page, vec![("number", Arc::new(numbers)), ("image", pictures(rows)), ("caption", Arc::new(captions))]);
    let file = std::fs::read(path).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&std::fs::File::open(path).unwrap()).unwrap();
    let footer = file.len() - 8 - u32::from_le_bytes(*file[..file.len() - 4].last_chunk().unwrap()) as usize;
    let mut spoilt = file[..footer].to_vec();
    let mut claimed = metadata.into_builder();
    let groups = claimed.take_row_groups().into_iter().map(|group| {
        let mut group = group.into_builder();
        let mut columns = group.take_columns();
        columns[0] = columns[0].clone().into_builder().set_compression(Compression::LZ4).build().unwrap();
        group.set_column_metadata(columns).build().unwrap()
    });
    let claimed = claimed.set_row_groups(groups.collect()).build();
    ParquetMetaDataWriter::new(&mut spoilt, &claimed).finish().unwrap();
    std::fs::write(path, spoilt).unwrap();
}

fn frame_of_zeros(bytes: usize) -> Vec<u8> {
    let mut packed = lz4_flex::frame::FrameEncoder::new(Vec::new());
    let block = vec![0; 1 << 20];
    (0..bytes >> 20).for_each(|_| packed.write_all(&block).unwrap());
    packed.finish().unwrap()
}

fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
}
