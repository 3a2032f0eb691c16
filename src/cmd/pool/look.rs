//! `pool info|verify|warm`.

use anchorite::index::{
    Effort, Precision, StoreError,
    format::effort::{MEASURED, Measured, Width},
    pool::{Memory, Pool, PoolInfo, RepairReport, VerifyReport, repair, verify as check},
};
use anyhow::{Context, Result, bail};
use clap::{Args, builder::FalseyValueParser};

use super::{Graphs, Which, interruptible, writer_options};
use crate::{
    exit::Exit,
    open,
    output::{bytes, count, json, line},
    progress::Shown,
};

/// Which pool, and whether to mend it.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
    /// Build damaged graphs anew from their vectors, and put back to the byte what of vectors follows from the rest (7-bit rows from f16 rows,
    /// orders, headers); all else that is damaged is named and stays.
    #[arg(long, env = "ANCHORITE_REPAIR", value_parser = FalseyValueParser::new())]
    repair: bool,
    #[command(flatten)]
    graphs: Graphs,
}

pub(super) fn info(which: &Which) -> Result<Exit> {
    let pool = open::pool(&which.dir)?;
    let (info, memory) = (pool.info(), Memory::now());
    if which.form.json {
        let mut told = serde_json::to_value(&info)?;
        told["memory"] = serde_json::to_value(memory)?;
        json(&told)?;
    } else {
        describe(&info);
        memory.iter().for_each(|memory| {
            let mapped: u64 = info.files.values().map(|size| size.bytes).sum();
            line(&format!(
                "memory      {} of this process's own, {} of files in use; {} are mapped and can be dropped at any time",
                bytes(memory.anonymous),
                bytes(memory.file_backed),
                bytes(mapped)
            ));
        });
    }
    Ok(Exit::Done)
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

fn describe(info: &PoolInfo) {
    line(&format!("generation  {}", info.generation));
    let model = if info.model.is_empty() { String::new() } else { format!("{}, ", info.model) };
    line(&format!("encoder     {} ({model}dimension {})", info.encoder, info.dim));
    line(&format!(
        "vectors     {}{}",
        info.precision,
        if info.precision == Precision::SevenBit { ": all scores are of these" } else { "" }
    ));
    line(&format!("rows        {} ({} with image vectors, {} with text vectors)", info.rows, info.image_rows, info.text_rows));
    if info.dead_rows > 0 {
        line(&format!("dead rows   {} (deleted or replaced; anchorite pool compact drops them)", info.dead_rows));
    }
    line(&format!("segments    {}", info.segments));
    for segment in &info.segment_list {
        let dead = if segment.dead_rows > 0 { format!(", {} dead", segment.dead_rows) } else { String::new() };
        line(&format!("  {:<10} {} rows{dead}, {}", segment.segment, segment.rows, bytes(segment.bytes)));
    }
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

pub(super) fn verify(args: &Verify) -> Result<Exit> {
    let which = &args.which;
    let named = || format!("verify {}", which.dir.display());
    if !args.repair {
        let nothing = RepairReport { generation: 0, rebuilt: Vec::new(), beyond: Vec::new() };
        tell(which, &check(&which.dir).with_context(named)?, &nothing)?;
        return Ok(Exit::Done);
    }
    interruptible(|cancel| {
        let mended = repair(&which.dir, &writer_options(&args.graphs), cancel).with_context(named)?;
        mended.rebuilt.iter().filter(|_| !which.form.json).for_each(|file| line(&format!("built anew: {file}")));
        mended.beyond.iter().filter(|_| !which.form.json).for_each(|error| line(&format!("not repaired: {error}")));
        tell(which, &check(&which.dir).with_context(named)?, &mended)
    })
}

fn tell(which: &Which, report: &VerifyReport, mended: &RepairReport) -> Result<()> {
    if which.form.json {
        let words = |errors: &[StoreError]| errors.iter().map(ToString::to_string).collect::<Vec<String>>();
        json(&serde_json::json!({
            "generation": report.generation, "files": report.files, "bytes": report.bytes, "sound": report.is_sound(), "damage": words(&report.damage),
            "rebuilt": mended.rebuilt, "beyond": words(&mended.beyond),
        }))?;
    } else {
        line(&format!("generation {}: {}, {}", report.generation, count(report.files, "file"), bytes(report.bytes)));
        report.damage.iter().for_each(|d| line(&format!("damage: {d}; {}", remedy(d))));
    }
    if !report.is_sound() {
        bail!("{} is damaged in {}", which.dir.display(), count(report.damage.len() as u64, "place"));
    }
    Ok(())
}

/// What can be done about it.
fn remedy(damage: &StoreError) -> &'static str {
    if damage.to_string().contains(".graph") {
        return "anchorite pool verify --repair builds it anew";
    }
    if damage.to_string().contains(".vectors") {
        return "anchorite pool verify --repair puts back what follows from the rest; f16 rows do not: restore a snapshot";
    }
    "it holds what is nowhere else in the pool: restore a snapshot, or ingest these rows again into a new pool"
}

/// Which pool, and how much of it.
#[derive(Args, Debug)]
pub(crate) struct Warm {
    #[command(flatten)]
    which: Which,
    /// Read no more than this many bytes, what searches need most first: for pools beyond memory. Default: all but the pictures.
    #[arg(long, env = "ANCHORITE_WARM_BYTES", value_name = "BYTES")]
    most: Option<u64>,
}

pub(super) fn warm(args: &Warm) -> Result<Exit> {
    let which = &args.which;
    let pool: Pool = open::pool(&which.dir)?;
    interruptible(|cancel| {
        let (shown, begun) = (Shown::new("warm"), std::time::Instant::now());
        let warmed = pool.warm(args.most.unwrap_or(u64::MAX), cancel, &mut |at| shown.at(at.bytes, at.total, "bytes"))?;
        shown.finish();
        let seconds = begun.elapsed().as_secs_f64();
        if which.form.json {
            return json(&serde_json::json!({ "files": warmed.files, "bytes": warmed.bytes, "seconds": seconds }));
        }
        line(&format!("{} in {} read in {seconds:.1} s", bytes(warmed.bytes), count(warmed.files, "file")));
        Ok(())
    })
}
