//! The drop-in routes, as clip-retrieval's client and page use them, without either.

mod support;

use anchorite_api::Limits;
use serde_json::{Value as Json, json};
use support::{BLUE, CAPTIONS, RED, TestServer, base64, pair, start, text_vector};

fn knn(server: &TestServer, body: &Json) -> Vec<Json> {
    server.post("/knn-service", body.to_string()).ok().as_array().expect("an array").clone()
}

fn ids(results: &[Json]) -> Vec<u64> {
    results.iter().map(|r| r["id"].as_u64().expect("an id")).collect()
}

/// What the client sends, all fourteen keys of it.
fn client_body(text: &str) -> Json {
    json!({"text": text, "image": null, "image_url": null, "embedding_input": null, "modality": "text", "num_images": 40,
        "num_result_ids": 40, "indice_name": "fruit", "use_mclip": false, "deduplicate": false, "use_safety_model": true,
        "use_violence_detector": true, "aesthetic_score": 9, "aesthetic_weight": 0.5})
}

#[test]
fn the_clients_body_gets_the_clients_answer() {
    let server = start(Limits::default());
    let results = knn(&server, &client_body("a green apple"));
    assert_eq!(results.len(), 7);
    let first = &results[0];
    assert_eq!((&first["id"], &first["caption"]), (&json!(1), &json!("a green apple")));
    assert_eq!(first["url"], "https://example.invalid/green.jpg", "the metadata's own column");
    assert!((first["similarity"].as_f64().expect("a number") - 1.0).abs() < 1e-5);
    assert!(first.get("license").is_none(), "only the columns upstream returns");
    assert!(first.get("NSFW").is_none(), "no NaN");
    let others: Vec<f64> = results.iter().map(|r| r["similarity"].as_f64().expect("a number")).collect();
    assert!(others.is_sorted_by(|a, b| a >= b), "best first: {others:?}");
}

#[test]
fn the_page_s_body_works_under_any_content_type_and_with_doubled_slashes() {
    let server = start(Limits::default());
    let body = json!({"text": CAPTIONS[0], "image": null, "image_url": null, "embedding_input": null, "deduplicate": true,
        "use_safety_model": true, "use_violence_detector": true, "indice_name": "fruit", "use_mclip": false,
        "aesthetic_score": "", "aesthetic_weight": "0.5", "modality": "text", "num_images": 40, "num_result_ids": 3000});
    for content_type in ["text/plain;charset=UTF-8", "application/json", "application/x-www-form-urlencoded", ""] {
        let mut request = ureq::http::Request::post(server.url("//knn-service"));
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let reply = server.send(request.body(body.to_string().into_bytes()).expect("a request"));
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.ok()[0]["id"], 0);
    }
    assert_eq!(server.get("//indices-list").ok(), json!(["fruit", "words"]));
}

#[test]
fn the_minimal_body_of_upstream_s_own_test_works() {
    let server = start(Limits::default());
    let results = knn(&server, &json!({"text": "an apple", "modality": "image", "num_images": 4, "indice_name": "fruit"}));
    assert_eq!(results.len(), 4);
    let unnamed = knn(&server, &json!({"text": "an apple", "modality": "image", "num_images": 4, "indice_name": null}));
    assert_eq!(unnamed, results, "null is the first index");
}

#[test]
fn stored_pictures_come_as_they_are_and_give_an_address_to_rows_without_one() {
    let server = start(Limits::default());
    let results = knn(&server, &json!({"image": base64(BLUE), "modality": "image", "num_images": 1}));
    assert_eq!((ids(&results), &results[0]["image"]), (vec![2], &json!(base64(BLUE))));
    let url = results[0]["url"].as_str().expect("an address");
    assert_eq!(url, server.url("/v1/pools/fruit/pairs/2/image"));
    assert_eq!(server.get(url.strip_prefix(&server.url("")).expect("ours")).body, BLUE);
    let words = knn(&server, &json!({"text": "sea", "modality": "text", "num_images": 1, "indice_name": "words"}));
    assert!(words[0].get("image").is_none() && words[0].get("url").is_none(), "nothing stored, nothing claimed");
}

