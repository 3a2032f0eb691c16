//! `anchorite model check`: whether a model can be served and trained, and what training takes.

use std::num::NonZeroUsize;

use anchorite::{
    encoder::{Encode, model::Folder},
    train::{
        Limits,
        step::{InputSizes, TowerReport, Towers, inspect},
    },
};
use anyhow::{Result, bail};
use clap::builder::FalseyValueParser;
use serde_json::json;

use crate::{
    exit::Exit,
    open::{ModelArgs, Use},
    output::{self, bytes, line},
};

/// Look at a model.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Say whether it can be served and trained: unknown operators by node, parameters, memory.
    Check(Args),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The model's folder or hub id.
    #[arg(value_name = "DIR|ORG/NAME")]
    path: String,
    /// Rows run at once in training, for the memory that is stated.
    #[arg(long, default_value = "32", value_name = "N")]
    batch: NonZeroUsize,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// What is assumed where neither graph nor configuration says: CLIP's own sizes.
const ASSUMED: InputSizes = InputSizes { height: 224, width: 224, tokens: 77 };

pub(crate) fn run(command: &Command) -> Result<Exit> {
    let Command::Check(args) = command;
    let model = args.model.for_path(&args.path);
    let served = model.open(Use::Queries).and_then(|encoder| {
        // A model that loads may still not run.
        encoder.encode_texts(&[encoder.prepare_text("a photo")?])?;
        Ok(encoder.describe())
    });
    let sizes = served.as_ref().map_or(ASSUMED, |d| {
        let (height, width) = d.picture_size.unwrap_or((ASSUMED.height, ASSUMED.width));
        InputSizes { height, width, tokens: d.context.unwrap_or(ASSUMED.tokens) }
    });
    let trained = reports(&model, sizes, args.batch.get());
    let problems = usize::from(served.is_err())
        + trained.as_ref().map_or(1, |reports| reports.iter().filter(|report| !report.can_train()).count());
    if args.json {
        let text = |e: &anyhow::Error| json!({ "problem": format!("{e:#}") });
        let served = served.as_ref().map_or_else(text, |d| json!(d));
        let trained = trained.as_ref().map_or_else(text, |t| json!(t));
        output::json(&json!({ "served": served, "trained": trained, "sizes": sizes, "batch": args.batch }))?;
    } else {
        match &served {
            Ok(d) => line(&format!("can be served: yes, {} values, on {}", d.dim, d.provider)),
            Err(e) => line(&format!("can be served: no: {e:#}")),
        }
        match &trained {
            Ok(reports) => reports.iter().for_each(|report| print(report, args.batch.get())),
            Err(e) => line(&format!("can be trained: no: {e:#}")),
        }
    }
    if problems > 0 { bail!("{}, see above", output::count(problems as u64, "problem")) } else { Ok(Exit::Done) }
}

fn reports(model: &ModelArgs, sizes: InputSizes, rows: usize) -> Result<[TowerReport; 2]> {
    let folder: Folder = model.open_folder()?;
    let limits = Limits::default();
    Ok(inspect(&Towers::open(&folder, &limits)?, sizes, rows, &limits))
}

fn print(report: &TowerReport, rows: usize) {
    let nodes: usize = report.operators.values().sum();
    line(&format!(
        "{} tower: {nodes} nodes of {} operators, operator set {}, by {}",
        report.tower,
        report.operators.len(),
        report.opset,
        report.producer
    ));
    for unknown in &report.unknown {
        line(&format!("  unknown operator {} at node {}", unknown.operator, unknown.node));
    }
    if let Some(problem) = &report.problem {
        line(&format!("  can be trained: no: {problem}"));
    }
    if let Some(e) = &report.estimate {
        line(&format!("  can be trained: yes, {} of {} parameters", e.trained, e.parameters));
        line(&format!(
            "  memory: {} for parameters, gradients and moments, {} for activations of {rows} rows",
            bytes(e.state_bytes),
            bytes(e.activation_bytes)
        ));
    }
    if !report.frozen.is_empty() {
        line(&format!("  never trained: {}", report.frozen.join(", ")));
    }
}
