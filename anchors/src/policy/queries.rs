//! How rows of the query file become queries, and class names prompts.

use serde::{Deserialize, Serialize};

use crate::templates;

/// How rows of the query file become queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queries {
    /// One query a row, or one a class: the mean of its rows' vectors. Default: a row.
    pub per: Per,
    /// The words of a query, where a direction starts from text. Default: the row's caption.
    pub text: TextSource,
    /// The column of class labels. Default: `label`, where there is one.
    pub class_column: Option<String>,
    /// Names of numbered labels: label 0 is the first. Default: labels are names.
    pub class_names: Vec<String>,
    /// Prompts made of class names.
    pub templates: Templates,
    /// Whether a class's prompts are averaged into one query, or each is a query. Default: averaged.
    pub prompts: Prompts,
    /// Whether vectors are made from pictures and words, or are in the file (by the pool's model). Default: made.
    pub vectors: VectorSource,
}

/// What one query stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// A row of the query file.
    #[default]
    Row,
    /// All rows of a class.
    Class,
}

/// Where a query's words come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// The row's caption.
    #[default]
    Caption,
    /// The row's class name, through the prompt templates.
    ClassName,
}

/// What becomes of a class's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// One vector: the mean of the prompts' unit vectors.
    #[default]
    Mean,
    /// One query a prompt.
    Each,
}

/// Where a query's vectors come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorSource {
    /// The encoder makes them.
    #[default]
    Encode,
    /// The query file has them.
    Ready,
}

/// Prompts with `{}` where the class name goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// A list that ships with the program.
    Named(TemplateSet),
    /// The caller's own.
    Own(Vec<String>),
}

impl Default for Templates {
    fn default() -> Self {
        Self::Named(TemplateSet::OpenaiImagenet80)
    }
}

/// The lists that ship with the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateSet {
    /// The 80 prompts OpenAI used for ImageNet.
    #[default]
    #[serde(rename = "openai-imagenet-80")]
    OpenaiImagenet80,
    /// The seven of them that do best together.
    #[serde(rename = "openai-imagenet-7")]
    OpenaiImagenet7,
    /// `a photo of a {}.` alone.
    #[serde(rename = "a-photo-of")]
    APhotoOf,
}

impl Templates {
    /// The prompts for one class.
    #[must_use]
    pub fn prompts(&self, class: &str) -> Vec<String> {
        let own: Vec<&str> = match self {
            Self::Named(set) => templates::of(*set),
            Self::Own(list) => list.iter().map(String::as_str).collect(),
        };
        own.into_iter().map(|template| template.replace("{}", class)).collect()
    }
}
