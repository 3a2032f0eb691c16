//! Every byte format under mutation: nothing that is read from disk or from a caller may panic, hang or be believed blindly.
//!
//! The seeds are files in `tests/corpus/`, made by `cargo test -p anchorite-index --test fuzz -- --ignored make_the_corpus` from the
//! current code; an input that ever failed belongs beside them. Mutations are seeded, so a failure names all that is needed to
//! see it again. Where a checksum would hide the inside, it is made right again after the mutation. `ANCHORITE_LONG_RUN` multiplies the
//! number of mutations.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anchorite_index::{
    BuildParams, Cancel, ContentHash, Effort, Filter, Key, Pair, PairSink, PairStore, Parts, Query, RowId, Side, SourceRef, Spec,
    StoreError, Threads, Value,
    format::{
        header::{FileId, FileKind, HEADER_BYTES, Header},
        manifest::Manifest,
        pairs,
    },
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions, verify},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Longest that one input may take.
const PATIENCE: Duration = Duration::from_secs(1);
const DIM: usize = 6;
const ROWS: usize = 90;

fn corpus(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind)
}

/// Seeds of a kind, by name.
fn seeds(kind: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(kind)).unwrap().map(|entry| entry.unwrap().path());
    let mut seeds: Vec<_> =
        entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds of kind {kind}");
    seeds
}

fn rounds(base: u64) -> u64 {
    let times = std::env::var("ANCHORITE_LONG_RUN").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    base * times.max(1)
}

/// Numbers that break arithmetic.
const ODD: [u64; 10] = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF, u64::MAX - 63, u64::MAX];

fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, (0..rng.random_range(1..9)).map(|_| 0xFF).collect::<Vec<u8>>())),
            4 => drop(bytes.drain(at..bytes.len().min(at + rng.random_range(1..9)))),
            _ => {
                let width = [1, 2, 4, 8][rng.random_range(0..4)];
                let odd = ODD[rng.random_range(0..ODD.len())].to_le_bytes();
                let end = bytes.len().min(at + width);
                bytes[at..end].copy_from_slice(&odd[..end - at]);
            }
        }
    }
}

/// Reads every seed and its mutations; a panic or a slow input fails with what is needed to make it again.
fn survives(kind: &str, base: u64, mend: impl Fn(&mut [u8]), read: impl Fn(&[u8])) {
    for (name, seed) in seeds(kind) {
        for round in 0..rounds(base) {
            let mut bytes = seed.clone();
            if round > 0 {
                mutate(&mut bytes, &mut ChaCha8Rng::seed_from_u64(round));
                if round % 4 > 0 {
                    mend(&mut bytes);
                }
            }
            let begun = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
            assert!(outcome.is_ok(), "{kind}/{name}, round {round}: panicked on {} bytes", bytes.len());
            assert!(begun.elapsed() < PATIENCE, "{kind}/{name}, round {round}: took {:?}", begun.elapsed());
        }
    }
}

/// Puts a CRC over everything before the last four bytes into these.
fn mend_tail(bytes: &mut [u8]) {
    if let Some(body) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
}

fn mend_header(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn manifests() {
    let read = |bytes: &[u8]| {
        for generation in [0, 1, 2, 3] {
            if let Ok(manifest) = Manifest::decode(bytes, generation) {
                // What is believed can be written, and is then read as the same.
                assert_eq!(Manifest::decode(&manifest.encode(), generation).unwrap(), manifest);
            }
        }
    };
    survives("manifest", 20_000, mend_tail, read);
}

#[test]
fn headers() {
    let read = |bytes: &[u8]| {
        for kind in FileKind::ALL {
            let side = kind.has_side().then_some(Side::Image);
            for revision in [0, 1] {
                let id = FileId { revision, ..FileId::new(1, kind, side) };
                if let Ok(header) = Header::decode(bytes, id, bytes.len() as u64) {
                    assert!(header.sections.iter().all(|s| s.offset + s.len <= bytes.len() as u64));
                }
            }
        }
    };
    survives("header", 10_000, mend_header, read);
}

#[test]
fn records() {
    let mend = |bytes: &mut [u8]| {
        if bytes.len() >= 4 {
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        }
    };
    let read = |bytes: &[u8]| {
        let _ = pairs::key_bytes(bytes, 0);
        let _ = pairs::decode(bytes, 1 << 40);
    };
    survives("record", 20_000, mend, read);
}

#[test]
fn filters() {
    let read = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(filter) = Filter::from_json(text) {
            let again = serde_json::to_string(&filter).unwrap();
            assert_eq!(Filter::from_json(&again).unwrap(), filter);
        }
    };
    survives("filter", 20_000, |_| {}, read);
}

