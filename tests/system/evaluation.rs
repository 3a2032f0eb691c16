//! Promise: models are measured, mixed and reported by commands alone: what `eval` says is what `wise-ft` says at the line's ends, the ends are the
//! models themselves, and the page holds everything it shows.

use std::{fs, path::Path, sync::Arc};

use anchorite::train::graph::{Element, ExternalFiles, Model, Tensor};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray};
use serde_json::Value as Json;

use crate::{
    datasets::{copy_of_model, samples, write},
    program::{demo, model, run, text},
};

/// Twenty pictures, each a class of its own, a validation half of them, and all as pairs; and what evaluates them.
fn prepare(folder: &Path) -> String {
    let pairs = samples(20);
    let pictures =
        |n: usize| -> ArrayRef { Arc::new(pairs.iter().take(n).map(|s| Some(s.picture.clone())).collect::<BinaryArray>()) };
    let labels = |n: i64| -> ArrayRef { Arc::new((0..n).collect::<Int64Array>()) };
    let captions: ArrayRef = Arc::new(StringArray::from_iter_values(pairs.iter().map(|s| s.caption.as_str())));
    write(&folder.join("id.parquet"), vec![("image", pictures(20)), ("label", labels(20))]);
    write(&folder.join("validation.parquet"), vec![("image", pictures(10)), ("label", labels(10))]);
    write(&folder.join("pairs.parquet"), vec![("image", pictures(20)), ("caption", captions)]);
    let names: Vec<String> = pairs.iter().map(|s| s.caption.clone()).collect();
    fs::write(folder.join("names.json"), serde_json::to_string(&names).unwrap()).unwrap();
    let config = format!(
        r#"
        bootstrap = 50
        [[models]]
        name = "base"
        model = "{}"
        [classes.things]
        names = "names.json"
        templates = ["{{}}", "a picture of {{}}"]
        [[sets]]
        name = "id"
        group = "id"
        sources = ["id.parquet"]
        classes = "things"
        [[sets]]
        name = "validation"
        group = "id"
        sources = ["validation.parquet"]
        classes = "things"
        [[sets]]
        name = "few"
        group = "shift"
        sources = ["validation.parquet"]
        classes = "things"
        subset = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        "#,
        model()
    );
    let path = folder.join("eval.toml");
    fs::write(&path, config).unwrap();
    text(path)
}

/// The bundled model with its float32 weights turned a little, in a deterministic way.
fn finetuned(folder: &Path) -> String {
    let out = copy_of_model(&folder.join("tuned"));
    for tower in ["onnx/vision_model.onnx", "onnx/text_model.onnx"] {
        let bytes = fs::read(Path::new(model()).join(tower)).unwrap();
        let mut graph = Model::read(&bytes, &ExternalFiles::new(), &Default::default()).unwrap();
        for (_, tensor) in &mut graph.graph.initializers {
            if tensor.element() == Element::F32 && tensor.shape().len() == 2 {
                let turned = tensor.floats().unwrap().into_iter().enumerate().map(|(i, v)| v + 0.03 * (i as f64).sin());
                *tensor = Tensor::from_floats(tensor.kind().clone(), &turned.collect::<Vec<_>>()).unwrap();
            }
        }
        fs::write(out.join(tower), graph.write()).unwrap();
    }
    text(out)
}

fn figure(evaluation: &Json, model: &str, set: &str) -> f64 {
    let results = evaluation["results"].as_array().unwrap();
    let result = results.iter().find(|r| r["model"] == model && r["set"] == set).unwrap();
    result["figures"]["top1"]["value"].as_f64().unwrap()
}

