//! Which files of a repository make a CLIP model in ONNX: names only, nothing is opened here.

/// Wanted if there: settings and tokenizers in all their forms.
const SETTINGS: &[&str] = &[
    "config.json",
    "preprocessor_config.json",
    "preprocess_cfg.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
];

/// What a model of one layout consists of.
struct Layout {
    /// ONNX files, without suffix and extension.
    graphs: &'static [&'static str],
    /// Cannot be done without; in each group one is enough.
    needed: &'static [&'static [&'static str]],
    /// Whether the graphs come in variants.
    variants: bool,
}

/// In the order of preference: separate towers, both towers in one graph, and the visual/textual folders.
const LAYOUTS: &[Layout] = &[
    Layout {
        graphs: &["onnx/vision_model", "onnx/text_model"],
        needed: &[&["preprocessor_config.json", "preprocess_cfg.json"], &["tokenizer.json"]],
        variants: true,
    },
    Layout {
        graphs: &["onnx/model"],
        needed: &[&["preprocessor_config.json", "preprocess_cfg.json"], &["tokenizer.json"]],
        variants: true,
    },
    Layout {
        graphs: &["visual/model", "textual/model"],
        needed: &[&["visual/preprocess_cfg.json", "preprocess_cfg.json"], &["textual/tokenizer.json", "tokenizer.json"]],
        variants: false,
    },
];

/// The files to download, external data before the graph that needs it and graphs after all settings; or what is
/// missing of the layout that is nearest to complete.
pub(super) fn choose(listed: &[String], suffix: &str) -> Result<Vec<String>, Vec<String>> {
    let complete = LAYOUTS.iter().find(|layout| missing(layout, listed, suffix).is_empty());
    let Some(layout) = complete else {
        // A layout of which a graph is there says more than one that only lacks fewer files.
        let distance = |layout: &&Layout| {
            let missing = missing(layout, listed, suffix);
            let graphs = missing.iter().filter(|name| name.ends_with(".onnx")).count();
            (graphs == layout.graphs.len(), missing.len() - graphs)
        };
        return Err(LAYOUTS.iter().min_by_key(distance).map(|layout| missing(layout, listed, suffix)).unwrap_or_default());
    };
    let mut files: Vec<String> = listed.iter().filter(|name| is_setting(name)).cloned().collect();
    for graph in graphs(layout, suffix) {
        files.extend(listed.iter().filter(|name| is_data_of(name, &graph)).cloned());
        files.push(graph);
    }
    Ok(files)
}

/// What a folder with these files lacks to be a model.
pub(super) fn lacks(listed: &[String], suffix: &str) -> Vec<String> {
    choose(listed, suffix).err().unwrap_or_default()
}

/// The variants of the ONNX files in a listing.
pub(super) fn suffixes(listed: &[String]) -> Vec<String> {
    let stem = |name: &'static str| listed.iter().filter_map(move |file| file.strip_prefix(name)?.strip_suffix(".onnx"));
    let mut found: Vec<String> = stem("onnx/vision_model").chain(stem("onnx/model")).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

fn graphs(layout: &Layout, suffix: &str) -> Vec<String> {
    let suffix = if layout.variants { suffix } else { "" };
    layout.graphs.iter().map(|graph| format!("{graph}{suffix}.onnx")).collect()
}

fn missing(layout: &Layout, listed: &[String], suffix: &str) -> Vec<String> {
    let there = |name: &str| listed.iter().any(|file| file == name);
    let graphs = graphs(layout, suffix).into_iter().filter(|graph| !there(graph));
    let settings = layout.needed.iter().filter(|group| !group.iter().any(|name| there(name)));
    graphs.chain(settings.map(|group| group.join(" or "))).collect()
}

fn is_setting(name: &str) -> bool {
    let base = name.strip_prefix("visual/").or_else(|| name.strip_prefix("textual/")).unwrap_or(name);
    SETTINGS.contains(&base)
}

/// `model.onnx_data`, `model.onnx_data_1`, `model.onnx.data` beside a graph; in the folders of one tower every file
/// that is not a setting, since exporters name tensors' files freely there.
fn is_data_of(name: &str, graph: &str) -> bool {
    let Some((folder, _)) = graph.split_once('/') else { return false };
    let inside = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
    let Some(inside) = inside.filter(|inside| super::is_plain(inside)) else { return false };
    if let Some(rest) = name.strip_prefix(graph) {
        return rest.starts_with("_data") || rest.starts_with(".data");
    }
    folder != "onnx" && !is_setting(name) && !inside.contains(".json") && !is_foreign(inside)
}

/// Files that lie in tower folders and that ONNX Runtime never reads.
fn is_foreign(name: &str) -> bool {
    [".onnx", ".armnn", ".rknn", ".txt", ".md", ".model", ".py"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::{choose, lacks, suffixes};

    fn listed(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const TOWERS: &[&str] = &[
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "onnx/model.onnx",
        "onnx/text_model.onnx",
        "onnx/text_model_fp16.onnx",
        "onnx/vision_model.onnx",
        "onnx/vision_model.onnx_data",
        "onnx/vision_model_fp16.onnx",
    ];

    #[test]
    fn towers_of_the_wanted_variant_are_taken_with_their_data_and_nothing_else() {
        let chosen = choose(&listed(TOWERS), "").unwrap();
        let expected = [
            "config.json",
            "preprocessor_config.json",
            "tokenizer.json",
            "onnx/vision_model.onnx_data",
            "onnx/vision_model.onnx",
            "onnx/text_model.onnx",
        ];
        assert_eq!(chosen, expected);
        let half = choose(&listed(TOWERS), "_fp16").unwrap();
        assert!(half.contains(&"onnx/vision_model_fp16.onnx".to_owned()) && half.iter().all(|name| !name.contains("_data")));
        assert_eq!(suffixes(&listed(TOWERS)), ["", "_fp16"]);
    }

    #[test]
    fn a_combined_graph_serves_where_there_are_no_towers() {
        let names = ["preprocessor_config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data_1"];
        assert_eq!(
            choose(&listed(&names), "").unwrap(),
            ["preprocessor_config.json", "tokenizer.json", "onnx/model.onnx_data_1", "onnx/model.onnx"]
        );
    }

    #[test]
    fn tower_folders_are_taken_with_freely_named_tensor_files() {
        let names = [
            "config.json",
            "textual/model.onnx",
            "textual/tokenizer.json",
            "visual/model.onnx",
            "visual/onnx__MatMul_4711",
            "visual/preprocess_cfg.json",
            "visual/model.armnn",
            "visual/../escape",
        ];
        let chosen = choose(&listed(&names), "").unwrap();
        assert!(chosen.contains(&"visual/onnx__MatMul_4711".to_owned()), "{chosen:?}");
        assert!(!chosen.iter().any(|name| name.contains("armnn") || name.contains("..")), "{chosen:?}");
        assert_eq!(chosen.len(), 6);
    }

    #[test]
    fn what_is_missing_is_that_of_the_nearest_layout() {
        assert_eq!(
            lacks(&listed(&["onnx/vision_model.onnx", "tokenizer.json"]), ""),
            ["onnx/text_model.onnx", "preprocessor_config.json or preprocess_cfg.json"]
        );
        assert_eq!(
            lacks(&listed(&["visual/model.onnx", "visual/preprocess_cfg.json", "textual/tokenizer.json"]), ""),
            ["textual/model.onnx"]
        );
    }
}
