//! Promise: a served pool is filled by jobs, and `kill -9` of the server costs a job nothing.

use std::fs;

use serde_json::{Value as Json, json};

use crate::{
    datasets::{samples, write_samples},
    program::{Server, data, model, run, text},
};

/// The job once it is as `is` wants it.
#[track_caller]
fn job_when(server: &Server, id: &str, is: impl Fn(&Json) -> bool) -> Json {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    loop {
        let job = server.get(&format!("/v1/jobs/{id}")).json();
        if is(&job) {
            return job;
        }
        assert!(std::time::Instant::now() < deadline, "{job}");
        std::thread::yield_now();
    }
}

#[test]
fn a_job_killed_with_its_server_is_done_by_the_next_one_and_keys_guard_it() {
    let folder = tempfile::tempdir().unwrap();
    let (first, root) = (folder.path().join("first.parquet"), folder.path().join("sources"));
    fs::create_dir(&root).unwrap();
    write_samples(&first, &samples(3));
    fs::copy(data().join("pairs.parquet"), root.join("pairs.parquet")).unwrap();
    let (pool, keys, jobs) =
        (text(folder.path().join("pool")), text(folder.path().join("keys")), text(folder.path().join("jobs")));
    run(&["ingest", &text(first), "--pool", &pool, "--model", model()]).with(0);
    let key = |name: &str, scope| run(&["keys", "add", &keys, name, "--scope", scope]).with(0).stdout.trim().to_owned();
    let (reader, writer) = (key("reader", "read"), key("writer", "write"));
    let served = format!("grow={pool}");
    let root = text(root);
    let args = ["--pool", &served, "--model", model(), "--jobs", &jobs, "--ingest-root", &root, "--threads", "2"];

    let guarded = Server::start(&[&args[..], &["--keys", &keys]].concat());
    let ask = json!({"sources": ["pairs.parquet"]});
    assert_eq!(guarded.post_as(&reader, "/v1/pools/grow/ingest", &ask).status, 403);
    let taken = guarded.post_as(&writer, "/v1/pools/grow/ingest", &ask);
    assert_eq!(taken.status, 202, "{}", taken.text());
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    guarded.kill();

    let server = Server::start(&args);
    let at_work = job_when(&server, &id, |job| job["progress"]["rows_done"].as_u64() > Some(100));
    assert_eq!((&at_work["state"], &at_work["progress"]["rows_total"]), (&json!("running"), &json!(4_213)), "{at_work}");
    assert!(
        at_work["starts"].as_u64() <= Some(2) && server.hits(&json!({"text": "a red apple", "k": 3})).len() == 3,
        "it answers meanwhile"
    );
    server.kill();

    let server = Server::start(&args);
    let job = job_when(&server, &id, |job| !["queued", "running"].map(Json::from).contains(&job["state"]));
    assert_eq!((&job["state"], &job["report"]["rows"]), (&json!("done"), &json!(4_213)), "{job}");
    let rows = server.get("/v1/pools/grow").json()["rows"].as_u64();
    assert_eq!(rows, Some(4_213 + 3), "nothing is lost, nothing there twice");
    server.stop().with(0);
    // The command line finds what the job has read.
    let again = run(&["ingest", &format!("{root}/pairs.parquet"), "--pool", &pool, "--model", model(), "--json"]).with(0).json();
    assert_eq!((&again["rows_passed_over"], &again["accepted"]), (&json!(4_213), &json!(0)), "{again}");
    run(&["serve", "--pool", &pool, "--ingest-root", &root]).with(2).says(&["--jobs"]);
}
