//! Promise: a process that reads a pool keeps the generation it opened, whatever another one writes, compacts and deletes meanwhile; and one
//! process writes at a time.
//!
//! The other process is this test binary, started again as [`peer`] and driven line by line.

use std::{
    collections::BTreeSet,
    fs,
    io::BufRead,
    process::{Command, Stdio},
};

use anchorite::index::{
    Cancel, Effort, PairStore, Parts, Query, RowId, Side, StoreError,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    pools::{ingest_args, write_rows},
    program::{Running, run, text},
};

/// Says which part the child plays; without it the child's test does nothing.
const PART: &str = "PEER_OF_A_POOL";

/// Not a test: what the children of the tests below do. Answers one line for each line it is sent.
#[test]
#[ignore = "a child of the tests here"]
fn peer() {
    let Ok(part) = std::env::var(PART) else { return };
    let (part, dir) = part.split_once(' ').unwrap();
    let options = OpenOptions::default();
    let spec = Pool::open(dir, &options).unwrap().spec().clone();
    match part {
        "reader" => {
            let pool = Pool::open(dir, &options).unwrap();
            println!("\npeer: open");
            for _ in std::io::stdin().lock().lines() {
                println!("\npeer: {}", answers(&pool));
            }
        }
        _ => {
            let _writer = PoolWriter::open(dir, &spec, &WriterOptions::default()).unwrap();
            println!("\npeer: open");
            std::io::stdin().lock().lines().for_each(drop);
        }
    }
}

/// Everything the pool says, by graph and by comparison, as one line.
fn answers(pool: &Pool) -> serde_json::Value {
    let rows: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let records = pool.get(&rows, Parts { picture: true, vectors: true }).unwrap();
    let captions: Vec<_> = records.iter().flatten().map(|r| (r.key.to_string(), r.caption.clone())).collect();
    let ask = |effort| {
        let vector = records.iter().flatten().next().unwrap().image.clone().unwrap();
        pool.search(&[Query::new(Side::Image, vector, 50, effort)], &Cancel::default()).unwrap()
    };
    let hits = |effort| ask(effort)[0].hits.iter().map(|hit| (hit.row.0, hit.score)).collect::<Vec<_>>();
    json!({ "generation": pool.status().generation, "captions": captions, "exact": hits(Effort::Exact), "fast": hits(Effort::Fast) })
}

fn start(part: &str, pool: &str) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "generations::peer", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(PART, format!("{part} {pool}")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    running.stdout_line("peer: open");
    running
}

/// A pool of 1,400 rows in two segments, so that its larger graph is searched and not compared row by row.
fn filled(folder: &std::path::Path) -> String {
    let pool = text(folder.join("pool"));
    for (name, rows) in [("a", 0..1_200), ("b", 1_200..1_400)] {
        let file = folder.join(format!("{name}.parquet"));
        write_rows(&file, rows, "row");
        run(&ingest_args(&text(&file), &pool)).with(0);
    }
    pool
}

fn segment_files(pool: &str) -> BTreeSet<String> {
    let names = fs::read_dir(pool).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("seg-")).collect()
}

#[test]
fn a_reader_in_another_process_answers_from_files_that_are_gone_from_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let pool = filled(folder.path());
    let before = segment_files(&pool);
    let mut reader = start("reader", &pool);
    let mut ask = |story: &str| {
        reader.tell(story);
        reader.stdout_line("peer: {")
    };
    let first = ask("before");
    assert!(first.contains("row 1399"), "{first}");
    let gone = |names: &BTreeSet<String>| names.is_disjoint(&segment_files(&pool));
    for round in 0..3 {
        // Each of these is a process of its own.
        let doomed = format!("k-{round}");
        run(&["pool", "delete", &pool, "--key", &doomed]).with(0);
        assert!(ask("deleted") == first);
        run(&["pool", "compact", &pool]).with(0);
        assert!(ask("compacted") == first);
    }
    assert!(gone(&before), "compaction removed every file of the generation that is read");
    run(&["pool", "verify", &pool]).with(0);
    // Another reader, opened now, sees what the folder holds.
    let now = answers(&Pool::open(&pool, &OpenOptions::default()).unwrap()).to_string();
    assert!(!now.contains("\"k-0\"") && now.contains("row 1399"));

    // The files last as long as the reader does: it holds each of them, and nobody else can name them.
    let maps = fs::read_to_string(format!("/proc/{}/maps", reader.pid().as_raw_nonzero())).unwrap();
    for name in before.iter().filter(|name| !name.contains(".dead")) {
        assert!(maps.lines().any(|line| line.contains(name.as_str()) && line.ends_with("(deleted)")), "{name} is not held");
    }
    reader.tell("once more");
    assert!(reader.stdout_line("peer: {") == first);
    reader.signal(Signal::KILL);
    reader.ended();
    // However it ended, nothing of it is left to clean up.
    assert!(gone(&before));
    run(&["pool", "compact", &pool]).with(0);
}

#[test]
fn a_second_writing_process_is_refused_by_name_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let pool = filled(folder.path());
    let writer = start("writer", &pool);
    let holder = format!("process {}", writer.pid().as_raw_nonzero());
    let file = folder.path().join("c.parquet");
    write_rows(&file, 2_000..2_010, "row");
    let file = text(&file);
    let whole = folder.path().join("whole");
    let commands: [&[&str]; 4] = [
        &ingest_args(&file, &pool),
        &["pool", "compact", &pool],
        &["pool", "delete", &pool, "--key", "k-1"],
        &["pool", "verify", &pool, "--repair"],
    ];
    for command in commands {
        run(command).with(1).says(&["another writer holds", "LOCK", &holder, "wait for it or stop it"]);
    }
    let opened =
        PoolWriter::open(&pool, &Pool::open(&pool, &OpenOptions::default()).unwrap().spec().clone(), &WriterOptions::default());
    assert!(matches!(opened.err().unwrap(), StoreError::Locked { .. }));
    // Readers, snapshots among them, need no lock.
    run(&["pool", "info", &pool]).with(0);
    run(&["pool", "verify", &pool]).with(0);
    run(&["pool", "snapshot", &pool, &text(&whole)]).with(0);
    writer.signal(Signal::KILL);
    writer.ended();
    run(&["pool", "compact", &pool]).with(0);
    run(&ingest_args(&file, &pool)).with(0);
}
