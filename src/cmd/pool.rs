//! `anchorite pool info|verify`: what a pool holds, and whether every byte of it is as written.

use std::path::PathBuf;

use anchorite::index::{
    Effort,
    format::effort::{MEASURED, Measured, Width},
    pool::{PoolInfo, inspect, verify},
};
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
        line(&format!("  {:<10} {} in {}", format!("{kind:?}").to_lowercase(), bytes(size.bytes), count(size.files, "file")));
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
        for (asked, measured) in [("image", graph.efforts.image), ("text", graph.efforts.text)] {
            if let Some(measured) = measured {
                line(&format!("  asked by {asked:<5} {}", widths(&measured)));
            }
        }
    }
    for damaged in &info.damaged_manifests {
        line(&format!("damaged     {damaged}"));
    }
}

/// Beam width and promised recall of each effort.
fn widths(measured: &Measured) -> String {
    let one = |(effort, width): (&Effort, &Width)| match width.ef {
        0 => format!("{effort:?} compares every row"),
        ef => format!("{effort:?} ef {ef} (recall@10 {:.3})", width.recall),
    };
    let all: Vec<String> = MEASURED.iter().zip(&measured.widths).map(one).collect();
    format!("{}, from {} queries", all.join(", "), measured.queries).to_lowercase()
}

fn check(which: &Which) -> Result<Exit> {
    let report = verify(&which.dir).with_context(|| format!("verify {}", which.dir.display()))?;
    if which.json {
        let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        json(&serde_json::json!({
            "generation": report.generation, "files": report.files, "bytes": report.bytes, "sound": report.is_sound(), "damage": damage,
        }))?;
    } else {
        line(&format!("generation {}: {}, {}", report.generation, count(report.files as u64, "file"), bytes(report.bytes)));
        report.damage.iter().for_each(|d| line(&format!("damage: {d}")));
    }
    if !report.is_sound() {
        bail!("{} is damaged in {}", which.dir.display(), count(report.damage.len() as u64, "place"));
    }
    Ok(Exit::Done)
}
