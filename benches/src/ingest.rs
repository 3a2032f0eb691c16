//! Filling a pool: pictures and captions a second with a ViT-B/32 against open_clip on torch's DataLoader, the two taking turns in one
//! run; and what decoding and preprocessing cost a picture, by format.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout},
    sync::Arc,
    thread::available_parallelism,
};

use anchorite_encoder::{
    Encode, Encoder, EncoderOptions,
    image::Preprocess,
    model::ModelOptions,
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::{Cancel, Spec, memory::MemoryStore};
use anchorite_ingest::{ColumnChoice, ColumnOptions, IngestJob, IngestOptions, IngestReport, NoProgress, Vectors, ingest};
use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::{
    figure::{Figure, Sheet},
    peers::Python,
    process::thread_cpu,
};

const PACKAGES: [&str; 10] = [
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
];
const PEER: &str = "open_clip 3.3, torch DataLoader";
/// Work of the image tower for one picture, in GFLOP: two for each multiply-and-add of its linear layers and attention.
const GFLOP_PER_PICTURE: f64 = 8.82;
/// Captions of the peer's list, put into a file as often as it takes to fill every worker.
const REPEATS: usize = 4;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::default();
    let cache = std::path::absolute(cache)?;
    let python = Python::with(&cache, "ingest", &PACKAGES)?;
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
    let count = if quick { 64 } else { 300 };
    let (pictures, model) = (cache.join(format!("pictures-{count}")), cache.join("vit-b-32"));
    if !pictures.is_dir() {
        python.run(&reference.join("pictures.py"), &[text(&pictures)?, &count.to_string()])?;
    }
    if !model.join("captions.json").is_file() {
        python.run(&reference.join("ingest_peer.py"), &["export", text(&model)?])?;
    }
    let threads = available_parallelism()?;
    let peer = Peer::start(&python, &reference.join("ingest_peer.py"), &pictures, threads)?;
    let mut bench = Bench { peer, pictures, model, threads, rounds: if quick { 1 } else { 3 } };
    bench.preprocessing(&mut sheet)?;
    bench.encoding(&mut sheet)?;
    Ok(sheet.into_figures())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the cache folder's name is not UTF-8")
}

