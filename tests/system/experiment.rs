//! Promise: the experiment is one command from data to page: every stage runs, what is done is not done again, and the page says of each claim whether it
//! held. On a few hundred bundled pictures nothing can be learned about ARF; that the stages fit together can.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use arrow_array::{ArrayRef, BinaryArray, StringArray};
use serde_json::Value as Json;

use crate::{
    datasets::{samples, write},
    program::{run, text},
};

/// A picture of the stand-in benchmark.
struct Row {
    id: String,
    picture: Vec<u8>,
    caption: String,
    split: &'static str,
}

/// Bundled pictures of the benchmark's concepts as its sets, and others as its pool.
fn stand_in(folder: &Path) {
    let lists: Json = serde_json::from_str(include_str!("../../experiment/classes.json")).unwrap();
    let category: BTreeMap<String, String> = serde_json::from_value(lists["category"].clone()).unwrap();
    let listed = |list: &str, name: &str| lists[list].as_array().unwrap().iter().any(|known| known == name);
    let (mut bench, mut pool) = (Vec::new(), Vec::new());
    for (number, sample) in samples(4_000).into_iter().enumerate() {
        let id = format!("stand-in/{number}");
        let splits = ["id_train", "id_train", "id_test", "ds_3d", "ds_line"];
        let split = match sample.caption.as_str() {
            name if listed("finetune", name) && category.contains_key(name) => splits[bench.len() % splits.len()],
            name if listed("held_out", name) => "zs_emoji",
            _ => "pool",
        };
        let row = Row { id, picture: sample.picture, caption: sample.caption, split };
        if split == "pool" { pool.push(row) } else { bench.push(row) }
    }
    save(&folder.join("bench.parquet"), &bench);
    save(&folder.join("pool.parquet"), &pool);
}

fn save(path: &Path, rows: &[Row]) {
    let words = |of: &dyn Fn(&Row) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let pictures = BinaryArray::from_iter_values(rows.iter().map(|row| &row.picture[..]));
    let columns = vec![
        ("id", words(&|row| row.id.clone())),
        ("image", Arc::new(pictures) as ArrayRef),
        ("caption", words(&|row| row.caption.clone())),
        ("keywords", words(&|row| format!("picture, {}", row.caption))),
        ("label", words(&|row| if row.split == "pool" { String::new() } else { row.caption.clone() })),
        ("split", words(&|row| row.split.to_owned())),
        ("style", words(&|row| if row.split == "pool" { "clipart" } else { "colour emoji" }.to_owned())),
    ];
    write(path, columns);
}

/// A Python that makes no environment and installs nothing, and whose `build_data.py` gives the stand-in; it writes down what it was asked.
fn python(folder: &Path) -> String {
    let at = |name: &str| text(folder.join(name));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {asked}\ncase \"$1 $2\" in\n\"-m venv\") mkdir -p \"$3/bin\" && cp \"$0\" \"$3/bin/python\" ;;\n*build_data.py*) cp {made}/*.parquet \"$3\" ;;\nesac\n",
        asked = at("asked"),
        made = at("made")
    );
    fs::write(at("python"), script).unwrap();
    fs::set_permissions(at("python"), fs::Permissions::from_mode(0o755)).unwrap();
    at("python")
}

#[test]
fn one_command_runs_every_stage_once_and_says_of_each_claim_whether_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    fs::create_dir(at("made")).unwrap();
    stand_in(&folder.path().join("made"));
    let ask = ["experiment", "arf-mini", "--data", &at("data"), "--out", &at("out"), "--quick", "--seeds", "1", "--threads", "2"];
    let ask = [&ask[..], &["--arms", "cross-entropy,flyp,arf"]].concat();
    let python = python(folder.path());
    let build = [&ask[..], &["--build-data", "--python", &python]].concat();
    let planned = run(&[&build[..], &["--dry-run"]].concat()).with(0);
    assert!(planned.stdout.contains("would be built") && planned.stdout.contains("dry run"), "{}", planned.stdout);
    assert!(!folder.path().join("out").exists() && !folder.path().join("data").exists());
    let _ = run(&[&build[..], &["--offline"]].concat()).with(1).says(&["--offline"]);
    let _ = run(&build).with(0).says(&["building the data", "pretraining the base", "choosing anchors", "the report"]);
    let asked = fs::read_to_string(at("asked")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (line, part) in asked.iter().zip(["-m venv", "scripts/requirements.txt", "scripts/build_data.py"]) {
        assert!(line.contains(part), "{asked:?}");
    }
    let findings: Json = serde_json::from_str(&fs::read_to_string(at("out/findings.json")).unwrap()).unwrap();
    let claims = findings["claims"].as_array().unwrap();
    assert_eq!(claims.len(), 11);
    assert!(claims.iter().all(|claim| ["shown", "not-shown", "not-testable"].contains(&claim["verdict"].as_str().unwrap())));
    // Captions alone were not run: nothing is said of them.
    assert!(claims.iter().any(|claim| claim["id"] == "C5a" && claim["verdict"] == "not-testable"));
    for arm in ["zero-shot", "cross-entropy", "flyp", "arf"] {
        assert_eq!(findings["shares"][arm]["id"].as_array().unwrap().len(), 1, "{arm}");
    }
    // A mix without any finetuned weight is the base, picture by picture.
    let result = |arm: &str| -> Json {
        serde_json::from_str(&fs::read_to_string(at(&format!("out/seed-0/results/{arm}.json"))).unwrap()).unwrap()
    };
    let base = result("zero-shot")["measured"][0]["sets"].clone();
    assert_eq!(result("flyp")["measured"][0]["sets"], base);
    assert_ne!(result("flyp")["measured"][10]["sets"], base);
    let page = fs::read_to_string(at("out/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("not testable"), "charts and verdicts");
    for outside in ["src=\"http", "<script", "<link", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The written models open, and what is done is not done again.
    let _ = run(&["model", "check", &at("out/models/arf")]).with(0);
    // No run file alone makes these models, and their cards do not say so.
    let card = fs::read_to_string(at("out/models/arf/README.md")).unwrap();
    assert!(
        card.contains("experiment arf-mini") && card.contains("of the pool, SHA-256") && !card.contains("run.toml"),
        "{card}"
    );
    assert!(!folder.path().join("out/models/arf/run.toml").exists());
    let again = run(&ask).with(0);
    assert!(!again.stderr.contains("pretraining") && !again.stderr.contains("trained in"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(at("asked")).unwrap().lines().count(), 3, "data that are there are not built again");
    // Another experiment in the same folder would mix two.
    let _ = run(&[&ask[..], &["--steps", "5"]].concat()).with(1).says(&["another experiment"]);
    let _ = run(&[&ask[..], &["--rate", "1e-3"]].concat()).with(1).says(&["another experiment"]);
    let _ = run(&[&ask[..], &["--rate", "0"]].concat()).with(2).says(&["above 0"]);
    let _ = run(&["experiment", "arf-mini", "--data", &at("nothing"), "--out", &at("other")])
        .with(1)
        .says(&["--build-data", "experiment/README.md"]);
}
