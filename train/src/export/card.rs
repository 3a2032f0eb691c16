//! The model card: what the model is, and all that is needed to make it again.

use std::fmt::Write;

/// What a card says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Card {
    /// The model that training started from, as the run file names it.
    pub base: String,
    /// Its fingerprint.
    pub base_fingerprint: String,
    /// The command that made it: `finetune` or `pretrain`.
    pub command: &'static str,
    /// The run file in full; empty where no run file alone makes the model.
    pub run: String,
    /// Optimizer steps made.
    pub steps: u64,
    /// The finetune set: rows, classes, SHA-256 over its rows.
    pub data: String,
    /// Anchors: where from.
    pub anchors: Option<String>,
    /// The last step's metrics as JSON; empty where nobody kept them.
    pub last: String,
    /// ONNX Runtime's version.
    pub runtime: String,
    /// The classifier's head, where there is one.
    pub head: Option<String>,
    /// Trained parameters, and all.
    pub parameters: String,
}

impl Card {
    /// The card as README.md, with the hub's front matter.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        let hub_id = self.base.split('/').count() == 2 && !self.base.starts_with(['.', '/']);
        text.push_str("---\nlibrary_name: onnx\npipeline_tag: zero-shot-image-classification\ntags: [clip, onnx, anchorite]\n");
        if hub_id {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "base_model: {}", self.base);
        }
        let _ = write!(
            text,
            "---\n\n# A CLIP trained by anchorite\n\nMade by anchorite {} from `{}` in {} steps.\n\n",
            env!("CARGO_PKG_VERSION"),
            self.base,
            self.steps
        );
        let mut rows = vec![
            ("started from", format!("`{}` (fingerprint `{}`)", self.base, self.base_fingerprint)),
            ("finetune set", self.data.clone()),
            ("anchors", self.anchors.clone().unwrap_or_else(|| "none".to_owned())),
            ("parameters", self.parameters.clone()),
            ("ONNX Runtime", self.runtime.clone()),
        ];
        if !self.last.is_empty() {
            rows.push(("last step", format!("`{}`", self.last)));
        }
        rows.extend(
            self.head.clone().map(|head| ("classifier", format!("{head}; logits are unit image embeddings times its rows"))),
        );
        text.push_str("| | |\n|---|---|\n");
        for (name, value) in rows {
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|").replace('\n', " "));
        }
        let _ = write!(
            text,
            "\nThe towers take and give what those of the model it came from do; preprocessing and tokenizer are its own files. \
             `model.safetensors` has the weights by name. The logit scale is in the configuration file as `logit_scale` (a logarithm).\n"
        );
        if !self.run.is_empty() {
            let _ = write!(
                text,
                "\n## Again\n\nWith the same data in place:\n\n```sh\nanchorite {} run.toml\n```\n\n```toml\n{}```\n",
                self.command, self.run
            );
        }
        text
    }
}
