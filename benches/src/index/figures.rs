//! What the engines reached, beside each other and beside the goals.

use super::{
    BUILD_THREADS, EF_CONSTRUCTION, M, RECALLS, SEED,
    data::{From, Queries},
    engine::Entry,
    ours::{PAIRS, RESIDENT, SEVEN_BIT},
    rates::rate_at,
};
use crate::figure::{Figure, Sheet};

/// What is to be reached: peer, recall, by who asks.
fn goal(peer: &str, from: From, recall: f64) -> Option<(f64, &'static str)> {
    let goals: &[(&str, From, f64, f64, &'static str)] = &[
        ("hnswlib", From::SameSide, 0.95, 4.0, "at least 4.0x"),
        ("hnswlib", From::SameSide, 0.99, 4.0, "at least 4.0x"),
        ("hnswlib", From::OtherSide, 0.95, 3.5, "at least 3.5x"),
        ("faiss-flat", From::SameSide, 0.95, 3.2, "at least 3.2x"),
        ("faiss-flat", From::SameSide, 0.99, 3.8, "at least 3.8x"),
        ("faiss-sq8", From::SameSide, 0.95, 2.8, "at least 2.8x"),
        ("scann", From::SameSide, 0.95, 1.6, "at least 1.6x"),
        ("scann", From::SameSide, 0.99, 1.15, "at least 1.15x"),
        ("scann", From::OtherSide, 0.95, 1.25, "at least 1.25x"),
        ("usearch-f16", From::SameSide, 0.95, 6.0, "at least 6x"),
        ("usearch-f16", From::SameSide, 0.99, 5.5, "at least 5.5x"),
        ("hnsw_rs", From::SameSide, 0.95, 12.0, "at least 12x"),
        ("hnsw_rs", From::SameSide, 0.99, 12.0, "at least 12x"),
    ];
    let found = goals.iter().find(|g| g.0 == peer && g.1 == from && (g.2 - recall).abs() < 1e-9);
    found.map(|g| (g.3, g.4))
}

pub(super) fn search_figures(engines: &[Entry], (part, queries): (usize, &Queries), about: &str, sheet: &mut Sheet) {
    for (own, peers) in pairings(engines) {
        for recall in RECALLS {
            let Some(rate) = rate_at(&own.front(part), recall) else { continue };
            for peer in &peers {
                let name = format!("{}: queries per CPU-second at recall {recall}", own.name);
                let figure = Figure::new(name, rate, "1/s", about).seed(SEED);
                let front = peer.front(part);
                let Some(theirs) = rate_at(&front, recall) else {
                    let cap = front.last().map_or(0.0, |p| p.recall);
                    let said = format!("{} (not reached, at most {cap:.3})", peer.name);
                    sheet.add(Figure { peer: Some(said), ..figure });
                    continue;
                };
                let figure = figure.against(&peer.name, theirs);
                match goal(&peer.name, queries.from, recall) {
                    Some((least, words)) => sheet.add(figure.goal(words, rate / theirs >= least)),
                    None => sheet.add(figure),
                }
            }
        }
    }
}

pub(super) fn is_ours(entry: &Entry) -> bool {
    entry.name.starts_with("anchorite")
}

/// Who is compared with whom: the default with every peer, other ways to build with the default.
pub(super) fn pairings(engines: &[Entry]) -> Vec<(&Entry, Vec<&Entry>)> {
    let (ours, peers): (Vec<&Entry>, Vec<&Entry>) = engines.iter().partition(|e| is_ours(e));
    let Some((default, others)) = ours.split_first() else { return Vec::new() };
    let others = others.iter().map(|other| (*other, vec![*default]));
    [(*default, peers)].into_iter().chain(others).collect()
}

pub(super) fn build_figures(engines: &[Entry], about: &str, sheet: &mut Sheet) {
    let about = format!("{about}, M = {M}, ef_construction = {EF_CONSTRUCTION}, {BUILD_THREADS} threads");
    let goals = [
        ("hnswlib", 0.35, "at most 0.35x"),
        ("faiss-flat", 0.35, "at most 0.35x"),
        ("faiss-sq8", 0.35, "at most 0.35x"),
        ("scann", 0.4, "at most 0.4x"),
        ("usearch-f16", 0.25, "at most 0.25x"),
        ("hnsw_rs", 0.15, "at most 0.15x"),
    ];
    for (own, peers) in pairings(engines) {
        // The pool of pairs builds two graphs, which no peer does; of the one without f16 rows only the size counts; and
        // one opens what another built.
        for peer in peers.into_iter().filter(|_| ![PAIRS, SEVEN_BIT, RESIDENT].contains(&own.name.as_str())) {
            let who = format!("{} {}", peer.name, peer.built.version);
            let add = |sheet: &mut Sheet, what: &str, unit, value: f64, theirs: f64, goal: Option<(f64, &'static str)>| {
                let figure = Figure::new(format!("{}: {what}", own.name), value, unit, &about).seed(SEED).against(&who, theirs);
                sheet.add(match goal {
                    Some((most, words)) => figure.goal(words, value <= theirs * most),
                    None => figure,
                });
            };
            let build = goals.iter().find(|g| g.0 == peer.name).map(|g| (g.1, g.2));
            add(sheet, "build, CPU time", "s", own.built.cpu, peer.built.cpu, build);
            add(sheet, "build, wall time", "s", own.built.wall, peer.built.wall, build);
            if peer.built.disk > 0.0 {
                let disk = (peer.name == "hnswlib").then_some((0.8, "at most 0.8x"));
                add(sheet, "vectors (7-bit and f16) and graph on disk", "bytes", own.built.disk, peer.built.disk, disk);
                add(sheet, "open", "s", own.built.open, peer.built.open, None);
            }
        }
    }
    let built = |name: &str| engines.iter().find(|entry| entry.name == name).map(|entry| &entry.built);
    if let (Some(small), Some(peer)) = (built(SEVEN_BIT), built("hnswlib")) {
        let figure = Figure::new(format!("{SEVEN_BIT}: vectors and graph on disk"), small.disk, "bytes", &about).seed(SEED);
        let figure = figure.against(format!("hnswlib {}", peer.version), peer.disk);
        sheet.add(figure.goal("at most 0.3x", small.disk <= peer.disk * 0.3));
    }
}
