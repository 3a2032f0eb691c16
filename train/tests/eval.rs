//! Promise: an evaluation is what NumPy and PyTorch compute from the same embeddings, to 1e-6, intervals and probe included; what cannot
//! be read is counted and named; a wrong configuration says which field.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs::File, path::Path, sync::Arc};

use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};
use anchorite_index::Cancel;
use anchorite_train::eval::{Cache, EvalConfig, EvalError, EvalLimits, Evaluation, Evaluator, Metric, ModelUnderTest};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

/// The golden model: picture `i<n>`, prompt `c<class> t<template>`, caption `x<n>` have the vectors of the file.
struct Golden<'a>(&'a Value);

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

impl Encode for Golden<'_> {
    fn dim(&self) -> usize {
        self.0["images"][0].as_array().unwrap().len()
    }

    fn fingerprint(&self) -> &str {
        self.0["name"].as_str().unwrap()
    }

    fn name(&self) -> &str {
        self.fingerprint()
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        match std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix('i')) {
            Some(text) => Ok(Pixels { values: vec![number(text) as f32], height: 1, width: 1 }),
            None => Err(ImageError::UnknownFormat { head: String::new() }),
        }
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        let ids = match text.strip_prefix('x') {
            Some(caption) => vec![number(caption) as u32],
            None => {
                let (class, template) = text.split_once(' ').unwrap();
                [class, template].map(|word| number(word.trim_start_matches(char::is_alphabetic)) as u32).to_vec()
            }
        };
        Ok(Tokens { ids, truncated: false })
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        let one = |p: &Pixels| Embedding::normalized(vector(&self.0["images"][p.values[0] as usize])).unwrap();
        Ok(batch.iter().map(one).collect())
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        let one = |t: &Tokens| match t.ids[..] {
            [caption] => vector(&self.0["captions"][caption as usize]),
            [class, template] => vector(&self.0["prompts"][class as usize][template as usize]),
            _ => unreachable!(),
        };
        Ok(batch.iter().map(|t| Embedding::normalized(one(t)).unwrap()).collect())
    }
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn pictures(images: &[usize]) -> ArrayRef {
    Arc::new(images.iter().map(|i| Some(format!("i{i}").into_bytes())).collect::<BinaryArray>())
}

fn golden() -> Value {
    serde_json::from_str(include_str!("eval_golden/golden.json")).unwrap()
}

fn integers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

/// The golden's sets as parquet files in `folder`, and its configuration.
fn prepare(golden: &Value, folder: &Path) -> EvalConfig {
    let (labels, owner, subset) = (integers(&golden["labels"]), integers(&golden["owner"]), integers(&golden["subset"]));
    let labelled = |name: &str, rows: &[usize], label: &dyn Fn(usize) -> i64| {
        let labels: Int64Array = rows.iter().map(|&i| label(i)).collect();
        write(&folder.join(name), vec![("image", pictures(rows)), ("label", Arc::new(labels))]);
    };
    let all: Vec<usize> = (0..labels.len()).collect();
    labelled("all.parquet", &all, &|i| labels[i] as i64);
    let some: Vec<usize> = all.iter().copied().filter(|&i| subset.contains(&labels[i])).collect();
    // Labels count the subset here.
    labelled("subset.parquet", &some, &|i| subset.iter().position(|&c| c == labels[i]).unwrap() as i64);
    // Labels of the map are its own: 100, 101, 102; others are left out.
    let map: Vec<Vec<usize>> = golden["map"].as_array().unwrap().iter().map(integers).collect();
    labelled("mapped.parquet", &all, &|i| map.iter().position(|m| m.contains(&labels[i])).map_or(7, |p| 100 + p as i64));
    labelled("train.parquet", &all[..40], &|i| labels[i] as i64);
    labelled("test.parquet", &all[40..], &|i| labels[i] as i64);
    let captions: StringArray = (0..owner.len()).map(|c| Some(format!("x{c}"))).collect();
    write(&folder.join("captions.parquet"), vec![("image", pictures(&owner)), ("caption", Arc::new(captions))]);
    let map_file: serde_json::Map<String, Value> =
        map.iter().enumerate().map(|(p, m)| ((100 + p).to_string(), m.clone().into())).collect();
    std::fs::write(folder.join("map.json"), Value::Object(map_file).to_string()).unwrap();
    let names: Vec<String> = (0..9).map(|c| format!("\"c{c}\"")).collect();
    let text = format!(
        r#"
        seed = {}
        bootstrap = {}
        confidence = {}
        [classes.toy]
        names = [{}]
        templates = ["{{}} t0", "{{}} t1", "{{}} t2"]
        [[sets]]
        name = "all"
        sources = ["all.parquet"]
        classes = "toy"
        [[sets]]
        name = "subset"
        group = "group"
        sources = ["subset.parquet"]
        classes = "toy"
        subset = {:?}
        labels = "subset"
        [[sets]]
        name = "mapped"
        group = "group"
        sources = ["mapped.parquet"]
        classes = "toy"
        map = "map.json"
        outside = "drop"
        [[sets]]
        name = "captions"
        sources = ["captions.parquet"]
        [[sets]]
        name = "train"
        task = "features"
        sources = ["train.parquet"]
        classes = "toy"
        [[sets]]
        name = "test"
        task = "features"
        sources = ["test.parquet"]
        classes = "toy"
        [[probes]]
        name = "probe"
        train = "train"
        test = ["test"]
        l2 = [1e-2]
        "#,
        golden["seed"],
        golden["resamples"],
        golden["confidence"],
        names.join(", "),
        subset,
    );
    EvalConfig::from_toml(&text, folder).unwrap()
}

