//! One file per command; each turns its flags into library calls and their results into output.

mod anchors;
mod caption;
mod demo;
mod doctor;
mod eval;
mod experiment;
mod finetune;
pub(crate) mod gallery;
mod health;
mod ingest;
mod keys;
mod model;
mod pool;
mod report;
mod search;
mod serve;
mod wise_ft;

use clap::Subcommand;

use crate::exit::Exit;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Everything on the bundled pictures: ingest, ask, serve the page.
    Demo(demo::Args),
    /// Put datasets into a pool.
    Ingest(ingest::Args),
    /// Look at a pool.
    #[command(subcommand)]
    Pool(pool::Command),
    /// Look at a model.
    #[command(subcommand)]
    Model(model::Command),
    /// Answer over HTTP.
    Serve(serve::Args),
    /// Ask a pool or a server for the nearest pairs.
    Search(search::Args),
    /// Choose anchors for a finetune by a policy, into a manifest.
    Anchors(Box<anchors::Args>),
    /// Train a model further on a finetune set, with anchors that keep what it knew.
    Finetune(finetune::Args),
    /// Train a model on captions alone, from noise or from given weights.
    Pretrain(finetune::Args),
    /// Measure models: zero-shot classification, retrieval, linear probes, with intervals.
    Eval(Box<eval::Args>),
    /// Mix a model with what it was finetuned from, weight by weight, and measure each mix.
    WiseFt(Box<wise_ft::Args>),
    /// Mix several models or checkpoints into one.
    Soup(Box<wise_ft::SoupArgs>),
    /// Run an experiment as a whole: data, base, anchors, every arm and control, evaluation, report.
    Experiment(Box<experiment::Args>),
    /// Write captions for pictures, by an image captioner or from a pool's nearest pictures.
    Caption(Box<caption::Args>),
    /// Put runs on one page.
    Report(report::Args),
    /// Say whether a server is ready, by the exit code.
    Health(health::Args),
    /// Make keys for a server that others reach.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Say what was found: ONNX Runtime, providers, processor, model, pool.
    Doctor(doctor::Args),
}

impl Command {
    /// What clap cannot decide: which of two arguments counts when one came as a flag and one from the environment.
    pub(crate) fn settle(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        match (self, matches.subcommand()) {
            (Self::Search(args), Some((_, matches))) => args.settle(matches),
            _ => Ok(()),
        }
    }

    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Demo(args) => demo::run(&args),
            Self::Ingest(args) => ingest::run(&args),
            Self::Pool(command) => pool::run(&command),
            Self::Model(command) => model::run(&command),
            Self::Serve(args) => serve::run(&args),
            Self::Search(args) => search::run(&args),
            Self::Anchors(args) => anchors::run(&args),
            Self::Finetune(args) => finetune::run(&args, finetune::Kind::Finetune),
            Self::Pretrain(args) => finetune::run(&args, finetune::Kind::Pretrain),
            Self::Eval(args) => eval::run(&args),
            Self::WiseFt(args) => wise_ft::run(&args),
            Self::Soup(args) => wise_ft::soup(&args),
            Self::Experiment(args) => experiment::run(&args),
            Self::Caption(args) => caption::run(&args),
            Self::Report(args) => report::run(&args),
            Self::Health(args) => health::run(&args),
            Self::Keys(command) => keys::run(&command),
            Self::Doctor(args) => doctor::run(&args),
        }
    }
}
