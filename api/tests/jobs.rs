//! Promise: a pool is filled while it is served, from nowhere but where the operator allows, and a job outlives its server.

mod support;

use std::{fs, os::unix::fs::symlink, time::Duration};

use anchorite_api::{Drained, JobsError, Limits, Options};
use serde_json::{Value as Json, json};
use support::{
    TestServer,
    filling::{Ground, PARQUET},
};

/// The captions that words find, of any pair.
fn captions(server: &TestServer, words: &str) -> Vec<String> {
    let found = server.search(&json!({"text": words, "side": "text", "k": 30, "include": ["caption"]})).ok();
    let hits = found["results"][0]["hits"].as_array().expect("hits").clone();
    hits.iter().map(|hit| hit["caption"].as_str().expect("a caption").to_owned()).collect()
}

#[test]
fn a_job_fills_the_pool_and_the_server_answers_with_it() {
    let ground = Ground::default();
    let server = ground.serve(Limits::default());
    let before = server.get("/v1/pools/fruit").ok();
    let id = server.ingest(&json!({"sources": ["boats"]}));
    let job = server.job_over(&id);
    assert_eq!((&job["state"], &job["error"]), (&json!("done"), &json!(null)), "{job}");
    let report = &job["report"];
    assert_eq!((&report["rows"], &report["accepted"], &report["rejected"]), (&json!(3), &json!(3), &json!(0)), "{report}");
    assert_eq!((&job["progress"]["rows_done"], &job["progress"]["rows_total"]), (&json!(3), &json!(3)), "{job}");
    assert!(job["progress"]["bottleneck"].is_string() && job["progress"]["eta_seconds"].is_number(), "{job}");
    let after = server.get("/v1/pools/fruit").ok();
    assert_eq!(after["rows"].as_u64(), before["rows"].as_u64().map(|rows| rows + 3), "{after}");
    assert_eq!(after["generation"], report["generation"]);
    assert_eq!(captions(&server, "a boat number two")[0], "a boat number two");
    let summary = fs::read(ground.folder.path().join("fruit.ingest.json")).expect("a summary beside the pool");
    let summary: Json = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!((&summary["report"]["accepted"], &summary["sources"]), (&json!(3), &json!(["boats"])), "{summary}");

    let again = server.job_over(&server.ingest(&json!({"sources": ["boats"]})));
    assert_eq!((&again["state"], &again["report"]["already_present"]), (&json!("done"), &json!(3)), "{again}");
    let jobs = server.get("/v1/jobs").ok();
    assert_eq!((jobs["jobs"].as_array().map(Vec::len), &jobs["jobs"][1]["id"]), (Some(2), &json!(id)), "newest first: {jobs}");
}

#[test]
fn an_uploaded_parquet_file_is_ingested_once_however_often_it_is_sent() {
    let ground = Ground::default();
    let server = ground.serve(Limits::default());
    let sent = server.upload(PARQUET, "");
    assert_eq!(sent.status, 202, "{}", sent.text());
    let first = server.job_over(sent.json()["id"].as_str().expect("an id"));
    let accepted = first["report"]["accepted"].as_u64().unwrap_or_default();
    assert!(first["state"] == "done" && accepted > 0, "{first}");
    let options = "?options=%7B%22no_pictures%22%3Atrue%7D";
    let second = server.job_over(server.upload(PARQUET, options).json()["id"].as_str().expect("an id"));
    assert_eq!((&second["request"]["no_pictures"], &second["report"]["accepted"]), (&json!(true), &json!(0)), "{second}");
    let left: Vec<_> = fs::read_dir(ground.jobs().join("uploads")).expect("a folder").collect();
    assert!(left.is_empty(), "uploads go when they are ingested: {left:?}");

    for body in [b"".as_slice(), b"PAR1", &PARQUET[..PARQUET.len() - 1], &PARQUET[1..]] {
        let reply = server.upload(body, "");
        assert_eq!((reply.status, reply.code().as_str()), (422, "not_parquet"), "{}", reply.text());
    }
    let narrow = Ground::default();
    let narrow = narrow.serve(Limits { upload_bytes: 100, ..Limits::default() });
    assert_eq!(narrow.upload(PARQUET, "").code(), "body_too_large");
}

