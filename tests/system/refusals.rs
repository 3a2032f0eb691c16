//! Promise: models, pools and questions that do not fit are refused, and the message says what to do.

use std::fs;

use crate::{
    datasets::{another_model, copy_of_model, samples, write_samples},
    program::{demo, model, run, text},
};

#[test]
fn a_pool_of_another_encoder_is_neither_filled_nor_searched_nor_served() {
    let folder = tempfile::tempdir().unwrap();
    let other = another_model(folder.path());
    let (file, pool) = (text(folder.path().join("data.parquet")), text(folder.path().join("pool")));
    write_samples(folder.path().join("data.parquet").as_path(), &samples(3));
    run(&["ingest", &file, "--pool", &pool, "--model", model()]).with(0);

    let parts = ["built by encoder", "use that model, or a new pool"];
    run(&["ingest", &file, "--pool", &pool, "--model", &other]).with(1).says(&parts);
    run(&["search", "--pool", &pool, "--model", &other, "--text", "a"]).with(1).says(&parts);
    run(&["serve", "--listen", "127.0.0.1:0", "--pool", &format!("p={pool}"), "--model", &other]).with(1).says(&parts);
    assert_eq!(run(&["pool", "info", &pool, "--json"]).with(0).json()["rows"], 3);
}

#[test]
fn a_model_folder_with_missing_files_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    write_samples(&file, &samples(1));
    let pool = text(folder.path().join("pool"));
    let ingest = |model: &str| run(&["ingest", &text(&file), "--pool", &pool, "--model", model]).with(1);
    for missing in ["onnx/text_model.onnx", "onnx/vision_model.onnx", "tokenizer.json", "preprocessor_config.json"] {
        let own = tempfile::tempdir().unwrap();
        let copy = copy_of_model(own.path());
        fs::remove_file(copy.join(missing)).unwrap();
        let name = missing.rsplit(['/', '.']).nth(1).unwrap();
        ingest(&text(&copy)).says(&[name.trim_end_matches("_model"), "error: "]);
    }
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    ingest(&text(&empty)).says(&[&text(&empty), "onnx"]);
    ingest(&text(folder.path().join("nowhere"))).says(&["there is no model folder"]);
    ingest(&text(&file)).says(&["is a file; name the model folder"]);
    assert!(!folder.path().join("pool").exists(), "a model that does not open makes no pool");
}

#[test]
fn a_damaged_model_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_model(folder.path());
    let tower = copy.join("onnx/vision_model.onnx");
    let bytes = fs::read(&tower).unwrap();
    fs::write(&tower, &bytes[..bytes.len() / 2]).unwrap();
    run(&["search", "--pool", &demo().pool, "--model", &text(&copy), "--text", "a"]).with(1).says(&["vision_model.onnx"]);
}

#[test]
fn questions_out_of_bounds_say_the_bounds() {
    let ask = |more: &[&str]| run(&[&["search", "--pool", &demo().pool, "--model", model()], more].concat());
    ask(&["--text", "a", "-k", "0"]).with(1).says(&["k is 0", "between 1 and"]);
    ask(&["--text", "a", "-k", "1000000"]).with(1).says(&["k is 1000000", "between 1 and"]);
    ask(&["--text", "  "]).with(1).says(&["the text is empty"]);
    ask(&["--image", &text(crate::program::data().join("README.md"))]).with(1).says(&["not a JPEG, PNG or WebP picture"]);
    ask(&["--image", "no-such-picture.jpg"]).with(1).says(&["no-such-picture.jpg"]);
    ask(&["--key", "no-such-key"]).with(1).says(&["there is no pair with the key no-such-key"]);
    ask(&["--key", "not a key"]).with(1).says(&["is no key"]);
    run(&["search", "--pool", &demo().pool, "--text", "a"]).with(1).says(&["--model"]);
}

#[test]
fn what_is_no_pool_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = text(folder.path().join("nowhere"));
    run(&["pool", "info", &nowhere]).with(1).says(&[&nowhere]);
    run(&["search", "--pool", &nowhere, "--model", model(), "--text", "a"]).with(1).says(&[&nowhere]);
    run(&["serve", "--listen", "127.0.0.1:0", "--pool", &nowhere, "--model", model()]).with(1).says(&[&nowhere]);
    assert!(!folder.path().join("nowhere").exists());
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    write_samples(&folder.path().join("data.parquet"), &samples(1));
    let source = text(folder.path().join("data.parquet"));
    run(&["ingest", &source, "--pool", &text(folder.path()), "--model", model()]).with(1).says(&["is no pool"]);
    assert_eq!(fs::read_to_string(folder.path().join("letter.txt")).unwrap(), "dear");
}

#[test]
fn a_server_that_is_not_there_or_says_no_is_told() {
    // Port 1 of loopback: nothing listens there.
    run(&["search", "--server", "http://127.0.0.1:1", "--text", "a"]).with(1).says(&["ask http://127.0.0.1:1/v1/search"]);
    let server = demo().serve();
    run(&["search", "--server", &server.url, "--text", "a", "--pool-name", "nowhere"])
        .with(1)
        .says(&["404", "there is no pool \"nowhere\""]);
    run(&["search", "--server", &server.url, "--text", "a", "-k", "0"]).with(1).says(&["422", "k is 0"]);
    let taken = server.url.trim_start_matches("http://");
    let pool = format!("demo={}", demo().pool);
    run(&["serve", "--listen", taken, "--pool", &pool, "--model", model()])
        .with(1)
        .says(&["cannot listen on", "another address"]);
    run(&["serve", "--listen", "0.0.0.0:0", "--pool", &pool, "--model", model()]).with(1).says(&[
        "without keys",
        "anchorite keys add",
        "127.0.0.1",
    ]);
}
