//! Promise: `kill -9` at any instant of an ingest, a delete, a merge or a compaction costs nothing that was acknowledged, doubles
//! nothing and invents nothing.

use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use anchorite::index::{
    PairStore, Parts, RowId,
    pool::{OpenOptions, Pool, Verify},
};
use rustix::process::Signal;

use crate::{
    pools::{ingest_args, write_rows},
    program::{Running, program, run, text},
};

/// Kills in CI; a long run sets ANCHORITE_KILLS, and ANCHORITE_KILLS_SEED for other instants.
const KILLS: u64 = 40;

/// A sequence without period to speak of (splitmix64): seeded instants.
struct Instants(u64);

impl Instants {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % most.max(1)
    }
}

/// What the pool holds: caption by key.
type Held = BTreeMap<String, String>;

fn held(pool: &str) -> Held {
    let options = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
    let pool = Pool::open(pool, &options).unwrap();
    assert!(pool.damaged_manifests().is_empty());
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let records = pool.get(&all, Parts { picture: true, vectors: true }).unwrap();
    let found: Held = records.into_iter().flatten().map(|r| (r.key.to_string(), r.caption.unwrap_or_default())).collect();
    assert_eq!(found.len() as u64, pool.status().rows, "a key is there twice");
    found
}

/// Runs the program and kills it after `wait`, unless it has ended by then; whether it ended by itself, and how long it took.
fn killed(args: &[&str], wait: Duration) -> (bool, Duration) {
    let begun = Instant::now();
    let running = Running::start(program().args(args));
    let pid = running.pid();
    let (ended, end) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let code = running.ended().code;
            let _ = ended.send((code, begun.elapsed()));
        });
        match end.recv_timeout(wait) {
            Ok((code, took)) => {
                assert_eq!(code, Some(0), "{args:?}");
                (true, took)
            }
            Err(_) => {
                // It may end in this very moment; then there is nothing to kill, and its word counts.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let (code, took) = end.recv().unwrap();
                (code == Some(0), took)
            }
        }
    })
}

#[test]
fn kill_9_at_any_instant_costs_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let pool = text(folder.path().join("pool"));
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let kills = number("ANCHORITE_KILLS", KILLS);
    let mut instants = Instants(number("ANCHORITE_KILLS_SEED", 7));
    let mut acknowledged = Held::new();
    let (mut struck, mut finished, mut deleted, mut round) = (0, 0, 0, 0usize);
    // The time each kind of work takes when it is left alone; the instants are drawn from a little more.
    let mut typical = [Duration::from_millis(400); 3];
    run(&ingest_args(&first_file(folder.path()), &pool)).with(0);
    acknowledged.extend(held(&pool));
    while struck < kills || deleted == 0 {
        round += 1;
        let kind = [0, 0, 1, 2][round % 4];
        let rows = round * 40..round * 40 + 40;
        let file = folder.path().join(format!("source-{round}.parquet"));
        write_rows(&file, rows.clone(), "row");
        let (file, doomed) = (text(file), format!("source-{}.", round.saturating_sub(6)));
        let (args, after): (Vec<&str>, Held) = match kind {
            0 => (
                ingest_args(&file, &pool),
                rows.map(|n| (format!("k-{n}"), format!("row {n}"))).chain(acknowledged.clone()).collect(),
            ),
            1 => {
                let from = round.saturating_sub(6) * 40;
                let gone = |key: &str| (from..from + 40).any(|n| key == format!("k-{n}"));
                let kept = acknowledged.iter().filter(|(key, _)| !gone(key));
                (vec!["pool", "delete", &pool, "--source", &doomed], kept.map(|(k, c)| (k.clone(), c.clone())).collect())
            }
            _ => (vec!["pool", "compact", &pool], acknowledged.clone()),
        };
        let wait = typical[kind].mul_f64(instants.below(1_250) as f64 / 1_000.0);
        let (mut whole, took) = killed(&args, wait);
        let again = !whole && round.is_multiple_of(2);
        if again {
            // The run that goes on from there is killed too.
            struck += 1;
            whole = killed(&args, typical[kind].mul_f64(instants.below(1_250) as f64 / 1_000.0)).0;
        } else if whole {
            typical[kind] = took;
        }
        let found = held(&pool);
        if whole {
            finished += 1;
            deleted += usize::from(found.len() < acknowledged.len());
            assert!(found == after, "round {round}, {args:?}: what was acknowledged is not what is there");
        } else {
            struck += 1;
            assert!(found == acknowledged || found == after, "round {round}, {args:?}, killed after {wait:?}");
        }
        // A second look finds the same.
        assert!(held(&pool) == found);
        acknowledged = found;
    }
    println!("{struck} kills, {finished} runs that ended by themselves, {} rows at the end", acknowledged.len());
    assert!(finished > 3 && deleted > 0, "{finished} ended by themselves, {deleted} of them deleted something");
    run(&["pool", "compact", &pool]).with(0);
    assert!(held(&pool) == acknowledged);
    run(&["pool", "verify", &pool]).with(0);
}

fn first_file(folder: &std::path::Path) -> String {
    let file = folder.join("source-0.parquet");
    write_rows(&file, 0..40, "row");
    text(file)
}
