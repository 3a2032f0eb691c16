//! `anchorite pool info|verify`: what a pool holds, and whether every byte of it is as written.

use std::path::PathBuf;

use anchorite::index::pool::{PoolInfo, inspect, verify};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, builder::FalseyValueParser};

use crate::{
    exit::Exit,
    output::{bytes, count, json, line},
};

/// What to do with the pool.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Rows, segments, sizes, graph parameters. Reads headers only.
    Info(Which),
    /// Reads every byte and compares it with its checksum.
    Verify(Which),
}

/// Which pool.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The pool's folder.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

pub(crate) fn run(command: &Command) -> Result<Exit> {
    match command {
        Command::Info(which) => info(which),
        Command::Verify(which) => check(which),
    }
}

fn info(which: &Which) -> Result<Exit> {
    let info = inspect(&which.dir).with_context(|| format!("look at {}", which.dir.display()))?;
    if which.json {
        json(&info)?;
    } else {
        describe(&info);
    }
    Ok(Exit::Done)
}

fn describe(info: &PoolInfo) {
    line(&format!("generation  {}", info.generation));
    line(&format!("encoder     {} (dimension {})", info.encoder, info.dim));
    line(&format!("rows        {} ({} with image vectors, {} with text vectors)", info.rows, info.image_rows, info.text_rows));
    line(&format!("segments    {}", info.segments));
    for (kind, size) in &info.files {
        line(&format!("  {:<10} {} in {} files", format!("{kind:?}").to_lowercase(), bytes(size.bytes), size.files));
    }
    for graph in &info.graphs {
        line(&format!(
            "graph       segment {} {}: {} nodes, {:.1} links each, M {}, ef_construction {}, {} orphans repaired",
            graph.segment,
            graph.side,
            graph.nodes,
            graph.links as f64 / graph.nodes.max(1) as f64,
            graph.m,
            graph.ef_construction,
            graph.orphans_repaired
        ));
    }
    for damaged in &info.damaged_manifests {
        line(&format!("damaged     {damaged}"));
    }
}

fn check(which: &Which) -> Result<Exit> {
    let report = verify(&which.dir).with_context(|| format!("verify {}", which.dir.display()))?;
    if which.json {
        let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        json(&serde_json::json!({
            "generation": report.generation, "files": report.files, "bytes": report.bytes, "sound": report.is_sound(), "damage": damage,
        }))?;
    } else {
        line(&format!("generation {}: {} files, {}", report.generation, report.files, bytes(report.bytes)));
        report.damage.iter().for_each(|d| line(&format!("damage: {d}")));
    }
    if !report.is_sound() {
        bail!("{} is damaged in {}", which.dir.display(), count(report.damage.len(), "place"));
    }
    Ok(Exit::Done)
}
