//! Promise: a mix of two models is the mix of their weights; its ends are the models themselves, byte by byte; what cannot be mixed is refused by
//! the name of what differs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use anchorite_encoder::model::ModelLimits;
use anchorite_train::{
    graph::{Element, ExternalFiles, Model, Tensor, TensorType},
    wise_ft::{Alphas, MixError, Towers, TowersError, Which, ema_shares, mix},
};

fn demo() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/model"))
}

fn read(path: &Path) -> Model {
    Model::read(&fs::read(path).unwrap(), &ExternalFiles::new(), &ModelLimits::default()).unwrap()
}

/// The demo model with every float weight of both towers scaled, and a logit scale in its configuration.
fn changed(folder: &Path, by: f64, log_scale: f64) {
    fs::create_dir_all(folder.join("onnx")).unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let config = folder.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["logit_scale"] = log_scale.into();
    fs::write(config, json.to_string()).unwrap();
    for tower in ["onnx/vision_model.onnx", "onnx/text_model.onnx"] {
        let mut model = read(&demo().join(tower));
        for (_, tensor) in &mut model.graph.initializers {
            if tensor.element() == Element::F32 {
                let values: Vec<f64> = tensor.floats().unwrap().into_iter().map(|v| v * by).collect();
                *tensor = Tensor::from_floats(tensor.kind().clone(), &values).unwrap();
            }
        }
        fs::write(folder.join(tower), model.write()).unwrap();
    }
}

fn scale(folder: &Path) -> f64 {
    let json: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    json["logit_scale"].as_f64().unwrap()
}

#[test]
fn the_ends_are_the_models_byte_by_byte_and_the_middle_is_the_mean_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    changed(&a, 1.0, 4.0);
    changed(&b, 1.5, 3.0);
    let (from, to) = (Towers::open(&a).unwrap(), Towers::open(&b).unwrap());
    let at = |alpha: f64, which| {
        let out = folder.path().join(format!("{which:?}-{alpha}"));
        Towers::mean(&[&from, &to], &[1.0 - alpha, alpha], which).unwrap().save(&out).unwrap();
        out
    };
    for (alpha, original) in [(0.0, &a), (1.0, &b)] {
        let out = at(alpha, Which::Both);
        for entry in
            ["onnx/vision_model.onnx", "onnx/text_model.onnx", "config.json", "tokenizer.json", "preprocessor_config.json"]
        {
            assert_eq!(fs::read(out.join(entry)).unwrap(), fs::read(original.join(entry)).unwrap(), "{entry} at {alpha}");
        }
    }
    let middle = at(0.25, Which::Both);
    assert!((scale(&middle) - 3.75).abs() < 1e-12);
    let (ours, base) = (read(&middle.join("onnx/text_model.onnx")), read(&a.join("onnx/text_model.onnx")));
    let mut compared = 0;
    for ((name, mixed), (other, original)) in ours.graph.initializers.iter().zip(&base.graph.initializers) {
        assert_eq!(name, other);
        if let (Element::F32, Some(mixed), Some(original)) = (mixed.element(), mixed.floats(), original.floats()) {
            for (m, o) in mixed.iter().zip(&original) {
                // 0.75 o + 0.25 x 1.5 o, where 1.5 o was rounded to float32 once.
                assert!((m - o * 1.125).abs() <= o.abs() * 3e-7, "{name}: {m} {o}");
            }
            compared += mixed.len();
        } else {
            assert_eq!(ours.graph.initializer(name), base.graph.initializer(name));
        }
    }
    assert!(compared > 10_000);
    // One tower alone leaves the other, and the scale, as they are.
    let image = at(0.25, Which::Image);
    assert_eq!(fs::read(image.join("onnx/text_model.onnx")).unwrap(), fs::read(a.join("onnx/text_model.onnx")).unwrap());
    assert_ne!(fs::read(image.join("onnx/vision_model.onnx")).unwrap(), fs::read(a.join("onnx/vision_model.onnx")).unwrap());
    assert_eq!(scale(&image), 4.0);
}