/// The Python side, which answers one number a question.
struct Peer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Python, script: &Path, pictures: &Path, threads: NonZeroUsize) -> Result<Self> {
        let mut child = python.start(script, &["serve", text(pictures)?, &threads.to_string()])?;
        let questions = child.stdin.take().context("the peer's input")?;
        let answers = BufReader::new(child.stdout.take().context("the peer's output")?);
        let mut peer = Self { child, questions, answers };
        ensure!(peer.line()? == "ready", "the peer does not start");
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, question: &str) -> Result<f64> {
        writeln!(self.questions, "{question}")?;
        let answer = self.line()?;
        answer.parse().with_context(|| format!("the peer answers {question} with {answer:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input closes; this is for one that hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Bench {
    peer: Peer,
    pictures: PathBuf,
    model: PathBuf,
    threads: NonZeroUsize,
    rounds: usize,
}

impl Bench {
    fn preprocessing(&mut self, sheet: &mut Sheet) -> Result<()> {
        let preprocess =
            Preprocess::from_open_clip_json(r#"{"size": 224, "interpolation": "bicubic", "resize_mode": "shortest"}"#)?;
        for kind in ["jpeg", "png", "webp"] {
            let peer = self.peer.ask(&format!("transform {kind}"))?;
            let name = self.pictures.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder =
                if kind == "jpeg" { self.pictures.clone() } else { self.pictures.with_file_name(format!("{name}-{kind}")) };
            let files = read_all(&folder, 50)?;
            let best = (0..3).map(|_| milliseconds(&preprocess, &files)).collect::<Result<Vec<_>>>()?;
            let ours = best.into_iter().fold(f64::INFINITY, f64::min);
            let data = format!("{} {kind} of photographs, 224 px", files.len());
            let faster = peer / ours;
            let figure = Figure::new(format!("decode and preprocess {kind}, one thread: pictures"), 1e3 / ours, "1/s", data);
            sheet.add(figure.against("open_clip's transform", 1e3 / peer).goal("2.0 times", faster >= 2.0));
        }
        Ok(())
    }

    fn encoding(&mut self, sheet: &mut Sheet) -> Result<()> {
        let encoder = self.encoder()?;
        let files = read_all(&self.pictures, usize::MAX)?;
        let captions: Vec<String> = serde_json::from_slice(&fs::read(self.model.join("captions.json"))?)?;
        let folder = tempfile::tempdir()?;
        let (images, texts) = (folder.path().join("images.parquet"), folder.path().join("texts.parquet"));
        write(&images, "image", Arc::new(files.iter().map(Some).collect::<BinaryArray>()))?;
        let repeated = std::iter::repeat_n(&captions, REPEATS).flatten();
        write(&texts, "caption", Arc::new(repeated.map(Some).collect::<StringArray>()))?;
        let (mut ours, mut theirs) = ([0.0_f64; 2], [0.0_f64; 2]);
        let mut gemm = 0.0_f64;
        // The first turn loads the towers and is not counted.
        self.fill(&encoder, &images)?;
        self.fill(&encoder, &texts)?;
        for _ in 0..self.rounds {
            gemm = gemm.max(self.peer.ask("gemm")?);
            theirs[0] = theirs[0].max(files.len() as f64 / self.peer.ask("images")?);
            ours[0] = ours[0].max(rate(&self.fill(&encoder, &images)?));
            theirs[1] = theirs[1].max(captions.len() as f64 / self.peer.ask("captions")?);
            ours[1] = ours[1].max(rate(&self.fill(&encoder, &texts)?));
        }
        let data = format!("ViT-B/32 f32, random weights, {} threads, best of {} turns", self.threads, self.rounds);
        let [images, texts] = [0, 1].map(|at| ours[at] / theirs[at]);
        sheet.add(
            Figure::new("pictures, file to pool", ours[0], "1/s", &data)
                .against(PEER, theirs[0])
                .goal("1.30 times", images >= 1.3),
        );
        let share = ours[0] * GFLOP_PER_PICTURE / gemm;
        let figure = Figure::new("the same: share of the matrix product's peak", share, "", &data);
        sheet.add(figure.goal("0.88", share >= 0.88));
        sheet.add(Figure::new("matrix product's peak, torch f32", gemm, "GFLOP/s", &data));
        sheet.add(
            Figure::new("captions, file to pool", ours[1], "1/s", &data).against(PEER, theirs[1]).goal("6 times", texts >= 6.0),
        );
        Ok(())
    }

    fn encoder(&self) -> Result<Encoder> {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
        let options =
            EncoderOptions { image_sessions: self.threads, text_sessions: self.threads, threads: 1, ..EncoderOptions::default() };
        Ok(anchorite_encoder::open(runtime, Provider::Cpu, &self.model, &ModelOptions::default(), options)?)
    }

    /// One half of the pairs, the other turned off: the peer encodes one kind at a time as well.
    fn fill(&self, encoder: &Encoder, source: &Path) -> Result<IngestReport> {
        let absent = |name: &str| if source.ends_with(name) { ColumnChoice::Absent } else { ColumnChoice::Auto };
        let columns =
            ColumnOptions { image: absent("texts.parquet"), caption: absent("images.parquet"), ..ColumnOptions::default() };
        let options = IngestOptions { columns, workers: Some(self.threads), ..IngestOptions::default() };
        let mut store = MemoryStore::new(Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() });
        let sources = [source.to_owned()];
        let job = IngestJob { sources: &sources, vectors: Vectors::Encode(encoder), options: &options };
        let report = ingest(job, &mut store, &mut NoProgress, &Cancel::default())?;
        ensure!(report.rejected == 0, "rejects: {:?}", report.rejected_by_reason);
        Ok(report)
    }
}

fn rate(report: &IngestReport) -> f64 {
    report.accepted as f64 / report.seconds
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
