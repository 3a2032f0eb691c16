//! Filling a pool: pictures and captions a second with a ViT-B/32 against open_clip on torch's DataLoader and clip-retrieval's own loop, the
//! two taking turns in one run; and what decoding and preprocessing cost a picture, by format.
//!
//! | file | part |
//! |---|---|
//! | `mod.rs` | `decoding`, `towers` (against open_clip), `forms` (the same model in int8 and unpruned), `pairs` (clip-retrieval's loop on tars) |
//! | `peak.rs` | `peak`: the share of ONNX Runtime's own matrix product |
//! | `cores.rs` | `cores`: sessions against threads within a session, on equally many threads |
//! | `peer.rs` | the Python process that is asked for the peer's figures |
//! | `scale.rs` | `scale`: time and memory a row at 1,000, 10,000 and 100,000 rows |
//!
//! Weights are random at the true architecture (speed does not depend on them), pictures are JPEGs of CC3M's size
//! (`reference/pictures.py`), captions have CC3M's length. Both sides get the same files and the same number of threads.

mod cores;
mod peak;
mod peer;
mod scale;

pub(crate) use scale::child;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread::available_parallelism,
};

use anchorite_encoder::{
    Agreement, Encode, Encoder, EncoderOptions,
    image::Preprocess,
    model::{Arithmetic, LastLayer, ModelOptions},
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::{Cancel, Spec, memory::MemoryStore};
use anchorite_ingest::{ColumnChoice, ColumnOptions, IngestJob, IngestOptions, IngestReport, NoProgress, Vectors, ingest};
use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;

use peer::Peer;

use crate::{
    figure::{Figure, Sheet},
    peers::Python,
    process::{load, thread_cpu},
};

const PACKAGES: [&str; 14] = [
    "torch",
    "torchvision",
    "open_clip_torch==3.3.0",
    "transformers==5.23.0",
    "tokenizers==0.23.3",
    "ftfy==6.3.1",
    "regex==2026.11.15",
    "onnx",
    "pillow>=13,<14",
    "numpy",
    "webdataset",
    "pyarrow",
    "pandas",
    "fsspec",
];
/// Its pins (numpy below 2 among them) exclude all of the above; what its loop needs is there.
const PINNED: [&str; 1] = ["clip-retrieval==2.45.0"];

const PEER: &str = "open_clip 3.3, torch DataLoader";
const LOOP: &str = "clip-retrieval 2.45: its reader, mapper, writer and runner, with open_clip 3.3";
const CROP: &str = r#"{"size": 224, "interpolation": "bicubic", "resize_mode": "shortest"}"#;

/// Threads that both sides get; those beyond the machine's are left out.
const THREADS: [usize; 2] = [2, 4];
/// How often the captions of the peer's list are put into a file, so that every worker has enough of them.
const REPEATS: usize = 8;

/// Pictures on which int8 is compared with f32.
const AGREEMENT_PICTURES: usize = 64;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    pictures: usize,
    /// Of each kind of file, for the cost of decoding.
    decoded: usize,
    rounds: usize,
}

/// Under three minutes once the peers are installed.
const QUICK: Size = Size { pictures: 64, decoded: 40, rounds: 1 };
const FULL: Size = Size { pictures: 128, decoded: 100, rounds: 3 };

/// What is measured at once; each under five minutes on a quiet machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Decoding and preprocessing, by format.
    Decoding,
    /// Pictures and captions, file to pool, against open_clip.
    Towers,
    /// int8, and the last layer as it is.
    Forms,
    /// Tars, against clip-retrieval's loop.
    Pairs,
    /// The share of ONNX Runtime's own matrix product.
    Peak,
    /// Sessions against threads within one.
    Cores,
    /// Time and memory a row as datasets grow.
    Scale,
}

fn no_such_part() -> anyhow::Error {
    let names: Vec<String> =
        Part::value_variants().iter().filter_map(|p| Some(p.to_possible_value()?.get_name().to_owned())).collect();
    anyhow::anyhow!("ingest has no such part; there are {}", names.join(", "))
}

/// All figures of this benchmark, or of one part.
pub(crate) fn run(cache: &Path, quick: bool, part: Option<&str>) -> Result<Vec<Figure>> {
    let part = part.map(|name| Part::from_str(name, true)).transpose().map_err(|_| no_such_part())?;
    let mut sheet = Sheet::default();
    let cache = std::path::absolute(cache)?;
    let wanted = |one: Part| part.is_none_or(|part| part == one);
    if part != Some(Part::Scale) {
        beside_peers(&cache, quick, &wanted, &mut sheet)?;
    }
    if wanted(Part::Scale) {
        scale::measure(&cache, quick, &mut sheet)?;
    }
    Ok(sheet.into_figures())
}

