//! Small runs on the bundled pictures, and an engine that trains nothing but depends on everything it is fed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "test code; each test binary uses a part of it"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anchorite_encoder::{
    image::Preprocess,
    text::{Tokenizer, TokenizerOptions},
};
use anchorite_index::Cancel;
use anchorite_train::{
    data::{DataError, PairSet, Preparer, Reading, Streams, StreamsPlan, anchors::AnchorSource, read_task},
    graph::{Element, Tensor, TensorType},
    runner::{Ended, Engine, Job, Metrics, RunConfig, RunError, Told, train},
    step::{Pictures, StepError, StepReport, StepTimes, StreamBatch, StreamLoss, TrainError, TrainState},
};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

/// The bundled data.
pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

/// A run over the 440 held-out pairs of the bundled data, by style.
pub fn config(output: &Path) -> RunConfig {
    let mut config = RunConfig {
        model: demo().join("model").display().to_string(),
        output: output.to_owned(),
        batch: 16,
        steps: Some(12),
        tokens: Some(8),
        ..RunConfig::default()
    };
    config.task.sources = vec![demo().join("pairs.parquet")];
    config.task.label = "style".to_owned();
    config.task.only.insert("split".to_owned(), vec!["heldout".to_owned()]);
    config.checkpoint.every = 5;
    config.log.tensorboard = false;
    config
}

pub fn preparer(config: &RunConfig) -> Arc<Preparer> {
    let folder = demo().join("model");
    let options = TokenizerOptions { context_length: config.tokens, ..TokenizerOptions::default() };
    let text = Tokenizer::find_with(&folder, &options).unwrap();
    Arc::new(Preparer::new(Preprocess::find(&folder).unwrap(), text, config.augment, true))
}

pub fn read(config: &RunConfig) -> Result<PairSet, DataError> {
    std::fs::create_dir_all(&config.output).unwrap();
    let cancel = Cancel::default();
    read_task(config, Reading { folder: &config.output, cancel: &cancel, told: &|_, _| () })
}

pub fn streams(config: &RunConfig, anchors: Option<Box<dyn AnchorSource>>) -> Arc<Streams> {
    let plan = StreamsPlan { task: read(config).unwrap(), anchors, preparer: preparer(config), cancel: Cancel::default() };
    Arc::new(Streams::new(config, plan))
}

/// Mixes everything it is fed into two numbers.
#[derive(Debug, Default)]
pub struct Toy {
    pub sum: f64,
    pub moment: f64,
    /// Fails at this step, counted from 1.
    pub fails_at: Option<u64>,
    pub made: u64,
}

impl Engine for Toy {
    fn step(&mut self, batches: &[Vec<StreamBatch>], rate: f64, _: &Cancel) -> Result<StepReport, StepError> {
        self.made += 1;
        if self.fails_at == Some(self.made) {
            let (stream, place) = ("task".to_owned(), "loss: LogSoftmax".to_owned());
            return Err(StepError::NotFinite { step: self.made, what: "the loss", stream, place });
        }
        let mut fed = 0.0;
        for stream in batches.iter().flatten() {
            if let Pictures::Own(pixels) = &stream.pictures {
                fed += pixels.iter().enumerate().map(|(i, v)| f64::from(*v) * ((i % 97) as f64)).sum::<f64>();
            }
            fed += stream.tokens.iter().enumerate().map(|(i, v)| *v as f64 * (i % 89) as f64).sum::<f64>();
        }
        self.moment = 0.9 * self.moment + fed * 1e-6;
        self.sum += rate * self.moment;
        Ok(StepReport {
            step: self.made,
            loss: fed + self.sum,
            streams: batches[0].iter().map(|s| StreamLoss { name: s.name.clone(), loss: fed, weight: s.weight }).collect(),
            gradient_norm: self.moment,
            logit_scale: 1.0 + self.sum,
            logit_bias: None,
            pairs: batches.iter().flatten().map(|s| s.pairs).sum(),
            times: StepTimes::default(),
        })
    }

    fn state(&self) -> TrainState {
        let scalar = |v: f64| BTreeMap::from([("x".to_owned(), tensor(v))]);
        let (first_moments, second_moments) = (scalar(self.moment), scalar(0.0));
        TrainState { step: self.made, parameters: scalar(self.sum), first_moments, second_moments }
    }

    fn restore(&mut self, state: &TrainState) -> Result<(), TrainError> {
        self.sum = state.parameters["x"].floats().unwrap()[0];
        self.moment = state.first_moments["x"].floats().unwrap()[0];
        Ok(())
    }
}

fn tensor(value: f64) -> Tensor {
    Tensor::from_floats(TensorType::new(Element::F64, []), &[value]).unwrap()
}

/// Runs to the end, or until after `stop` steps.
pub fn run(
    config: &RunConfig,
    streams: &Arc<Streams>,
    toy: &mut Toy,
    resume: bool,
    stop: Option<u64>,
) -> Result<Ended, RunError> {
    let cancel = Cancel::default();
    let seen = Mutex::new(Vec::new());
    let told = |told: &Told<'_>| match told {
        Told::Step { metrics, .. } if Some(metrics.step) == stop => cancel.cancel(),
        Told::Note(note) => seen.lock().unwrap().push((*note).to_owned()),
        _ => {}
    };
    let job = Job { config, model: "model", streams: Arc::clone(streams), resume, cancel: &cancel, told: &told };
    train(&job, toy)
}

/// The lines of metrics without what is of the machine.
pub fn curve(config: &RunConfig) -> Vec<String> {
    let text = std::fs::read_to_string(config.output.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let metrics: Metrics = serde_json::from_str(line).unwrap();
        serde_json::to_string(&Metrics { seconds: 0.0, examples_per_second: 0.0, waiting: 0.0, ..metrics }).unwrap()
    };
    text.lines().map(line).collect()
}

/// A parquet file of pictures with labels.
pub fn write_labelled(path: &Path, rows: &[(Option<Vec<u8>>, Option<&str>)]) {
    let pictures: ArrayRef = Arc::new(rows.iter().map(|r| r.0.clone()).collect::<BinaryArray>());
    let labels: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>());
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64));
    write(path, vec![("image", pictures), ("label", labels), ("number", keys)]);
}

pub fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Pictures of the bundled data.
pub fn pictures(count: usize) -> Vec<Vec<u8>> {
    use arrow_array::cast::AsArray;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(demo().join("pairs.parquet")).unwrap()).unwrap();
    let mut all = Vec::new();
    for batch in reader.with_limit(count).build().unwrap().map(Result::unwrap) {
        let bytes = batch.column_by_name("image").unwrap().as_struct().column_by_name("bytes").unwrap().clone();
        all.extend((0..batch.num_rows()).map(|row| bytes.as_binary::<i32>().value(row).to_vec()));
    }
    all
}