#[test]
fn eval_wise_ft_and_report_agree_and_the_page_holds_everything_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    let (config, tuned) = (prepare(folder.path()), finetuned(folder.path()));
    let plan = run(&["eval", &config, "--dry-run", "--json"]).with(0).json();
    assert_eq!((&plan["prompts"], &plan["sets"][0]["usable"]), (&40.into(), &20.into()));
    let add = format!("tuned={tuned}");
    let evaluation = run(&["eval", &config, "--add", &add, "-o", &at("eval"), "--json"]).with(0).json();
    assert!(figure(&evaluation, "base", "id") > 0.3, "the bundled model knows its own pictures: {evaluation}");
    for file in ["evaluation.json", "evaluation.md", "evaluation.html", "predictions.parquet", "eval.toml"] {
        assert!(folder.path().join("eval").join(file).is_file(), "{file}");
    }
    let line =
        ["wise-ft", "--from", model(), "--to", &tuned, "--alphas", "0:1:0.5", "--eval", &config, "-o", &at("line"), "--json"];
    let curve = run(&[&line[..], &["--choose-by", "validation", "--keep", "0,1"]].concat()).with(0).json();
    for (alpha, original, name) in [("0", model(), "base"), ("1", tuned.as_str(), "tuned")] {
        for tower in ["onnx/vision_model.onnx", "onnx/text_model.onnx"] {
            let ours = fs::read(folder.path().join(format!("line/alpha-{alpha}")).join(tower)).unwrap();
            assert!(ours == fs::read(Path::new(original).join(tower)).unwrap(), "{tower} at {alpha} is not the model's own");
        }
        for set in ["id", "validation", "few"] {
            let expected = figure(&evaluation, name, set);
            assert_eq!(figure(&curve["evaluation"], &format!("alpha {alpha}"), set), expected, "{set} at {alpha}");
        }
    }
    let svg = fs::read_to_string(at("line/curve.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains("id, top-1, %") && svg.contains("shift, top-1") && svg.contains("α 1"),
        "{svg}"
    );
    assert!(!folder.path().join("line/alpha-0.5").exists() && folder.path().join("line/chosen/onnx").is_dir());
    let heads =
        run(&[&line[..7], &["--eval", &config, "-o", &at("heads"), "--json", "--towers", "image-head"]].concat()).with(0).json();
    // The ends of the other mix are the same models.
    for set in ["id", "few"] {
        let ends = |curve: &Json| [0, 1].map(|a| figure(curve, &format!("alpha {a}"), set));
        assert_eq!(ends(&heads["evaluation"]), ends(&curve["evaluation"]), "{set}");
    }
    fs::write(
        folder.path().join("line/metrics.jsonl"),
        "{\"step\":1,\"loss\":2.5,\"losses\":{\"flyp\":2.5}}\n{\"step\":2,\"loss\":2.0,\"losses\":{\"flyp\":2.0}}\n",
    )
    .unwrap();
    let page = at("report.html");
    let _ = run(&["report", &at("eval"), &at("line"), "-o", &page]).with(0);
    let page = fs::read_to_string(page).unwrap();
    for part in ["Forgetting", "Weight interpolation", "<svg", "Training", "α 0.5", "SHA-256", "tuned", "mean of id"] {
        assert!(page.contains(part), "no {part:?}");
    }
    // A group of one set has that set's figures, and a run with one loss has it once; of a line only its end is a method that may have forgotten.
    assert!(!page.contains("mean of shift") && !page.contains(", flyp</"), "said twice");
    let forgotten = page.split("Forgetting</h2>").nth(1).unwrap().split("<h2").next().unwrap();
    assert!(forgotten.contains("alpha 1") && !forgotten.contains("alpha 0.5"), "{forgotten}");
    for outside in ["src=\"http", "<script", "<link", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn soups_are_means_and_models_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, tuned) = (prepare(folder.path()), finetuned(folder.path()));
    let out = text(folder.path().join("soup"));
    let shares = run(&["soup", model(), &tuned, "-o", &out, "--json"]).with(0).json();
    assert_eq!((&shares[0][1], &shares[1][1]), (&0.5.into(), &0.5.into()));
    let greedy = ["soup", &tuned, model(), "--recipe", "greedy", "--eval", &config, "--choose-by", "id"];
    let greedy = run(&[&greedy[..], &["-o", &text(folder.path().join("greedy")), "--json"]].concat()).with(0).json();
    let sum: f64 = greedy.as_array().unwrap().iter().map(|row| row[1].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{greedy}");
    let _ = run(&["soup", model(), &tuned, "-o", &out]).with(1).says(&["is there already"]);
    // Of three, the newest weighs what the decay leaves: m = w0; m <- 0.75 m + 0.25 w1; m <- 0.75 m + 0.25 w2.
    let ema = ["soup", model(), &tuned, &tuned, "--recipe", "ema", "--decay", "0.75", "--json"];
    let ema = run(&[&ema[..], &["-o", &text(folder.path().join("ema"))]].concat()).with(0).json();
    assert_eq!([0, 1, 2].map(|row| ema[row][1].as_f64().unwrap()), [0.5625, 0.1875, 0.25]);
    run(&["model", "check", &text(folder.path().join("ema"))]).with(0);
    let broken = Path::new(&tuned).join("onnx/text_model.onnx");
    let mut graph = Model::read(&fs::read(&broken).unwrap(), &ExternalFiles::new(), &Default::default()).unwrap();
    let name = graph.graph.initializers[0].0.clone();
    graph.graph.initializers[0].0 = "renamed".to_owned();
    graph.graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|i| **i == name).for_each(|i| *i = "renamed".to_owned());
    fs::write(&broken, graph.write()).unwrap();
    let other = text(folder.path().join("other"));
    let _ = run(&["soup", model(), &tuned, "-o", &other]).with(1).says(&["text", &name]);
    assert!(!Path::new(&other).exists());
}