fn beside_peers(cache: &Path, quick: bool, wanted: &dyn Fn(Part) -> bool, sheet: &mut Sheet) -> Result<()> {
    let mut bench = Bench::prepare(cache, if quick { QUICK } else { FULL })?;
    let cores = available_parallelism()?.get();
    let counts = THREADS.into_iter().filter(|&threads| threads <= cores);
    let most = cores.min(THREADS[THREADS.len() - 1]);
    let files = Files::write(&bench.pictures, &bench.model)?;
    if wanted(Part::Decoding) {
        bench.preprocessing(sheet)?;
    }
    if wanted(Part::Towers) {
        counts.clone().try_for_each(|threads| bench.encoding(threads, &files, sheet))?;
    }
    if wanted(Part::Peak) {
        counts.clone().try_for_each(|threads| bench.peak(threads, &files, sheet))?;
    }
    if wanted(Part::Cores) {
        bench.cores(most, &files, sheet)?;
    }
    if wanted(Part::Forms) {
        bench.forms(most, &files, sheet)?;
    }
    if wanted(Part::Pairs) {
        bench.pairs(most, sheet)?;
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the cache folder's name is not UTF-8")
}

/// What is ingested: one half of the pairs each, since the peer encodes one kind at a time as well.
struct Files {
    /// Keeps the folder.
    _folder: tempfile::TempDir,
    images: PathBuf,
    texts: PathBuf,
    /// Captions in the peer's list.
    captions: usize,
}

impl Files {
    fn write(pictures: &Path, model: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (images, texts) = (folder.path().join("images.parquet"), folder.path().join("texts.parquet"));
        let files = read_all(pictures, usize::MAX)?;
        write(&images, "image", Arc::new(files.iter().map(Some).collect::<BinaryArray>()))?;
        let captions: Vec<String> = serde_json::from_slice(&fs::read(model.join("captions.json"))?)?;
        let repeated = std::iter::repeat_n(&captions, REPEATS).flatten();
        write(&texts, "caption", Arc::new(repeated.map(Some).collect::<StringArray>()))?;
        Ok(Self { _folder: folder, images, texts, captions: captions.len() })
    }
}

/// The best of several turns, ours and the peer's.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    ours: f64,
    theirs: f64,
}

impl Turns {
    fn take(&mut self, ours: f64, theirs: f64) {
        self.ours = self.ours.max(ours);
        self.theirs = self.theirs.max(theirs);
    }

    fn times(self) -> f64 {
        self.ours / self.theirs
    }

    fn figure(self, name: String, unit: &'static str, data: &str, peer: &str) -> Figure {
        Figure::new(name, self.ours, unit, data).against(peer, self.theirs)
    }
}

struct Bench {
    peer: Peer,
    pictures: PathBuf,
    model: PathBuf,
    size: Size,
}

impl Bench {
    /// Makes what is measured, once for each cache folder, and starts the peer.
    fn prepare(cache: &Path, size: Size) -> Result<Self> {
        let python = Python::with(cache, "ingest", &PACKAGES)?;
        python.add_without_dependencies(&PINNED)?;
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
        let (pictures, model) = (cache.join(format!("pictures-{}", size.pictures)), cache.join("vit-b-32"));
        if !pictures.is_dir() {
            let photographs = std::env::var("ANCHORITE_BENCH_PHOTOS").unwrap_or_default();
            let count = size.pictures.to_string();
            let mut arguments = vec![text(&pictures)?, &count];
            if !photographs.is_empty() {
                arguments.extend(["--photos", &photographs]);
            }
            python.run(&reference.join("pictures.py"), &arguments)?;
        }
        let script = reference.join("ingest_peer.py");
        if !model.join("captions.json").is_file() {
            python.run(&script, &["export", text(&model)?])?;
        }
        let products = model.join("products");
        if !products.is_dir() {
            python.run(&script, &["products", text(&products)?])?;
        }
        let peer = Peer::start(&python, &script, &pictures)?;
        Ok(Self { peer, pictures, model, size })
    }

