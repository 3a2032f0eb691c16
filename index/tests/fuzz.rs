//! Every byte format under mutation: nothing that is read from disk or from a caller may panic, hang or be believed blindly.
//!
//! The seeds are files in `tests/corpus/`, made by `cargo test -p anchorite-index --test fuzz -- --ignored make_the_corpus` from the
//! current code; an input that ever failed belongs beside them. Mutations are seeded, so a failure names all that is needed to
//! see it again. Where a checksum would hide the inside, it is made right again after the mutation. Each target runs for
//! `ANCHORITE_FUZZ_SECONDS` (1 where it is not set; a long run takes 30 or more), from mutation `ANCHORITE_FUZZ_FROM` (0) on, and prints how
//! many inputs it read.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anchorite_index::{
    BuildParams, Cancel, ContentHash, Effort, Filter, Key, Pair, PairSink, PairStore, Parts, Precision, Query, RowId, Side,
    SourceRef, Spec, StoreError, Threads, Value,
    format::{
        effort::{EffortTable, Measured, Width},
        header::{FileId, FileKind, HEADER_BYTES, Header},
        manifest::Manifest,
        pairs,
    },
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions, export, import, verify},
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

/// Mutations of a target: numbers that seed them, until its time is over.
struct Rounds {
    ends: Instant,
    next: u64,
    first: u64,
}

impl Rounds {
    /// A target's share of the time: `1 / parts` of it.
    fn begin(parts: u32) -> Self {
        let number = |name: &str, default: f64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        let first = number("ANCHORITE_FUZZ_FROM", 0.0) as u64;
        let budget = Duration::from_secs_f64(number("ANCHORITE_FUZZ_SECONDS", 1.0)) / parts;
        Self { ends: Instant::now() + budget, next: first, first }
    }

    fn done(&self) -> u64 {
        self.next - self.first
    }
}

impl Iterator for Rounds {
    type Item = u64;

    /// At least a hundred, however slow the machine.
    fn next(&mut self) -> Option<u64> {
        if self.done() >= LEAST_ROUNDS && Instant::now() >= self.ends {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }
}

/// Mutations of a target that are made however little time there is.
const LEAST_ROUNDS: u64 = 100;

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
fn survives(kind: &str, mend: impl Fn(&mut [u8]), read: impl Fn(&[u8])) {
    survives_all(kind, &seeds(kind), mend, read);
}

#[expect(clippy::print_stdout, reason = "how much was read is what a long run reports")]
fn survives_all(kind: &str, seeds: &[(String, Vec<u8>)], mend: impl Fn(&mut [u8]), read: impl Fn(&[u8])) {
    let mut rounds = Rounds::begin(1);
    for round in rounds.by_ref() {
        for (name, seed) in seeds {
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
    println!("{kind}: {} inputs", rounds.done() * seeds.len() as u64);
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
    survives("manifest", mend_tail, read);
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
    survives("header", mend_header, read);
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
    survives("record", mend, read);
}

#[test]
fn tables_of_efforts() {
    let read = |bytes: &[u8]| {
        if let Ok(table) = EffortTable::decode(bytes, 1 << 40) {
            assert_eq!(EffortTable::decode(&table.encode(), 0).unwrap(), table);
        }
    };
    survives("efforts", |_| {}, read);
}

/// A snapshot as a tar, its entries' checksums made right again: taken whole or refused, and then nothing of it stays.
#[test]
fn streams() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small_pool(dir.path(), Precision::Half);
    let mut tar = Vec::new();
    export(dir.path(), &mut tar, &Cancel::default(), &mut |_| {}).unwrap();
    let target = to.path().join("pool");
    let read = |bytes: &[u8]| {
        match import(&mut &*bytes, &target, &Cancel::default(), &mut |_| {}) {
            Ok(_) => assert!(verify(&target).unwrap().is_sound(), "what was taken is whole"),
            Err(_) if target.exists() => {
                let mut left = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name());
                assert!(left.all(|name| name == "LOCK"), "nothing stays");
            }
            Err(_) => {}
        }
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
    };
    survives_all("stream", &[("snapshot".to_owned(), tar)], mend_tar, read);
}

/// Puts right checksums into what looks like tar headers.
fn mend_tar(bytes: &mut [u8]) {
    for header in bytes.chunks_exact_mut(512).filter(|header| header[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
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
    survives("filter", |_| {}, read);
}

/// The small pool that the corpus and the test of whole files are made of: every kind of file.
fn small_pool(dir: &Path, precision: Precision) {
    let build = BuildParams { threads: Threads::One, ..BuildParams::default() };
    let spec = Spec { encoder: "fuzz".into(), dim: DIM };
    let options = WriterOptions { build, model: "made".into(), precision: Some(precision), ..WriterOptions::default() };
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
    whole_files(Precision::Half);
}

#[test]
fn whole_files_of_a_7_bit_pool_behind_good_checksums() {
    whole_files(Precision::SevenBit);
}

#[expect(clippy::print_stdout, reason = "how much was read is what a long run reports")]
fn whole_files(precision: Precision) {
    let dir = tempfile::tempdir().unwrap();
    small_pool(dir.path(), precision);
    let manifest_file = dir.path().join("manifest-0000000000000001");
    let manifest = Manifest::decode(&fs::read(&manifest_file).unwrap(), 1).unwrap();
    let files = manifest.segments[0].files.clone();
    assert_eq!(files.len(), FileKind::ALL.len() + 2, "every kind, two of them for two sides");
    let parts = files.len() as u32;
    for file in files {
        let path = dir.path().join(file.id.name());
        let sound = fs::read(&path).unwrap();
        let mut rounds = Rounds::begin(parts);
        for round in rounds.by_ref() {
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
        println!("{}: {} inputs", file.id.name(), rounds.done());
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
    small_pool(dir.path(), Precision::Half);
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
    let width = |ef, recall| Width { ef, recall };
    let measured = Measured { queries: 256, widths: [width(16, 0.5), width(64, 0.75), width(0, 1.0)] };
    put("efforts", "one-modality", &EffortTable::new([Some(measured), None]).encode());
    put("efforts", "both", &EffortTable::new([Some(measured); 2]).encode());
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
