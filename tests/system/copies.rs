//! Promise: `anchors --copy-model` tells copies of protected pictures by the descriptors of that model, and CLIP's vectors are not asked.
//!
//! The descriptor here sees where a picture is light and dark, in 8 x 8 cells, and no colour: another palette is a copy, a mirror image is none. The
//! bundled CLIP says the opposite of both.

use std::{collections::BTreeMap, fs, path::Path};

use anchorite::{
    anchors::{hits, manifest},
    encoder::image::{ImageLimits, decode},
    train::graph::{Attribute, Dim, Element, Graph, Model, Node, Port, Tensor},
};
use serde_json::{Value as Json, json};

use crate::{
    datasets::{samples, write_rows},
    program::{model, run, text},
    tiny_clip::prepared_at,
};

/// Pixels a side that the descriptor is made of, and cells.
const SIZE: usize = 32;
const CELLS: usize = 8;

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Node {
    Node {
        operator: operator.to_owned(),
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        ..Node::default()
    }
}

fn port(name: &str, shape: &[usize]) -> Port {
    let fixed = shape.iter().map(|&size| Dim::Fixed(size as u64));
    let shape = std::iter::once(Dim::Dynamic("batch".to_owned())).chain(fixed).collect();
    Port { name: name.to_owned(), element: Element::F32, shape: Some(shape) }
}

/// The descriptor as a model folder: grey, averaged to cells, less its mean.
fn descriptor(folder: &Path) -> String {
    fs::create_dir_all(folder).unwrap();
    prepared_at(folder, SIZE);
    let cell = vec![(SIZE / CELLS) as i64; 2];
    let mean_over = |axis: i64, keep: i64| [("axes", Attribute::Ints(vec![axis])), ("keepdims", Attribute::Int(keep))];
    let nodes = vec![
        node("ReduceMean", &["pixel_values"], "grey", &mean_over(1, 1)),
        node(
            "AveragePool",
            &["grey"],
            "cells",
            &[("kernel_shape", Attribute::Ints(cell.clone())), ("strides", Attribute::Ints(cell))],
        ),
        node("Flatten", &["cells"], "flat", &[("axis", Attribute::Int(1))]),
        node("ReduceMean", &["flat"], "mean", &mean_over(1, 1)),
        node("Sub", &["flat", "mean"], "image_embeds", &[]),
    ];
    let graph = Graph {
        name: "descriptor".to_owned(),
        nodes,
        initializers: Vec::<(String, Tensor)>::new(),
        inputs: vec![port("pixel_values", &[3, SIZE, SIZE])],
        outputs: vec![port("image_embeds", &[CELLS * CELLS])],
    };
    let model = Model {
        ir_version: 8,
        producer: "test".to_owned(),
        producer_version: String::new(),
        opsets: BTreeMap::from([(String::new(), 17)]),
        metadata: Vec::new(),
        graph,
    };
    fs::write(folder.join("model.onnx"), model.write()).unwrap();
    text(folder)
}

fn png(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

#[test]
fn a_copy_detection_model_decides_and_clip_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    let all = samples(14);
    let sheaf = decode(&all[13].picture, &ImageLimits::default()).unwrap();
    let sheaf = image::RgbImage::from_raw(sheaf.width() as u32, sheaf.height() as u32, sheaf.values().to_vec()).unwrap();
    let mut recoloured = sheaf.clone();
    recoloured.pixels_mut().for_each(|pixel| pixel.0.rotate_right(1));
    let mirrored = image::imageops::flip_horizontal(&sheaf);
    let pool: Vec<(Option<Vec<u8>>, Option<&str>)> = vec![
        (Some(png(&recoloured)), Some("recoloured")),
        (Some(png(&mirrored)), Some("mirrored")),
        (Some(all[1].picture.clone()), Some("a mountain")),
        (Some(all[6].picture.clone()), Some("a cart")),
    ];
    write_rows(folder.path().join("pool.parquet").as_path(), &pool);
    write_rows(folder.path().join("task.parquet").as_path(), &[(Some(all[2].picture.clone()), None)]);
    write_rows(folder.path().join("test.parquet").as_path(), &[(Some(png(&sheaf)), None)]);
    let pool = at("p.pool");
    let _ = run(&["ingest", &at("pool.parquet"), "--pool", &pool, "--model", model()]).with(0);
    let copies = descriptor(&folder.path().join("descriptor"));

    // How a policy tells copies, and what it then drops: the caption of each pair, with the test that it failed.
    let dropped = |protect: Json, flags: &[&str]| {
        let policy = json!({ "select": { "k": 4, "near_duplicate": false }, "protect": protect });
        fs::write(at("policy.json"), policy.to_string()).unwrap();
        let ask =
            ["anchors", "--pool", &pool, "--model", model(), "--queries", &at("task.parquet"), "--policy", &at("policy.json")];
        let to = ["--protect", &format!("test={}", at("test.parquet")), "-o", &at("m.parquet"), "--json"];
        let told = run(&[&ask[..], &to, flags].concat()).with(0).json();
        let manifest = manifest::read(Path::new(&at("m.parquet"))).unwrap();
        let report: Vec<String> = told["matches"].as_array().unwrap().iter().map(|m| m["how"].to_string()).collect();
        let hits = hits(Path::new(&at("m.parquet")), 100).unwrap();
        assert_eq!(hits.len(), 4, "every pair was looked at");
        let dropped: Vec<(String, String)> = hits.into_iter().filter_map(|hit| Some((hit.caption?, hit.reason?))).collect();
        (manifest.header.copy_model, dropped, report)
    };
    let (named, by_copy, how) =
        dropped(json!({ "exact": false, "perceptual": false, "similarity": false }), &["--copy-model", &copies]);
    assert_eq!((by_copy, how), (vec![("recoloured".to_owned(), "protected_copy".to_owned())], vec!["\"copy\"".to_owned()]));
    assert!(named.is_some_and(|name| !name.is_empty()), "the manifest names the model");
    let (named, by_clip, _) = dropped(json!({ "exact": false, "perceptual": false, "similarity": 0.9 }), &[]);
    assert_eq!((named, by_clip), (None, vec![("mirrored".to_owned(), "protected_similar".to_owned())]));
    let nothing = json!({ "exact": false, "perceptual": false, "similarity": false, "copy_similarity": false });
    let (_, by_neither, _) = dropped(nothing, &["--copy-model", &copies]);
    assert_eq!(by_neither, [], "the policy can leave the model out");
}

#[test]
fn a_folder_without_an_image_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(folder.path().join(name));
    let all = samples(3);
    write_rows(folder.path().join("pool.parquet").as_path(), &[(Some(all[0].picture.clone()), Some("a hat"))]);
    let _ = run(&["ingest", &at("pool.parquet"), "--pool", &at("p.pool"), "--model", model()]).with(0);
    let empty = folder.path().join("no-model");
    fs::create_dir(&empty).unwrap();
    let set = format!("test={}", at("pool.parquet"));
    let queries = at("pool.parquet");
    let ask = ["anchors", "--pool", &at("p.pool"), "--model", model(), "--queries", &queries, "--protect", &set];
    let _ = run(&[&ask[..], &["-o", &at("m.parquet"), "--copy-model", &text(&empty)]].concat()).with(1).says(&["no-model"]);
}