    fn preprocessing(&mut self, sheet: &mut Sheet) -> Result<()> {
        let preprocess = Preprocess::from_open_clip_json(CROP)?;
        for kind in ["jpeg", "png", "webp"] {
            let mut turns = Turns::default();
            let mut files = Vec::new();
            for _ in 0..3 {
                let theirs = 1e3 / self.peer.ask(&format!("transform {kind} {}", self.size.decoded))?;
                if files.is_empty() {
                    files = read_all(&kind_folder(&self.pictures, kind), self.size.decoded)?;
                }
                turns.take(1e3 / milliseconds(&preprocess, &files)?, theirs);
            }
            let data = format!("{} {kind} of photographs, 224 px, best of 3 turns, load {}", files.len(), load()?);
            let name = format!("decode and preprocess {kind}: pictures a CPU-second");
            let figure = turns.figure(name, "1/s", &data, "open_clip's transform (torchvision on Pillow 13)");
            sheet.add(figure.goal("2.0 times", turns.times() >= 2.0));
        }
        Ok(())
    }

    fn encoding(&mut self, threads: usize, files: &Files, sheet: &mut Sheet) -> Result<()> {
        let encoder = self.encoder(threads, &ModelOptions::default())?;
        let (mut pictures, mut captions) = (Turns::default(), Turns::default());
        // The first turn loads the towers and is not counted.
        fill(&encoder, &files.images, threads)?;
        fill(&encoder, &files.texts, threads)?;
        self.peer.ask(&format!("images {threads}"))?;
        for _ in 0..self.size.rounds {
            let theirs = self.size.pictures as f64 / self.peer.ask(&format!("images {threads}"))?;
            pictures.take(rate(&fill(&encoder, &files.images, threads)?), theirs);
            let theirs = files.captions as f64 / self.peer.ask(&format!("captions {threads}"))?;
            captions.take(rate(&fill(&encoder, &files.texts, threads)?), theirs);
        }
        let rounds = self.size.rounds;
        let data = format!("ViT-B/32 f32, random weights, {threads} threads, best of {rounds} turns, load {}", load()?);
        let figure = pictures.figure(format!("pictures, file to pool, {threads} threads"), "1/s", &data, PEER);
        sheet.add(figure.goal("1.30 times", pictures.times() >= 1.3));
        let figure = captions.figure(format!("captions, file to pool, {threads} threads"), "1/s", &data, PEER);
        sheet.add(figure.goal("6 times", captions.times() >= 6.0));
        Ok(())
    }

    /// The same model in other forms: the last layer for all tokens, and matrices in 8 bits.
    fn forms(&mut self, threads: usize, files: &Files, sheet: &mut Sheet) -> Result<()> {
        let usual = self.encoder(threads, &ModelOptions::default())?;
        let whole = self.encoder(threads, &ModelOptions { last_layer: LastLayer::Whole, ..ModelOptions::default() })?;
        let int8 = self.encoder(threads, &ModelOptions { arithmetic: Arithmetic::Int8, ..ModelOptions::default() })?;
        let (mut picked, mut eight, mut eight_captions) = (Turns::default(), Turns::default(), Turns::default());
        for encoder in [&usual, &whole, &int8] {
            fill(encoder, &files.images, threads)?;
        }
        fill(&int8, &files.texts, threads)?;
        for _ in 0..self.size.rounds {
            let theirs = self.size.pictures as f64 / self.peer.ask(&format!("images {threads}"))?;
            eight.take(rate(&fill(&int8, &files.images, threads)?), theirs);
            let as_it_is = rate(&fill(&whole, &files.images, threads)?);
            picked.take(rate(&fill(&usual, &files.images, threads)?), as_it_is);
            let theirs = files.captions as f64 / self.peer.ask(&format!("captions {threads}"))?;
            eight_captions.take(rate(&fill(&int8, &files.texts, threads)?), theirs);
        }
        let rounds = self.size.rounds;
        let data = format!("ViT-B/32, random weights, {threads} threads, best of {rounds} turns, load {}", load()?);
        let name = format!("pictures, last layer for the picked token only, {threads} threads");
        sheet.add(picked.figure(name, "1/s", &data, "the same with the whole last layer"));
        let figure = eight.figure(format!("pictures, matrices in int8, {threads} threads"), "1/s", &data, PEER);
        sheet.add(figure.goal("2.0 times", eight.times() >= 2.0));
        sheet.add(eight_captions.figure(format!("captions, matrices in int8, {threads} threads"), "1/s", &data, PEER));
        let preprocess = Preprocess::from_open_clip_json(CROP)?;
        let pictures = read_all(&self.pictures, AGREEMENT_PICTURES)?;
        let pixels = pictures.iter().map(|bytes| preprocess.apply(bytes)).collect::<Result<Vec<_>, _>>()?;
        let agreement = Agreement::between(&usual.encode_images(&pixels)?, &int8.encode_images(&pixels)?);
        let data = format!("{} JPEGs, ViT-B/32 of random weights, int8 against f32", agreement.items);
        sheet.add(Figure::new("int8: mean centred cosine", agreement.mean_cosine, "", &data));
        sheet.add(Figure::new("int8: lowest centred cosine", agreement.lowest_cosine, "", &data));
        sheet.add(Figure::new("int8: recall@10 among them", agreement.recall, "", &data));
        Ok(())
    }

