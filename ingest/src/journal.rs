//! How far each shard of this run is: begins with the pool's watermark, counts what is written, gives the next watermark.

use std::collections::HashMap;

use crate::{
    IngestOptions, OnChange,
    prepare::Decision,
    resume::{Done, ListMark, Now, Start, Watermark, digest},
    source::{Settings, Shard},
};

/// What happens to the watermarks of earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Earlier {
    /// Sources that an earlier run has finished are passed over, one that it was in the middle of is read on from there.
    #[default]
    GoOn,
    /// Every source is read from its start. Brings back rows that were deleted from the pool.
    ReadAgain,
}

/// One shard of this run.
struct Standing {
    name: String,
    now: Now,
    start: Start,
    /// What an earlier run noted under this name.
    earlier: Option<Done>,
    /// As of the rows written by now.
    done: Done,
    /// Rows it has, once it is through.
    total: Option<u64>,
    /// A row was left undecided: what comes after it is not counted, and is known by its content when it is read again.
    broken_off: bool,
    begun: bool,
}

pub(crate) struct Journal {
    watermark: Watermark,
    shards: Vec<Standing>,
    by_name: HashMap<String, usize>,
}

impl Journal {
    /// `list_at_hand` says whether the reject list that the watermark speaks of is there.
    pub(crate) fn new(
        watermark: Watermark,
        shards: &[Shard],
        settings: &Settings,
        options: &IngestOptions,
        list_at_hand: bool,
    ) -> Self {
        let decisive = format!("{:?}", (decisive_settings(settings), options.missing, &options.filters, options.on_change));
        // Both compare a row with the rows before it, which therefore have to be read.
        let compares = options.columns.key.is_some() || options.filters.compares_rows();
        let standing = |shard: &Shard| {
            let stamp = shard.state().map(|state| digest(&[&state, decisive.as_bytes()]));
            let now = Now { place: shard.place(), stamp };
            let earlier = watermark.get(&shard.name).copied();
            let go_on = options.earlier == Earlier::GoOn && !compares;
            let start = earlier.filter(|_| go_on).map_or(Start::First, |done| done.start(now, list_at_hand));
            let resumable = stamp.is_some() && !compares;
            // The place of the rows that the pool has. A file from elsewhere takes it over only if it may take over the rows.
            let owner = earlier.filter(|_| options.on_change != OnChange::Upsert).map_or(now.place, |done| done.place);
            let fresh = Done { place: owner, stamp: stamp.unwrap_or_default(), resumable, ..Done::default() };
            let done = earlier.filter(|_| start != Start::First).unwrap_or(fresh);
            let total = (start == Start::Finished).then_some(done.rows);
            Standing { name: shard.name.clone(), now, start, earlier, done, total, broken_off: false, begun: false }
        };
        let shards: Vec<Standing> = shards.iter().map(standing).collect();
        let by_name = shards.iter().enumerate().map(|(at, shard)| (shard.name.clone(), at)).collect();
        Self { watermark, shards, by_name }
    }

    pub(crate) fn starts(&self) -> impl Iterator<Item = Start> {
        self.shards.iter().map(|shard| shard.start)
    }

    /// Rows and left-out rows that earlier runs settled and this one does not read.
    pub(crate) fn passed_over(&self) -> (u64, u64) {
        let settled = self.shards.iter().filter(|s| s.start != Start::First).map(|s| s.done);
        settled.fold((0, 0), |(rows, out), d| (rows + d.rows, out + u64::from(d.rejected) + u64::from(d.filtered)))
    }

    /// Where reading of the shard begins to which the row `file` belongs: of loose pictures, that is their folder.
    pub(crate) fn start_of(&self, file: &str) -> Option<Start> {
        let folders = file.char_indices().rev().filter(|(_, c)| *c == '/').filter_map(|(at, _)| file.get(..at));
        let shard = std::iter::once(file).chain(folders).find_map(|name| self.by_name.get(name))?;
        self.shards.get(*shard).map(|s| s.start)
    }

    /// Whether the shard lies where an earlier run found one of its name.
    pub(crate) fn is_known_place(&self, shard: usize) -> bool {
        let Some(shard) = self.shards.get(shard) else { return false };
        shard.earlier.is_some_and(|earlier| earlier.place == shard.now.place)
    }

    /// Rows of the shard were read; `own` says whether from its own files alone.
    pub(crate) fn read(&mut self, shard: usize, own: bool) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.begun = true;
            shard.done.resumable &= own;
        }
    }

    /// The shard is through and has `rows` rows.
    pub(crate) fn close(&mut self, shard: usize, rows: u64) {
        if let Some(shard) = self.shards.get_mut(shard) {
            (shard.begun, shard.total) = (true, Some(rows));
        }
    }

    /// Rows of the shard are written, in order. How many of them count as decided: those before the first that was left undecided,
    /// in this chunk or an earlier one. The next run reads on from there.
    pub(crate) fn count(&mut self, shard: usize, decisions: &[Decision]) -> usize {
        let Some(shard) = self.shards.get_mut(shard) else { return 0 };
        for (at, decision) in decisions.iter().enumerate() {
            shard.broken_off |= matches!(decision, Decision::Unfinished);
            if shard.broken_off {
                return at;
            }
            shard.done.rows += 1;
            if let Decision::Rejected(reject) = decision {
                let count = if reject.is_filtered() { &mut shard.done.filtered } else { &mut shard.done.rejected };
                *count = count.saturating_add(1);
            }
        }
        decisions.len()
    }

    /// The watermark of what is written, with the reject list as it is. Without a list, sources with rejects are read again by the
    /// next run, which may want one.
    pub(crate) fn watermark(&mut self, list: Option<ListMark>) -> Vec<u8> {
        self.watermark.list = list.unwrap_or(self.watermark.list);
        for shard in self.shards.iter_mut().filter(|shard| shard.begun) {
            shard.done.resumable &= list.is_some() || shard.done.rejected + shard.done.filtered == 0;
            shard.done.finished = !shard.broken_off && shard.total == Some(shard.done.rows);
            self.watermark.set(&shard.name, shard.done);
        }
        self.watermark.forget_all_but(self.shards.iter().map(|shard| shard.name.as_str()));
        self.watermark.encode()
    }
}

/// What of the settings decides rows: not where sources may lie.
fn decisive_settings(settings: &Settings) -> impl std::fmt::Debug {
    (&settings.columns, settings.mode, &settings.limits)
}
