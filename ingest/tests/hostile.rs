//! Goal: what is made to hurt is refused with the right reason, and costs less than 512 MiB and 2 s. Each file is read by a process of its own, this
//! program started again, so that what it cost is that file's alone.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../encoder/tests/bombs/mod.rs"]
mod bombs;
mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anchorite_encoder::{
    Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder, image::Preprocess,
};
use anchorite_ingest::{IngestOptions, Vectors};
use support::{DIM, binary, encoder, fixture, jpeg, parquet_bombs, run_with, text, write};

/// Peak memory of a child, in MiB: half of the goal of 512, so that a machine with other page sizes or allocators keeps it.
const MEMORY: u64 = 256;
/// Milliseconds of processor time of a child, which has one worker: the goal itself, in a build that is not optimised. A busy machine
/// does not lengthen it.
const TIME: u64 = 2_000;
const FILE: &str = "ANCHORITE_TEST_HOSTILE_FILE";

/// How a CLIP wants its pictures.
const CROP: &str = r#"{"size": 224, "interpolation": "bicubic", "resize_mode": "shortest"}"#;

/// The fake encoder behind the real preparation of pictures.
struct Prepared(FakeEncoder, Preprocess);

impl Encode for Prepared {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.1.apply(bytes)?;
        self.0.prepare_image(bytes)
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        self.0.prepare_text(text)
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.0.encode_images(batch)
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        self.0.encode_texts(batch)
    }
}

/// What the other tests start: ingests the file that the environment names and prints what became of it.
#[test]
fn child() {
    let Some(file) = env::var_os(FILE) else { return };
    let start = processor_ms();
    let options = IngestOptions { workers: std::num::NonZeroUsize::new(1), ..Default::default() };
    let encoder = Prepared(encoder(), Preprocess::from_open_clip_json(CROP).unwrap());
    let run = run_with(&[PathBuf::from(file)], Vectors::Encode(&encoder), &options);
    let became = match &run.result {
        Ok(report) => {
            format!("accepted {} {}", report.accepted, report.rejected_by_reason.keys().cloned().collect::<Vec<_>>().join(" "))
        }
        Err(_) => format!("error {}", run.error().replace('\n', " ")),
    };
    println!("\ncost: {} {} {became}", peak_mib(), processor_ms() - start);
}

/// The most memory this process has had.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

/// Processor time of this process so far, of all its threads, as the kernel counts it: in hundredths of a second.
fn processor_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

/// What became of a file, as its child says, after what it cost was held to the goal.
#[track_caller]
fn became(file: &Path, name: &str) -> String {
    let output =
        Command::new(env::current_exe().unwrap()).args(["--exact", "child", "--nocapture"]).env(FILE, file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("cost: "));
    let line = line.unwrap_or_else(|| panic!("{name}: the child died: {said}\n{}", String::from_utf8_lossy(&output.stderr)));
    let mut parts = line.splitn(3, ' ');
    let [memory, time] = [(); 2].map(|()| parts.next().unwrap().parse::<u64>().unwrap());
    assert!(memory <= MEMORY && time <= TIME, "{name}: {memory} MiB, {time} ms");
    parts.next().unwrap().to_owned()
}

/// A parquet file of one picture.
fn picture(folder: &Path, bytes: &[u8]) -> PathBuf {
    pictures(folder, std::iter::once(bytes))
}

fn pictures<'a>(folder: &Path, all: impl ExactSizeIterator<Item = &'a [u8]>) -> PathBuf {
    let file = folder.join("picture.parquet");
    let captions = vec![Some("words"); all.len()];
    write(&file, vec![("image", binary(all.map(|bytes| Some(bytes.to_vec())))), ("caption", text(captions))]);
    file
}

#[test]
fn picture_bombs_are_rejects_of_their_row_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, code) in bombs::refused() {
        assert_eq!(became(&picture(folder.path(), &bytes), name), format!("accepted 0 {code}"), "{name}");
    }
    for (name, bytes) in bombs::packed() {
        let became = became(&picture(folder.path(), &bytes), name);
        assert!(["accepted 1 ", "accepted 0 image_damaged"].contains(&became.as_str()), "{name}: {became}");
    }
    for (name, bytes) in bombs::ribbons() {
        assert_eq!(became(&picture(folder.path(), &bytes), name), "accepted 1 ", "{name}");
    }
}

