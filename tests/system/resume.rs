//! Promise: a run that is killed at any moment loses nothing it acknowledged, and the same command does the rest, nothing twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{self, Duration},
};

use anchorite::index::{
    PairStore, Parts, RowId,
    pool::{OpenOptions, Pool},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;

use crate::{
    datasets::{read_rejects, samples, write_rows, write_samples},
    program::{data, finish, model, program, run, text},
};

/// Kills in CI; a long run sets ANCHORITE_KILLS, and ANCHORITE_KILLS_SEED for other instants.
const KILLS: usize = 40;
const SEED: u64 = 7;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Source name and row of every pair of a pool, with its content. A key that is there twice fails.
fn pairs(pool: &Path) -> BTreeMap<(String, u64), [u8; 32]> {
    let pool = Pool::open(pool, &OpenOptions::default()).unwrap();
    let rows: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let mut found = BTreeMap::new();
    for record in pool.get(&rows, Parts::default()).unwrap().into_iter().flatten() {
        let place = (record.source.file.clone(), record.source.row);
        assert_eq!(found.insert(place.clone(), record.content.0), None, "{place:?} is there twice");
    }
    found
}

/// Twelve shards of 40 good rows and two bad ones each.
fn write_shards(folder: &Path) -> Vec<PathBuf> {
    let samples = samples(480);
    let shard = |number: usize| {
        let path = folder.join(format!("{number:05}.parquet"));
        let mut rows: Vec<_> =
            samples[number * 40..][..40].iter().map(|s| (Some(s.picture.clone()), Some(s.caption.as_str()))).collect();
        rows.insert(3, (None, Some("no picture")));
        rows.insert(17, (Some(b"no picture either".to_vec()), Some("a caption")));
        write_rows(&path, &rows);
        path
    };
    (0..12).map(shard).collect()
}

fn ingest_tasks(pool: &Path) -> Command {
    let mut command = program();
    command.args(["ingest", "--tasks", "-", "--pool", &text(pool), "--model", model(), "--threads", "2"]);
    command.args(["--commit-rows", "10"]).stdin(Stdio::piped()).stderr(Stdio::null());
    command
}

/// When a program is killed: so long after it acknowledged so many tasks. Both are random; counting tasks keeps the instant within the
/// run on a machine of any speed.
#[derive(Clone, Copy)]
struct Instant {
    acknowledged: usize,
    later: Duration,
}

/// Gives the shards as tasks and kills the program at an instant. The tasks that it acknowledged by then.
fn acknowledged(pool: &Path, shards: &[PathBuf], end: Option<Instant>) -> Vec<Json> {
    let mut child = ingest_tasks(pool).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let names: String = shards.iter().map(|path| format!("{}\n", path.display())).collect();
    stdin.write_all(names.as_bytes()).unwrap();
    drop(stdin);
    let (tell, lines) = channel::<String>();
    let reader = thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut told: Vec<String> = Vec::new();
    if let Some(Instant { acknowledged, later }) = end {
        told.extend(lines.iter().take(acknowledged));
        told.extend(lines.recv_timeout(later));
        child.kill().unwrap();
    }
    told.extend(lines);
    reader.join().unwrap().unwrap();
    child.wait().unwrap();
    // A line that was cut short by the kill acknowledges nothing.
    told.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn killed_at_random_instants_nothing_acknowledged_is_lost_doubled_or_invented() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path());
    let (whole, pool) = (folder.path().join("whole"), folder.path().join("pool"));
    assert_eq!(acknowledged(&whole, &shards[..1], None).len(), 1);
    let begun = time::Instant::now();
    assert_eq!(acknowledged(&whole, &shards, None).len(), 12);
    let a_shard = begun.elapsed() / 11;
    let expected = pairs(&whole);
    assert_eq!(expected.len(), 480);

    let (kills, seed) = (setting("ANCHORITE_KILLS", KILLS), setting("ANCHORITE_KILLS_SEED", SEED));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut safe: BTreeSet<String> = BTreeSet::new();
    let (mut kept, mut in_the_middle) = (0, 0);
    for kill in 0..kills {
        // Each pool is killed several times on its way; then a new one begins.
        if kill % 4 == 0 {
            let _ = fs::remove_dir_all(&pool);
            let _ = fs::remove_file(folder.path().join("pool.rejects.parquet"));
            (safe, kept) = (BTreeSet::new(), 0);
        }
        let end = Instant {
            acknowledged: 2 * (kill % 4) + random.random_range(0..4),
            later: a_shard.mul_f64(random.random_range(0.0..1.0)),
        };
        let told = acknowledged(&pool, &shards, Some(end));
        safe.extend(told.iter().map(|line| line["task"].as_str().unwrap().to_owned()));
        // Killed before it had made the pool.
        if safe.is_empty() && kept == 0 && Pool::open(&pool, &OpenOptions::default()).is_err() {
            continue;
        }
        let found = pairs(&pool);
        assert!(found.iter().all(|(place, content)| expected.get(place) == Some(content)), "seed {seed}, kill {kill}: invented");
        assert!(found.len() >= kept, "seed {seed}, kill {kill}: {kept} pairs were there, {} are", found.len());
        for task in &safe {
            let name = Path::new(task).file_name().unwrap().to_string_lossy().into_owned();
            let there = found.keys().filter(|(file, _)| file.ends_with(&name)).count();
            assert_eq!(there, 40, "seed {seed}, kill {kill}: {task} was acknowledged");
        }
        kept = found.len();
        in_the_middle += usize::from(kept > 0 && kept < 480);
    }
    assert!(in_the_middle > kills / 2, "only {in_the_middle} of {kills} kills met a pool that was being filled");
    assert_eq!(acknowledged(&pool, &shards, None).len(), 12);
    assert_eq!(pairs(&pool), expected);
    let listed = |pool: &str| read_rejects(folder.path().join(format!("{pool}.rejects.parquet")));
    assert_eq!(listed("pool"), listed("whole"));
    run(&["pool", "verify", &text(&pool)]).with(0);
}