fn toy(values: &[f64], element: Element) -> Model {
    let mut model = read(&demo().join("onnx/text_model.onnx"));
    let kind = TensorType::new(element, [values.len()]);
    let tensor = match element {
        Element::F16 => {
            let bytes = values.iter().flat_map(|&v| half::f16::from_f64(v).to_le_bytes()).collect();
            Tensor::from_bytes(kind, bytes).unwrap()
        }
        Element::I64 => Tensor::from_integers(kind, &values.iter().map(|&v| v as i64).collect::<Vec<_>>()).unwrap(),
        _ => Tensor::from_floats(kind, values).unwrap(),
    };
    model.graph.initializers = vec![("w".to_owned(), tensor)];
    model.graph.nodes.clear();
    model
}

fn values(model: &Model) -> Vec<f64> {
    model.graph.initializer("w").unwrap().floats().unwrap()
}

#[test]
fn minus_zero_and_infinity_survive_the_ends() {
    let (a, b) = (toy(&[-0.0, f64::INFINITY], Element::F32), toy(&[1.0, 1.0], Element::F32));
    let end = mix(&[("a", &a), ("b", &b)], &[1.0, 0.0]).unwrap();
    assert_eq!(end, a);
    assert!(values(&end)[0].is_sign_negative());
}

#[test]
fn narrow_floats_are_rounded_once_and_soups_weigh_as_they_say() {
    let models: Vec<Model> = [1.0, 2.0, 4.0].iter().map(|&v| toy(&[v], Element::F16)).collect();
    let named: Vec<(&str, &Model)> = models.iter().map(|m| ("m", m)).collect();
    let mixed = mix(&named, &[0.25, 0.25, 0.5]).unwrap();
    let bytes = mixed.graph.initializer("w").unwrap().bytes().to_vec();
    assert_eq!(half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(), 2.75);
    // m = w0; m <- 0.5 m + 0.5 w1; m <- 0.5 m + 0.5 w2.
    assert_eq!(ema_shares(3, 0.5), [0.25, 0.25, 0.5]);
    assert!((ema_shares(50, 0.99).iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn models_that_do_not_fit_are_refused_by_the_name_of_what_differs() {
    let a = toy(&[1.0, 2.0], Element::F32);
    let refused = |b: &Model| mix(&[("a", &a), ("b", b)], &[0.5, 0.5]).unwrap_err();
    let mut renamed = a.clone();
    renamed.graph.initializers[0].0 = "v".to_owned();
    assert!(matches!(refused(&renamed), MixError::Missing { tensor, .. } if tensor == "w"));
    assert!(refused(&toy(&[1.0], Element::F32)).to_string().contains("\"w\" is float32[2] in a and float32[1] in b"));
    let (x, y) = (toy(&[1.0], Element::I64), toy(&[2.0], Element::I64));
    assert!(matches!(mix(&[("x", &x), ("y", &y)], &[0.5, 0.5]), Err(MixError::NotFloat { tensor, .. }) if tensor == "w"));
    let (whole, mut other) = (read(&demo().join("onnx/text_model.onnx")), read(&demo().join("onnx/text_model.onnx")));
    other.graph.nodes[3].operator = "Identity".to_owned();
    assert!(matches!(mix(&[("a", &whole), ("b", &other)], &[0.5, 0.5]), Err(MixError::Graph { .. })));
    assert!(matches!(mix(&[("a", &a)], &[0.5]), Err(MixError::Shares { .. })));
    assert!(matches!(mix(&[("a", &a)], &[f64::NAN]), Err(MixError::Shares { .. })));
    let missing = Towers::open(Path::new("/nowhere")).unwrap_err();
    assert!(matches!(missing, TowersError::Model(_)));
}

#[test]
fn alphas_are_a_range_or_a_list() {
    let of = |text: &str| text.parse::<Alphas>().map(|a| a.values().to_vec());
    assert_eq!(of("0:1:0.1").unwrap(), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
    assert_eq!(of("1,0,0.5,0.5").unwrap(), [0.0, 0.5, 1.0]);
    for wrong in ["", "0:1:0", "0:2:1", "1:0:0.1", "0:1:0.0001", "a", "0:1", "0:1:nan"] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}
