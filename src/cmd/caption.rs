//! `anchorite caption`: captions for pictures, by an ONNX captioner or as the nearest captions of a pool, one JSON line each.
//!
//! ```text
//!   rows ──► picture ──captioner (batches)──► captions ──filter──► key, caption, number, score, source (a line each)
//!                  └──nearest pairs of a pool──► their captions ──┘
//! ```
//!
//! A file that is there already is gone on with: pictures that have lines in it are not captioned again.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anchorite::{
    anchors::{Ask, Input, Retriever},
    encoder::{Pixels, engine},
    index::{Cancel, Parts, Value},
    ingest::{ColumnChoice, ColumnOptions, Limits, Row, Rows, VectorMode},
    train::caption::{CaptionFilter, Captioner, Decoding, Method},
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    exit::Exit,
    interrupt,
    open::{self, ModelArgs, Use},
    output::line,
    progress::{Shown, say},
};

/// How words are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum How {
    /// The likeliest each time.
    #[default]
    Greedy,
    /// The likeliest whole captions.
    Beam,
    /// Drawn from the likeliest.
    Nucleus,
}

/// What to caption, and with what.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("whence").required(true))]
pub(crate) struct Args {
    /// Parquet files, folders or patterns, as ingest reads them.
    #[arg(long, required = true, num_args = 1.., value_name = "SOURCE")]
    images: Vec<PathBuf>,
    /// An image captioner as optimum exports it: encoder_model.onnx and decoder_model(_merged, _with_past).onnx, here or in onnx/.
    #[arg(long, group = "whence", value_name = "DIR")]
    captioner: Option<PathBuf>,
    /// No captioner: the captions of the pool's nearest pictures. Needs --model.
    #[arg(long, group = "whence", value_name = "POOL")]
    from_pool: Option<PathBuf>,
    /// The file of captions, JSON lines. Gone on with if it is there.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The column that names pictures. Default: file and row.
    #[arg(long, value_name = "NAME")]
    key_column: Option<String>,
    /// How words are chosen.
    #[arg(long, value_enum, default_value_t)]
    method: How,
    /// Captions kept by beam search.
    #[arg(long, default_value_t = 4, value_name = "N")]
    beams: usize,
    /// Exponent of the length that beam search divides by.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    length_penalty: f32,
    /// Probability that the nucleus holds.
    #[arg(long, default_value_t = 0.9, value_name = "SHARE")]
    top_p: f32,
    /// What a nucleus divides logits by.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temperature: f32,
    /// Decides a nucleus's draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Captions of each picture.
    #[arg(short = 'n', long, default_value_t = 1, value_name = "N")]
    captions: usize,
    /// Tokens of a caption.
    #[arg(long, default_value_t = 30, value_name = "N")]
    max_tokens: usize,
    /// Above 1 makes words that are there already less likely.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repetition_penalty: f32,
    /// No run of so many tokens comes twice; 0 allows it.
    #[arg(long, default_value_t = 0, value_name = "N")]
    no_repeat_ngram: usize,
    /// Words at least.
    #[arg(long, default_value_t = 1, value_name = "N")]
    min_words: usize,
    /// Words at most.
    #[arg(long, default_value_t = 60, value_name = "N")]
    max_words: usize,
    /// Share of words that were there before, at most.
    #[arg(long, default_value_t = 0.6, value_name = "SHARE")]
    max_repetition: f64,
    /// Pictures captioned together.
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: usize,
    #[command(flatten)]
    model: ModelArgs,
}

/// One line of the file.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    caption: &'a str,
    number: usize,
    score: f32,
    source: &'a str,
}

/// What is needed of a line that is there.
#[derive(Deserialize)]
struct Known {
    key: String,
    source: String,
}

