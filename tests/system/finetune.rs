//! Promise: a run file becomes a trained model that every command opens; a run that is killed goes on exactly where it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::{
    program::{Ended, Running, Server, finish, program, run, text},
    tiny_clip::{caption, tiny_clip, write_pairs},
};

/// A folder with the tiny model, a data set and a run file.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// `task` is the run file's part after the data.
    fn new(pairs: usize, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_clip(folder.path());
        write_pairs(&folder.path().join("pairs.parquet"), pairs);
        let bench = Self { folder };
        let text = format!("model = {:?}\noutput = {:?}\n{more}", bench.path("tiny-clip"), bench.path("run"),);
        fs::write(bench.folder.path().join("run.toml"), text).unwrap();
        bench
    }

    fn path(&self, name: &str) -> String {
        text(self.folder.path().join(name))
    }

    fn finetune(&self, more: &[&str]) -> Ended {
        finish(&mut self.command(more))
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = program();
        command.current_dir(self.folder.path()).args(["finetune", "run.toml"]).args(more);
        command
    }

    fn curve(&self, run: &str) -> Vec<Json> {
        curve(&self.folder.path().join(run))
    }
}

/// The lines of metrics without what is of the machine.
fn curve(run: &Path) -> Vec<Json> {
    let line = |line: &str| {
        let mut metrics: Json = serde_json::from_str(line).unwrap();
        ["seconds", "examples_per_second", "waiting"].map(|field| metrics.as_object_mut().unwrap().remove(field));
        metrics
    };
    fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().map(line).collect()
}

/// Classes, one thread, so that two runs are equal to the bit.
const CLASSES: &str = "batch = 16\nsteps = 60\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\", \"w2 w3 {}\"]\n\
    [schedule]\nrate = 1e-3\n[step]\nthreads = 1\n[checkpoint]\nevery = 10\n";

#[test]
fn sixty_four_pairs_are_learned_by_heart_and_the_model_serves() {
    let bench = Bench::new(
        64,
        "batch = 64\nsteps = 400\nstart = \"random\"\n[task]\nsources = [\"pairs.parquet\"]\ntext = \"caption\"\n\
         [schedule]\nrate = 3e-3\nwarmup = 20\n[step.optimizer]\nweight_decay = 0.0\nclip_norm = 1.0\n[export]\nf16 = true\n",
    );
    let ended = finish(program().current_dir(bench.folder.path()).args(["pretrain", "run.toml", "--json"])).with(0);
    let outcome = ended.json();
    assert_eq!(outcome["outcome"], "done");
    assert!(outcome["difference"].as_f64().unwrap() <= 1e-4, "{outcome}");
    let losses: Vec<f64> = bench.curve("run").iter().map(|m| m["loss"].as_f64().unwrap()).collect();
    assert!((3.5..5.0).contains(&losses[0]), "{}", losses[0]);
    assert!(*losses.last().unwrap() < 0.05, "{losses:?}");

    // Every command takes the model, and it knows the pairs.
    let (model, pool) = (bench.path("run/model"), bench.path("pool"));
    run(&["ingest", &bench.path("pairs.parquet"), "--pool", &pool, "--model", &model, "--key-column", "id"]).with(0);
    let server = Server::start(&["--pool", &format!("p={pool}"), "--model", &model]);
    let found = (0..64).filter(|&i| {
        let hits = server.hits(&serde_json::json!({ "text": caption(i), "k": 1, "include": ["caption"] }));
        hits[0]["caption"] == caption(i).as_str()
    });
    assert!(found.count() >= 60);

    let card = fs::read_to_string(bench.folder.path().join("run/model/README.md")).unwrap();
    for part in ["400 steps", "fingerprint", "weight_decay = 0.0", "SHA-256", "64 pairs"] {
        assert!(card.contains(part), "no {part:?} in {card}");
    }
    let config: Json = serde_json::from_slice(&fs::read(bench.folder.path().join("run/model/config.json")).unwrap()).unwrap();
    let scale = bench.curve("run").last().unwrap()["logit_scale"].as_f64().unwrap();
    assert!((config["logit_scale"].as_f64().unwrap().exp() - scale).abs() < 1e-3 * scale);
}

