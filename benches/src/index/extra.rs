//! Beside the rate of one thread at k = 10: two threads, many hits, and the slowest queries.

use anyhow::Result;

use super::{
    K, MANY, MANY_EFS, PAIRS, REORDER, ROUNDS, SEED,
    data::Data,
    engine::{Asked, Entry},
    figures::is_ours,
    rates::{Point, front, rate_at},
};
use crate::figure::{Figure, Sheet};

/// Recall that two threads and single queries are measured at.
const RECALL: f64 = 0.95;

/// Adds the figures. Ours are those of the default, against every peer.
pub(super) fn figures(engines: &mut [Entry], data: &Data, about: &str, sheet: &mut Sheet) -> Result<()> {
    let about = format!("{about}, {} image queries", data.queries[0].count());
    two_threads(engines, data, &about, sheet)?;
    many_hits(engines, data, &about, sheet)?;
    slowest(engines, data, &about, sheet)
}

fn is_compared(entry: &Entry) -> bool {
    !is_ours(entry) || entry.name == "anchorite"
}

/// The cheapest setting that reached [`RECALL`] for image queries.
fn setting(entry: &Entry) -> Option<Asked> {
    let enough = entry.points[0].iter().filter(|(_, point)| point.recall >= RECALL);
    let best = enough.max_by(|a, b| a.1.rate.total_cmp(&b.1.rate))?;
    Some(Asked { ef: best.0.0, reorder: best.0.1, k: K, threads: 1 })
}

/// Wall time of two threads over that of one, interleaved, best of all rounds.
fn two_threads(engines: &mut [Entry], data: &Data, about: &str, sheet: &mut Sheet) -> Result<()> {
    for entry in engines.iter_mut().filter(|e| is_compared(e)) {
        let Some(asked) = setting(entry) else { continue };
        let mut best = [0f64; 2];
        for _ in 0..ROUNDS {
            for (threads, best) in (1..).zip(&mut best) {
                let (_, spent) = entry.engine.search(&data.queries[0], Asked { threads, ..asked })?;
                *best = best.max(data.queries[0].count() as f64 / spent.wall.as_secs_f64().max(1e-9));
            }
        }
        let name = format!("{}: queries per second of wall time on two threads, first setting above recall {RECALL}", entry.name);
        sheet.add(Figure::new(name, best[1], "1/s", about).seed(SEED).against("one thread", best[0]));
    }
    Ok(())
}

/// Rates at k = [`MANY`].
fn many_hits(engines: &mut [Entry], data: &Data, about: &str, sheet: &mut Sheet) -> Result<()> {
    let queries = &data.queries[0];
    let mut fronts: Vec<(String, Vec<Point>)> = Vec::new();
    for entry in engines.iter_mut().filter(|e| is_compared(e)) {
        let mut points = Vec::new();
        let scann = entry.reorder == REORDER;
        for ef in MANY_EFS {
            // ScaNN's first number is leaves, of which it needs fewer; it must score more candidates again than there are hits.
            let ef = if scann { ef / 6 } else { ef };
            let mut best = Point { recall: 0.0, rate: 0.0 };
            for _ in 0..ROUNDS {
                let (found, spent) = entry.engine.search(queries, Asked { ef, reorder: MANY * 3, k: MANY, threads: 1 })?;
                let rate = queries.count() as f64 / spent.cpu.as_secs_f64().max(1e-9);
                best = Point { recall: queries.recall(&found, MANY), rate: best.rate.max(rate) };
            }
            points.push(best);
        }
        fronts.push((entry.name.clone(), front(points)));
    }
    let Some(((own, ours), peers)) = fronts.split_first() else { return Ok(()) };
    for recall in [0.95, 0.99] {
        let Some(rate) = rate_at(ours, recall) else { continue };
        for (peer, theirs) in peers {
            let name = format!("{own}: queries per CPU-second at recall {recall}, k = {MANY}");
            let figure = Figure::new(name, rate, "1/s", about).seed(SEED);
            sheet.add(match rate_at(theirs, recall) {
                Some(theirs) => figure.against(peer, theirs),
                None => Figure { peer: Some(format!("{peer} (not reached)")), ..figure },
            });
        }
    }
    Ok(())
}

/// Median and slowest of a hundred, asked one at a time.
fn slowest(engines: &mut [Entry], data: &Data, about: &str, sheet: &mut Sheet) -> Result<()> {
    for entry in engines.iter_mut().filter(|e| is_ours(e) && e.name != PAIRS) {
        let Some(asked) = setting(entry) else { continue };
        let mut seconds = entry.engine.latencies(&data.queries[0], asked)?;
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize] * 1e6;
        let name = format!("{}: 99th percentile of a query alone, ef {}", entry.name, asked.ef);
        sheet.add(Figure::new(name, at(0.99), "us", about).seed(SEED).against("median", at(0.5)));
    }
    Ok(())
}
