//! The first seed's base and ARF as model folders that every other command opens, and its anchors as a page.

use anchorite::{
    ingest::{ColumnOptions, Limits, Rows, VectorMode},
    train::{export::Card, frozen::Weights},
};
use anyhow::Result;

use super::{
    Lab,
    arms::{self, Arm, Job},
    base,
    bench::CATEGORIES,
    manifests::{Choice, chosen},
    tune::Rates,
};
use crate::{
    cmd::gallery::{SHOWN, TaskCaptions, View, write_page},
    open,
    progress::say,
};

/// Pictures and prompts that a written model is compared on.
const PROBES: usize = 12;

/// Writes what is not there.
pub(crate) fn write(lab: &Lab<'_>, rates: &Rates) -> Result<()> {
    model(lab, "base", &base::pretrained(lab, lab.setting.first_seed)?, lab.setting.size.base_steps, None)?;
    if !lab.setting.arms.contains(&Arm::Arf) {
        return Ok(());
    }
    let seed = lab.setting.first_seed;
    let job = Job { seed, base_seed: seed, rate: rates.of(Arm::Arf), name: Arm::Arf.to_string() };
    let chosen = chosen(lab, seed, Choice::Nearest)?;
    let anchors = format!("{} of the pool, SHA-256 over them `{}`", chosen.found, chosen.anchors);
    model(lab, "arf", &arms::weights(lab, Arm::Arf, &job)?, lab.setting.size.steps, Some(anchors))?;
    let page = lab.setting.out.join("anchors.html");
    if page.is_file() {
        return Ok(());
    }
    let store = open::pool(&chosen.pool)?;
    let tasks = [lab.sets.path("train")];
    let captions = TaskCaptions::Column("rich");
    let view = View { manifest: &chosen.manifest, store: &store, tasks: &tasks, captions, shown: SHOWN, style_column: "style" };
    write_page(&page, &view.read()?)
}

fn model(lab: &Lab<'_>, name: &str, weights: &Weights, steps: u64, anchors: Option<String>) -> Result<()> {
    let out = lab.setting.out.join("models").join(name);
    if out.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(lab.setting.out.join("models"))?;
    let mut rows = Rows::open(&[lab.sets.path("train")], ColumnOptions::default(), VectorMode::Encode, Limits::default())?;
    let mut pictures = Vec::new();
    while pictures.len() < PROBES
        && let Some(row) = rows.next_row()?
    {
        pictures.extend(row.ok().and_then(|row| row.picture));
    }
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let texts: Vec<&str> = lab.sets.classes[CATEGORIES].iter().take(PROBES).map(String::as_str).collect();
    let card = Card {
        base: lab.setting.model.display().to_string(),
        base_fingerprint: lab.frozen.fingerprint(&lab.frozen.weights()),
        command: if name == "base" { "pretrain" } else { "finetune" },
        steps,
        data: format!("arf-mini's, {:?} drawings; `anchorite experiment arf-mini` makes this model", lab.setting.style),
        anchors,
        parameters: format!("{} trained: both heads", lab.frozen.trained()),
        runtime: lab.machine.runtime.version().to_string(),
        ..Card::default()
    };
    let difference = lab.frozen.export(weights, &out, card, (&pictures, &texts), lab.machine)?;
    say(&format!("{} written; opened again, its embeddings are within {difference:.1e}", out.display()));
    Ok(())
}
