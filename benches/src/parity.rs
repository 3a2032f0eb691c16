//! Preprocessing against open_clip's pipeline, tokens against both tokenizers, embeddings against Python onnxruntime.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anchorite_encoder::{
    Encode, EncoderOptions,
    image::{Preprocess, decode},
    model::ModelOptions,
    runtime::{self, Provider, RuntimeOptions},
    text::{SpecialTokens, Tokenizer, TokenizerOptions},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    figure::{Figure, Sheet},
    peers::Python,
    process::thread_cpu,
};

/// What the references run on; torch comes with open_clip.
const PACKAGES: [&str; 10] = [
    "numpy",
    "pillow>=13,<14",
    "onnxruntime==1.31.1",
    "tokenizers==0.23.3",
    "transformers==5.23.0",
    "open_clip_torch==3.3.0",
    "ftfy==6.3.1",
    "regex==2026.11.15",
    "pyarrow",
    "torchvision",
];
const REFERENCE: &str = "open_clip 3.3 (torchvision on Pillow 13)";

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::default();
    let python = Python::with(cache, "parity", &PACKAGES)?;
    let bench = Bench { python, cache: std::path::absolute(cache)?, reference: repository().join("benches/reference"), quick };
    bench.pictures(&mut sheet)?;
    bench.tokens(&mut sheet)?;
    bench.embeddings(&mut sheet)?;
    Ok(sheet.into_figures())
}

/// The source tree: its scripts and bundled data are what is measured.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

struct Bench {
    python: Python,
    cache: PathBuf,
    reference: PathBuf,
    quick: bool,
}

impl Bench {
    fn script(&self, name: &str, arguments: &[&str]) -> Result<String> {
        self.python.run(&self.reference.join(name), arguments).with_context(|| format!("run benches/reference/{name}"))
    }

    /// Decoding, crop and normalised values of real JPEGs, bit for bit, and the time of both.
    fn pictures(&self, sheet: &mut Sheet) -> Result<()> {
        let n = if self.quick { 20 } else { 500 };
        let folder = self.cache.join(format!("pictures-{n}"));
        if !folder.is_dir() {
            let count = n.to_string();
            let photographs = std::env::var("ANCHORITE_BENCH_PHOTOS").unwrap_or_default();
            let mut arguments = vec![text(&folder)?, &count];
            if !photographs.is_empty() {
                arguments.extend(["--photos", &photographs]);
            }
            self.script("pictures.py", &arguments)?;
        }
        let said = self.preprocess(&folder, &["--open-clip"])?;
        let data = format!("{n} JPEGs cut from photographs, 224 px");
        let differs = said["open_clip_differs"].as_array().context("open_clip_differs")?.len();
        ensure!(differs == 0, "the reference script and open_clip differ on {differs} pictures");
        let pictures = Pictures::read(&folder, &said)?;
        for (what, equal) in pictures.equal()? {
            let share = equal as f64 / pictures.files.len() as f64;
            let figure = Figure::new(format!("JPEG {what}: share bit-identical"), share, "", &data).against(REFERENCE, 1.0);
            sheet.add(figure.goal("1", equal == pictures.files.len()));
        }
        let ours = pictures.milliseconds()?;
        let peer = said["cpu_ms_per_picture"]["open_clip"].as_f64().context("open_clip's time")?;
        sheet.add(Figure::new("decode and preprocess, one thread", ours, "ms CPU/picture", &data).against(REFERENCE, peer));
        self.odd_pictures(sheet)
    }

    /// Every mode that a picture may have, from the encoder's test fixtures.
    fn odd_pictures(&self, sheet: &mut Sheet) -> Result<()> {
        let folder = repository().join("encoder/tests/fixtures/images");
        let copied = self.cache.join("odd-pictures");
        copy_pictures(&folder, &copied)?;
        let said = self.preprocess(&copied, &[])?;
        let pictures = Pictures::read(&copied, &said)?;
        let data = format!("{} PNG, WebP and JPEG files of every mode", pictures.files.len());
        for (what, equal) in pictures.equal()? {
            let share = equal as f64 / pictures.files.len().max(1) as f64;
            let figure = Figure::new(format!("every mode, {what}: share bit-identical"), share, "", &data);
            sheet.add(figure.against("Pillow 13, convert(\"RGB\")", 1.0));
        }
        Ok(())
    }

