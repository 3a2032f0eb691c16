//! The preprocessing files of model folders, as they are found in the wild, and what is said of those that cannot be followed.

use anchorite_encoder::image::{Filter, Geometry, Preprocess, PreprocessError};

const HF_CLIP: &str = r#"{
  "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
  "do_rescale": true, "do_resize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711],
  "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224}}"#;

/// As the first CLIP repositories still have it.
const HF_OLD: &str = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
  "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#;

const HF_SIGLIP: &str = r#"{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
  "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor",
  "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 256, "width": 256}}"#;

const OPEN_CLIP: &str = r#"{"size": 224, "mode": "RGB", "mean": [0.48145466, 0.4578275, 0.40821073],
  "std": [0.26862954, 0.26130258, 0.27577711], "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}"#;

const CLIP_GEOMETRY: Geometry = Geometry::ShortestEdge { edge: 224, height: 224, width: 224 };

#[test]
fn both_dialects_of_clip_mean_the_same() {
    for preprocess in
        [Preprocess::from_hf_json(HF_CLIP), Preprocess::from_hf_json(HF_OLD), Preprocess::from_open_clip_json(OPEN_CLIP)]
    {
        let preprocess = preprocess.unwrap();
        assert_eq!(preprocess.geometry(), CLIP_GEOMETRY);
        assert_eq!(preprocess.filter(), Filter::Bicubic);
        // The tables behind normalisation too: 1/255 in f64 and 255 in f32 round to the same f32.
        assert_eq!(preprocess, Preprocess::from_open_clip_json("{}").unwrap());
    }
}

#[test]
fn siglip_squashes() {
    let preprocess = Preprocess::from_hf_json(HF_SIGLIP).unwrap();
    assert_eq!(preprocess.geometry(), Geometry::Squash { resized: (256, 256), height: 256, width: 256 });
}