/// The bundled model stores weights as float16, a finetuned one has them in float32: the same weights, wider.
#[test]
fn a_finetuned_model_is_mixed_with_the_model_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    prepare(folder.path());
    let file = format!(
        "model = {:?}\noutput = {:?}\nbatch = 4\nsteps = 2\n[checkpoint]\nevery = 1\n[task]\nsources = [{:?}]\ntext = \"caption\"\n",
        model(),
        at("run"),
        at("pairs.parquet")
    );
    fs::write(at("run.toml"), file).unwrap();
    run(&["finetune", &at("run.toml")]).with(0);
    let shares = run(&["soup", model(), &at("run/model"), "-o", &at("mean"), "--json"]).with(0).json();
    assert_eq!((&shares[0][1], &shares[1][1]), (&0.5.into(), &0.5.into()));
    run(&["model", "check", &at("mean")]).with(0);
    // Checkpoints of the run are mixed as they are: the last one twice is the model that was exported.
    let step = |step: u64| at(&format!("run/checkpoints/step-{step:09}"));
    let soup =
        |checkpoints: [&str; 2], out: &str| run(&["soup", checkpoints[0], checkpoints[1], "--base", model(), "-o", &at(out)]);
    let _ = soup([&step(2), &step(2)], "twice").with(0);
    let _ = soup([&step(1), &format!("{}/weights.safetensors", step(2))], "both").with(0);
    let weights = |folder: &str, tower: &str| {
        let bytes = fs::read(at(&format!("{folder}/onnx/{tower}_model.onnx"))).unwrap();
        let model = Model::read(&bytes, &ExternalFiles::new(), &Default::default()).unwrap();
        model.graph.initializers.into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    for tower in ["vision", "text"] {
        assert_eq!(weights("twice", tower), weights("run/model", tower), "{tower}");
        assert_ne!(weights("both", tower), weights("run/model", tower), "{tower}");
    }
    let _ = soup([&step(2), &at("pairs.parquet")], "wrong").with(1).says(&["pairs.parquet"]);
}