#[test]
fn a_parquet_file_that_is_damaged_inside_fails_its_job_and_says_why() {
    let ground = Ground::default();
    let server = ground.serve(Limits::default());
    let mut damaged = PARQUET.to_vec();
    let footer = damaged.len() - 200;
    damaged[footer..footer + 100].fill(0xff);
    let job = server.job_over(server.upload(&damaged, "").json()["id"].as_str().expect("an id"));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("source")), "{job}");
    let message = job["error"]["message"].as_str().expect("words");
    assert!(message.contains("damaged") && !message.contains(&ground.folder.path().display().to_string()), "{message}");
}

#[test]
fn sources_lie_below_the_servers_folder_or_are_refused() {
    let ground = Ground::default();
    fs::write(ground.folder.path().join("secret.parquet"), PARQUET).expect("writes");
    ground.put("good.parquet", PARQUET);
    let below = ground.sources();
    symlink(ground.folder.path(), below.join("up")).expect("a link");
    symlink("../secret.parquet", below.join("link.parquet")).expect("a link");
    symlink("good.parquet", below.join("harmless.parquet")).expect("a link");
    fs::create_dir(below.join("nest")).expect("a folder");
    symlink("../../secret.parquet", below.join("nest/inner.parquet")).expect("a link");
    let server = ground.serve(Limits::default());
    let whole = ground.folder.path().join("secret.parquet").display().to_string();
    let bad = [
        "",
        "/",
        ".",
        "..",
        "../secret.parquet",
        "boats/../../secret.parquet",
        "./boats",
        "/etc/passwd",
        &whole,
        "up",
        "up/secret.parquet",
        "up/*.parquet",
        "link.parquet",
        "harmless.parquet",
        "nest",
        "{..,nest}/secret.parquet",
        "{up,nest}/*.parquet",
        "*/secret.parquet",
        "nest/*",
        "**/inner.parquet",
        "boats//x",
        "boats\\..\\..\\secret.parquet",
        "C:/x",
        "file:///etc/passwd",
        "https://x/y.parquet",
        "missing.parquet",
        "missing/*.tar",
        "boats\u{0}",
        "../sources [1]/boats",
        "~/x",
        "%2e%2e/secret.parquet",
        "proc/self/root",
    ];
    for source in bad {
        let reply = server.post("/v1/pools/fruit/ingest", json!({"sources": [source]}).to_string());
        assert_eq!((reply.status, reply.code().as_str()), (422, "ingest_sources"), "{source:?}: {}", reply.text());
        let told = reply.json()["error"]["message"].as_str().expect("words").replace(&whole, "");
        assert!(!told.contains(&below.display().to_string()), "{source:?}: {told}");
    }
    for good in ["good.parquet", "boats/", "good.*", "boats"] {
        let job = server.job_over(&server.ingest(&json!({"sources": [good]})));
        assert_eq!(job["state"], "done", "{good}: {job}");
    }
}

#[test]
fn a_source_that_becomes_a_link_after_it_was_looked_at_is_not_followed() {
    let ground = Ground::default();
    fs::write(ground.folder.path().join("secret.parquet"), PARQUET).expect("writes");
    ground.put("swapped.parquet", PARQUET);
    ground.gate.set(true);
    let server = ground.serve(Limits::default());
    let id = server.ingest(&json!({"sources": ["swapped.parquet"]}));
    server.job_when(&id, |job| job["state"] == "running");
    fs::remove_file(ground.sources().join("swapped.parquet")).expect("removes");
    symlink("../secret.parquet", ground.sources().join("swapped.parquet")).expect("a link");
    ground.gate.set(false);
    let job = server.job_over(&id);
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("source")), "{job}");
    assert_eq!(server.get("/v1/pools/fruit").ok()["rows"], 8, "nothing came in");
}

