//! Evaluation against NumPy on the same embeddings, and captions against transformers' on the same random weights, in turns.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anchorite_encoder::{
    Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens,
    runtime::{self, RuntimeOptions},
    session::Engine,
};
use anchorite_index::Cancel;
use anchorite_train::{
    caption::{Captioner, Decoding},
    eval::{Cache, EvalConfig, EvalLimits, Evaluator, Metric, ModelUnderTest},
};
use anyhow::{Context, Result, ensure};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::{
    figure::{Figure, Sheet},
    peers::Python,
};

const THREADS: usize = 2;
const SEED: u64 = 0;
const DIM: usize = 512;
/// Temperature at which random heads are neither sure nor blind.
const SCALE: f64 = 50.0;
const PACKAGES: [&str; 4] = ["torch==2.15.0", "transformers==5.23.0", "onnx==1.23.2", "numpy"];
/// The reference script's own.
const PICTURES: usize = 8;
const SIDE: usize = 224;
const TOKENS: usize = 24;

/// All figures.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let python = Python::with(cache, "train", &PACKAGES)?;
    let mut sheet = Sheet::default();
    evaluation(cache, &python, if quick { (2_000, 100) } else { (50_000, 1_000) }, &mut sheet)?;
    captions(cache, &python, if quick { 3 } else { 9 }, &mut sheet)?;
    Ok(sheet.into_figures())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(name)
}

/// Embeddings by number: picture `n` is the number's bytes, prompt `n` its digits.
struct Given {
    images: Vec<Vec<f32>>,
    head: Vec<Vec<f32>>,
}

impl Encode for Given {
    fn dim(&self) -> usize {
        DIM
    }

    fn fingerprint(&self) -> &str {
        "given embeddings"
    }

    fn name(&self) -> &str {
        self.fingerprint()
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        let number: [u8; 4] = bytes.try_into().map_err(|_| ImageError::Empty)?;
        Ok(Pixels { values: vec![u32::from_le_bytes(number) as f32], height: 1, width: 1 })
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        let number = text.parse().map_err(|_| TextError::Tokenizer { reason: format!("{text:?} is no number") })?;
        Ok(Tokens { ids: vec![number], truncated: false })
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        batch.iter().map(|p| unit(&self.images[p.values[0] as usize])).collect()
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        batch.iter().map(|t| unit(&self.head[t.ids[0] as usize])).collect()
    }
}

fn unit(values: &[f32]) -> Result<Embedding, EncodeError> {
    Embedding::normalized(values.to_vec()).map_err(|source| EncodeError::Embedding { item: 0, source })
}

fn evaluation(cache: &Path, python: &Python, (images, classes): (usize, usize), sheet: &mut Sheet) -> Result<()> {
    let folder = cache.join(format!("eval-{images}"));
    fs::create_dir_all(&folder)?;
    let (given, labels) = drawn(images, classes);
    write(&folder, &given, &labels)?;
    let names: Vec<String> = (0..classes).map(|class| format!("\"{class}\"")).collect();
    let config = format!(
        "bootstrap = 0\n[classes.all]\nnames = [{}]\ntemplates = [\"{{}}\"]\n[[sets]]\nname = \"set\"\nsources = [\"set.parquet\"]\nclasses = \"all\"\n",
        names.join(", ")
    );
    let evaluator = Evaluator::new(EvalConfig::from_toml(&config, &folder)?, EvalLimits::default())?;
    let model = ModelUnderTest { name: "given", encoder: &given, scale: SCALE, scale_assumed: false, heads: None };
    let start = Instant::now();
    let outcome = evaluator.run(model, &mut Cache::in_memory(), &Cancel::default(), &|_, _| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let found = evaluator.finish(&[outcome])?;
    let folder = folder.to_str().context("the cache folder's name is not UTF-8")?;
    let theirs: Value = serde_json::from_str(&python.run(&script("eval_numpy.py"), &[folder])?)?;
    let mut worst = 0.0_f64;
    for (name, metric) in [
        ("top1", Metric::Top1),
        ("top5", Metric::Top5),
        ("mean_per_class", Metric::MeanPerClass),
        ("macro_f1", Metric::MacroF1),
        ("ece", Metric::Ece),
    ] {
        let ours = found.figure("given", "set", metric).with_context(|| format!("{name} is measured"))?.value;
        let reference = theirs[name].as_f64().with_context(|| format!("the reference has no {name}"))?;
        worst = worst.max((ours - reference).abs());
    }
    let data = format!("{images} x {DIM} seeded embeddings, {classes} classes");
    let figure = Figure::new("evaluation, worst difference of five figures", worst, "share", &data).seed(SEED);
    sheet.add(figure.against("NumPy in float64", 0.0).goal("<= 1e-6", worst <= 1e-6));
    let rate = images as f64 / seconds;
    let peer = theirs["seconds"].as_f64().map_or(0.0, |s| images as f64 / s);
    let figure = Figure::new("evaluation, rows read, hashed and measured", rate, "pictures/s", data).seed(SEED);
    sheet.add(figure.against("NumPy, embeddings in memory", peer));
    Ok(())
}

/// Classes in random places and pictures around them, far enough out that some are wrong.
fn drawn(images: usize, classes: usize) -> (Given, Vec<i64>) {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut vector = |around: Option<&Vec<f32>>| -> Vec<f32> {
        (0..DIM).map(|i| random.random_range(-1.0..1.0_f32) + 0.15 * around.map_or(0.0, |v| v[i])).collect()
    };
    let head: Vec<Vec<f32>> = (0..classes).map(|_| vector(None)).collect();
    let labels: Vec<i64> = (0..images).map(|i| (i * 7 % classes) as i64).collect();
    let images = labels.iter().map(|&label| vector(Some(&head[label as usize]))).collect();
    (Given { images, head }, labels)
}

fn write(folder: &Path, given: &Given, labels: &[i64]) -> Result<()> {
    let pictures: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..labels.len() as u32).map(u32::to_le_bytes)));
    let column: ArrayRef = Arc::new(Int64Array::from(labels.to_vec()));
    let batch = RecordBatch::try_from_iter([("image", pictures), ("label", column)])?;
    let mut writer = ArrowWriter::try_new(fs::File::create(folder.join("set.parquet"))?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    let floats = |rows: &[Vec<f32>]| rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    npy(&folder.join("images.npy"), "<f4", &format!("{}, {DIM}", given.images.len()), &floats(&given.images))?;
    npy(&folder.join("head.npy"), "<f4", &format!("{}, {DIM}", given.head.len()), &floats(&given.head))?;
    let numbers: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    npy(&folder.join("labels.npy"), "<i8", &format!("{},", labels.len()), &numbers)?;
    fs::write(folder.join("scale.txt"), SCALE.to_string())?;
    Ok(())
}