#[test]
fn a_run_killed_three_times_has_the_curve_of_one_that_was_not() {
    let bench = Bench::new(200, CLASSES);
    bench.finetune(&["--set", "output=whole"]).with(0);
    let expected = bench.curve("whole");
    assert_eq!(expected.len(), 60);
    for (seen, resume) in [("step-000000010", false), ("step-000000030", true), ("step-000000040", true)] {
        let more: &[&str] = if resume { &["--resume"] } else { &[] };
        let mut running = Running::start(&mut bench.command(more));
        running.stderr_line(seen);
        running.signal(Signal::KILL);
        assert_eq!(running.ended().code, None);
    }
    bench.finetune(&["--resume"]).with(0);
    assert_eq!(bench.curve("run"), expected);
    let weights = |run: &str| fs::read(bench.folder.path().join(run).join("model/model.safetensors")).unwrap();
    assert_eq!(weights("run"), weights("whole"));
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
fn anchors_are_the_same_from_a_pool_and_from_its_server() {
    let bench = Bench::new(
        120,
        "batch = 8\nsteps = 6\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\"]\n[schedule]\nrate = 1e-3\n\
         [step]\nthreads = 1\n[anchors]\nbatch = 12\n[log]\ntensorboard = false\n",
    );
    let (pool, model) = (bench.path("pool"), bench.path("tiny-clip"));
    run(&["ingest", &bench.path("pairs.parquet"), "--pool", &pool, "--model", &model, "--key-column", "id"]).with(0);
    bench
        .finetune(&["--set", &format!("anchors.pool={pool:?}"), "--set", "output=pool-run"])
        .with(0)
        .says(&["asked while training"]);
    let here = bench.curve("pool-run");
    assert!(here.iter().all(|m| m["losses"]["anchors"].as_f64().unwrap() > 0.0));

    let server = Server::start(&["--pool", &format!("p={pool}"), "--model", &model]);
    let url = format!("anchors.server={:?}", server.url);
    bench.finetune(&["--set", &url, "--set", "output=server-run"]).with(0);
    assert_eq!(bench.curve("server-run"), here);

    let manifest = bench.path("anchors.parquet");
    let queries = bench.path("pairs.parquet");
    run(&["anchors", "--pool", &pool, "--model", &model, "--queries", &queries, "-o", &manifest]).with(0);
    let set = [format!("anchors.manifest={manifest:?}"), format!("anchors.pool={pool:?}")];
    bench.finetune(&["--set", &set[0], "--set", &set[1], "--set", "output=manifest-run"]).with(0).says(&["different anchors of"]);
    assert_eq!(bench.curve("manifest-run").len(), 6);
}

#[test]
fn a_server_that_goes_away_leaves_a_checkpoint_and_one_that_changes_does_too() {
    let bench = Bench::new(
        120,
        "batch = 8\nsteps = 100000\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\"]\n\
         [step]\nthreads = 1\n[anchors]\nretries = 1\n[checkpoint]\nevery = 2\n[data]\nprefetch = 1\n",
    );
    let (pool, model) = (bench.path("pool"), bench.path("tiny-clip"));
    run(&["ingest", &bench.path("pairs.parquet"), "--pool", &pool, "--model", &model, "--key-column", "id"]).with(0);
    let server = Server::start(&["--pool", &format!("p={pool}"), "--model", &model]);
    let url = format!("anchors.server={:?}", server.url);
    let mut running = Running::start(&mut bench.command(&["--set", &url]));
    running.stderr_line("step-000000002");
    server.stop().with(0);
    let ended = running.ended().with(1).says(&["gave no answer in 2 tries", "the checkpoint is", "--resume"]);
    assert!(ended.stderr.contains("stopped after step"), "{}", ended.stderr);
    bench.finetune(&["--resume", "--set", &url]).with(1).says(&["gave no answer in 2 tries"]);

    // Another generation: the pool has grown when the server is back.
    write_pairs(&bench.folder.path().join("more.parquet"), 130);
    run(&["ingest", &bench.path("more.parquet"), "--pool", &pool, "--model", &model]).with(0);
    let server = Server::start(&["--pool", &format!("p={pool}"), "--model", &model]);
    let url = format!("anchors.server={:?}", server.url);
    bench.finetune(&["--resume", "--set", &url]).with(1).says(&["its data (finetune set or anchors) has changed since"]);
}

#[test]
fn a_dry_run_checks_everything_and_trains_nothing() {
    let bench = Bench::new(100, CLASSES);
    let plan = bench.finetune(&["--dry-run", "--json"]).with(0).json();
    assert_eq!((&plan["pairs"], &plan["classes"], &plan["steps"]), (&100.into(), &8.into(), &60.into()));
    assert_eq!(plan["warmup_steps"], 6);
    for field in ["peak_bytes", "trained", "step_seconds", "total_seconds"] {
        assert!(plan[field].as_f64().unwrap() > 0.0, "{field}: {plan}");
    }
    let left: Vec<PathBuf> = fs::read_dir(bench.path("run")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    bench.finetune(&["--dry-run", "--provider", "cuda"]).with(1).says(&["CUDA"]);
}

#[test]
fn a_full_disk_keeps_the_checkpoint_before() {
    let bench = Bench::new(64, CLASSES);
    bench.finetune(&["--set", "steps=20", "--set", "checkpoint.every=10"]).with(0);
    let checkpoints = bench.folder.path().join("run/checkpoints");
    let before = fs::read(checkpoints.join("step-000000020/weights.safetensors")).unwrap();
    fs::remove_dir_all(checkpoints.join("step-000000020")).unwrap();
    // Files of at most 48 KiB, as if the disk were full beyond; weights have more.
    let mut shell = std::process::Command::new("sh");
    let command = bench.command(&["--resume", "--set", "steps=20", "--set", "checkpoint.every=10"]);
    shell.args(["-c", "trap '' XFSZ; ulimit -f 96; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(bench.folder.path()).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(&mut shell).with(1);
    bench.finetune(&["--resume", "--set", "steps=20", "--set", "checkpoint.every=10"]).with(0);
    assert_eq!(fs::read(checkpoints.join("step-000000020/weights.safetensors")).unwrap(), before);
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let bench = Bench::new(64, CLASSES);
    bench.finetune(&["--set", "steps=10"]).with(0);
    // The same run with another model.
    let vision = bench.folder.path().join("tiny-clip/onnx/vision_model.onnx");
    let bytes = fs::read(&vision).unwrap();
    let place = bytes.windows(4).rposition(|w| w != [0; 4]).unwrap();
    let mut other = bytes.clone();
    other[place / 2] ^= 1;
    fs::write(&vision, &other).unwrap();
    bench.finetune(&["--set", "steps=10", "--resume"]).with(1).says(&["is of another run: its model is"]);
    fs::write(&vision, &bytes).unwrap();
    // An operator that has no gradient here.
    // The operator's field of a node, not a name with that word in it.
    let field = b"\x22\x07Softmax";
    let found = bytes.windows(field.len()).position(|w| w == field).unwrap() + 2;
    let mut unknown = bytes.clone();
    unknown[found..found + 7].copy_from_slice(b"Hardmax");
    fs::write(&vision, &unknown).unwrap();
    bench.finetune(&["--set", "output=other"]).with(1).says(&["Hardmax", "/vision_model/encoder/layers.0/self_attn/Softmax"]);
    fs::write(&vision, &bytes).unwrap();
    bench
        .finetune(&["--set", "schedule.rate=1e30", "--set", "output=nan", "--set", "schedule.warmup=0"])
        .with(1)
        .says(&["is not finite", "stream"]);
    // Towers of two models.
    let siglip =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("encoder/tests/fixtures/models/exports/siglip/onnx/vision_model.onnx");
    fs::copy(siglip, &vision).unwrap();
    bench.finetune(&["--set", "output=other"]).with(1).says(&["belong to different models"]);
    fs::write(&vision, &bytes).unwrap();
    bench.finetune(&["--set", "start=random", "--set", "output=x"]).with(1).says(&["anchorite pretrain"]);
}