fn evaluate(
    golden: &Value,
    config: EvalConfig,
    cache: &Path,
) -> (Evaluation, Evaluator, Vec<anchorite_train::eval::ModelOutcome>) {
    let evaluator = Evaluator::new(config, EvalLimits { block: 7, encode_batch: 3, ..EvalLimits::default() }).unwrap();
    let outcomes: Vec<_> = golden["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            let encoder = Golden(model);
            let scale = golden["scale"].as_f64().unwrap();
            let model = ModelUnderTest { name: encoder.name(), encoder: &encoder, scale, scale_assumed: false, heads: None };
            let mut cache = Cache::open(cache, encoder.fingerprint(), encoder.dim()).unwrap();
            evaluator.run(model, &mut cache, &Cancel::default(), &|_, _| {}).unwrap()
        })
        .collect();
    (evaluator.finish(&outcomes).unwrap(), evaluator, outcomes)
}

#[track_caller]
fn close(what: &str, found: Option<f64>, expected: &Value) {
    let (found, expected) = (found.unwrap_or(f64::NAN), expected.as_f64().unwrap());
    assert!((found - expected).abs() <= 1e-6, "{what}: {found} is not {expected}");
}

/// As expected, or none for a figure that resampling moves one way.
fn ends(what: &str, metric: Metric, found: [Option<f64>; 2], expected: [&Value; 2]) {
    for (found, expected) in found.into_iter().zip(expected) {
        match metric {
            Metric::MacroF1 | Metric::Ece => assert_eq!(found, None, "{what} has no interval"),
            _ => close(what, found, expected),
        }
    }
}

fn metric(name: &str) -> Metric {
    serde_json::from_value(name.into()).unwrap()
}

#[test]
fn every_figure_interval_difference_and_probe_is_what_numpy_and_pytorch_compute() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let config = prepare(&golden, folder.path());
    let (evaluation, ..) = evaluate(&golden, config, &folder.path().join("cache"));
    let mut compared = 0;
    for model in golden["models"].as_array().unwrap() {
        let name = model["name"].as_str().unwrap();
        let sets = model["sets"].as_object().unwrap();
        for (set, figures) in sets {
            for (key, expected) in figures.as_object().unwrap() {
                let what = format!("{name} {set} {key}");
                let found = evaluation.figure(name, set, metric(key)).unwrap_or_else(|| panic!("no {what}"));
                close(&what, Some(found.value), &expected[0]);
                ends(&what, metric(key), [found.low, found.high], [&expected[1], &expected[2]]);
                compared += 1;
            }
        }
        for (key, expected) in model["average"].as_object().unwrap() {
            let found = evaluation.average(name, "group", metric(key)).unwrap();
            close(key, Some(found.value), &expected[0]);
            ends(key, metric(key), [found.low, found.high], [&expected[1], &expected[2]]);
        }
        let probe = evaluation.probes.iter().find(|p| p.model == name).unwrap();
        close("probe loss", Some(probe.loss), &model["probe"]["loss"]);
        for (key, found) in &probe.figures {
            let key = serde_json::to_value(key).unwrap();
            close("probe figure", Some(found.value), &model["probe"][key.as_str().unwrap()]);
        }
    }
    assert_eq!(compared, 2 * (5 + 4 + 4 + 6), "sets or figures are missing");
    for (key, expected) in golden["differences"].as_object().unwrap() {
        let (on, name) = key.split_once('/').unwrap();
        let found = evaluation.differences.iter().find(|d| d.on == on && d.metric == metric(name)).unwrap();
        assert_eq!((found.model.as_str(), found.baseline.as_str(), found.group), ("tuned", "base", on == "group"));
        close(key, Some(found.estimate.value), &expected[0]);
        ends(key, metric(name), [found.estimate.low, found.estimate.high], [&expected[1], &expected[2]]);
        if metric(name).has_interval() {
            close(key, found.p, &expected[3]);
        }
    }
    let mapped = evaluation.sets.iter().find(|s| s.name == "mapped").unwrap();
    assert!(mapped.outside > 0 && mapped.images + mapped.outside == 60);
}

