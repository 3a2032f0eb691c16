//! A model folder, opened: both towers found, read, scanned and bound (`reader`), and what is known of them.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::bind::{ImageBinding, TextBinding, Tower};
use super::config::ModelConfig;
use super::files::Root;
use super::layout;
use super::options::ModelOptions;
use super::reader::{Reader, hex};
use super::tower::TowerModel;
use super::{Layout, ModelError, Similarity, TextPadding};

/// A model folder whose files were read, scanned and bound.
#[derive(Debug)]
pub struct Folder {
    name: String,
    layout: Layout,
    fingerprint: String,
    image: Option<TowerModel<ImageBinding>>,
    text: Option<TowerModel<TextBinding>>,
    config: ModelConfig,
}

impl Folder {
    /// Finds the towers in `path`, reads their files, and checks that they belong together. Nothing is run.
    ///
    /// # Errors
    /// [`ModelError`], which names the file and what to do.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self, ModelError> {
        let root = Arc::new(Root::open(path)?);
        let found = layout::detect(&root, options)?;
        let mut reader = Reader::of(&root, options);
        let config = reader.config()?;
        let (layout, image, text) = reader.towers(&found)?;
        reader.configuration()?;
        check_dimensions(path, image.as_ref(), text.as_ref())?;
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |n| n.to_string_lossy()).into_owned();
        Ok(Self { name, layout, fingerprint: reader.fingerprint(), image, text, config })
    }

    /// The image tower of one folder with the text tower of another, for models that are published as two repositories.
    /// Similarity and padding are the text folder's.
    ///
    /// # Errors
    /// [`ModelError::NotThisTower`], [`ModelError::Dimension`].
    pub fn pair(image: Self, text: Self) -> Result<Self, ModelError> {
        let missing = |folder: &Self, tower| ModelError::NotThisTower { path: folder.name.clone().into(), tower };
        let (image_print, text_print) = (image.fingerprint.clone(), text.fingerprint.clone());
        let name = format!("{} + {}", image.name, text.name);
        let image = image.image.ok_or(ModelError::NotThisTower { path: image.name.into(), tower: Tower::Image })?;
        if text.text.is_none() {
            return Err(missing(&text, Tower::Text));
        }
        check_dimensions(Path::new(&name), Some(&image), text.text.as_ref())?;
        let fingerprint = hex(&Sha256::digest(format!("anchorite pair 1\n{image_print}\n{text_print}\n")));
        Ok(Self { name, layout: Layout::Pair, fingerprint, image: Some(image), text: text.text, config: text.config })
    }

    /// The folder's own name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its files lie.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Hex SHA-256 over names, lengths and digests of all files that decide what an embedding is.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How cosines become scores.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.config.similarity
    }

    /// How far captions are padded when the graph leaves it open.
    #[must_use]
    pub fn text_padding(&self) -> TextPadding {
        self.config.padding
    }

    /// Tokens per caption as `config.json` states it.
    #[must_use]
    pub fn context_length(&self) -> Option<usize> {
        self.config.context
    }

    /// Values per embedding, if a graph or `config.json` says; otherwise it shows when a tower runs.
    #[must_use]
    pub fn declared_dim(&self) -> Option<usize> {
        let image = self.image.as_ref().and_then(|t| t.output.fixed(1));
        image.or_else(|| self.text.as_ref()?.output.fixed(1))
    }

    /// The image tower.
    #[must_use]
    pub fn image(&self) -> Option<&TowerModel<ImageBinding>> {
        self.image.as_ref()
    }

    /// The text tower.
    #[must_use]
    pub fn text(&self) -> Option<&TowerModel<TextBinding>> {
        self.text.as_ref()
    }

    pub(crate) fn into_towers(self) -> (Option<TowerModel<ImageBinding>>, Option<TowerModel<TextBinding>>) {
        (self.image, self.text)
    }

    pub(crate) fn config_dim(&self) -> Option<usize> {
        self.config.dim
    }
}

fn check_dimensions(
    path: &Path,
    image: Option<&TowerModel<ImageBinding>>,
    text: Option<&TowerModel<TextBinding>>,
) -> Result<(), ModelError> {
    let image = image.and_then(|t| t.output.fixed(1));
    let text = text.and_then(|t| t.output.fixed(1));
    match (image, text) {
        (Some(image), Some(text)) if image != text => Err(ModelError::Dimension { path: path.to_owned(), image, text }),
        _ => Ok(()),
    }
}
