//! The reader's thread: shards in order, each from where it is to begin, as chunks of rows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;

use crate::{
    Limits, Row, RowResult, SourceError, SourceUsed,
    resume::Start,
    source::{Rows, Settings, Shard},
};

/// What the reader says. Shards are numbered as they were found.
pub(crate) enum Read {
    /// What is to be read, by all headers.
    Total(Total),
    /// A shard is begun.
    Opened(usize, SourceUsed),
    /// Rows of the shard that is open.
    Rows(ReadRows),
    /// The open shard is through: what is known of it now, and how many rows it has.
    Closed(SourceUsed, u64),
    /// A shard cannot be read (on).
    Failed(SourceError),
}

/// Rows of one shard.
pub(crate) struct ReadRows {
    pub(crate) rows: Vec<RowResult>,
    pub(crate) time: Duration,
    /// How long the reader waited to hand over the rows before these.
    pub(crate) held_up: Duration,
    /// Whether all rows so far came from the shard's own file.
    pub(crate) own: bool,
    /// Bytes of the shard that had been read, where they are what [`Total::Bytes`] counts.
    pub(crate) position: Option<u64>,
}

/// How much is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Total {
    Rows(u64),
    /// Of files that do not say how many rows they have: tars and tables.
    Bytes(u64),
}

/// A shard and where reading it begins.
pub(crate) type Begun<'a> = (&'a Shard, Start);

/// Ends when it is through, when a source fails, or when nobody listens any more.
pub(crate) fn read_all(shards: &[Begun<'_>], settings: &Arc<Settings>, out: &Sender<Read>) {
    if let Err(error) = read_shards(shards, settings, out) {
        // Nobody listening means the run has ended for another reason.
        let _ = out.send(Read::Failed(error));
    }
}

fn read_shards(shards: &[Begun<'_>], settings: &Arc<Settings>, out: &Sender<Read>) -> Result<(), SourceError> {
    if let Some(total) = rows_to_read(shards, settings).map(Total::Rows).or_else(|| bytes_to_read(shards))
        && out.send(Read::Total(total)).is_err()
    {
        return Ok(());
    }
    for (number, (shard, start)) in shards.iter().enumerate().filter(|(_, (_, start))| *start != Start::Finished) {
        let before = shard.state();
        let mut rows = shard.open(settings)?;
        let used = |rows: &dyn Rows| SourceUsed {
            name: shard.name.clone(),
            rows: rows.rows().unwrap_or(0),
            columns: rows.columns(),
            revision: shard.revision(),
        };
        if out.send(Read::Opened(number, used(&*rows))).is_err() {
            return Ok(());
        }
        let Some(read) = read_shard(&mut *rows, *start, &settings.limits, out)? else { return Ok(()) };
        if shard.state() != before {
            return Err(SourceError::Changed { file: shard.name.clone() });
        }
        if out.send(Read::Closed(used(&*rows), read)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// None when a header cannot be read, which is reported when its turn comes.
fn rows_to_read(shards: &[Begun<'_>], settings: &Arc<Settings>) -> Option<u64> {
    let rows = |(shard, start): &Begun<'_>| match start {
        Start::Finished => Some(0),
        Start::First => shard.rows(settings),
        Start::After(done) => shard.rows(settings).map(|rows| rows.saturating_sub(*done)),
    };
    shards.iter().map(rows).sum()
}

/// None where a shard is no single file.
fn bytes_to_read(shards: &[Begun<'_>]) -> Option<Total> {
    let unread = shards.iter().filter(|(_, start)| *start != Start::Finished);
    unread.map(|(shard, _)| shard.file_bytes()).sum::<Option<u64>>().map(Total::Bytes)
}

/// Sends the shard's rows in chunks. How many it has, those before `start` included; none when nobody listens any more.
fn read_shard(rows: &mut dyn Rows, start: Start, limits: &Limits, out: &Sender<Read>) -> Result<Option<u64>, SourceError> {
    let skip = if let Start::After(rows) = start { rows } else { 0 };
    let mut at = rows.skip_some(skip);
    let mut chunk: Vec<RowResult> = Vec::new();
    let (mut bytes, mut short, mut time, mut held_up) = (0, false, Duration::ZERO, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let next = rows.next_rows();
        time += begun.elapsed();
        let own = rows.are_own();
        let position = rows.position().map(|(read, _)| read);
        let more = match next {
            Ok(Some(more)) => more,
            end => {
                let last = ReadRows { rows: chunk, time, held_up, own, position };
                let listening = last.rows.is_empty() || out.send(Read::Rows(last)).is_ok();
                return end.map(|_| listening.then_some(at));
            }
        };
        for row in more {
            at += 1;
            if at <= skip {
                continue;
            }
            bytes += row.as_ref().map_or(0, Row::bytes);
            short |=
                row.as_ref().is_ok_and(|row| row.picture.is_some() || row.image_vector.is_some() || row.text_vector.is_some());
            chunk.push(row);
            let most = if short { limits.chunk_rows } else { limits.chunk_rows.saturating_mul(limits.caption_chunk) };
            if chunk.len() >= most || bytes >= limits.chunk_bytes {
                (bytes, short) = (0, false);
                let full = ReadRows { rows: std::mem::take(&mut chunk), time: std::mem::take(&mut time), held_up, own, position };
                let waits = Instant::now();
                if out.send(Read::Rows(full)).is_err() {
                    return Ok(None);
                }
                held_up = waits.elapsed();
            }
        }
    }
}