#[test]
fn the_same_command_again_reads_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path());
    let pool = text(folder.path().join("pool"));
    let mut command = vec!["ingest", "--pool", &pool, "--model", model(), "--json"];
    let names: Vec<String> = shards.iter().map(text).collect();
    command.extend(names.iter().map(String::as_str));
    let first = run(&command).with(0).json();
    let again = run(&command).with(0).json();
    assert_eq!((&again["accepted"], &again["already_present"]), (&Json::from(0), &first["accepted"]));
    assert_eq!((&again["rejected"], &again["rows_passed_over"]), (&first["rejected"], &first["rows_read"]));
    assert_eq!(read_rejects(Path::new(&format!("{pool}.rejects.parquet"))).len(), 24);
}

#[test]
fn a_shard_that_cannot_be_read_is_told_and_the_others_are_ingested() {
    let folder = tempfile::tempdir().unwrap();
    let mut shards = write_shards(folder.path());
    fs::write(&shards[1], b"no parquet").unwrap();
    shards[2] = folder.path().join("missing.parquet");
    let mut child = ingest_tasks(&folder.path().join("pool")).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for shard in &shards[..4] {
        writeln!(stdin, "{}", shard.display()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Json> = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["accepted"].as_u64()).collect::<Vec<_>>(), [Some(40), Some(0), None, Some(40)]);
    assert!(lines[1]["error"].as_str().unwrap().contains("damaged") && lines[2]["error"].is_string(), "{lines:?}");
    // One summary, of all tasks.
    let summary: Json = serde_json::from_slice(&fs::read(folder.path().join("pool.ingest.json")).unwrap()).unwrap();
    assert_eq!((&summary["report"]["accepted"], &summary["report"]["rejected"]), (&Json::from(80), &Json::from(4)), "{summary}");
    assert_eq!(
        (summary["sources"].as_array().map(Vec::len), &summary["error"]),
        (Some(4), &Json::from("2 of the shards could not be read"))
    );
}

#[test]
fn parts_of_the_shards_are_all_of_them_and_none_twice() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path());
    let mut all = BTreeSet::new();
    for part in ["0/4", "1/4", "2/4", "3/4"] {
        let pool = folder.path().join(format!("pool-{}", part.replace('/', "-")));
        let pattern = text(folder.path().join("{00000..00011}.parquet"));
        run(&["ingest", &pattern, "--shard", part, "--pool", &text(&pool), "--model", model()]).with(0);
        for place in pairs(&pool).into_keys() {
            assert!(all.insert(place.clone()), "{place:?} is in two parts");
        }
    }
    assert_eq!(all.len(), 480);
    let refused = run(&["ingest", "x", "--shard", "4/4", "--pool", "p", "--model", model()]);
    refused.with(2).says(&["i/n with i from 0"]);
}

/// The limit on a file's size stands for a full disk: a write fails in the middle, with what was committed before it on disk.
#[test]
fn a_write_that_fails_in_the_middle_is_named_and_the_run_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, file) = (text(folder.path().join("pool")), folder.path().join("many.parquet"));
    write_samples(&file, &samples(600));
    let limited = |blocks: &str| {
        let mut command = Command::new("sh");
        let program = program();
        // Not ignored, the signal of this limit ends the program before it can name the error.
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]).arg(program.get_program());
        command.args(["ingest", &text(&file), "--pool", &pool, "--model", model(), "--commit-rows", "100", "--threads", "2"]);
        for (name, value) in program.get_envs().filter_map(|(n, v)| Some((n, v?))) {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let largest = data().join("pairs.parquet").metadata().unwrap().len() / 4_213 * 100 / 512;
    let failed = finish(&mut limited(&(largest / 2).to_string()));
    let said = failed.stderr.clone();
    assert_eq!(failed.code, Some(1), "{said}");
    assert!(said.contains("the pool failed") && said.contains("File too large"), "{said}");
    run(&["pool", "verify", &pool]).with(0);
    let before = pairs(Path::new(&pool)).len();
    assert!(before < 600, "{before}");
    finish(&mut limited("unlimited")).with(0);
    assert_eq!(pairs(Path::new(&pool)).len(), 600);
    run(&["pool", "verify", &pool]).with(0);
}
