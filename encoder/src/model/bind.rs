//! What goes into a tower and what comes out, by what its graph declares. Looks at names, element types and shapes; runs nothing.
//!
//! Output, first that is there: the tower's own embedding (`image_embeds`, `text_embeds`), `embedding`, the only output of two
//! dimensions, `pooler_output`, `sentence_embedding`. Anything less clear is an error that lists the outputs.

use super::scan::{ElementType, Port};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tower {
    /// Pictures in.
    Image,
    /// Captions in.
    Text,
}

impl Tower {
    /// "image" or "text".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }

    /// Names under which exporters declare this tower's embedding, the most telling first.
    fn own_outputs(self) -> [&'static str; 2] {
        match self {
            Self::Image => ["image_embeds", "image_features"],
            Self::Text => ["text_embeds", "text_features"],
        }
    }
}

impl std::fmt::Display for Tower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a graph fits no tower.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// No output looks like an embedding, or several do.
    #[error("cannot tell which output is the {tower} embedding: {outputs}. Name it {wanted} or export the tower alone")]
    Output {
        /// Which tower.
        tower: Tower,
        /// What the graph declares.
        outputs: String,
        /// The name it should have.
        wanted: &'static str,
    },
    /// The output has another type or shape.
    #[error("output {name} is {found}; an embedding is float32 or float16 of shape [batch, values]")]
    OutputType {
        /// Its name.
        name: String,
        /// Type and shape.
        found: String,
    },
    /// The inputs are not those of this tower.
    #[error("cannot tell which input takes the {what}: {inputs}")]
    Input {
        /// "picture" or "token ids".
        what: &'static str,
        /// What the graph declares.
        inputs: String,
    },
    /// An input that is understood but cannot be served.
    #[error("input {name} is {found}: {reason}")]
    Unsupported {
        /// Its name.
        name: String,
        /// Type and shape.
        found: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
}

/// An input by name and element type.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
}

impl From<&Port> for Input {
    fn from(port: &Port) -> Self {
        Self { name: port.name.clone(), element: port.element }
    }
}

/// How pictures go in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageBinding {
    /// `[batch, 3, height, width]`, float32 or float16.
    pub pixels: Input,
    /// Pictures per run, when the graph fixes it.
    pub batch: Option<usize>,
    /// Rows, when the graph fixes them.
    pub height: Option<usize>,
    /// Columns, when the graph fixes them.
    pub width: Option<usize>,
}

/// How captions go in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TextBinding {
    /// `[batch, sequence]`, int64 or int32.
    pub ids: Input,
    /// 1 where there is a token and 0 where there is padding.
    pub mask: Option<Input>,
    /// Filled with 0: one segment only.
    pub segments: Option<Input>,
    /// Filled with 0, 1, 2, ...
    pub positions: Option<Input>,
    /// Captions per run, when the graph fixes it.
    pub batch: Option<usize>,
    /// Tokens per caption, when the graph fixes it.
    pub sequence: Option<usize>,
}

fn show(port: &Port) -> String {
    let shape = port.shape.as_ref().map_or("[?]".to_owned(), |dims| {
        let dim = |d: &super::scan::Dim| match d {
            super::scan::Dim::Fixed(size) => size.to_string(),
            super::scan::Dim::Dynamic(name) if name.is_empty() => "?".to_owned(),
            super::scan::Dim::Dynamic(name) => name.clone(),
        };
        format!("[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
    });
    format!("{} {shape}", port.element)
}

fn show_all(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "there are none".to_owned();
    }
    ports.iter().map(|p| format!("{} ({})", p.name, show(p))).collect::<Vec<_>>().join(", ")
}