#[test]
fn a_pool_without_pictures_answers_by_its_captions_and_web_pages_see_that_there_are_none() {
    let server = start(Limits::default());
    let ask = |body: &Json, origin: Option<&str>| {
        let mut request = ureq::http::Request::post(server.url("/knn-service"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let reply = server.send(request.body(body.to_string().into_bytes()).expect("a request")).ok();
        reply.as_array().expect("an array").clone()
    };
    let body = json!({"text": CAPTIONS[4], "modality": "image", "num_images": 6, "indice_name": "words"});
    let (program, page) = (ask(&body, None), ask(&body, Some("http://example.invalid")));
    assert_eq!((program.len(), &program[0]["caption"]), (6, &json!(CAPTIONS[4])), "modality names vectors that the pool lacks");
    assert_eq!(ids(&page), ids(&program));
    assert!(program.iter().all(|row| row.get("image").is_none()), "{program:?}");
    let shown = page[0]["image"].as_str().expect("a picture that says that there is none");
    // Row 1 has an address of its own.
    assert!(page.iter().all(|row| row.get("image").is_some_and(|image| image == shown) != (row["id"] == 1)), "{page:?}");
    assert!(page.iter().all(|row| row.get("url").is_some() == (row["id"] == 1)), "{page:?}");
    let search = json!({"image": shown, "modality": "image", "num_images": 6, "indice_name": "fruit"});
    assert_eq!(ask(&search, Some("http://example.invalid")), [] as [Json; 0], "it is like none");
    let fruit = json!({"text": CAPTIONS[0], "modality": "text", "num_images": 8});
    let of_row = |rows: &[Json], id: u64| rows.iter().find(|row| row["id"] == id).cloned().expect("all rows with captions");
    let rows = ask(&fruit, Some("null"));
    assert_eq!((&of_row(&rows, 0)["image"], &of_row(&rows, 6)["image"]), (&json!(base64(RED)), &json!(shown)));
}

#[test]
fn results_past_num_images_are_bare() {
    let server = start(Limits::default());
    let results = knn(&server, &json!({"text": "apple", "modality": "image", "num_images": 2, "num_result_ids": 10_000}));
    assert_eq!(results.len(), 7);
    assert!(results[..2].iter().all(|r| r["caption"].is_string()));
    let names: Vec<&String> = results[2].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["id", "similarity"]);
}

#[test]
fn a_missing_caption_is_empty_and_never_null() {
    let server = start(Limits::default());
    let all = knn(&server, &json!({"text": "apple", "modality": "image", "num_images": 10}));
    let wordless = all.iter().find(|r| r["id"] == 7).expect("row 7 has no caption");
    assert_eq!(wordless["caption"], "");
    assert!(!json!(all).to_string().contains("null"));
}

#[test]
fn near_duplicates_are_removed_without_a_refill_keeping_the_best() {
    let server = start(Limits::default());
    let ask = |deduplicate: bool| {
        let body = json!({"image": base64(RED), "modality": "image", "num_images": 3, "deduplicate": deduplicate});
        ids(&knn(&server, &body))
    };
    let (all, distinct) = (ask(false), ask(true));
    assert_eq!((all.len(), &all[..2]), (3, &[0, 3][..]), "rows 0 and 3 are one picture");
    assert_eq!(distinct, [0, all[2]]);
}

#[test]
fn an_embedding_is_used_at_its_own_length() {
    let server = start(Limits::default());
    let double: Vec<f32> = text_vector(CAPTIONS[2]).iter().map(|v| v * 2.0).collect();
    let results = knn(&server, &json!({"embedding_input": double, "modality": "text", "num_images": 1}));
    assert_eq!(ids(&results), [2]);
    assert!((results[0]["similarity"].as_f64().expect("a number") - 2.0).abs() < 1e-5);
}

#[test]
fn words_win_over_the_other_inputs_as_upstream() {
    let server = start(Limits::default());
    let body = json!({"text": CAPTIONS[4], "image": base64(RED), "image_url": "https://example.invalid/x.jpg",
        "embedding_input": [1.0], "modality": "text", "num_images": 1});
    assert_eq!(ids(&knn(&server, &body)), [4]);
    let empty_text = json!({"text": "", "image": base64(BLUE), "modality": "image", "num_images": 1});
    assert_eq!(ids(&knn(&server, &empty_text)), [2]);
}

#[test]
fn metadata_comes_in_request_order() {
    let server = start(Limits::default());
    let reply = server.post("//metadata", r#"{"ids": [4, 0, 4], "indice_name": "fruit"}"#).ok();
    let captions: Vec<&Json> = reply.as_array().expect("an array").iter().map(|r| &r["metadata"]["caption"]).collect();
    assert_eq!(captions, [CAPTIONS[4], CAPTIONS[0], CAPTIONS[4]]);
    assert_eq!((&reply[1]["id"], &reply[1]["metadata"]["image"]), (&json!(0), &json!(base64(RED))));
    assert_eq!(server.post("/metadata", r#"{"ids": []}"#).ok(), json!([]));
}

#[test]
fn pictures_beyond_the_answer_s_budget_are_left_out_but_not_their_rows() {
    let server = start(Limits { answer_bytes: 1000, ..Limits::default() });
    let results = knn(&server, &json!({"image": base64(RED), "modality": "image", "num_images": 3}));
    assert!(results[0]["image"].is_string() && results[1].get("image").is_none());
    assert!(results[1]["url"].is_string() && results[1]["caption"].is_string());
}

#[test]
fn an_empty_pool_gives_an_empty_array() {
    let empty = anchorite_anchors::Retriever::new(
        std::sync::Arc::new(anchorite_encoder::fake::FakeEncoder::new(support::DIM)),
        support::store(&[]),
    );
    let server = support::start_pools(vec![("empty".to_owned(), empty.expect("they match"))], Limits::default());
    assert_eq!(knn(&server, &json!({"text": "x", "modality": "image", "num_images": 40, "deduplicate": true})), [] as [Json; 0]);
}

#[test]
fn the_page_s_settings_name_this_server() {
    let server = start(Limits::default());
    let config = server.get("/config.json").ok();
    assert_eq!(config, json!({"defaultBackend": server.url("/"), "defaultIndex": "", "urlColumn": "url"}));
    let answer = support::raw(&server, b"GET /config.json HTTP/1.1\r\nhost: a\"><script>\r\nconnection: close\r\n\r\n");
    assert!(!answer.contains("<script>"), "{answer}");
}

#[test]
fn a_browser_may_ask_from_anywhere_on_these_routes_only() {
    let server = start(Limits::default());
    let options = |path: &str| {
        let request = ureq::http::Request::options(server.url(path)).header("origin", "https://example.invalid");
        server.send(request.body(Vec::new()).expect("a request"))
    };
    for path in ["/knn-service", "/metadata", "/indices-list", "/config.json"] {
        let reply = options(path);
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, "*"), "{path}");
    }
    assert_eq!(options("/v1/search").header("access-control-allow-origin"), "");
    assert_eq!(server.search(&json!({"id": 0})).header("access-control-allow-origin"), "");
}

#[test]
fn errors_speak_upstream_s_dialect_with_a_cause() {
    let server = start(Limits::default());
    let with = |field: &str, value: Json| {
        let mut body = client_body("apple");
        body[field] = value;
        body.to_string()
    };
    let without = |field: &str| {
        let mut body = client_body("apple");
        body.as_object_mut().expect("an object").remove(field);
        body.to_string()
    };
    let url_only = json!({"image_url": "http://example.invalid/a.jpg", "modality": "image", "num_images": 1}).to_string();
    let cases = [
        ("/knn-service", with("indice_name", json!("nope")), 404, "nope"),
        ("/knn-service", with("num_images", json!("many")), 422, "num_images"),
        ("/knn-service", with("num_result_ids", json!(0)), 422, "k is 0"),
        ("/knn-service", with("num_result_ids", json!(10_001)), 422, "10000"),
        ("/knn-service", with("text", json!(null)), 422, "nothing to search for"),
        ("/knn-service", without("modality"), 422, "modality"),
        ("/knn-service", without("num_images"), 422, "num_images"),
        ("/knn-service", url_only, 422, "fetches nothing"),
        ("/knn-service", json!({"image": "!", "modality": "image", "num_images": 1}).to_string(), 422, "base64"),
        (
            "/knn-service",
            json!({"embedding_input": [1.0], "modality": "image", "num_images": 1}).to_string(),
            422,
            "has 1 values",
        ),
        ("/knn-service", "not json".to_owned(), 400, "not JSON"),
        ("/knn-service", String::new(), 400, "not JSON"),
        ("/metadata", r#"{"ids": [99]}"#.to_owned(), 404, "no row 99"),
        ("/metadata", r#"{"ids": [-1]}"#.to_owned(), 422, "ids[0]"),
        ("/metadata", r#"{"ids": [1], "indice_name": "nope"}"#.to_owned(), 404, "nope"),
        ("/metadata", r#"{"indice_name": "fruit"}"#.to_owned(), 422, "ids"),
        ("/metadata", json!({"ids": vec![1; 10_001]}).to_string(), 422, "10000"),
        ("/indices-list", String::new(), 405, "method"),
    ];
    for (path, body, status, words) in cases {
        let reply = server.post(path, &body);
        let answer = reply.json();
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(reply.status, status, "{path} {body}: {answer}");
        assert!(message.contains(words), "{path} {body}: {message:?} has no {words:?}");
        assert_eq!(answer.as_object().expect("an object").len(), 1, "only a message");
        assert_eq!(reply.header("access-control-allow-origin"), "*", "the page may read why");
    }
}

#[test]
fn three_thousand_and_ten_thousand_results_come_deduplicated_in_time() {
    let pairs: Vec<_> = (0..3000).map(|row| pair(row, Some(&format!("caption number {row}")), None)).collect();
    let retriever = anchorite_anchors::Retriever::new(
        std::sync::Arc::new(anchorite_encoder::fake::FakeEncoder::new(support::DIM)),
        support::store(&pairs),
    );
    let server = support::start_pools(vec![("many".to_owned(), retriever.expect("they match"))], Limits::default());
    for k in [3000, 10_000] {
        let ask = |deduplicate: bool| {
            let body = json!({"text": "caption number 7", "modality": "text", "num_images": 40, "num_result_ids": k,
                "deduplicate": deduplicate});
            knn(&server, &body)
        };
        let (all, distinct) = (ask(false), ask(true));
        assert_eq!(all.len(), 3000);
        assert!(distinct.len() < 3000 && !distinct.is_empty());
        assert_eq!(distinct[0]["caption"], "caption number 7");
    }
}

#[test]
fn the_dedup_rule_is_upstream_s_a_cosine_above_0_94_and_chains_are_one_group() {
    // Pictures as unit vectors in a plane: 18 degrees apart is a cosine of 0.951, 21 degrees 0.934.
    let at = |degrees: f32| {
        let mut vector = vec![0.0; support::DIM];
        (vector[0], vector[1]) = (degrees.to_radians().cos(), degrees.to_radians().sin());
        vector
    };
    let angles = [0.0, 18.0, 36.0, 57.0, 90.0];
    let pairs: Vec<_> = (0_u64..)
        .zip(angles)
        .map(|(row, degrees)| anchorite_index::Pair {
            image: Some(at(degrees)),
            ..pair(row, Some(&format!("at {degrees}")), None)
        })
        .collect();
    let retriever = anchorite_anchors::Retriever::new(
        std::sync::Arc::new(anchorite_encoder::fake::FakeEncoder::new(support::DIM)),
        support::store(&pairs),
    );
    let server = support::start_pools(vec![("arc".to_owned(), retriever.expect("they match"))], Limits::default());
    let ask = |deduplicate: bool| {
        let body = json!({"embedding_input": at(-1.0), "modality": "image", "num_images": 5, "deduplicate": deduplicate});
        ids(&knn(&server, &body))
    };
    assert_eq!(ask(false), [0, 1, 2, 3, 4]);
    assert_eq!(ask(true), [0, 3, 4], "0 to 2 are a chain, though its ends are 0.81 apart; 3 and 4 stand alone");
}

#[test]
fn every_histogram_of_upstream_s_dashboards_is_there() {
    let server = start(Limits::default());
    knn(&server, &client_body("apple"));
    knn(&server, &json!({"image": base64(RED), "modality": "image", "num_images": 2, "deduplicate": true}));
    let reply = server.get("/metrics");
    let count = |name: &str| {
        let line = reply.text().lines().find_map(|line| line.strip_prefix(&format!("{name}_count ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no histogram {name} in\n{}", reply.text())).parse::<u64>().expect("a count")
    };
    // The server tries each pool with one small text and picture of its own when it starts: at least as many as were asked for.
    for (name, at_least) in [
        ("full_knn_request_time", 2),
        ("text_clip_inference_time", 1),
        ("image_clip_inference_time", 1),
        ("text_prepro_time", 1),
        ("image_prepro_time", 1),
        ("metadata_get_time", 2),
        ("knn_index_time", 2),
        ("dedup_time", 1),
    ] {
        assert!(count(name) >= at_least, "{name} counts {}", count(name));
    }
    assert_eq!((count("download_time"), count("safety_time")), (0, 0), "nothing is downloaded or judged");
}

#[test]
fn the_summary_for_people_says_where_the_time_went() {
    let server = start(Limits::default());
    let reply = server.get("/metrics-summary");
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert_eq!(reply.text(), "No request yet, go do some", "as upstream says it");
    knn(&server, &client_body("apple"));
    knn(&server, &json!({"image": base64(RED), "modality": "image", "num_images": 2, "deduplicate": true}));
    let reply = server.get("/metrics-summary");
    let text = reply.text();
    assert!(text.starts_with("Among 2 calls to the knn end point with an average latency of 0."), "{text}");
    let rows: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(rows.len(), 9, "upstream's nine steps: {text}");
    let cell = |row: &str, from_end: usize| row.split_whitespace().rev().nth(from_end).expect("a cell").to_owned();
    let dedup = rows.iter().find(|row| row.contains("dedup_time")).expect("a row of it");
    assert_eq!(cell(dedup, 2), "1", "calls: {text}");
    let averages: Vec<f64> = rows.iter().map(|row| cell(row, 1).trim_end_matches('s').parse().expect("seconds")).collect();
    assert!(averages.is_sorted_by(|a, b| a >= b), "the dearest first: {text}");
    assert!(rows.iter().all(|row| cell(row, 0).ends_with('%')), "{text}");
}
