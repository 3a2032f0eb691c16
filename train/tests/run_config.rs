//! Promise: a run file is understood to the last field, or refused by name; every field can be set from outside.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;

use anchorite_train::runner::{RunConfig, RunError, TaskText};

const LEAST: &str = "model = \"m\"\noutput = \"o\"\n[task]\nsources = [\"a.parquet\"]\n";

fn read(text: &str, set: &[&str]) -> Result<RunConfig, RunError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, text).unwrap();
    RunConfig::read(&path, &set.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
}

#[test]
fn what_is_printed_with_every_default_is_read_back_the_same() {
    let more = format!(
        "{LEAST}text = \"caption\"\n[anchors]\npool = \"p\"\n[anchors.policy.select]\nk = 8\n[augment]\n[captions]\ncolumn = \"c\"\n"
    );
    let config = read(&more, &[]).unwrap();
    assert_eq!(config.task.text, TaskText::Caption);
    let printed = config.to_toml();
    for field in ["seed = 0", "rate = 1e-5", "scale = [0.9, 1.0]", "timeout_s = 60.0", "keep = 2"] {
        assert!(
            printed.replace("0.00001", "1e-5").replace("[\n    0.9,\n    1.0,\n]", "[0.9, 1.0]").contains(field),
            "{field}: {printed}"
        );
    }
    assert_eq!(read(&printed, &[]).unwrap(), config);
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let error = read(&format!("{LEAST}lable = \"x\"\n"), &[]).unwrap_err().to_string();
    assert!(error.contains("lable") && error.contains("line 5"), "{error}");
    let error = read(LEAST, &["schedule.rat=1"]).unwrap_err().to_string();
    assert!(error.contains("--set schedule.rat=1") && error.contains("unknown field `rat`"), "{error}");
}

#[test]
fn every_kind_of_value_can_be_set() {
    let set = [
        "schedule.rate=3e-4",
        "steps=7",
        "output=runs/b",
        "augment.scale=[0.5, 1.0]",
        "log.tensorboard=false",
        "task.label=class",
    ];
    let config = read(LEAST, &set).unwrap();
    assert_eq!((config.schedule.rate, config.steps, config.output.display().to_string()), (3e-4, Some(7), "runs/b".to_owned()));
    assert_eq!((config.augment.unwrap().scale, config.log.tensorboard, config.task.label.as_str()), ((0.5, 1.0), false, "class"));
    let error = read(LEAST, &["steps"]).unwrap_err().to_string();
    assert!(error.contains("KEY=VALUE"), "{error}");
    let error = read(LEAST, &["model.x=1"]).unwrap_err().to_string();
    assert!(error.contains("no table"), "{error}");
}

#[test]
fn senseless_values_are_refused_by_field() {
    let cases = [
        ("batch=1", "batch"),
        ("accumulate=0", "accumulate"),
        ("schedule.rate=-1", "schedule.rate"),
        ("schedule.rate=nan", "schedule.rate"),
        ("task.weight=inf", "task.weight"),
        ("augment.scale=[0.0, 1.0]", "augment.scale"),
        ("augment.ratio=[2.0, 1.0]", "augment.ratio"),
        ("captions.weight=1", "captions"),
        ("captions.file=x.csv", "task.key"),
        ("anchors.manifest=m", "anchors"),
        ("anchors.timeout_s=0", "anchors"),
        ("checkpoint.keep=0", "checkpoint"),
        ("task.sources=[]", "task.sources"),
        ("model=", "model"),
    ];
    for (set, field) in cases {
        let error = read(LEAST, &[set]).unwrap_err().to_string();
        assert!(error.contains(field), "{set}: {error}");
    }
}
