//! Promise: what is done to a pool as a whole does what it says, says what it did, and can be undone or refused.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::{
    datasets::{vectors, words, write},
    program::{Ended, program, run, text},
};

const DIM: usize = 16;

/// A vector that differs from every other.
fn vector(n: usize) -> Vec<f32> {
    (0..DIM).map(|axis| if axis == n % DIM { 3.0 } else { ((n * 31 + axis * 17) % 23) as f32 / 23.0 }).collect()
}

/// Rows whose keys are `k-<number>`; a caption is part of what a row is made from.
pub(crate) fn write_rows(file: &Path, rows: std::ops::Range<usize>, caption: &str) {
    let all: Vec<Vec<f32>> = rows.clone().map(vector).collect();
    let keys: Vec<String> = rows.clone().map(|n| format!("k-{n}")).collect();
    let captions: Vec<String> = rows.map(|n| format!("{caption} {n}")).collect();
    let columns = vec![
        ("image_embedding", vectors(&all)),
        ("key", words(keys.iter().map(|key| Some(key.as_str())))),
        ("caption", words(captions.iter().map(|caption| Some(caption.as_str())))),
    ];
    write(file, columns);
}

/// The file's source name is its own name, without the folder's, which is another one each time.
pub(crate) fn ingest_args<'a>(file: &'a str, pool: &'a str) -> Vec<&'a str> {
    let folder = Path::new(file).parent().and_then(Path::to_str).unwrap();
    vec!["ingest", file, "--pool", pool, "--vectors-from", "elsewhere", "--key-column", "key", "--source-root", folder, "--json"]
}

fn ingest(file: &str, pool: &str) -> Ended {
    run(&ingest_args(file, pool))
}

struct Pools(tempfile::TempDir);

impl Pools {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        text(self.0.path().join(name))
    }

    /// A pool of rows, a file and a segment for each range, whose end is not in it.
    fn filled(&self, name: &str, ranges: &[(usize, usize)], caption: &str) -> String {
        let pool = self.path(name);
        for (first, end) in ranges {
            let file = self.0.path().join(format!("{name}-{first}.parquet"));
            write_rows(&file, *first..*end, caption);
            ingest(&text(file), &pool).with(0);
        }
        pool
    }
}

fn info(pool: &str) -> Json {
    run(&["pool", "info", pool, "--json"]).with(0).json()
}

fn rows(pool: &str) -> u64 {
    info(pool)["rows"].as_u64().unwrap()
}

