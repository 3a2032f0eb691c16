//! Promise: the first command works, its answers make sense, and every way of asking gives the same.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{
    datasets::samples,
    program::{demo, model, run, text},
};

const PAIRS: u64 = 4_213;
const PIZZA: &str = "a slice of pizza";

fn captions(rows: &Json) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|r| r["caption"].as_str().unwrap().to_lowercase()).collect()
}

fn ids(rows: &[Json]) -> Vec<u64> {
    rows.iter().map(|r| r["id"].as_u64().unwrap()).collect()
}

/// The same pairs in the same order with the same scores, to the last digits that JSON may shift.
#[track_caller]
fn assert_same(one: &Json, other: &Json) {
    let (one, other) = (one.as_array().unwrap(), other.as_array().unwrap());
    assert_eq!(one.len(), other.len());
    for (a, b) in one.iter().zip(other) {
        for part in ["id", "key", "caption", "fields"] {
            assert_eq!(a[part], b[part]);
        }
        assert!((a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn the_first_start_takes_every_pair_and_answers_sensibly() {
    let checked = &demo().checked;
    assert_eq!(checked["rows"], PAIRS);
    let [recall, chance] = ["recall_at_10", "chance"].map(|name| checked[name].as_f64().unwrap());
    assert!((chance - 10.0 / PAIRS as f64).abs() < 1e-9);
    assert!(recall >= 20.0 * chance, "recall {recall}, chance {chance}");
    assert_eq!(checked["held_out"], 440);

    let questions = checked["questions"].as_array().unwrap();
    for (question, word) in [(PIZZA, "pizza"), ("a red apple", "apple"), ("a comfortable chair", "chair")] {
        let asked = questions.iter().find(|q| q["question"] == question).unwrap_or_else(|| panic!("{question} was not asked"));
        let found = captions(&asked["answers"]);
        assert!(found.len() == 5 && found.iter().any(|c| c.contains(word)), "{question}: {found:?}");
    }
    let stages = checked["stages"].as_array().unwrap();
    assert!(stages.len() >= 5 && stages.iter().all(|s| s["seconds"].is_f64() && s["stage"].is_string()), "{stages:?}");
}

#[test]
fn a_second_start_ingests_nothing() {
    let before = run(&["pool", "info", &demo().pool, "--json"]).with(0).json();
    let again = run(&["demo", "--check", "--pool", &demo().pool]).with(0).says(&["0 pairs accepted, 4213 there already"]);
    assert!(again.stdout.contains("recall@10 of 440 held-out captions against 4213 pictures"), "{}", again.stdout);
    assert!(again.stdout.contains(&format!("\n{PIZZA}\n  1  0.")), "a table for people: {}", again.stdout);
    assert_eq!(run(&["pool", "info", &demo().pool, "--json"]).with(0).json(), before);
}

#[test]
fn info_and_verify_describe_the_pool() {
    let info = run(&["pool", "info", &demo().pool, "--json"]).with(0).json();
    assert_eq!((&info["rows"], &info["image_rows"], &info["text_rows"]), (&json!(PAIRS), &json!(PAIRS), &json!(PAIRS)));
    assert_eq!(info["dim"], 256);
    assert!(info["graphs"].as_array().unwrap().iter().all(|g| g["nodes"].as_u64() > Some(0)), "{info}");
    let sound = run(&["pool", "verify", &demo().pool, "--json"]).with(0).json();
    assert_eq!((&sound["sound"], &sound["damage"]), (&json!(true), &json!([])));
    let people = run(&["pool", "info", &demo().pool]).with(0);
    assert!(people.stdout.contains("rows        4213"), "{}", people.stdout);
    assert!(run(&["pool", "verify", &demo().pool]).with(0).stdout.contains("generation"));
}

#[test]
fn damage_is_found_by_verify_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("damaged.pool");
    copy_folder(demo().pool.as_ref(), &copy);
    let largest = files(&copy).into_iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let ended = run(&["pool", "verify", &text(&copy), "--json"]).with(1).says(&["is damaged in 1 place"]);
    let name = largest.file_name().unwrap().to_str().unwrap();
    assert!(ended.json()["damage"][0].as_str().unwrap().contains(name), "{}", ended.stdout);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_pool_and_a_server_give_the_same_answers() {
    let server = demo().serve();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a picture.bin");
    let picture = samples(40).remove(39);
    fs::write(&file, &picture.picture).unwrap();
    let file = text(&file);
    let with_p = r#"{"and": [{"prefix": {"field": "caption", "value": "p"}}, {"not": {"is_null": {"field": "fields.source"}}}]}"#;
    let questions: [&[&str]; 5] = [
        &["--text", PIZZA],
        &["--text", PIZZA, "--side", "text", "-k", "3"],
        &["--text", PIZZA, "--filter", with_p],
        &["--image", &file],
        &["--image", &file, "--effort", "exact"],
    ];
    for question in questions {
        let of_pool = [&["search", "--json", "--pool", &demo().pool, "--model", model()], question].concat();
        let of_server = [&["search", "--json", "--server", &server.url], question].concat();
        let (pool, server) = (run(&of_pool).with(0).json(), run(&of_server).with(0).json());
        assert_same(&pool, &server);
        let k = if question.contains(&"3") { 3 } else { 10 };
        assert_eq!(pool.as_array().unwrap().len(), k);
        match question[0] {
            "--text" if question.contains(&with_p) => assert!(captions(&pool).iter().all(|c| c.starts_with('p')), "{pool}"),
            "--text" => assert!(captions(&pool).iter().take(5).any(|c| c.contains("pizza")), "{pool}"),
            // A picture finds itself first.
            _ => {
                assert_eq!(pool[0]["caption"], picture.caption.as_str());
                assert!(pool[0]["score"].as_f64().unwrap() > 0.999, "{pool}");
            }
        }
    }
    let key = run(&["search", "--json", "--server", &server.url, "--text", PIZZA]).with(0).json()[0]["key"].clone();
    let near = run(&["search", "--pool", &demo().pool, "--key", key.as_str().unwrap(), "--model", model()]).with(0);
    assert_eq!(near.stdout.lines().count(), 10, "a table, one pair a line: {}", near.stdout);
    server.stop().with(0);
}

#[test]
fn the_graph_finds_what_comparing_every_row_finds() {
    const QUESTIONS: u64 = 400;
    let server = demo().serve();
    let mut found = 0;
    // Spread over the pool, 40 a request.
    let rows: Vec<u64> = (0..QUESTIONS).map(|i| i * (PAIRS / QUESTIONS)).collect();
    for part in rows.chunks(40) {
        let queries: Vec<Json> = part.iter().map(|row| json!({ "id": row })).collect();
        let ask = |effort: &str| {
            let reply = server.post("/v1/search", &json!({ "queries": queries, "from": "image", "k": 10, "effort": effort }));
            assert_eq!(reply.status, 200, "{}", reply.text());
            let results = reply.json()["results"].as_array().unwrap().clone();
            results.iter().map(|r| ids(r["hits"].as_array().unwrap())).collect::<Vec<_>>()
        };
        for (graph, exact) in ask("normal").iter().zip(ask("exact")) {
            assert_eq!((graph.len(), exact.len()), (10, 10));
            found += exact.iter().filter(|id| graph.contains(id)).count() as u64;
        }
    }
    let recall = found as f64 / (10 * QUESTIONS) as f64;
    assert!(recall >= 0.98, "recall@10 {recall}");
}