    fn preprocess(&self, folder: &Path, more: &[&str]) -> Result<Value> {
        let out = folder.with_extension("json");
        let mut arguments = vec![text(folder)?, text(&out)?];
        arguments.extend(more);
        self.script("preprocess.py", &arguments)?;
        Ok(serde_json::from_slice(&fs::read(out)?)?)
    }

    /// Ids of 5,000 nasty captions in both modes.
    fn tokens(&self, sheet: &mut Sheet) -> Result<()> {
        let folder = self.cache.join("tokens");
        fs::create_dir_all(&folder)?;
        let said = self.script("tokens.py", &["full", text(&folder)?, "--time"])?;
        let lines = fs::read_to_string(folder.join("captions.jsonl"))?;
        let captions: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        for (layout, column, peer) in [("clip", "hf", "tokenizers"), ("open_clip", "open_clip", "open_clip's SimpleTokenizer")] {
            let options = TokenizerOptions { special_tokens: SpecialTokens::AsReference, ..TokenizerOptions::default() };
            let tokenizer = Tokenizer::find_with(&folder.join(layout), &options)?;
            let data = format!("{} nasty captions, CLIP's vocabulary", captions.len());
            let differ = differing(&tokenizer, &captions, column)?;
            let figure = Figure::new(format!("captions with other ids, {layout} layout"), differ as f64, "captions", &data);
            sheet.add(figure.against(peer, 0.0).goal("0", differ == 0));
            let neutral = Tokenizer::find(&folder.join(layout))?;
            let differ = differing(&neutral, &captions, column)?;
            let figure = Figure::new(
                format!("the same with special tokens neutralised (the default), {layout}"),
                differ as f64,
                "captions",
                &data,
            );
            sheet.add(figure.against(peer, 0.0));
            let ours = microseconds(&neutral, &captions)?;
            let figure = Figure::new(format!("tokenize, one thread, {layout} layout"), ours, "us CPU/caption", &data);
            sheet.add(match reference_microseconds(&said, column) {
                Some(theirs) => figure.against(peer, theirs),
                None => figure,
            });
        }
        Ok(())
    }

    /// Embeddings of bundled pairs, whole path from bytes and words, against Python onnxruntime.
    fn embeddings(&self, sheet: &mut Sheet) -> Result<()> {
        let n: usize = if self.quick { 16 } else { 256 };
        let (demo, out) = (repository().join("demo"), self.cache.join("embeddings"));
        let (model, pairs) = (demo.join("model"), demo.join("pairs.parquet"));
        self.script("embeddings.py", &[text(&model)?, text(&pairs)?, &n.to_string(), text(&out)?])?;
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
        let encoder =
            anchorite_encoder::open(runtime, Provider::Cpu, &model, &ModelOptions::default(), EncoderOptions::default())?;
        let captions: Vec<String> = serde_json::from_slice(&fs::read(out.join("captions.json"))?)?;
        let image = |i: usize| {
            anyhow::Ok(encoder.encode_images(&[encoder.prepare_image(&fs::read(out.join(format!("pictures/{i:04}")))?)?])?)
        };
        let caption = |i: usize| anyhow::Ok(encoder.encode_texts(&[encoder.prepare_text(&captions[i])?])?);
        let data = format!("{n} bundled pairs, demo model, whole path");
        for (tower, worst) in [
            ("image", lowest_cosine(&out.join("image.f32"), encoder.dim(), image)?),
            ("text", lowest_cosine(&out.join("text.f32"), encoder.dim(), caption)?),
        ] {
            let figure = Figure::new(format!("{tower} embedding, lowest cosine"), worst, "", &data)
                .against("Python onnxruntime 1.31.1", 1.0);
            sheet.add(figure.goal("0.99999", worst >= 0.99999));
        }
        Ok(())
    }
}

/// Pictures that both can read, with what the reference made of each.
struct Pictures {
    files: Vec<(Vec<u8>, Value)>,
    preprocess: Preprocess,
}