#[test]
fn anchors_come_with_a_page_that_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    prepare(folder.path());
    let base = ["anchors", "--pool", &demo().pool, "--model", model(), "--queries", &at("id.parquet"), "-o", &at("m.parquet")];
    let _ = run(&[&base[..], &["--report", &at("anchors.html")]].concat()).with(0);
    let page = fs::read_to_string(at("anchors.html")).unwrap();
    for part in ["Scores of hits", "Gallery", "data:image/", "Style, ", "Class, "] {
        assert!(page.contains(part), "no {part:?}");
    }
    assert!(!page.contains("<script"));
    // With captions of the task's pictures beside what was retrieved: out of a file of ours, or of the query files' own.
    let near =
        ["caption", "--images", &at("id.parquet"), "--from-pool", &demo().pool, "--model", model(), "-o", &at("near.jsonl")];
    let _ = run(&near).with(0);
    fs::create_dir(at("run")).unwrap();
    fs::write(at("run/metrics.jsonl"), "{\"step\":1,\"loss\":2.5}\n").unwrap();
    let show = [
        "report",
        &at("run"),
        "--anchors",
        &at("m.parquet"),
        "--pool",
        &demo().pool,
        "--queries",
        &at("id.parquet"),
        "-o",
        &at("page.html"),
    ];
    let _ = run(&[&show[..], &["--captions", &at("near.jsonl")]].concat()).with(0);
    let page = fs::read_to_string(at("page.html")).unwrap();
    let lines = fs::read_to_string(at("near.jsonl")).unwrap();
    let first: Json = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let query = page.split("class=\"query\"").nth(1).unwrap();
    assert!(query.split("class=\"score\"").next().unwrap().contains(first["caption"].as_str().unwrap()), "{first}");
    let _ = run(&[&show[..], &["--captions", &at("run/metrics.jsonl")]].concat()).with(1).says(&["line 1", "anchorite caption"]);
    let _ = run(&[&show[..], &["--caption-column", "nothing"]].concat()).with(1).says(&["nothing"]);
}

#[test]
fn captions_come_from_a_captioner_or_a_pool_and_are_not_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    prepare(folder.path());
    let captioner = concat!(env!("CARGO_MANIFEST_DIR"), "/train/tests/caption_golden/vit-gpt2");
    let (images, captions) = (at("id.parquet"), at("captions.jsonl"));
    let ask = ["caption", "--images", &images, "--captioner", captioner, "--method", "beam", "--beams", "3", "-n", "2"];
    let ask = [&ask[..], &["--max-repetition", "1", "--min-words", "0", "-o", &captions]].concat();
    let first = run(&ask).with(0);
    assert!(first.stdout.contains("40 captions"), "{}", first.stdout);
    let lines = fs::read_to_string(at("captions.jsonl")).unwrap();
    // A run that was cut off in the middle of a line.
    let half: Vec<&str> = lines.lines().take(21).collect();
    fs::write(at("captions.jsonl"), half.join("\n") + "\n{\"key\":\"cut").unwrap();
    let second = run(&ask).with(0);
    assert!(second.stdout.contains("20 captions, 10 there already"), "{}", second.stdout);
    assert_eq!(fs::read_to_string(at("captions.jsonl")).unwrap(), lines);
    assert!(
        lines
            .lines()
            .all(|line| line.contains("captioner vit-gpt2 ") && line.contains("beam 3, length penalty 1, at most 30 tokens"))
    );
    // Captions made in another way do not go into the same file, and what they are is kept.
    let _ = run(&[&ask[..], &["--max-tokens", "5"]].concat()).with(1).says(&[
        "at most 30 tokens",
        "at most 5 tokens",
        "another file",
    ]);
    assert_eq!(fs::read_to_string(at("captions.jsonl")).unwrap(), lines);
    // The filters are the command's too.
    let filtered = ["--min-words", "40", "-o", &at("short.jsonl")];
    let short = run(&[&ask[..13], &filtered].concat()).with(0);
    assert!(short.stdout.contains("40 refused (TooShort)") && !short.stdout.contains(" captions"), "{}", short.stdout);
    let pool =
        ["caption", "--images", &at("pairs.parquet"), "--from-pool", &demo().pool, "--model", model(), "-o", &at("near.jsonl")];
    let _ = run(&pool).with(0);
    let near = fs::read_to_string(at("near.jsonl")).unwrap();
    let own: Vec<String> = samples(20).into_iter().map(|s| s.caption).collect();
    let same =
        near.lines().zip(&own).filter(|(line, own)| serde_json::from_str::<Json>(line).unwrap()["caption"] == ***own).count();
    // The pool has these very pictures; some share theirs with another.
    assert!(same >= 18 && near.contains("nearest captions of a pool"), "{same}: {near}");
}