#[test]
fn jobs_wait_for_each_other_are_bounded_and_can_be_cancelled() {
    let ground = Ground::default();
    ground.gate.set(true);
    let server = ground.serve(Limits { max_jobs_waiting: 2, ..Limits::default() });
    let ask = json!({"sources": ["boats"]});
    let running = server.ingest(&ask);
    server.job_when(&running, |job| job["state"] == "running");
    let (second, third) = (server.ingest(&ask), server.ingest(&ask));
    let refused = server.post("/v1/pools/fruit/ingest", ask.to_string());
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "too_many_jobs", "1"));
    let cancelled = server.delete(&format!("/v1/jobs/{second}"));
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let ending = server.delete(&format!("/v1/jobs/{running}"));
    assert_eq!((ending.status, &ending.json()["cancelling"]), (202, &json!(true)));
    ground.gate.set(false);
    assert_eq!(server.job_over(&running)["state"], "cancelled");
    assert_eq!(server.job_over(&third)["state"], "done");
    let over = server.delete(&format!("/v1/jobs/{third}"));
    assert_eq!((over.status, over.code().as_str()), (409, "job_over"));
    assert_eq!(server.delete("/v1/jobs/nope").code(), "job_not_found");
}

#[test]
fn jobs_go_on_when_a_server_follows_another() {
    let ground = Ground::default();
    ground.gate.set(true);
    let server = ground.serve(Limits { drain: Duration::from_millis(50), ..Limits::default() });
    let first = server.ingest(&json!({"sources": ["boats"]}));
    server.job_when(&first, |job| job["state"] == "running");
    let uploaded = server.upload(PARQUET, "").json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.stop(), Drained::CutShort, "the job is at work");
    ground.gate.set(false);

    let next = ground.serve(Limits::default());
    let (first, uploaded) = (next.job_over(&first), next.job_over(&uploaded));
    assert_eq!((&first["state"], &first["report"]["rows"]), (&json!("done"), &json!(3)), "{first}");
    assert!(uploaded["state"] == "done" && uploaded["report"]["accepted"].as_u64() > Some(0), "{uploaded}");
    assert_eq!(first["starts"], 1, "a server that ends in order does not count: {first}");
}

#[test]
fn a_job_that_takes_its_server_down_is_not_started_for_ever() {
    let ground = Ground::default();
    let id = {
        let server = ground.serve(Limits::default());
        let id = server.ingest(&json!({"sources": ["boats"]}));
        server.job_over(&id);
        id
    };
    // As a server leaves it that is killed.
    let record = ground.jobs().join(format!("{id}.json"));
    let mut job: Json = serde_json::from_slice(&fs::read(&record).expect("reads")).expect("JSON");
    for (starts, state) in [(2, "done"), (3, "interrupted")] {
        (job["state"], job["starts"], job["report"]) = (json!("running"), json!(starts), json!(null));
        fs::write(&record, job.to_string()).expect("writes");
        let server = ground.serve(Limits::default());
        assert_eq!(server.job_over(&id)["state"], state);
    }
    fs::write(&record, "{}").expect("writes");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let refused = loop {
        match ground.app(Options::default()).map(drop) {
            Err(JobsError::InUse { .. }) if std::time::Instant::now() < deadline => std::thread::yield_now(),
            other => break other.expect_err("that is no record"),
        }
    };
    assert!(refused.to_string().contains("post the job again"), "{refused}");
}

#[test]
fn two_servers_do_not_share_jobs() {
    let ground = Ground::default();
    let _first = ground.serve(Limits::default());
    assert!(matches!(ground.app(Options::default()), Err(JobsError::InUse { .. })));
}

#[test]
fn a_pool_that_another_writer_holds_and_too_many_rejects_fail_a_job_by_name() {
    let ground = Ground::default();
    let server = ground.serve(Limits::default());
    let writer = ground.writer();
    let job = server.job_over(&server.ingest(&json!({"sources": ["boats"]})));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("pool_locked")), "{job}");
    drop(writer);
    ground.put("boats/four.jpg", b"no picture");
    ground.put("boats/four.txt", b"a boat number four");
    let job = server.job_over(&server.ingest(&json!({"sources": ["boats"], "max_rejects": 0})));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("too_many_rejects")), "{job}");
    assert_eq!(job["report"]["accepted"], 3, "the others are in: {job}");
    assert!(captions(&server, "a boat number three").contains(&"a boat number three".to_owned()));
}