/// The output that holds the embedding.
pub(crate) fn output(tower: Tower, outputs: &[Port]) -> Result<&Port, BindError> {
    let named = |name: &str| outputs.iter().find(|p| p.name == name);
    let flat: Vec<&Port> = outputs.iter().filter(|p| p.rank() == Some(2)).collect();
    let only = match (&flat[..], outputs) {
        ([one], _) => Some(*one),
        (_, [one]) => Some(one),
        _ => None,
    };
    let [own, other] = tower.own_outputs();
    let chosen = [own, other, "embedding"].into_iter().find_map(named).or(only);
    let chosen = chosen.or_else(|| ["pooler_output", "sentence_embedding"].into_iter().find_map(named));
    let port = chosen.ok_or_else(|| BindError::Output { tower, outputs: show_all(outputs), wanted: own })?;
    let float = matches!(port.element, ElementType::F32 | ElementType::F16);
    if !float || port.rank().is_some_and(|rank| rank != 2) {
        return Err(BindError::OutputType { name: port.name.clone(), found: show(port) });
    }
    Ok(port)
}

/// Whether the graph declares the embeddings of both towers under their own names.
pub(crate) fn has_both(outputs: &[Port]) -> bool {
    let has = |tower: Tower| tower.own_outputs().iter().any(|name| outputs.iter().any(|p| p.name == *name));
    has(Tower::Image) && has(Tower::Text)
}

/// Which tower a graph with these inputs is, when it is only one.
pub(crate) fn tower_of(inputs: &[Port]) -> Option<Tower> {
    let picture = inputs.iter().any(|p| p.rank() == Some(4));
    let ids = inputs.iter().any(|p| is_integer(p) && p.rank() == Some(2));
    match (picture, ids) {
        (true, false) => Some(Tower::Image),
        (false, true) => Some(Tower::Text),
        _ => None,
    }
}

fn is_integer(port: &Port) -> bool {
    matches!(port.element, ElementType::I64 | ElementType::I32)
}

fn unsupported(port: &Port, reason: &'static str) -> BindError {
    BindError::Unsupported { name: port.name.clone(), found: show(port), reason }
}

/// Binds the picture input.
pub(crate) fn image(inputs: &[Port]) -> Result<ImageBinding, BindError> {
    let [port] = inputs else {
        return Err(BindError::Input { what: "picture", inputs: show_all(inputs) });
    };
    if port.element == ElementType::U8 {
        let reason = "preprocessing inside the graph is not supported; export it with float32 pixels, [batch, 3, height, width]";
        return Err(unsupported(port, reason));
    }
    if !matches!(port.element, ElementType::F32 | ElementType::F16) || port.rank().is_some_and(|rank| rank != 4) {
        return Err(BindError::Input { what: "picture", inputs: show_all(inputs) });
    }
    if port.fixed(1).is_some_and(|channels| channels != 3) {
        return Err(unsupported(port, "the second dimension must be the 3 colour channels (NCHW)"));
    }
    Ok(ImageBinding { pixels: port.into(), batch: port.fixed(0), height: port.fixed(2), width: port.fixed(3) })
}

/// Binds token ids and what goes with them.
pub(crate) fn text(inputs: &[Port]) -> Result<TextBinding, BindError> {
    let (mut ids, mut mask, mut segments, mut positions) = (None, None, None, None);
    for port in inputs {
        let slot = match port.name.as_str() {
            name if name.contains("mask") => &mut mask,
            name if name.contains("token_type") || name.contains("segment") => &mut segments,
            name if name.contains("position") => &mut positions,
            _ => &mut ids,
        };
        if slot.replace(port).is_some() {
            return Err(BindError::Input { what: "token ids", inputs: show_all(inputs) });
        }
        if !is_integer(port) {
            return Err(unsupported(port, "text inputs must be int64 or int32; export the tower alone, or with integer inputs"));
        }
        if port.rank().is_some_and(|rank| rank != 2) {
            return Err(unsupported(port, "text inputs must have the shape [batch, sequence]"));
        }
    }
    let port = ids.ok_or_else(|| BindError::Input { what: "token ids", inputs: show_all(inputs) })?;
    Ok(TextBinding {
        ids: port.into(),
        mask: mask.map(Input::from),
        segments: segments.map(Input::from),
        positions: positions.map(Input::from),
        batch: port.fixed(0),
        sequence: port.fixed(1),
    })
}
