//! Promise: a run file becomes a trained model that every command opens.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;

use crate::{
    program::{Server, finish, program, run},
    runs::{Bench, CLASSES},
    tiny_clip::{caption, tiny_convolutional},
};

#[test]
fn sixty_four_pairs_are_learned_by_heart_and_the_model_serves() {
    let bench = Bench::new(
        64,
        "batch = 64\nsteps = 400\nstart = \"random\"\n[task]\nsources = [\"pairs.parquet\"]\ntext = \"caption\"\n\
         [schedule]\nrate = 3e-3\nwarmup = 20\n[step.optimizer]\nweight_decay = 0.0\nclip_norm = 1.0\n[export]\nf16 = true\n",
    );
    let ended = finish(program().current_dir(bench.folder()).args(["pretrain", "run.toml", "--json"])).with(0);
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

    let card = fs::read_to_string(bench.folder().join("run/model/README.md")).unwrap();
    for part in ["400 steps", "anchorite pretrain run.toml", "fingerprint", "weight_decay = 0.0", "SHA-256", "64 pairs"] {
        assert!(card.contains(part), "no {part:?} in {card}");
    }
    let config: Json = serde_json::from_slice(&fs::read(bench.folder().join("run/model/config.json")).unwrap()).unwrap();
    let scale = bench.curve("run").last().unwrap()["logit_scale"].as_f64().unwrap();
    assert!((config["logit_scale"].as_f64().unwrap().exp() - scale).abs() < 1e-3 * scale);
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
fn convolutional_towers_are_trained_and_come_out() {
    for (export, size) in [("open_clip_resnet", 64), ("efficientnet", 32)] {
        let bench = Bench::new(
            64,
            "batch = 64\nsteps = 60\n[task]\nsources = [\"pairs.parquet\"]\ntext = \"caption\"\n[schedule]\nrate = 1e-2\n\
             [step]\nchunk = 48\n[step.optimizer]\nweight_decay = 0.0\nclip_norm = 1.0\n",
        );
        let model = tiny_convolutional(bench.folder(), export, size);
        let ended = bench.finetune(&["--json", "--set", &format!("model={model:?}")]).with(0);
        assert!(ended.json()["difference"].as_f64().unwrap() <= 1e-4, "{}", ended.stdout);
        let losses: Vec<f64> = bench.curve("run").iter().map(|m| m["loss"].as_f64().unwrap()).collect();
        assert!(losses[59] < 0.6 * losses[0], "{export}: {losses:?}");
        // What came out is a model like any other.
        let (model, pool) = (bench.path("run/model"), bench.path("pool"));
        run(&["ingest", &bench.path("pairs.parquet"), "--pool", &pool, "--model", &model, "--key-column", "id"]).with(0);
        let check = run(&["model", "check", &model, "--json"]).with(0);
        assert!(check.stdout.contains("\"trained\"") || check.stdout.contains("parameters"), "{}", check.stdout);
    }
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
    // Everything short of running: the provider, which this machine has not, is told after all that can be checked without it.
    let planned = bench.finetune(&["--dry-run", "--provider", "cuda"]).with(1).says(&["CUDA", "task: 100 pairs of 8 classes"]);
    assert!(planned.stdout.contains("60 steps") && planned.stdout.contains("peak memory"), "{}", planned.stdout);
    bench.finetune(&["--provider", "cuda"]).with(1).says(&["CUDA"]);
    bench.finetune(&["--dry-run", "--provider", "cuda", "--set", "batch=1000"]).with(1).says(&["1000 of a batch"]);
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let bench = Bench::new(64, CLASSES);
    bench.finetune(&["--set", "steps=10"]).with(0);
    // The same run with another model.
    let vision = bench.folder().join("tiny-clip/onnx/vision_model.onnx");
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
    let checked = run(&["model", "check", &bench.path("tiny-clip")]).with(1).says(&["problem"]);
    let unknown = "unknown operator Hardmax at node /vision_model/encoder/layers.0/self_attn/Softmax";
    assert!(checked.stdout.contains(unknown), "{}", checked.stdout);
    fs::write(&vision, &bytes).unwrap();
    bench
        .finetune(&["--set", "schedule.rate=1e30", "--set", "output=broken", "--set", "schedule.warmup=0"])
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