#[test]
fn a_second_run_encodes_nothing_and_gives_the_same_bytes() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let config = prepare(&golden, folder.path());
    let cache = folder.path().join("cache");
    let (first, ..) = evaluate(&golden, config.clone(), &cache);
    let sizes = || {
        let mut sizes: Vec<u64> = std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    };
    let before = sizes();
    let (second, evaluator, outcomes) = evaluate(&golden, config, &cache);
    assert_eq!(sizes(), before, "something was encoded again");
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap());
    assert!(first.to_markdown().contains("| base |"), "{}", first.to_markdown());
    let predictions = folder.path().join("predictions.parquet");
    evaluator.write_predictions(&outcomes, &predictions).unwrap();
    let rows: usize = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(&predictions).unwrap())
        .unwrap()
        .build()
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    let labelled: u64 = first.sets.iter().filter(|s| first.lead(&s.name) == Some(Metric::Top1)).map(|s| s.images).sum();
    assert_eq!(rows as u64, 2 * labelled);
}

#[test]
fn a_cache_with_damage_makes_the_damaged_again_and_one_of_another_model_is_refused() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let config = prepare(&golden, folder.path());
    let cache = folder.path().join("cache");
    let (first, ..) = evaluate(&golden, config.clone(), &cache);
    for entry in std::fs::read_dir(&cache).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        bytes.truncate(bytes.len() - 5);
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(Cache::open(&cache, "base", 8).unwrap().damaged(), 1);
    let (second, ..) = evaluate(&golden, config, &cache);
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap());
    let other = Cache::open(&cache, "base", 9).unwrap_err();
    assert!(other.to_string().contains("another folder"), "{other}");
}

#[test]
fn pictures_that_cannot_be_read_are_counted_and_named() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let mut config = prepare(&golden, folder.path());
    let pictures: BinaryArray = [Some(&b"i3"[..]), Some(b"no picture"), None, Some(b"i4")].into_iter().collect();
    let labels: Int64Array = vec![0, 1, 2, 3].into();
    write(&folder.path().join("bad.parquet"), vec![("image", Arc::new(pictures)), ("label", Arc::new(labels))]);
    config.sets.retain(|s| s.name == "all");
    config.probes.clear();
    config.sets[0].sources = vec!["bad.parquet".into()];
    let (evaluation, ..) = evaluate(&golden, config, &folder.path().join("cache"));
    let set = &evaluation.sets[0];
    assert_eq!((set.images, set.unreadable), (2, 2));
    let mut codes: Vec<(&str, bool)> =
        set.unreadable_rows.iter().map(|u| (u.code.as_str(), u.row.ends_with("bad.parquet#1"))).collect();
    codes.sort_unstable();
    assert_eq!(codes, [("image_unknown_format", true), ("no_image", false)]);
    assert!(evaluation.to_markdown().contains("Not readable in all: 2"));
}

#[test]
fn a_set_may_be_the_rows_of_a_file_that_have_a_value() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let mut config = prepare(&golden, folder.path());
    let pictures: BinaryArray = ["i3", "no picture", "i4", "i5"].iter().map(|p| Some(p.as_bytes())).collect();
    let labels: Int64Array = vec![0, 1, 2, 3].into();
    let splits: Int64Array = vec![1, 2, 1, 3].into();
    let columns: Vec<(&str, ArrayRef)> =
        vec![("image", Arc::new(pictures)), ("label", Arc::new(labels)), ("split", Arc::new(splits))];
    write(&folder.path().join("split.parquet"), columns);
    config.sets.retain(|s| s.name == "all");
    config.probes.clear();
    config.sets[0].sources = vec!["split.parquet".into()];
    config.sets[0].only.insert("split".into(), vec!["1".into(), "3".into()]);
    let plan = Evaluator::new(config.clone(), EvalLimits::default()).unwrap().plan(&Cancel::default()).unwrap();
    assert_eq!((plan.sets[0].looked_at, plan.sets[0].usable), (3, 3));
    let (evaluation, ..) = evaluate(&golden, config.clone(), &folder.path().join("cache"));
    assert_eq!((evaluation.sets[0].images, evaluation.sets[0].unreadable), (3, 0));
    config.sets[0].only.insert("split".into(), vec!["4".into()]);
    let evaluator = Evaluator::new(config, EvalLimits::default()).unwrap();
    let encoder = Golden(&golden["models"][0]);
    let model = ModelUnderTest { name: "m", encoder: &encoder, scale: 1.0, scale_assumed: true, heads: None };
    let error = evaluator.run(model, &mut Cache::in_memory(), &Cancel::default(), &|_, _| {}).unwrap_err();
    assert!(matches!(error, EvalError::Empty { .. }), "{error}");
}