#[test]
fn pairs_are_deleted_by_key_source_and_filter_after_a_look_at_what_that_would_be() {
    let pools = Pools::new();
    let pool = pools.filled("pool", &[(0, 40), (40, 60), (60, 70)], "row");
    let delete = |args: &[&str]| run(&[&["pool", "delete", &pool, "--json"], args].concat());
    let filter = r#"{"prefix": {"field": "caption", "value": "row 1"}}"#;
    let which = ["--key", "k-0", "--key", "absent", "--source", "pool-40", "--filter", filter];
    let looked = delete(&[which.as_slice(), &["--dry-run"]].concat()).with(0).json();
    assert_eq!((&looked["deleted"], &looked["dry_run"]), (&json!(1 + 20 + 11), &json!(true)));
    assert_eq!(rows(&pool), 70);
    assert_eq!(delete(&which).with(0).json()["deleted"], 32);
    let told = info(&pool);
    assert_eq!((&told["rows"], &told["dead_rows"], &told["segments"]), (&json!(38), &json!(32), &json!(3)));
    assert!(told["memory"]["anonymous"].as_u64().unwrap() > 0, "{told}");
    delete(&["--filter", r#"{"eq": {"field": "captoin", "value": "x"}}"#]).with(1).says(&["captoin"]);
    delete(&[]).with(2).says(&["--key", "--source", "--filter"]);
    delete(&["--source", ""]).with(1).says(&["names no source"]);

    let compacted = run(&["pool", "compact", &pool, "--json"]).with(0).json();
    assert_eq!((&compacted["segments"], &compacted["dropped_rows"]), (&json!([3, 1]), &json!(32)));
    assert_eq!(info(&pool)["dead_rows"], 0);
    run(&["pool", "verify", &pool]).with(0);
    // A deleted row is new again.
    assert_eq!(ingest(&pools.path("pool-40.parquet"), &pool).with(0).json()["accepted"], 20);
    assert_eq!(rows(&pool), 58);
}

#[test]
fn part_pools_become_one_and_what_they_disagree_on_is_listed() {
    let pools = Pools::new();
    let parts =
        [pools.filled("a", &[(0, 20)], "row"), pools.filled("b", &[(15, 30)], "row"), pools.filled("c", &[(28, 40)], "other")];
    let whole = pools.path("whole");
    let merge = |rule: &[&str]| run(&[&["pool", "merge", &whole, &parts[0], &parts[1], &parts[2], "--json"], rule].concat());
    merge(&[]).with(1).says(&["k-28", "--on-conflict"]);
    assert_eq!(rows(&whole), 0, "a refused merge keeps nothing");
    let merged = merge(&["--on-conflict", "keep-first"]).with(0).json();
    assert_eq!((&merged["added"], &merged["same"]), (&json!(40), &json!(5)));
    let keys: Vec<&str> = merged["conflicts"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["k-28", "k-29"]);
    let caption = |n: usize| {
        let found = run(&["search", "--pool", &whole, "--key", &format!("k-{n}"), "-k", "1", "--json"]).with(0).json();
        found[0]["caption"].as_str().unwrap().to_owned()
    };
    assert_eq!((rows(&whole), caption(28), caption(39)), (40, "row 28".to_owned(), "other 39".to_owned()));
    assert_eq!(merge(&["--on-conflict", "take-last"]).with(0).json()["added"], 0);
    assert_eq!((rows(&whole), caption(28)), (40, "other 28".to_owned()));
    run(&["pool", "verify", &whole]).with(0);

    let foreign = pools.path("foreign");
    let file = pools.path("a-0.parquet");
    run(&["ingest", &file, "--pool", &foreign, "--vectors-from", "another", "--key-column", "key"]).with(0);
    run(&["pool", "merge", &whole, &foreign]).with(1).says(&["built by encoder vectors:elsewhere", "vectors:another"]);
}

#[test]
fn a_snapshot_is_a_pool_and_a_damaged_one_is_not_restored() {
    let pools = Pools::new();
    let pool = pools.filled("pool", &[(0, 30), (30, 50)], "row");
    run(&["pool", "delete", &pool, "--key", "k-3"]).with(0);
    let (kept, again) = (pools.path("kept"), pools.path("again"));
    let copied = run(&["pool", "snapshot", &pool, &kept, "--json"]).with(0).json();
    assert_eq!(copied["generation"], info(&pool)["generation"]);
    run(&["pool", "delete", &pool, "--source", "pool"]).with(0);
    run(&["pool", "restore", &kept, &again]).with(0);
    assert_eq!((rows(&pool), rows(&kept), rows(&again)), (0, 49, 49));
    run(&["pool", "verify", &again]).with(0);
    run(&["pool", "restore", &kept, &again]).with(1).says(&["empty folder"]);

    let damaged = fs::read_dir(&kept).unwrap().map(|e| e.unwrap().path()).find(|p| text(p).ends_with(".vectors")).unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[700] ^= 1;
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, bytes).unwrap();
    let name = text(damaged.file_name().unwrap());
    run(&["pool", "restore", &kept, &pools.path("third")]).with(1).says(&[&name, "damaged"]);
    run(&["pool", "info", &pools.path("third")]).with(1);
}

#[test]
fn damaged_graphs_are_built_anew_and_other_damage_is_told_plainly() {
    let pools = Pools::new();
    let pool = pools.filled("pool", &[(0, 300)], "row");
    let question = ["search", "--pool", &pool, "--key", "k-7", "-k", "5", "--effort", "exact", "--json"];
    let before = run(&question).with(0).json();
    let named = |end: &str| {
        let all = fs::read_dir(&pool).unwrap().map(|e| e.unwrap().path());
        all.filter(|p| text(p).contains(end)).max().unwrap()
    };
    let spoil = |end: &str, at: usize| {
        let file = named(end);
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] ^= 4;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
    };
    // In its header, so that the pool does not even open.
    spoil(".graph", 40);
    run(&["pool", "info", &pool]).with(1);
    run(&["pool", "verify", &pool]).with(1).says(&["damaged in 1 place"]);
    let mended = run(&["pool", "verify", &pool, "--repair", "--json"]).with(0).json();
    assert_eq!((&mended["sound"], mended["rebuilt"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(run(&question).with(0).json(), before);
    run(&["pool", "verify", &pool, "--repair"]).with(0);

    spoil(".pairs", 600);
    let ended = run(&["pool", "verify", &pool, "--repair"]).with(1);
    assert!(
        ended.stdout.contains(".pairs is damaged at byte") && ended.stdout.contains("restore a snapshot"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_pool_is_read_into_memory() {
    let pools = Pools::new();
    let pool = pools.filled("pool", &[(0, 50)], "row");
    let warmed = run(&["pool", "warm", &pool, "--json"]).with(0).json();
    assert!(warmed["files"] == 3 && warmed["bytes"].as_u64().unwrap() > 10_000, "{warmed}");
    let part = run(&["pool", "warm", &pool, "--most", "5000", "--json"]).with(0).json();
    assert_eq!(part["bytes"], 5_000, "no more than was asked for");
}

#[test]
fn a_pool_of_7_bit_vectors_says_so_wherever_its_scores_are_shown() {
    let pools = Pools::new();
    let whole = pools.filled("whole", &[(0, 300)], "row");
    let (small, made) = (pools.path("small"), pools.path("made"));
    let file = pools.path("whole-0.parquet");
    let ingest_small =
        |precision: &str, pool: &str| run(&[ingest_args(&file, pool).as_slice(), &["--precision", precision]].concat());
    ingest_small("7-bit", &small).with(0);
    run(&["pool", "merge", &made, &whole, "--precision", "7-bit"]).with(0);
    let bytes = |pool: &str| info(pool)["files"]["vectors"]["bytes"].as_u64().unwrap();
    for pool in [&small, &made] {
        assert_eq!((&info(pool)["precision"], rows(pool)), (&json!("7-bit"), 300));
        assert!(bytes(pool) < bytes(&whole));
        let asked = run(&["search", "--pool", pool, "--key", "k-7", "-k", "3", "--effort", "exact", "--json"]).with(0);
        assert!(asked.stderr.contains("7-bit vectors"), "{}", asked.stderr);
        assert_eq!(asked.json()[0]["key"], "k-7");
        assert!(run(&["pool", "info", pool]).with(0).stdout.contains("vectors     7-bit"));
        run(&["pool", "verify", pool]).with(0);
    }
    let plain = run(&["search", "--pool", &whole, "--key", "k-7", "-k", "3", "--json"]).with(0);
    assert!(info(&whole)["precision"] == "f16" && !plain.stderr.contains("7-bit"));
    // A pool keeps to what it is, and rounded vectors do not pass for others.
    ingest_small("f16", &small).with(1).says(&["7-bit", "f16"]);
    ingest_small("7-bit", &whole).with(1).says(&["7-bit", "f16"]);
    run(&["pool", "merge", &whole, &small]).with(1).says(&["does not come back"]);
    run(&["pool", "merge", &small, &whole]).with(0);
}

#[test]
fn a_snapshot_goes_through_a_pipe_and_a_file() {
    let pools = Pools::new();
    let pool = pools.filled("pool", &[(0, 30), (30, 50)], "row");
    let (tar, piped, filed) = (pools.path("kept.tar"), pools.path("piped"), pools.path("filed"));
    let copied = run(&["pool", "snapshot", &pool, &tar, "--json"]).with(0).json();
    assert_eq!(copied["generation"], info(&pool)["generation"]);
    run(&["pool", "snapshot", &pool, &tar]).with(1).says(&["there already"]);
    run(&["pool", "restore", &tar, &filed]).with(0);
    let out = fs::File::create(pools.path("stdout.tar")).unwrap();
    assert!(program().args(["pool", "snapshot", &pool, "-"]).stdout(out).status().unwrap().success());
    assert_eq!(fs::read(pools.path("stdout.tar")).unwrap(), fs::read(&tar).unwrap());
    let from = fs::File::open(&tar).unwrap();
    assert!(program().args(["pool", "restore", "-", &piped]).stdin(from).stdout(Stdio::null()).status().unwrap().success());
    for restored in [&filed, &piped] {
        assert_eq!(rows(restored), 50);
        run(&["pool", "verify", restored]).with(0);
    }
    // The common tool agrees about what it is.
    let listed = Command::new("tar").args(["tf", &tar]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with("manifest-"));
    let cut = fs::read(&tar).unwrap();
    fs::write(pools.path("cut.tar"), &cut[..cut.len() / 2]).unwrap();
    run(&["pool", "restore", &pools.path("cut.tar"), &pools.path("none")]).with(1).says(&["no whole snapshot"]);
    run(&["pool", "restore", &pools.path("stdout.tar"), &filed]).with(1).says(&["empty folder"]);
}
