//! What `config.json` adds to the graphs: how scores become probabilities, and how captions are padded. Hugging Face's and
//! open_clip's dialects; a missing file or field means CLIP's values.

use serde_json::Value;

/// How the cosine of a pair becomes a score: `cosine * scale + bias`, then softmax over candidates or sigmoid of each pair.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Similarity {
    /// CLIP's softmax, or SigLIP's sigmoid.
    pub kind: SimilarityKind,
    /// The exponential of `logit_scale`.
    pub scale: f32,
    /// `logit_bias`; 0 for CLIP.
    pub bias: f32,
    /// Whether the numbers are this model's own.
    pub source: SimilaritySource,
}

/// What is made of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SimilarityKind {
    /// Probabilities over all candidates.
    Softmax,
    /// One probability for each pair.
    Sigmoid,
}

/// Where scale and bias come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SimilaritySource {
    /// `config.json`.
    Stated,
    /// The file does not say: what CLIP ended with (100), or what SigLIP began with (10 and -10).
    Assumed,
}

/// How far captions are padded when the graph leaves the length open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPadding {
    /// To the longest of the batch: exact for causal towers and for those with an attention mask.
    Longest,
    /// To the whole context: the tower was trained on padded captions and sees the padding (SigLIP).
    Context,
}

/// What is used of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelConfig {
    pub(crate) similarity: Similarity,
    pub(crate) padding: TextPadding,
    pub(crate) context: Option<usize>,
    pub(crate) dim: Option<usize>,
}

/// What CLIP's `logit_scale` starts from; Hugging Face writes it into every CLIP's config, trained or not.
const CLIP_INITIAL_LOGIT_SCALE: f64 = 2.6592;

impl ModelConfig {
    pub(crate) fn from_json(config: &Value) -> Self {
        let at = |path: &str| config.pointer(path);
        let size = |paths: &[&str]| paths.iter().find_map(|p| at(p)?.as_u64()).and_then(|v| usize::try_from(v).ok());
        let kind = at("/model_type").and_then(Value::as_str).unwrap_or_default();
        let text = ["/model_cfg/text_cfg", "/text_cfg"].iter().find_map(|p| at(p));
        let sees_padding = text.and_then(|t| t.get("no_causal_mask")).and_then(Value::as_bool).unwrap_or(false);
        let padding = if kind.starts_with("siglip") || sees_padding { TextPadding::Context } else { TextPadding::Longest };
        let context = ["/text_config/max_position_embeddings", "/text_cfg/context_length", "/model_cfg/text_cfg/context_length"];
        let siglip_context = (padding == TextPadding::Context).then_some(64);
        Self {
            similarity: similarity(config, kind),
            padding,
            context: size(&context).or(siglip_context),
            dim: size(&["/projection_dim", "/embed_dim", "/model_cfg/embed_dim"]),
        }
    }
}

fn similarity(config: &Value, kind: &str) -> Similarity {
    let number = |names: &[&str]| {
        let value = names.iter().find_map(|p| config.pointer(p)?.as_f64());
        value.filter(|v| v.is_finite() && v.abs() < 80.0)
    };
    let bias = number(&["/logit_bias"]);
    let initial_bias = number(&["/logit_bias_init_value", "/init_logit_bias", "/model_cfg/init_logit_bias"]);
    let sigmoid = kind.starts_with("siglip") || bias.is_some() || initial_bias.is_some();
    // An initial value that is not everybody's was put there on purpose.
    let own = number(&["/logit_scale_init_value"]).filter(|v| (v - CLIP_INITIAL_LOGIT_SCALE).abs() > 1e-4);
    let scale = number(&["/logit_scale"]).or(own);
    let (assumed_scale, assumed_bias) = if sigmoid { (10.0, -10.0) } else { (100.0, 0.0) };
    let stated = scale.is_some() && (bias.is_some() || !sigmoid);
    Similarity {
        kind: if sigmoid { SimilarityKind::Sigmoid } else { SimilarityKind::Softmax },
        scale: scale.map_or(assumed_scale, f64::exp) as f32,
        bias: bias.unwrap_or(assumed_bias) as f32,
        source: if stated { SimilaritySource::Stated } else { SimilaritySource::Assumed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ModelConfig {
        ModelConfig::from_json(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn siglip_states_scale_and_bias() {
        let config = read(r#"{"model_type": "siglip", "logit_scale": 4.7659, "logit_bias": -12.93}"#);
        assert_eq!(config.similarity.kind, SimilarityKind::Sigmoid);
        assert!((config.similarity.scale - 117.44).abs() < 0.1, "{config:?}");
        assert_eq!(config.similarity.bias, -12.93);
        assert_eq!((config.padding, config.context), (TextPadding::Context, Some(64)));
        assert_eq!(config.similarity.source, SimilaritySource::Stated);
    }

    #[test]
    fn clips_untrained_scale_is_not_taken_for_the_trained_one() {
        let config = read(r#"{"model_type": "clip", "logit_scale_init_value": 2.6592, "projection_dim": 512}"#);
        assert_eq!(config.similarity.scale, 100.0);
        assert_eq!(config.similarity.source, SimilaritySource::Assumed);
        assert_eq!((config.padding, config.dim), (TextPadding::Longest, Some(512)));
    }

    #[test]
    fn open_clips_dialect_is_read() {
        let config = read(r#"{"embed_dim": 768, "text_cfg": {"context_length": 64, "no_causal_mask": true}}"#);
        assert_eq!((config.dim, config.context, config.padding), (Some(768), Some(64), TextPadding::Context));
    }
}
