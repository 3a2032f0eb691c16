//! How a machine's threads are best given to the towers: a session for each, or fewer sessions that use several. All splits take turns, file
//! to pool, with as many workers as threads.

use anchorite_encoder::model::ModelOptions;
use anyhow::Result;

use super::{Bench, Files, fill, rate};
use crate::{
    figure::{Figure, Sheet},
    process::{load, process_cpu},
};

/// One split of the threads, and the best of its turns.
struct Split {
    sessions: usize,
    threads: usize,
    pictures: f64,
    captions: f64,
    /// Processor seconds a picture, the least of all turns.
    cpu: f64,
}

impl Bench {
    /// Every way to share `threads` threads evenly among sessions.
    pub(super) fn cores(&mut self, threads: usize, files: &Files, sheet: &mut Sheet) -> Result<()> {
        let sizes = (1..=threads).filter(|inner| threads.is_multiple_of(*inner));
        let mut splits: Vec<Split> = sizes
            .map(|inner| Split { sessions: threads / inner, threads: inner, pictures: 0.0, captions: 0.0, cpu: f64::MAX })
            .collect();
        for round in 0..=self.size.rounds {
            for split in &mut splits {
                // Opened for its turns alone: the sessions of all splits at once would not fit small machines.
                let encoder = self.encoder_of(split.sessions, split.threads, &ModelOptions::default())?;
                // The first run loads a tower and is not counted.
                fill(&encoder, &files.images, threads)?;
                let begun = process_cpu();
                let pictures = fill(&encoder, &files.images, threads)?;
                let spent = (process_cpu() - begun).as_secs_f64() / pictures.accepted as f64;
                fill(&encoder, &files.texts, threads)?;
                let captions = fill(&encoder, &files.texts, threads)?;
                // Nor is the first round, in which files come from the disk.
                if round > 0 {
                    split.pictures = split.pictures.max(rate(&pictures));
                    split.captions = split.captions.max(rate(&captions));
                    split.cpu = split.cpu.min(spent);
                }
            }
        }
        let data =
            format!("ViT-B/32 f32, random weights, {threads} workers, best of {} turns, load {}", self.size.rounds, load()?);
        let Some(usual) = splits.first() else { return Ok(()) };
        let peer = format!("{} sessions of 1 thread", usual.sessions);
        for split in &splits {
            let name = |what: &str| format!("{what}, file to pool, {} sessions of {} threads", split.sessions, split.threads);
            sheet.add(Figure::new(name("pictures"), split.pictures, "1/s", &data).against(&peer, usual.pictures));
            sheet.add(Figure::new(name("captions"), split.captions, "1/s", &data).against(&peer, usual.captions));
            sheet.add(
                Figure::new(name("processor time of a picture"), split.cpu * 1e3, "ms", &data).against(&peer, usual.cpu * 1e3),
            );
        }
        Ok(())
    }
}