/// What makes captions.
enum Source {
    Captioner(Box<Captioner>),
    Pool(Box<Retriever>),
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let decoding = args.decoding().checked()?;
    let cancel = interrupt::on_signal()?;
    let (source, called) = args.source()?;
    let known = known(&args.output, &called)?;
    let file = OpenOptions::new().create(true).append(true).open(&args.output);
    let file = BufWriter::new(file.with_context(|| format!("open {}", args.output.display()))?);
    let filter = CaptionFilter {
        min_words: args.min_words,
        max_words: args.max_words,
        max_repetition: args.max_repetition,
        ..CaptionFilter::default()
    };
    let mut work = Work { source, called, decoding, wanted: args.captions, filter, file, cancel, counts: BTreeMap::new() };
    let shown = Shown::new("caption");
    let mut rows = args.rows()?;
    let (mut batch, mut read) = (Vec::new(), 0);
    while let Some(row) = rows.next_row()? {
        read += 1;
        let Ok(row) = row else {
            work.count("unreadable");
            continue;
        };
        let key = args.key(&row)?;
        match row.picture {
            _ if known.contains(&key) => work.count("there already"),
            None => work.count("unreadable"),
            Some(picture) => batch.push((key, picture)),
        }
        if batch.len() >= args.batch.max(1) {
            if work.cancel.is_cancelled() {
                return Ok(Exit::Interrupted);
            }
            work.caption(&std::mem::take(&mut batch))?;
            shown.at(read, read, "pictures");
        }
    }
    work.caption(&batch)?;
    shown.finish();
    let told: Vec<String> = work.counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
    line(&told.join(", "));
    Ok(Exit::Done)
}

impl Args {
    fn decoding(&self) -> Decoding {
        let method = match self.method {
            How::Greedy => Method::Greedy,
            How::Beam => Method::Beam { beams: self.beams, early_stopping: false, length_penalty: self.length_penalty },
            How::Nucleus => Method::Nucleus { top_p: self.top_p, temperature: self.temperature, seed: self.seed },
        };
        // The nearest captions of a pool are as many as wanted, whatever the method.
        let captions = if self.from_pool.is_some() { 1 } else { self.captions };
        Decoding {
            method,
            captions,
            max_new_tokens: self.max_tokens,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram: self.no_repeat_ngram,
        }
    }

    fn source(&self) -> Result<(Source, String)> {
        match (&self.captioner, &self.from_pool) {
            (Some(folder), _) => {
                let engine = engine(self.model.runtime.load()?, self.model.runtime.provider);
                let captioner = Captioner::open(&engine, folder, self.model.thread_count().get())?;
                let called = format!("captioner {} {}, {}", captioner.name(), captioner.fingerprint(), self.chosen());
                Ok((Source::Captioner(Box::new(captioner)), called))
            }
            (None, Some(dir)) => {
                let retriever = open::retriever(self.model.open(Use::Queries)?, open::pool(dir)?)?;
                let called = format!("nearest captions of a pool, encoder {}", retriever.encoder().fingerprint());
                Ok((Source::Pool(Box::new(retriever)), called))
            }
            (None, None) => bail!("captions from where? give --captioner DIR or --from-pool POOL"),
        }
    }

    /// How words are chosen, for the captions' readers.
    fn chosen(&self) -> String {
        let how = match self.method {
            How::Greedy => "greedy".to_owned(),
            How::Beam => format!("beam {}, length penalty {}", self.beams, self.length_penalty),
            How::Nucleus => format!("nucleus {}, temperature {}, seed {}", self.top_p, self.temperature, self.seed),
        };
        let (most, penalty, ngram) = (self.max_tokens, self.repetition_penalty, self.no_repeat_ngram);
        let repeats = if ngram > 0 { format!(", no {ngram} tokens twice") } else { String::new() };
        format!("{how}, at most {most} tokens, repetition penalty {penalty}{repeats}")
    }

    fn rows(&self) -> Result<Rows> {
        let columns = ColumnOptions { caption: ColumnChoice::Absent, ..ColumnOptions::default() };
        Ok(Rows::open(&self.images, columns, VectorMode::Encode, Limits::default())?)
    }

    fn key(&self, row: &Row) -> Result<String> {
        let place = format!("{}#{}", row.source.file, row.source.row);
        let Some(column) = &self.key_column else { return Ok(place) };
        match row.fields.get(column) {
            Some(Value::Text(text)) => Ok(text.clone()),
            Some(Value::Int(number)) => Ok(number.to_string()),
            _ => bail!("{place}: no text or whole number in the column {column:?} (--key-column)"),
        }
    }
}