#[test]
fn a_label_that_is_not_evaluated_is_an_error_that_names_row_and_remedy() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let mut config = prepare(&golden, folder.path());
    config.sets.iter_mut().for_each(|s| s.outside = anchorite_train::eval::OutsideRule::Refuse);
    let evaluator = Evaluator::new(config, EvalLimits::default()).unwrap();
    let encoder = Golden(&golden["models"][0]);
    let model = ModelUnderTest { name: "m", encoder: &encoder, scale: 1.0, scale_assumed: true, heads: None };
    let error = evaluator.run(model, &mut Cache::in_memory(), &Cancel::default(), &|_, _| {}).unwrap_err();
    assert!(matches!(&error, EvalError::Label { set, .. } if set == "mapped"), "{error}");
    assert!(error.to_string().contains("mapped.parquet#") && error.to_string().contains("outside"), "{error}");
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = evaluator.run(model, &mut Cache::in_memory(), &cancel, &|_, _| {}).unwrap_err();
    assert!(matches!(stopped, EvalError::Cancelled), "{stopped}");
}

#[test]
fn a_dry_run_looks_at_every_set_and_encodes_nothing() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let config = prepare(&golden, folder.path());
    let plan = Evaluator::new(config, EvalLimits::default()).unwrap().plan(&Cancel::default()).unwrap();
    assert_eq!(plan.prompts, 27);
    let mapped = plan.sets.iter().find(|s| s.name == "mapped").unwrap();
    assert!(mapped.looked_at == 32 && mapped.usable < 32 && mapped.labels == 3);
    assert!(mapped.problem.as_deref().is_some_and(|p| p.contains("not evaluated")));
}

#[test]
fn a_wrong_configuration_names_the_field() {
    let refused = |text: &str| {
        let config = EvalConfig::from_toml(text, ".");
        config.and_then(|c| Evaluator::new(c, EvalLimits::default())).expect_err(text).to_string()
    };
    let list = "[classes.a]\nnames = [\"x\", \"y\", \"y\"]\n";
    let set = "[[sets]]\nname = \"s\"\nsources = [\"s.parquet\"]\n";
    for (text, part) in [
        (String::new(), "sets"),
        (format!("colour = 1\n{set}"), "colour"),
        (format!("{set}classes = \"b\"\n{list}"), "sets.s.classes"),
        (format!("{set}classes = \"a\"\nsubset = [3]\n{list}"), "sets.s.subset"),
        (format!("{set}classes = \"a\"\nsubset = [\"y\"]\n{list}"), "give the number"),
        (format!("{set}classes = \"a\"\nsubset = [0, 0]\n{list}"), "twice"),
        (format!("{set}classes = \"a\"\nlabels = \"subset\"\n{list}"), "sets.s.labels"),
        (format!("{set}classes = \"a\"\nmap = \"none.json\"\n{list}"), "none.json"),
        (format!("{set}{set}"), "two are called"),
        (format!("confidence = 2.0\n{set}"), "confidence"),
        (format!("{set}subset = [1]\n"), "sets.s.subset"),
        (format!("{set}classes = \"a\"\n{list}[[probes]]\nname = \"p\"\ntrain = \"t\"\ntest = [\"s\"]\n"), "probes.p.train"),
        (
            format!("{set}classes = \"a\"\n{list}[[probes]]\nname = \"p\"\ntrain = \"s\"\ntest = [\"s\"]\nl2 = [1.0, 2.0]\n"),
            "probes.p.validate",
        ),
    ] {
        let message = refused(&text);
        assert!(message.contains(part), "{part:?} not in {message:?}");
    }
}

#[test]
fn the_documented_configurations_are_configurations() {
    let text = include_str!("../../docs/EVALUATION.md");
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        EvalConfig::from_toml(block, ".").unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
}
