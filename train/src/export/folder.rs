//! The files of an exported model.

use std::{collections::BTreeMap, fs, path::Path};

use anchorite_encoder::model::{Dtype, configuration_files};
use serde_json::Value;

use super::{ExportError, ExportJob, TowerFile, classifier, head, narrow::narrow, torch_names};
use crate::{
    checkpoint::{io, sync_folder, tensors, write_synced},
    graph::{Element, MAX_MODEL_BYTES, Model, Tensor, TensorType},
};

/// Writes everything into the folder `out`, which is not there yet.
pub(super) fn write(job: &ExportJob<'_>, out: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(out).map_err(io("create", out))?;
    let mut named: BTreeMap<String, Tensor> = BTreeMap::new();
    for (tower, file) in [(&job.vision, place(&job.vision, "vision")), (&job.text, place(&job.text, "text"))] {
        graph(&tower.model, &out.join(&file))?;
        if job.f16 {
            graph(&narrow(&tower.model), &out.join(suffixed(&file, Dtype::Fp16)))?;
        }
        named.extend(torch_names(&tower.model));
    }
    let scale = scalar(job.logit_scale.ln());
    named.extend(scale.map(|tensor| ("logit_scale".to_owned(), tensor)));
    named.extend(job.logit_bias.and_then(scalar).map(|tensor| ("logit_bias".to_owned(), tensor)));
    let path = out.join("model.safetensors");
    let bytes = tensors::write(&named).map_err(|reason| ExportError::Config { path: path.clone(), reason })?;
    write_synced(&path, &bytes)?;
    configuration(job, out)?;
    if let Some(head) = &job.head {
        head::write(head, out)?;
        classifier::write(&job.vision, head, out)?;
    }
    write_synced(&out.join("README.md"), job.card.to_markdown().as_bytes())?;
    if !job.card.run.is_empty() {
        write_synced(&out.join("run.toml"), job.card.run.as_bytes())?;
    }
    Ok(sync_folder(out)?)
}

fn scalar(value: f64) -> Option<Tensor> {
    Tensor::from_floats(TensorType::new(Element::F32, []), &[value])
}

/// Where a tower's file goes: its own place without the suffix of an element type, since weights are float32 now; towers that shared one
/// file get one each.
fn place(tower: &TowerFile, name: &str) -> String {
    let stem = tower.file.strip_suffix(".onnx").unwrap_or(&tower.file);
    let plain =
        Dtype::ALL.iter().map(|d| d.suffix()).filter(|s| !s.is_empty()).find_map(|s| stem.strip_suffix(s)).unwrap_or(stem);
    let (folder, file) = plain.rsplit_once('/').map_or(("", plain), |(folder, file)| (folder, file));
    match file {
        "model" if folder.is_empty() || folder == "onnx" => format!("onnx/{name}_model.onnx"),
        _ => format!("{plain}.onnx"),
    }
}

fn suffixed(file: &str, dtype: Dtype) -> String {
    format!("{}{}.onnx", file.strip_suffix(".onnx").unwrap_or(file), dtype.suffix())
}

/// Writes a graph as a file that readers take.
pub(super) fn graph(model: &Model, path: &Path) -> Result<(), ExportError> {
    let bytes = model.write();
    if bytes.len() > MAX_MODEL_BYTES {
        return Err(ExportError::TooLarge { file: path.display().to_string(), bytes: bytes.len() });
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    write_synced(path, &bytes)?;
    Ok(sync_folder(folder)?)
}

/// The source's own files, byte by byte, but for logit scale and bias in the one that states them.
fn configuration(job: &ExportJob<'_>, out: &Path) -> Result<(), ExportError> {
    let files = configuration_files(job.source);
    for file in &files {
        let (from, to) = (job.source.join(file), out.join(file));
        let folder = to.parent().unwrap_or(out);
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let bytes = fs::read(&from).map_err(io("read", &from))?;
        write_synced(&to, &bytes)?;
    }
    let stating = ["config.json", "open_clip_config.json"].into_iter().find(|name| files.iter().any(|f| f == name));
    similarity(&out.join(stating.unwrap_or("config.json")), job)
}

/// Writes `logit_scale`, the logarithm, and a sigmoid's `logit_bias`, which the encoder reads before anything else.
fn similarity(path: &Path, job: &ExportJob<'_>) -> Result<(), ExportError> {
    let refuse = |reason: String| ExportError::Config { path: path.to_owned(), reason };
    let mut config: Value = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?,
        Err(_) => Value::Object(serde_json::Map::new()),
    };
    let fields = config.as_object_mut().ok_or_else(|| refuse("not a JSON object".to_owned()))?;
    fields.insert("logit_scale".to_owned(), job.logit_scale.ln().into());
    fields.extend(job.logit_bias.map(|bias| ("logit_bias".to_owned(), bias.into())));
    let text = serde_json::to_vec_pretty(&config).map_err(|e| refuse(e.to_string()))?;
    Ok(write_synced(path, &text)?)
}
