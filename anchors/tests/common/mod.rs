//! A small pool in memory, query files, and pictures that decode.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite_anchors::{CurateError, Curated, Limits, Policy, Protected, Questions, Surroundings, curate, read_questions};
use anchorite_encoder::{Encode as _, fake::FakeEncoder};
use anchorite_index::{Cancel, ContentHash, Key, Pair, PairSink as _, PairStore, SourceRef, Spec, Value, memory::MemoryStore};
use arrow_array::{ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use sha2::{Digest as _, Sha256};

pub(crate) const DIM: usize = 16;

pub(crate) fn encoder() -> FakeEncoder {
    FakeEncoder::new(DIM)
}

/// A PNG of a scene known by its number.
pub(crate) fn picture(number: u32) -> Vec<u8> {
    drawn(number, 64, 0)
}

/// The same scene at another size and brightness: a coarse grid of levels, interpolated.
pub(crate) fn drawn(number: u32, size: u32, brighter: u8) -> Vec<u8> {
    let levels: Vec<u8> =
        (0..2_u32).flat_map(|half| Sha256::digest([number.to_le_bytes(), half.to_le_bytes()].concat())).collect();
    let level = |x: u32, y: u32| 60.0 + f64::from(levels[(y * 8 + x) as usize]) / 2.0;
    let smooth = |x: u32, y: u32| {
        let at = |v: u32| (f64::from(v) + 0.5) / f64::from(size) * 6.0;
        let (x, y) = (at(x), at(y));
        let (left, top, dx, dy) = (x as u32, y as u32, x.fract(), y.fract());
        let row = |y: u32| level(left, y) * (1.0 - dx) + level(left + 1, y) * dx;
        (row(top) * (1.0 - dy) + row(top + 1) * dy) as u8 + brighter
    };
    png(&image::RgbImage::from_fn(size, size, |x, y| image::Rgb([smooth(x, y); 3])))
}

pub(crate) fn png(image: &image::RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

pub(crate) fn image_vector(bytes: &[u8]) -> Vec<f32> {
    encoder().encode_images(&[encoder().prepare_image(bytes).expect("a picture")]).expect("encodes").remove(0).into_vec()
}

pub(crate) fn text_vector(text: &str) -> Vec<f32> {
    encoder().encode_texts(&[encoder().prepare_text(text).expect("a text")]).expect("encodes").remove(0).into_vec()
}

/// A pair as ingest would make it.
pub(crate) fn pair(key: &str, picture: &[u8], caption: &str, style: &str) -> Pair {
    let digest: [u8; 32] = Sha256::new().chain_update(picture).chain_update([0]).chain_update(caption).finalize().into();
    Pair {
        key: Key::new(key).expect("a key"),
        source: SourceRef { file: "pool".into(), row: 0 },
        content: ContentHash(digest),
        image: Some(image_vector(picture)),
        text: Some(text_vector(caption)),
        caption: Some(caption.into()),
        fields: BTreeMap::from([("style".to_owned(), Value::Text(style.into()))]),
        picture: Some(picture.to_vec()),
    }
}

pub(crate) fn store(pairs: &[Pair]) -> MemoryStore {
    let mut store = MemoryStore::new(Spec { encoder: encoder().fingerprint().into(), dim: DIM });
    store.append(pairs).expect("appends");
    store.commit(&Cancel::default()).expect("commits");
    store
}

/// Captions of two words out of six and five; 2 in 3 rows are photos.
pub(crate) fn caption(number: u32) -> String {
    const THINGS: [&str; 6] = ["dog", "cat", "boat", "red car", "tree", "house"];
    const PLACES: [&str; 5] = ["at home", "by the sea", "in snow", "in the park", "on paper"];
    format!("a {} {}", THINGS[number as usize % 6], PLACES[number as usize % 5])
}

pub(crate) fn pool(rows: u32) -> Vec<Pair> {
    let style = |n: u32| if n.is_multiple_of(3) { "drawing" } else { "photo" };
    (0..rows).map(|n| pair(&format!("p{n}"), &picture(n), &caption(n), style(n))).collect()
}

pub(crate) type Column = (&'static str, ArrayRef);

pub(crate) fn pictures(of: &[Option<Vec<u8>>]) -> Column {
    ("image", Arc::new(of.iter().map(|p| p.as_deref()).collect::<BinaryArray>()))
}

pub(crate) fn texts(name: &'static str, of: &[&str]) -> Column {
    (name, Arc::new(StringArray::from_iter_values(of)))
}

pub(crate) fn numbers(name: &'static str, of: &[i64]) -> Column {
    (name, Arc::new(Int64Array::from_iter_values(of.iter().copied())))
}

pub(crate) fn vectors(name: &'static str, of: &[Vec<f32>]) -> Column {
    let values = Arc::new(Float32Array::from_iter_values(of.iter().flatten().copied()));
    let field = Arc::new(Field::new("item", DataType::Float32, false));
    (name, Arc::new(FixedSizeListArray::new(field, DIM as i32, values, None)))
}

pub(crate) fn parquet(folder: &Path, name: &str, columns: Vec<Column>) -> PathBuf {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    // Rows are known by their file's folder and name; the folder of the test has another name every time.
    let folder = folder.join("data");
    std::fs::create_dir_all(&folder).expect("set up");
    let path = folder.join(name);
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).expect("set up"), batch.schema(), None).expect("set up");
    writer.write(&batch).expect("set up");
    writer.close().expect("set up");
    path
}

/// Query pictures that are not in the pool.
pub(crate) fn query_pictures(count: u32) -> Vec<Option<Vec<u8>>> {
    (0..count).map(|n| Some(picture(10_000 + n))).collect()
}

pub(crate) fn questions(sources: &[PathBuf], policy: &Policy) -> Result<Questions, CurateError> {
    read_questions(sources, policy, &encoder(), &Limits::default(), &Cancel::default())
}

pub(crate) fn run(store: &dyn PairStore, policy: &Policy, questions: &Questions) -> Result<Curated, CurateError> {
    run_within(store, policy, questions, &Limits::default())
}

pub(crate) fn run_within(
    store: &dyn PairStore,
    policy: &Policy,
    questions: &Questions,
    limits: &Limits,
) -> Result<Curated, CurateError> {
    let cancel = Cancel::default();
    let protected = Protected::read(&policy.protect, &encoder(), limits, &cancel)?;
    curate(store, policy, questions, &protected, Surroundings { limits, cancel: &cancel, told: &|_, _| {} })
}

/// Keys of a query's anchors, in order.
pub(crate) fn kept(curated: &Curated, query: Option<usize>) -> Vec<String> {
    let of_query = curated.entries.iter().filter(|e| e.query == query && e.reason.is_none());
    of_query.map(|e| e.key.to_string()).collect()
}

pub(crate) fn all_kept(curated: &Curated) -> Vec<String> {
    curated.entries.iter().filter(|e| e.reason.is_none()).map(|e| e.key.to_string()).collect()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