#[test]
fn requests_that_ask_for_nonsense_are_refused_and_say_how_to_ask() {
    let ground = Ground::default();
    let server = ground.serve(Limits::default());
    let code = |body: &Json| server.post("/v1/pools/fruit/ingest", body.to_string()).code();
    assert_eq!(code(&json!({})), "ingest_sources");
    assert_eq!(code(&json!({"sources": ["boats"], "colour": "red"})), "json_fields");
    assert_eq!(code(&json!({"sources": ["boats"], "caption_scripts": ["Elvish"]})), "caption_scripts");
    assert_eq!(code(&json!({"sources": vec!["boats"; 1001]})), "ingest_sources");
    assert_eq!(server.upload(PARQUET, "?options=%7B%22sources%22%3A%5B%22boats%22%5D%7D").code(), "ingest_sources");
    assert_eq!(server.upload(PARQUET, "?options=x").code(), "json_syntax");
    assert_eq!(server.upload(PARQUET, "?pool=x").code(), "query_parameter");
    let plain = support::start(Limits::default());
    let refused = plain.post("/v1/pools/fruit/ingest", "{}");
    assert_eq!((refused.status, refused.code().as_str()), (409, "ingest_off"), "{}", refused.text());
    assert_eq!(plain.get("/v1/jobs").ok()["jobs"], json!([]));
}

#[test]
fn the_rows_that_a_job_left_out_are_read_in_pages() {
    let ground = Ground::default();
    for number in 0..5 {
        ground.put(&format!("boats/bad {number}.jpg"), b"no picture");
        ground.put(&format!("boats/bad {number}.txt"), b"words");
    }
    let server = ground.serve(Limits::default());
    let id = server.ingest(&json!({"sources": ["boats"]}));
    let job = server.job_over(&id);
    assert_eq!((&job["report"]["accepted"], &job["report"]["rejected"]), (&json!(3), &json!(5)), "{job}");
    let page = |rest: &str| server.get(&format!("/v1/jobs/{id}/rejects{rest}")).ok();
    let (first, second) = (page("?limit=3"), page("?from=3&limit=3"));
    assert_eq!((&first["next"], &second["next"]), (&json!(3), &json!(null)), "{first} {second}");
    let all = page("");
    let rows = all["rejects"].as_array().expect("rows");
    assert_eq!(rows.len(), 5, "{all}");
    assert!(rows.iter().all(|row| row["message"].as_str().is_some_and(|words| !words.is_empty())), "{all}");
    let joined: Vec<&Json> = [&first, &second].into_iter().flat_map(|page| page["rejects"].as_array().expect("rows")).collect();
    assert_eq!(joined, rows.iter().collect::<Vec<_>>(), "pages are pieces of one list");
    // Settled by the first job, and told by the second all the same; a job of other files tells nothing of these.
    let again = server.ingest(&json!({"sources": ["boats"]}));
    server.job_over(&again);
    assert_eq!(server.get(&format!("/v1/jobs/{again}/rejects")).ok()["rejects"], all["rejects"]);
    let other = server.upload(PARQUET, "").json()["id"].as_str().expect("an id").to_owned();
    server.job_over(&other);
    let others = server.get(&format!("/v1/jobs/{other}/rejects")).ok();
    assert!(!others.to_string().contains("boats"), "{others}");
    let refused = server.get(&format!("/v1/jobs/{id}/rejects?limit=10001"));
    assert_eq!((refused.status, refused.code().as_str()), (422, "query_parameter"), "{}", refused.text());
}

#[test]
fn a_faster_form_of_the_model_is_checked_on_the_rows_of_each_job() {
    // Too few rows tell nothing: refused before the pool is touched.
    let ground =
        Ground { exact: Some(std::sync::Arc::new(anchorite_encoder::fake::FakeEncoder::new(support::DIM))), ..Ground::default() };
    let server = ground.serve(Limits::default());
    let before = server.get("/v1/pools/fruit").ok();
    let job = server.job_over(&server.ingest(&json!({"sources": ["boats"]})));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("model_disagrees")), "{job}");
    assert!(job["error"]["message"].as_str().is_some_and(|words| words.contains("3 items")), "{job}");
    assert_eq!(server.get("/v1/pools/fruit").ok()["rows"], before["rows"]);
    for number in 0..60 {
        ground.put(&format!("boats/more {number}.jpg"), support::RED);
        ground.put(&format!("boats/more {number}.txt"), format!("a boat of kind {number}").as_bytes());
    }
    let job = server.job_over(&server.ingest(&json!({"sources": ["boats"]})));
    assert_eq!(job["state"], "done", "{job}");
}