/// Keys of the lines that are there. What a run that was cut off may have left unfinished is cut away: a last line without its end, and the
/// last picture, which may have fewer captions than it should. Captions of another source are refused: a file is of one.
fn known(path: &Path, called: &str) -> Result<HashSet<String>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(HashSet::new()) };
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let known: Known = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}: not a caption of ours; name another file", path.display(), number + 1))?;
        if known.source != called {
            bail!(
                "{}, line {}: its captions are of {}, not of {called}; name another file",
                path.display(),
                number + 1,
                known.source
            );
        }
        lines.push((at, known.key));
        at += line.len();
    }
    let last = lines.last().map(|(_, key)| key.clone());
    let unfinished = lines.iter().find(|(_, key)| Some(key) == last.as_ref()).map_or(0, |(start, _)| *start);
    let file = File::options().write(true).open(path).with_context(|| format!("open {}", path.display()))?;
    file.set_len(unfinished as u64).with_context(|| format!("cut {}", path.display()))?;
    let keys: HashSet<String> = lines.into_iter().map(|(_, key)| key).filter(|key| Some(key) != last.as_ref()).collect();
    if !keys.is_empty() {
        say(&format!("{} pictures have captions already", keys.len()));
    }
    Ok(keys)
}

struct Work {
    source: Source,
    called: String,
    decoding: Decoding,
    /// Captions of each picture.
    wanted: usize,
    filter: CaptionFilter,
    file: BufWriter<File>,
    cancel: Cancel,
    counts: BTreeMap<String, u64>,
}

impl Work {
    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn caption(&mut self, batch: &[(String, Vec<u8>)]) -> Result<()> {
        let captions = match &mut self.source {
            Source::Captioner(captioner) => written(captioner, batch, &self.decoding, &self.cancel)?,
            Source::Pool(retriever) => nearest(retriever, batch, self.wanted, &self.cancel)?,
        };
        for ((key, _), captions) in batch.iter().zip(captions) {
            let Some(captions) = captions else {
                self.count("unreadable");
                continue;
            };
            for (number, (caption, score)) in captions.into_iter().enumerate() {
                if let Some(why) = self.filter.refuses(&caption) {
                    self.count(&format!("refused ({why:?})"));
                    continue;
                }
                let line = Line { key, caption: &caption, number, score, source: &self.called };
                writeln!(self.file, "{}", serde_json::to_string(&line)?).context("write captions")?;
                self.count("captions");
            }
        }
        // What a batch has said is there, should the next one not be.
        self.file.flush().context("write captions")
    }
}

/// Captions with scores by picture; none for a picture that cannot be read.
type Said = Vec<Option<Vec<(String, f32)>>>;

fn written(captioner: &mut Captioner, batch: &[(String, Vec<u8>)], decoding: &Decoding, cancel: &Cancel) -> Result<Said> {
    let prepared: Vec<Option<Pixels>> = batch.iter().map(|(_, bytes)| captioner.preparation().apply(bytes).ok()).collect();
    let places: Vec<usize> = (0..batch.len()).filter(|&i| prepared[i].is_some()).collect();
    let pictures: Vec<Pixels> = prepared.into_iter().flatten().collect();
    let name = |&place: &usize| {
        let digest = Sha256::digest(&batch[place].1);
        digest.iter().take(8).fold(0_u64, |name, &b| name << 8 | u64::from(b))
    };
    let names: Vec<u64> = places.iter().map(name).collect();
    let captions = captioner.captions(&pictures, &names, decoding, cancel)?;
    let mut said: Said = vec![None; batch.len()];
    for (place, captions) in places.into_iter().zip(captions) {
        said[place] = Some(captions.into_iter().map(|c| (c.text, c.score)).collect());
    }
    Ok(said)
}

fn nearest(retriever: &Retriever, batch: &[(String, Vec<u8>)], wanted: usize, cancel: &Cancel) -> Result<Said> {
    let mut said: Said = Vec::with_capacity(batch.len());
    for (_, picture) in batch {
        if retriever.encoder().prepare_image(picture).is_err() {
            said.push(None);
            continue;
        }
        let ask = Ask { k: wanted.max(1), ..Ask::new(Input::Picture(picture.clone())) };
        let answers = retriever.find(&[ask], cancel)?;
        let found = answers.found.first().context("one question has one answer")?;
        let anchors = retriever.anchors(found, Parts::default(), found.hits.len())?;
        said.push(Some(anchors.into_iter().filter_map(|a| Some((a.record.caption?, a.score))).collect()));
    }
    Ok(said)
}