    /// Both halves of pairs out of tars of the WebDataset kind.
    fn pairs(&mut self, threads: usize, sheet: &mut Sheet) -> Result<()> {
        let pairs = self.peer.ask("tars")?;
        let tars = kind_folder(&self.pictures, "tars");
        let encoder = self.encoder(threads, &ModelOptions::default())?;
        let mut turns = Turns::default();
        fill(&encoder, &tars, threads)?;
        for _ in 0..self.size.rounds {
            let theirs = pairs / self.peer.ask(&format!("clip-retrieval {threads}"))?;
            turns.take(rate(&fill(&encoder, &tars, threads)?), theirs);
        }
        let rounds = self.size.rounds;
        let data = format!(
            "{pairs} pairs in four tars, ViT-B/32 f32, random weights, {threads} threads, best of {rounds} turns, load {}",
            load()?
        );
        sheet.add(turns.figure(format!("pairs, tars to pool, {threads} threads"), "1/s", &data, LOOP));
        Ok(())
    }

    /// As ingest has it: a session for each thread.
    fn encoder(&self, threads: usize, model: &ModelOptions) -> Result<Encoder> {
        self.encoder_of(threads, 1, model)
    }

    fn encoder_of(&self, sessions: usize, threads: usize, model: &ModelOptions) -> Result<Encoder> {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
        let sessions = NonZeroUsize::new(sessions).context("sessions")?;
        let options = EncoderOptions { image_sessions: sessions, text_sessions: sessions, threads, ..EncoderOptions::default() };
        Ok(anchorite_encoder::open(runtime, Provider::Cpu, &self.model, model, options)?)
    }
}

/// Into a store in memory, which costs next to nothing.
fn fill(encoder: &Encoder, source: &Path, threads: usize) -> Result<IngestReport> {
    let absent = |name: &str| if source.ends_with(name) { ColumnChoice::Absent } else { ColumnChoice::Auto };
    let columns = ColumnOptions { image: absent("texts.parquet"), caption: absent("images.parquet"), ..ColumnOptions::default() };
    let options = IngestOptions { columns, workers: NonZeroUsize::new(threads), ..IngestOptions::default() };
    let mut store = MemoryStore::new(Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() });
    let sources = [source.to_owned()];
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(encoder), options: &options };
    let report = ingest(job, &mut store, &mut NoProgress, &Cancel::default())?;
    ensure!(report.rejected == 0, "rejects: {:?}", report.rejected_by_reason);
    Ok(report)
}

/// Work of the image tower for one picture, in GFLOP: two for each multiply-and-add of its linear layers and attention, 8.82, less what
/// the last layer's output projection and MLP would cost for the 49 tokens that are not picked.
const GFLOP_PER_PICTURE: f64 = 8.82 - 49.0 * 2.0 * 9.0 * 768.0 * 768.0 / 1e9;

fn rate(report: &IngestReport) -> f64 {
    report.accepted as f64 / report.seconds
}

/// Where the peer puts the pictures in another form.
fn kind_folder(pictures: &Path, kind: &str) -> PathBuf {
    let name = pictures.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if kind == "jpeg" { pictures.to_owned() } else { pictures.with_file_name(format!("{name}-{kind}")) }
}

fn read_all(folder: &Path, most: usize) -> Result<Vec<Vec<u8>>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().take(most).map(|path| Ok(fs::read(path)?)).collect()
}

fn milliseconds(preprocess: &Preprocess, files: &[Vec<u8>]) -> Result<f64> {
    let begun = thread_cpu();
    for bytes in files {
        std::hint::black_box(preprocess.apply(bytes)?);
    }
    Ok((thread_cpu() - begun).as_secs_f64() * 1e3 / files.len() as f64)
}

fn write(path: &Path, name: &str, column: ArrayRef) -> Result<()> {
    let batch = RecordBatch::try_from_iter([(name, column)])?;
    let mut writer = ArrowWriter::try_new(fs::File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
