//! The prompt templates that ship with the program; `data/README.md` says where they are from.

use crate::policy::TemplateSet;

const OPENAI_IMAGENET_80: &str = include_str!("../data/openai_imagenet_80.txt");
const OPENAI_IMAGENET_7: &str = include_str!("../data/openai_imagenet_7.txt");

/// The prompts of a set, `{}` where the class name goes.
pub(crate) fn of(set: TemplateSet) -> Vec<&'static str> {
    match set {
        TemplateSet::OpenaiImagenet80 => OPENAI_IMAGENET_80.lines().collect(),
        TemplateSet::OpenaiImagenet7 => OPENAI_IMAGENET_7.lines().collect(),
        TemplateSet::APhotoOf => vec!["a photo of a {}."],
    }
}