#[test]
fn pictures_cut_at_every_byte_are_rejects_within_bounds_all_together() {
    let folder = tempfile::tempdir().unwrap();
    for name in bombs::SMALL {
        let bytes = bombs::fixture(name);
        let became = became(&pictures(folder.path(), (0..bytes.len()).map(|end| &bytes[..end])), name);
        let mut words = became.split(' ').skip(1);
        // A few bytes at the end may be missing unnoticed, as in Pillow.
        let accepted: usize = words.next().unwrap().parse().unwrap();
        assert!(accepted <= 40, "{name}: {became}");
        let codes: Vec<&str> = words.collect();
        let known = ["image_damaged", "image_empty", "image_unknown_format", "image_unsupported"];
        assert!(codes.contains(&"image_damaged") && codes.iter().all(|code| known.contains(code)), "{name}: {became}");
    }
}

#[test]
fn spoilt_files_are_errors_that_name_them_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("hf/train-00000-of-00001.parquet")).unwrap();
    let (length, footer) = (whole.len(), whole.len() - 8);
    let with = |at: usize, bytes: &[u8]| {
        let mut spoilt = whole.clone();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        spoilt
    };
    let tar = fs::read(fixture("webdataset/cc3m-train-0000.tar")).unwrap();
    let mut huge = tar.clone();
    huge[124..136].copy_from_slice(b"77777777777\0");
    let zeros = {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let block = vec![0; 1 << 20];
        (0..512).for_each(|_| packed.write_all(&block).unwrap());
        packed.finish().unwrap()
    };
    let long = |start: &str| [start.as_bytes(), &vec![b'x'; 64 << 20]].concat();
    for (name, bytes) in [
        ("empty.parquet", Vec::new()),
        ("short.parquet", b"PAR1PAR1".to_vec()),
        ("cut.parquet", whole[..length / 2].to_vec()),
        ("begun.parquet", whole[1..].to_vec()),
        ("footer of 4 GiB.parquet", with(footer, &[0xff; 4])),
        ("footer of nothing.parquet", with(footer, &[0; 4])),
        ("footer of ones.parquet", with(footer - 300, &[0xff; 250])),
        ("another kind.parquet", b"\x89PNG\r\n\x1a\n and more of that".to_vec()),
        ("cut.tar", tar[..700].to_vec()),
        ("member of 8 GiB.tar", huge),
        ("no tar.tar", vec![b'?'; 4_096]),
        ("512 MiB of zeros.tar.gz", zeros),
        ("no gzip.tar.gz", b"\x1f\x8b\x08\0 and nothing".to_vec()),
        ("a line of 64 MiB.jsonl", long("{\"file_name\": \"")),
        ("a header of 64 MiB.csv", long("filepath,")),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let became = became(&file, name);
        assert!(became.starts_with("error ") && (became.contains(name) || became.contains("empty")), "{name}: {became}");
    }
}

#[test]
fn pages_are_held_to_the_bytes_that_the_file_has() {
    let folder = tempfile::tempdir().unwrap();
    for (name, reason, write) in parquet_bombs::REFUSED {
        let file = folder.path().join(name);
        write(&file);
        let became = became(&file, name);
        assert!(became.starts_with("error ") && became.contains(name) && became.contains(reason), "{name}: {became}");
    }
}

#[test]
fn rows_that_expand_are_read_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("repeated.parquet");
    parquet_bombs::repeated(&file);
    assert_eq!(became(&file, "repeated"), "accepted 0 text_too_long");
    parquet_bombs::uneven(&file);
    assert_eq!(became(&file, "uneven"), "accepted 0 image_damaged text_too_long");
}

#[test]
fn a_good_file_is_read_by_the_same_child() {
    let folder = tempfile::tempdir().unwrap();
    let file = picture(folder.path(), &bombs::fixture("grey.jpg"));
    assert_eq!(became(&file, "good"), "accepted 1 ");
    assert_eq!(became(&picture(folder.path(), &jpeg(1)), "no picture"), "accepted 0 image_damaged");
    assert_eq!(encoder().dim(), DIM);
}
