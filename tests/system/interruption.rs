//! Promise: Ctrl-C, SIGTERM and a second writer cost nothing that was accepted.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    datasets::{samples, write_samples},
    program::{Running, data, model, program, run, text},
};

const PAIRS: u64 = 4_213;

#[test]
fn ctrl_c_keeps_what_was_accepted_and_the_next_run_does_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.parquet"), folder.path().join("second.parquet"));
    // The same pairs under two names are two sets of pairs: too many to be done before the signal comes.
    fs::copy(data().join("pairs.parquet"), &first).unwrap();
    fs::copy(data().join("pairs.parquet"), &second).unwrap();
    let (first, second, pool) = (text(first), text(second), text(folder.path().join("pool")));
    let ingest = ["ingest", &first, &second, "--pool", &pool, "--model", model(), "--json", "--threads", "1"];
    let mut running = Running::start(program().args(ingest));
    running.stderr_line("ingest: ");

    let other = ["ingest", &first, "--pool", &pool, "--model", model()];
    run(&other).with(1).says(&["another writer holds", "wait for it or stop it"]);

    running.signal(Signal::INT);
    let ended = running.ended().with(130).says(&["interrupted"]);
    let report = ended.json();
    let accepted = report["accepted"].as_u64().unwrap();
    assert_eq!(report["outcome"], "interrupted");
    assert!(accepted > 0 && accepted < 2 * PAIRS, "{report}");
    assert_eq!(run(&["pool", "info", &pool, "--json"]).with(0).json()["rows"], accepted);
    run(&["pool", "verify", &pool]).with(0);

    // The rest, of the first file alone, since time is short.
    let rest = run(&["ingest", &first, "--pool", &pool, "--model", model(), "--json"]).with(0).json();
    let there = accepted.min(PAIRS);
    assert_eq!((&rest["already_present"], &rest["accepted"]), (&json!(there), &json!(PAIRS - there)));
}

#[test]
fn a_demo_that_is_interrupted_while_it_ingests_serves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pool = text(folder.path().join("pool"));
    let mut running = Running::start(program().args(["demo", "--pool", &pool, "--listen", "127.0.0.1:0", "--threads", "1"]));
    running.stderr_line("ingest: ");
    running.signal(Signal::TERM);
    let ended = running.ended().with(130);
    assert!(!ended.stdout.contains("the page"), "{}", ended.stdout);
    let rows = run(&["pool", "info", &pool, "--json"]).with(0).json()["rows"].as_u64().unwrap();
    assert!(rows > 0 && rows < PAIRS, "{rows}");
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_leaves_a_pool_that_takes_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, few) = (text(folder.path().join("pool")), folder.path().join("few.parquet"));
    let pairs = text(data().join("pairs.parquet"));
    let mut running = Running::start(program().args(["ingest", &pairs, "--pool", &pool, "--model", model(), "--threads", "1"]));
    running.stderr_line("ingest: ");
    running.signal(Signal::INT);
    running.stderr_line("once more ends it at once");
    running.signal(Signal::INT);
    running.ended().with(130);

    write_samples(&few, &samples(3));
    run(&["ingest", &text(few), "--pool", &pool, "--model", model()]).with(0);
    run(&["pool", "verify", &pool]).with(0);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    // As with `anchorite ... | head -1`: the other end of the pipe is closed before anything is written.
    let mut child = program().args(["pool", "--help"]).spawn().unwrap();
    drop(child.stdout.take());
    child.wait().unwrap();
    let mut child = program().args(["doctor"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}