impl Pictures {
    fn read(folder: &Path, said: &Value) -> Result<Self> {
        let preprocess = Preprocess::from_open_clip_json(&said["config"].to_string())?;
        let mut files = Vec::new();
        for (name, expected) in said["files"].as_object().context("files")? {
            let bytes = fs::read(folder.join(name))?;
            match (expected.get("error"), decode(&bytes, preprocess.limits())) {
                (None, Ok(_)) => files.push((bytes, expected.clone())),
                (Some(_), Err(_)) => {}
                (None, Err(error)) => anyhow::bail!("{name}: the reference reads it, we refuse it: {error}"),
                (Some(error), Ok(_)) => anyhow::bail!("{name}: we read it, the reference refuses it: {error}"),
            }
        }
        Ok(Self { files, preprocess })
    }

    /// How many are equal to the last bit, after each step.
    fn equal(&self) -> Result<BTreeMap<&'static str, usize>> {
        let mut equal = BTreeMap::from([("decoded", 0), ("crop", 0), ("values", 0)]);
        for (bytes, expected) in &self.files {
            let picture = decode(bytes, self.preprocess.limits())?;
            let values = self.preprocess.apply(bytes)?.values;
            let values: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            for (what, found) in [
                ("decoded", hex(picture.values())),
                ("crop", hex(self.preprocess.crop(&picture).values())),
                ("values", hex(&values)),
            ] {
                let same = expected[what].as_str() == Some(&found);
                *equal.entry(what).or_default() += usize::from(same);
            }
        }
        Ok(equal)
    }

    /// Processor milliseconds a picture, best of three rounds.
    fn milliseconds(&self) -> Result<f64> {
        let round = || {
            let start = thread_cpu();
            for (bytes, _) in &self.files {
                std::hint::black_box(self.preprocess.apply(bytes)?);
            }
            anyhow::Ok((thread_cpu() - start).as_secs_f64() * 1e3 / self.files.len() as f64)
        };
        let rounds = (0..3).map(|_| round()).collect::<Result<Vec<_>>>()?;
        Ok(rounds.into_iter().fold(f64::INFINITY, f64::min))
    }
}

fn copy_pictures(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let is_picture = path.extension().is_some_and(|e| ["jpg", "jpeg", "png", "webp"].iter().any(|kind| e == *kind));
        if let (true, Some(name)) = (is_picture, path.file_name()) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// Captions whose ids are not those of `column`.
fn differing(tokenizer: &Tokenizer, captions: &[Value], column: &str) -> Result<usize> {
    let mut differ = 0;
    for caption in captions {
        let ids = tokenizer.encode(caption["text"].as_str().context("text")?)?.ids;
        differ += usize::from(serde_json::to_value(ids)? != caption[column]);
    }
    Ok(differ)
}

/// Processor microseconds a caption, best of five rounds.
fn microseconds(tokenizer: &Tokenizer, captions: &[Value]) -> Result<f64> {
    let texts: Vec<&str> = captions.iter().filter_map(|c| c["text"].as_str()).collect();
    let round = || {
        let start = thread_cpu();
        for text in &texts {
            std::hint::black_box(tokenizer.encode(text)?);
        }
        anyhow::Ok((thread_cpu() - start).as_secs_f64() * 1e6 / texts.len() as f64)
    };
    let rounds = (0..5).map(|_| round()).collect::<Result<Vec<_>>>()?;
    Ok(rounds.into_iter().fold(f64::INFINITY, f64::min))
}

/// The time of a reference over all captions, from the line that the script prints of it.
fn reference_microseconds(said: &str, column: &str) -> Option<f64> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let all = lines.into_iter().find(|v| v["captions"] == "all")?;
    all[if column == "hf" { "tokenizers_us" } else { "open_clip_us" }].as_f64()
}

/// The lowest cosine between our embeddings and the rows of a file of raw f32.
fn lowest_cosine(file: &Path, dim: usize, embed: impl Fn(usize) -> Result<Vec<anchorite_encoder::Embedding>>) -> Result<f64> {
    let bytes = fs::read(file)?;
    let values: Vec<f64> = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
    let mut lowest = f64::INFINITY;
    for (i, expected) in values.chunks_exact(dim).enumerate() {
        let ours = embed(i)?.pop().context("one item, one embedding")?;
        let ours: Vec<f64> = ours.as_slice().iter().map(|&v| f64::from(v)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        lowest = lowest.min(dot(&ours, expected) / (dot(&ours, &ours) * dot(expected, expected)).sqrt());
    }
    ensure!(lowest.is_finite(), "{} holds no embedding", file.display());
    Ok(lowest)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