/// The small pool that the corpus and the test of whole files are made of: every kind of file.
fn small_pool(dir: &Path) {
    let build = BuildParams { threads: Threads::One, ..BuildParams::default() };
    let spec = Spec { encoder: "fuzz".into(), dim: DIM };
    let options = WriterOptions { build, model: "made".into(), ..WriterOptions::default() };
    let mut writer = PoolWriter::open(dir, &spec, &options).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut unit = || {
        let v: Vec<f32> = (0..DIM).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.into_iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    let pair = |n: usize| Pair {
        key: Key::new(format!("k-{n}")).unwrap(),
        source: SourceRef { file: "made/of.parquet".into(), row: n as u64 },
        content: ContentHash([n as u8; 32]),
        image: Some(unit()),
        text: n.is_multiple_of(3).then(&mut unit),
        caption: n.is_multiple_of(2).then(|| format!("a caption, {n}")),
        fields: [("width".to_owned(), Value::Int(n as i64)), ("licence".to_owned(), Value::Text("CC0".into()))].into(),
        picture: n.is_multiple_of(11).then(|| vec![n as u8; 50]),
    };
    let all: Vec<Pair> = (0..ROWS).map(pair).collect();
    writer.append(&all).unwrap();
    writer.delete(&[all[4].key.clone(), all[70].key.clone()]).unwrap();
    writer.commit_with(b"watermark", &Cancel::default()).unwrap();
}

/// Asks the pool everything. Errors are fine.
fn ask(dir: &Path) -> Result<(), StoreError> {
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let query = |side, effort| Query::new(side, vec![0.5; DIM], 5, effort);
    for effort in [Effort::Fast, Effort::Exact] {
        for side in Side::ALL {
            let _ = pool.search(&[query(side, effort)], &Cancel::default());
            let _ = pool.search_ef(&query(side, effort), 8, &Cancel::default());
        }
    }
    let filter = Filter::from_json(r#"{"range": {"field": "width", "gte": 30}}"#).unwrap();
    let _ = pool.count(&filter, &Cancel::default());
    let rows: Vec<RowId> = (0..ROWS as u64 + 2).map(RowId).collect();
    let _ = pool.get(&rows, Parts { picture: true, vectors: true });
    let _ = pool.find(&[Key::new("k-50").unwrap(), Key::new("zz").unwrap()]);
    let _ = pool.info();
    Ok(())
}

/// A whole pool one of whose files was mutated, all checksums made right again: the values themselves are what is wrong.
#[test]
fn whole_files_behind_good_checksums() {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path());
    let manifest_file = dir.path().join("manifest-0000000000000001");
    let manifest = Manifest::decode(&fs::read(&manifest_file).unwrap(), 1).unwrap();
    let files = manifest.segments[0].files.clone();
    assert_eq!(files.len(), FileKind::ALL.len() + 2, "every kind, two of them for two sides");
    for file in files {
        let path = dir.path().join(file.id.name());
        let sound = fs::read(&path).unwrap();
        for round in 0..rounds(400) {
            let mut rng = ChaCha8Rng::seed_from_u64(round);
            let mut bytes = sound.clone();
            // Same length, so that sections stay where they are; the numbers in the header change now and then.
            let body = if rng.random_range(0..8) == 0 { 32..HEADER_BYTES - 4 } else { HEADER_BYTES..bytes.len() };
            let mut part = bytes[body.clone()].to_vec();
            mutate(&mut part, &mut rng);
            part.resize(body.len(), 0);
            bytes[body].copy_from_slice(&part);
            mend_sections(&mut bytes, &sound);
            let mut changed = manifest.clone();
            for entry in changed.segments[0].files.iter_mut().filter(|entry| entry.id == file.id) {
                entry.crc = crc32c::crc32c(&bytes);
                entry.header_crc = crc32c::crc32c(&bytes[..HEADER_BYTES]);
            }
            replace(&path, &bytes);
            replace(&manifest_file, &changed.encode());
            let begun = Instant::now();
            let story = format!("{}, round {round}", file.id.name());
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let _ = ask(dir.path());
                let _ = verify(dir.path());
            }));
            assert!(outcome.is_ok(), "{story}: panicked");
            assert!(begun.elapsed() < PATIENCE * 2, "{story}: took {:?}", begun.elapsed());
        }
        replace(&path, &sound);
    }
    replace(&manifest_file, &manifest.encode());
    ask(dir.path()).unwrap();
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Section checksums as the bytes now are; sections lie where those of `sound` do.
fn mend_sections(bytes: &mut [u8], sound: &[u8]) {
    let number = |at: usize, width: usize| {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(&sound[at..at + width]);
        u64::from_le_bytes(wide) as usize
    };
    for section in 0..number(28, 4) {
        let at = 128 + section * 24;
        let (offset, len) = (number(at + 8, 8), number(at + 16, 8));
        let crc = crc32c::crc32c(&bytes[offset..offset + len]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }
    mend_header(bytes);
}

#[test]
#[ignore = "writes the seeds; run after a change of the format"]
fn make_the_corpus() {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path());
    let put = |kind: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus(kind)).unwrap();
        fs::write(corpus(kind).join(name), bytes).unwrap();
    };
    let of_pool = |name: &str| fs::read(dir.path().join(name)).unwrap();
    put("manifest", "filled", &of_pool("manifest-0000000000000001"));
    put("manifest", "empty", &of_pool("manifest-0000000000000000"));
    put("manifest", "version-1", include_bytes!("golden/manifest-v1"));
    let manifest = Manifest::decode(&of_pool("manifest-0000000000000001"), 1).unwrap();
    for file in &manifest.segments[0].files {
        put("header", file.id.name().split_once('.').unwrap().1, &of_pool(&file.id.name())[..HEADER_BYTES]);
    }
    let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    let bytes = of_pool("seg-0000000000000001.pairs");
    assert!(pool.status().rows > 0);
    let header = Header::decode(&bytes, FileId::new(1, FileKind::Pairs, None), bytes.len() as u64).unwrap();
    let (records, offsets) = (header.section(pairs::RECORDS, None).unwrap(), header.section(pairs::OFFSETS, None).unwrap());
    let offset = |row: usize| {
        let at = offsets.offset as usize + row * 8;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize + records.offset as usize
    };
    for (name, row) in [("caption-picture", 0), ("bare", 1), ("deleted", 4)] {
        put("record", name, &bytes[offset(row)..offset(row + 1)]);
    }
    let filters = [
        ("range", r#"{"range": {"field": "width", "gte": 30, "lt": 1e3}}"#),
        (
            "nested",
            r#"{"and": [{"or": [{"eq": {"field": "licence", "value": "CC0"}}, {"is_null": {"field": "caption"}}]}, {"not": {"prefix": {"field": "source", "value": "a"}}}]}"#,
        ),
        ("in", r#"{"in": {"field": "fields.width", "values": [1, 2.5, -3]}}"#),
    ];
    filters.iter().for_each(|(name, text)| put("filter", name, text.as_bytes()));
}
