//! Promise: the machine's report says what was found, what is missing and what to do; it fetches nothing.

use std::fs;

use crate::{
    datasets::another_model,
    program::{demo, finish, model, program, run, text},
};

#[test]
fn a_machine_with_everything_is_well() {
    // Whatever fetches ONNX Runtime on this machine has done so after this.
    let pool = &demo().pool;
    let report = run(&["doctor", "--json", "--model", model(), "--pool", pool]).with(0).json();
    let runtime = &report["machine"]["onnx_runtime"];
    assert!(runtime["problem"].is_null() && runtime["library"].is_string(), "{runtime}");
    assert!(runtime["providers"].as_array().unwrap().iter().any(|p| p == "CPUExecutionProvider"), "{runtime}");
    assert!(report["machine"]["threads"].as_u64() > Some(0), "{report}");
    assert_eq!(report["pool"]["rows"], 4_213);
    let described = report["model"].to_string();
    assert!(described.contains("256"), "{described}");

    let people = run(&["doctor", "--model", model(), "--pool", pool]).with(0).stdout;
    for part in ["onnx_runtime", "CPUExecutionProvider", "rows", "4213"] {
        assert!(people.contains(part), "no {part:?} in {people}");
    }
}

#[test]
fn without_a_library_it_says_what_to_install_or_set_and_fetches_nothing() {
    let empty = tempfile::tempdir().unwrap();
    let bare = |more: &[&str]| {
        let mut command = program();
        // No Python and no package client in PATH, an empty cache: what is left is the system's library path.
        command.env_remove("ORT_DYLIB_PATH").env("ANCHORITE_CACHE", empty.path()).env("PATH", empty.path());
        finish(command.args(more))
    };
    let ended = bare(&["doctor", "--json", "--offline"]);
    let report = ended.json();
    let runtime = &report["machine"]["onnx_runtime"];
    if runtime["origin"] == "system" {
        return; // This machine has the library where every program finds it.
    }
    let ended = ended.with(1);
    let problem = runtime["problem"].as_str().unwrap();
    for part in ["ONNX Runtime", "ORT_DYLIB_PATH", "ANCHORITE_OFFLINE"] {
        assert!(problem.contains(part), "no {part:?} in {problem}");
    }
    assert!(!runtime["tried"].as_array().unwrap().is_empty(), "{runtime}");
    assert_eq!(report["machine"]["fetch"]["offline"], true);
    assert!(ended.stderr.contains("1 problem"), "{}", ended.stderr);

    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing was fetched");

    // A command that needs the library says the same, and online it says which client to install.
    let search = ["search", "--pool", &demo().pool, "--model", model(), "--text", "a"];
    bare(&[&search[..], &["--offline"]].concat()).with(1).says(&["ORT_DYLIB_PATH", "ANCHORITE_OFFLINE"]);
    bare(&search).with(1).says(&["install", "pip", "ORT_DYLIB_PATH"]);
}

#[test]
fn a_library_that_was_named_and_cannot_be_used_is_a_problem() {
    let no_library = text(crate::program::data().join("README.md"));
    let ended = run(&["doctor", "--json", "--ort-library", &no_library]).with(1);
    let problem = ended.json()["machine"]["onnx_runtime"]["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("README.md") && problem.contains("not a shared library"), "{problem}");
}

#[test]
fn a_pool_of_another_model_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let other = another_model(folder.path());
    let ended = run(&["doctor", "--json", "--model", &other, "--pool", &demo().pool]).with(1).says(&["1 problem found"]);
    let problem = ended.json()["model_and_pool"]["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("built by encoder"), "{problem}");
}

#[test]
fn models_and_pools_that_do_not_open_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = text(folder.path().join("nowhere"));
    let ended = run(&["doctor", "--json", "--model", &nowhere, "--pool", &nowhere]).with(1).says(&["2 problems"]);
    let report = ended.json();
    for part in ["model", "pool"] {
        assert!(report[part]["problem"].as_str().unwrap().contains("nowhere"), "{report}");
    }
}

#[test]
fn a_model_is_checked_for_serving_and_training() {
    let checked = run(&["model", "check", model(), "--batch", "4", "--json"]).with(0).json();
    assert_eq!(checked["served"]["dim"], 256, "{checked}");
    let towers = checked["trained"].as_array().unwrap();
    assert_eq!(towers.len(), 2);
    for tower in towers {
        assert!(tower["unknown"].as_array().unwrap().is_empty() && tower["problem"].is_null(), "{tower}");
        // Weights that the file stores as float16 are counted as what training moves.
        assert!(tower["estimate"]["trained"].as_u64().unwrap() > 100_000, "{tower}");
    }
    let told = run(&["model", "check", model(), "--batch", "4"]).with(0).stdout;
    assert!(told.contains("can be served: yes") && told.matches("can be trained: yes").count() == 2, "{told}");
}