#[test]
fn null_counts_as_absent() {
    let with_nulls = OPEN_CLIP.replace(r#""bicubic""#, "null").replace(r#""shortest""#, "null");
    assert_eq!(Preprocess::from_open_clip_json(&with_nulls).unwrap().geometry(), CLIP_GEOMETRY);
    let with_null = HF_CLIP.replace(r#""do_rescale": true"#, r#""crop_pct": null, "do_rescale": null"#);
    assert_eq!(Preprocess::from_hf_json(&with_null).unwrap(), Preprocess::from_hf_json(HF_CLIP).unwrap());
}

#[track_caller]
fn refused(result: Result<Preprocess, PreprocessError>, file: &str, field: &str) {
    match result {
        Err(PreprocessError::Field { file: in_file, field: in_field, .. }) => assert_eq!((&*in_file, &*in_field), (file, field)),
        other => panic!("{field}: {other:?}"),
    }
}

#[test]
fn a_hugging_face_field_that_cannot_be_followed_is_named() {
    for (from, to, field) in [
        (r#""resample": 3"#, r#""resample": 6"#, "resample"),
        (r#""resample": 3"#, r#""resample": "bicubic""#, "resample"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": {"longest_edge": 224}"#, "size"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": {"shortest_edge": 224, "longest_edge": 300}"#, "size"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": 0"#, "size"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": -224"#, "size"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": 224.5"#, "size"),
        (r#""size": {"shortest_edge": 224}"#, r#""size": 1000000"#, "size"),
        (r#", "size": {"shortest_edge": 224}"#, "", "size"),
        (r#""do_center_crop": true"#, r#""do_center_crop": false"#, "size"),
        (r#""do_center_crop": true"#, r#""do_center_crop": "yes""#, "do_center_crop"),
        (r#""do_resize": true"#, r#""do_resize": 1"#, "do_resize"),
        (r#""do_resize": true"#, r#""do_resize": true, "crop_pct": 0.875"#, "crop_pct"),
        (r#""do_resize": true"#, r#""do_resize": true, "do_pad": true"#, "do_pad"),
        (r#""rescale_factor": 0.00392156862745098"#, r#""rescale_factor": 0"#, "rescale_factor"),
        (r#""image_mean": [0.48145466, 0.4578275, 0.40821073]"#, r#""image_mean": [0.5, 0.5]"#, "image_mean"),
        (r#""image_mean": [0.48145466, 0.4578275, 0.40821073]"#, r#""image_mean": null"#, "image_mean"),
        (r#""image_std": [0.26862954, 0.26130258, 0.27577711]"#, r#""image_std": [0.5, 0.5, 0]"#, "image_std"),
        (r#""image_std": [0.26862954, 0.26130258, 0.27577711]"#, r#""image_std": [0.5, 0.5, 1e-60]"#, "image_std"),
        (r#""image_std": [0.26862954, 0.26130258, 0.27577711]"#, r#""image_std": [0.5, 0.5, 1e60]"#, "image_std"),
    ] {
        let text = HF_CLIP.replace(from, to);
        assert_ne!(text, HF_CLIP, "{from} is not in the file");
        refused(Preprocess::from_hf_json(&text), "preprocessor_config.json", field);
    }
}

#[test]
fn without_resize_and_crop_there_is_no_one_size() {
    let text = HF_CLIP
        .replace(r#""do_resize": true"#, r#""do_resize": false"#)
        .replace(r#""do_center_crop": true"#, r#""do_center_crop": false"#);
    refused(Preprocess::from_hf_json(&text), "preprocessor_config.json", "do_resize");
}

#[test]
fn an_open_clip_field_that_cannot_be_followed_is_named() {
    for (from, to, field) in [
        (r#""RGB""#, r#""L""#, "mode"),
        (r#""bicubic""#, r#""lanczos""#, "interpolation"),
        (r#""shortest""#, r#""stretch""#, "resize_mode"),
        (r#""size": 224"#, r#""size": [224]"#, "size"),
        (r#""size": 224"#, r#""size": "224""#, "size"),
        (r#""std": [0.26862954, 0.26130258, 0.27577711]"#, r#""std": 0"#, "std"),
        (r#""shortest", "fill_color": 0"#, r#""longest", "fill_color": 256"#, "fill_color"),
    ] {
        let text = OPEN_CLIP.replace(from, to);
        assert_ne!(text, OPEN_CLIP, "{from} is not in the file");
        refused(Preprocess::from_open_clip_json(&text), "preprocess_cfg.json", field);
    }
}

#[test]
fn what_is_no_json_object_is_named() {
    for text in ["", "{", "[]", "3"] {
        assert!(matches!(Preprocess::from_hf_json(text), Err(PreprocessError::Json { .. })), "{text}");
    }
}

#[test]
fn the_file_is_found_in_either_layout() {
    let nested = format!(r#"{{"image_processor": {HF_CLIP}, "processor_class": "CLIPProcessor"}}"#);
    for (name, text) in [
        ("preprocessor_config.json", HF_CLIP),
        ("visual/preprocess_cfg.json", OPEN_CLIP),
        ("preprocess_cfg.json", OPEN_CLIP),
        ("processor_config.json", nested.as_str()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        assert_eq!(Preprocess::find(dir.path()).unwrap().geometry(), CLIP_GEOMETRY, "{name}");
        assert_eq!(Preprocess::locate(dir.path()), Some(path));
    }
}

#[test]
fn an_empty_folder_is_told_which_files_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = Preprocess::find(dir.path()).unwrap_err();
    assert!(matches!(error, PreprocessError::NotFound { .. }));
    assert!(error.to_string().contains("preprocessor_config.json"), "{error}");
    assert!(error.to_string().contains("visual/preprocess_cfg.json"), "{error}");
}

#[test]
fn an_error_names_the_file_in_its_folder_and_a_huge_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("preprocessor_config.json");
    std::fs::write(&path, r#"{"size": 0}"#).unwrap();
    assert!(Preprocess::find(dir.path()).unwrap_err().to_string().contains(&path.display().to_string()));
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(Preprocess::find(dir.path()), Err(PreprocessError::TooLarge { .. })));
}