/// NumPy's file format, version 1.
fn npy(path: &Path, kind: &str, shape: &str, data: &[u8]) -> Result<()> {
    let mut head = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(head.len() + 11).is_multiple_of(64) {
        head.push(' ');
    }
    head.push('\n');
    let mut file = fs::File::create(path)?;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(head.len() as u16).to_le_bytes())?;
    file.write_all(head.as_bytes())?;
    Ok(file.write_all(data)?)
}

/// Captions of both layouts with a cache: two decoders in two files, and two in one.
fn captions(cache: &Path, python: &Python, rounds: usize, sheet: &mut Sheet) -> Result<()> {
    let (folder, merged) = (cache.join("captioner"), cache.join("captioner-merged"));
    let name = |folder: &Path| folder.to_str().map(str::to_owned).context("the cache folder's name is not UTF-8");
    if !folder.join("config.json").exists() {
        python.run(&script("caption_torch.py"), &["export", &name(&folder)?])?;
    }
    if !merged.join("config.json").exists() {
        python.run(&script("caption_torch.py"), &["merge", &name(&folder)?, &name(&merged)?])?;
    }
    for (layout, folder) in [("with past", &folder), ("merged", &merged)] {
        captions_of(layout, folder, python, rounds, sheet)?;
    }
    Ok(())
}

fn captions_of(layout: &str, folder: &Path, python: &Python, rounds: usize, sheet: &mut Sheet) -> Result<()> {
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
    let mut captioner = Captioner::open(&Engine::cpu(runtime.environment().clone()), folder, THREADS)?;
    let mut child = python.start(&script("caption_torch.py"), &["run", &THREADS.to_string()])?;
    let mut requests = child.stdin.take().context("stdin is piped")?;
    let mut answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let decoding = Decoding { max_new_tokens: TOKENS, ..Decoding::default() };
    let (pictures, names) = (pictures(), vec![0; PICTURES]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let start = Instant::now();
        let generated = captioner.ids(&pictures, &names, &decoding, &Cancel::default())?;
        let seconds = start.elapsed().as_secs_f64();
        let ids: Vec<Vec<u32>> = generated.into_iter().flatten().map(|g| g.ids).collect();
        writeln!(requests, "go")?;
        requests.flush()?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the reference ended; its message is above");
        let said: Value = serde_json::from_str(&line)?;
        let reference: Vec<Vec<u32>> = serde_json::from_value(said["ids"].clone())?;
        ensure!(ids == reference, "the captions differ: {ids:?} and {reference:?}");
        let tokens = ids.iter().map(Vec::len).sum::<usize>() as f64;
        // The first of each makes what later ones use.
        if round > 0 {
            ours.push(tokens / seconds);
            theirs.push(tokens / said["wall"].as_f64().context("the answer has no wall")?);
        }
    }
    writeln!(requests, "end")?;
    drop(requests);
    child.wait()?;
    let (a, b) = (median(ours), median(theirs));
    let data = format!(
        "ViT (256 x 6) and GPT-2 (256 x 6, 8,192 words), random weights, {PICTURES} pictures, {TOKENS} tokens, greedy, {THREADS} threads, median of {rounds} in turns; tokens equal"
    );
    sheet.add(Figure::new(format!("captions, {layout}"), a, "tokens/s", data).against("transformers", b).goal(">= 1.0", a >= b));
    Ok(())
}

/// The reference's own: a sine over all values.
fn pictures() -> Vec<Pixels> {
    let values: Vec<f32> = (0..PICTURES * 3 * SIDE * SIDE).map(|i| (i as f64 * 0.37).sin() as f32).collect();
    values.chunks(3 * SIDE * SIDE).map(|v| Pixels { values: v.to_vec(), height: SIDE, width: SIDE }).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
