//! Promise: a training run that is killed, out of disk, or left by its server goes on exactly where it was, or says why it does not.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use crate::{
    program::{Running, Server, finish, run},
    runs::{Bench, CLASSES},
    tiny_clip::write_pairs,
};

/// Kills in CI; a long run sets ANCHORITE_LONG_RUN to a number of at most 59.
const KILLS: usize = 3;
const STEPS: usize = 60;

fn weights(bench: &Bench, run: &str) -> Vec<u8> {
    fs::read(bench.folder().join(run).join("model/model.safetensors")).unwrap()
}

/// Kills the run as soon as it has told of `step` steps; what it was at then is chance. Whether it came to that.
fn killed_at(step: usize, mut running: Running, metrics: &Path) -> bool {
    let told = || fs::read_to_string(metrics).unwrap_or_default().lines().count();
    while told() < step {
        std::thread::yield_now();
        if running.has_ended() {
            return false;
        }
    }
    running.signal(Signal::KILL);
    running.ended().code.is_none()
}

#[test]
fn a_run_killed_at_any_step_has_the_curve_of_one_that_was_not() {
    let bench = Bench::new(200, CLASSES);
    bench.finetune(&["--set", "output=whole", "--set", "checkpoint.every=4"]).with(0);
    let expected = bench.curve("whole");
    assert_eq!(expected.len(), STEPS);
    let kills = std::env::var("ANCHORITE_LONG_RUN").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut steps = BTreeSet::new();
    while steps.len() < kills.min(STEPS - 1) {
        steps.insert(random.random_range(1..STEPS));
    }
    let mut struck = 0;
    for &step in &steps {
        let saved = fs::read_dir(bench.path("run/checkpoints")).is_ok_and(|mut names| names.next().is_some());
        let more: &[&str] = if saved { &["--resume"] } else { &[] };
        let running = Running::start(&mut bench.command(&[&["--set", "checkpoint.every=4"], more].concat()));
        struck += usize::from(killed_at(step, running, &bench.folder().join("run/metrics.jsonl")));
    }
    assert!(2 * struck > steps.len(), "{struck} of {} kills struck", steps.len());
    bench.finetune(&["--resume", "--set", "checkpoint.every=4"]).with(0);
    assert_eq!(bench.curve("run"), expected, "killed at {steps:?}");
    assert_eq!(weights(&bench, "run"), weights(&bench, "whole"), "killed at {steps:?}");
}

#[test]
fn ctrl_c_saves_and_the_run_goes_on() {
    let bench = Bench::new(100, CLASSES);
    let mut running = Running::start(&mut bench.command(&["--set", "steps=100000", "--set", "checkpoint.every=3", "--json"]));
    running.stderr_line("step-000000003");
    running.signal(Signal::INT);
    let ended = running.ended().with(130).says(&["go on with --resume"]);
    let step = ended.json()["steps"].as_u64().unwrap();
    assert_eq!(bench.curve("run").len() as u64, step);
    bench.finetune(&["--set", "checkpoint.every=3"]).with(1).says(&["holds a run already", "--resume"]);
    // A run of another length has another learning rate.
    bench.finetune(&["--resume"]).with(1).says(&["is of another run: its steps is 100000, this run's is 60"]);
}

#[test]
fn a_full_disk_keeps_the_checkpoint_before() {
    let bench = Bench::new(64, CLASSES);
    bench.finetune(&["--set", "steps=20", "--set", "checkpoint.every=10"]).with(0);
    let checkpoints = bench.folder().join("run/checkpoints");
    let before = fs::read(checkpoints.join("step-000000020/weights.safetensors")).unwrap();
    fs::remove_dir_all(checkpoints.join("step-000000020")).unwrap();
    // Files of at most 48 KiB, as if the disk were full beyond; weights have more.
    let mut shell = Command::new("sh");
    let command = bench.command(&["--resume", "--set", "steps=20", "--set", "checkpoint.every=10"]);
    shell.args(["-c", "trap '' XFSZ; ulimit -f 96; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(bench.folder()).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(&mut shell).with(1);
    bench.finetune(&["--resume", "--set", "steps=20", "--set", "checkpoint.every=10"]).with(0);
    assert_eq!(fs::read(checkpoints.join("step-000000020/weights.safetensors")).unwrap(), before);
}

/// In a name space of its own with a small file system on `run`: trains, runs out of room while saving the second checkpoint, is given more and
/// goes on. $1 is the room in KiB, the rest the command; a word is printed for each part.
const SMALL_DISK: &str = "mount -t tmpfs -o size=$1k none run || exit 77; shift
\"$@\" && echo finished; ls -A run/checkpoints; sha256sum run/checkpoints/step-000000010/*
mount -o remount,size=1g run; \"$@\" --resume && cat run/metrics.jsonl > after.jsonl && cat run/model/model.safetensors > after.safetensors && echo again";

#[test]
fn a_file_system_that_is_full_keeps_the_checkpoint_before() {
    // Where a user may not: the test above shows the same by a limit on files.
    if !may_mount() {
        return;
    }
    let bench = Bench::new(64, CLASSES);
    bench.finetune(&["--set", "steps=20", "--set", "output=whole"]).with(0);
    let checkpoint = bench.folder().join("whole/checkpoints/step-000000010");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let saved: u64 = fs::read_dir(&checkpoint).unwrap().map(|e| size(&e.unwrap().path())).sum();
    // Beside the run's rows there is room for one checkpoint and a half.
    let room = (size(&bench.folder().join("pairs.parquet")) + saved + saved / 2) / 1024;
    fs::create_dir_all(bench.path("run")).unwrap();
    let command = bench.command(&["--set", "steps=20"]);
    let mut small = Command::new("unshare");
    small.args(["-rm", "sh", "-c", SMALL_DISK, "sh", &room.to_string()]).arg(command.get_program()).args(command.get_args());
    small.current_dir(bench.folder()).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    small.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = finish(&mut small).with(0);
    let ended =
        ended.says(&["No space left on device", "save a checkpoint after step 20", "the one before is whole", "step-000000010"]);
    assert!(!ended.stdout.contains("finished"), "{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines.contains(&"step-000000010") && !lines.contains(&"step-000000020"), "{lines:?}");
    assert_eq!(lines.last(), Some(&"again"));
    let read = |name: &str| fs::read(bench.path(name)).unwrap();
    assert_eq!(read("after.safetensors"), read("whole/model/model.safetensors"));
}

/// Whether this user may mount a file system in a name space of its own.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs none /mnt"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// A served pool, and the run file's part that asks it.
fn served(bench: &Bench) -> (Server, String) {
    let (pool, model) = (bench.path("pool"), bench.path("tiny-clip"));
    run(&["ingest", &bench.path("pairs.parquet"), "--pool", &pool, "--model", &model, "--key-column", "id"]).with(0);
    serve(bench)
}

fn serve(bench: &Bench) -> (Server, String) {
    let server = Server::start(&["--pool", &format!("p={}", bench.path("pool")), "--model", &bench.path("tiny-clip")]);
    let url = format!("anchors.server={:?}", server.url);
    (server, url)
}

/// More pairs for the pool than `Bench` had.
fn grow(bench: &Bench) {
    write_pairs(&bench.folder().join("more.parquet"), 130);
    run(&["ingest", &bench.path("more.parquet"), "--pool", &bench.path("pool"), "--model", &bench.path("tiny-clip")]).with(0);
}

const ASKS: &str = "batch = 8\nsteps = 100000\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\"]\n\
    [step]\nthreads = 1\n[anchors]\nretries = 1\n[checkpoint]\nevery = 2\n[data]\nprefetch = 1\n";

#[test]
fn a_server_that_dies_leaves_a_checkpoint() {
    let bench = Bench::new(120, ASKS);
    let (server, url) = served(&bench);
    let mut running = Running::start(&mut bench.command(&["--set", &url]));
    running.stderr_line("step-000000002");
    server.kill();
    let ended = running.ended().with(1).says(&["gave no answer in 2 tries", "the checkpoint is", "--resume"]);
    assert!(ended.stderr.contains("stopped after step"), "{}", ended.stderr);
    bench.finetune(&["--resume", "--set", &url]).with(1).says(&["gave no answer in 2 tries"]);
    // Another generation: the pool has grown when the server is back.
    grow(&bench);
    let (_server, url) = serve(&bench);
    bench
        .finetune(&["--resume", "--set", &url])
        .with(1)
        .says(&["its anchors were of generation", "anchors.follow_generations=true"]);
}

#[test]
fn a_server_whose_pool_grows_in_mid_run_ends_it_unless_it_is_followed() {
    let bench = Bench::new(120, ASKS);
    let (_server, url) = served(&bench);
    let mut running = Running::start(&mut bench.command(&["--set", &url]));
    running.stderr_line("step-000000002");
    grow(&bench);
    let ended = running.ended().with(1);
    let ended = ended.says(&["changed from generation", "the checkpoint is", "--set anchors.follow_generations=true"]);
    assert!(ended.stderr.contains("stopped after step"), "{}", ended.stderr);
    // What the message says to do works, and a run that follows outlives the next change.
    let mut follows =
        bench.command(&["--resume", "--set", &url, "--set", "anchors.follow_generations=true", "--set", "checkpoint.every=50"]);
    let mut running = Running::start(&mut follows);
    running.stderr_line("checkpoint: ");
    fs::remove_file(bench.path("more.parquet")).unwrap();
    run(&["pool", "delete", &bench.path("pool"), "--source", "more."]).with(0);
    running.stderr_line("checkpoint: ");
    running.stderr_line("checkpoint: ");
    running.signal(Signal::INT);
    running.ended().with(130).says(&["go on with --resume"]);
}

/// Between a run and its server: lets everything through, or some requests wait without an end.
struct Between {
    url: String,
    /// Requests for anchors that came; every one whose number `holds` names is held.
    requests: Arc<AtomicUsize>,
}

impl Between {
    fn new(server: &Server, holds: fn(usize) -> bool, open: Arc<AtomicBool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let behind = server.url.trim_start_matches("http://").to_owned();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        // Ends with the process: it waits for connections for ever.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(&behind).unwrap();
                let (open, counted) = (Arc::clone(&open), Arc::clone(&counted));
                let (back_from, back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                std::thread::spawn(move || pass(back_from, back_to, |_| true));
                std::thread::spawn(move || {
                    pass(near, far, |bytes| {
                        let asks = bytes.starts_with(b"POST /v1/anchors");
                        !asks || !holds(counted.fetch_add(1, Ordering::Relaxed)) || open.load(Ordering::Relaxed)
                    });
                });
            }
        });
        Self { url, requests }
    }
}

/// Copies until one side ends; what `lets` refuses is swallowed with all that follows, and the connection stays open.
fn pass(mut from: TcpStream, mut to: TcpStream, lets: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    let mut held = false;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        held = held || !lets(&buffer[..count]);
        if !held && to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    // Fails where the other side has closed already.
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_server_that_is_slow_is_asked_again_and_then_left_with_a_checkpoint() {
    let bench = Bench::new(120, &ASKS.replace("steps = 100000", "steps = 12"));
    let (server, url) = served(&bench);
    bench.finetune(&["--set", &url, "--set", "output=whole"]).with(0);
    let expected = bench.curve("whole");
    let asks = |between: &Between| format!("anchors.server={:?}", between.url);
    let closed = || Arc::new(AtomicBool::new(false));

    // Every third request is never answered: asked again, none is lost, and nothing of it shows.
    let between = Between::new(&server, |n| n % 3 == 2, closed());
    bench.finetune(&["--set", &asks(&between), "--set", "anchors.timeout_s=2", "--set", "output=patient"]).with(0);
    assert_eq!(bench.curve("patient"), expected);
    assert!(between.requests.load(Ordering::Relaxed) > 12);

    // From the eighth on none is answered: two tries, then an end with a checkpoint, from which it goes on when the server is back.
    let open = closed();
    let between = Between::new(&server, |n| n >= 7, Arc::clone(&open));
    let more = ["--set", &asks(&between), "--set", "anchors.timeout_s=2"];
    bench.finetune(&more).with(1).says(&["gave no answer in 2 tries", "stopped after step", "--resume"]);
    let done = bench.curve("run").len();
    assert!((1..12).contains(&done), "{done}");
    open.store(true, Ordering::Relaxed);
    bench.finetune(&[&more[..], &["--resume"]].concat()).with(0);
    assert_eq!(bench.curve("run"), expected);
}
