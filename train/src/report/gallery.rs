//! Task pictures beside what was retrieved for them (the paper's figure 5), as data URIs within a budget.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{ReportLimits, html::escape};

/// A picture with words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Encoded picture bytes.
    pub picture: Option<Vec<u8>>,
    /// Below it: the caption.
    pub caption: String,
    /// Below that: class, score, style.
    pub remark: String,
}

/// One picture of the task and its anchors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// The task's picture.
    pub query: Shown,
    /// The anchors, the nearest first.
    pub anchors: Vec<Shown>,
}

/// Tasks to be shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gallery {
    /// Each in a row of its own.
    pub tasks: Vec<Task>,
}

impl Gallery {
    /// The gallery as HTML, and how many pictures did not fit the limits or are of no kind that browsers show.
    #[must_use]
    pub fn to_html(&self, limits: &ReportLimits) -> (String, u64) {
        let mut writer = Writer { out: String::new(), spent: 0, left_out: 0, limits };
        for task in &self.tasks {
            writer.out.push_str("<div class=\"task\">");
            writer.show(&task.query, "query");
            task.anchors.iter().for_each(|anchor| writer.show(anchor, "anchor"));
            writer.out.push_str("</div>");
        }
        (writer.out, writer.left_out)
    }
}

struct Writer<'a> {
    out: String,
    spent: usize,
    left_out: u64,
    limits: &'a ReportLimits,
}

impl Writer<'_> {
    fn show(&mut self, shown: &Shown, class: &str) {
        let picture = shown.picture.as_deref().and_then(|bytes| Some((bytes, kind(bytes)?)));
        let fits = |bytes: &[u8]| {
            bytes.len() <= self.limits.max_picture_bytes && self.spent + bytes.len() <= self.limits.max_pictures_bytes
        };
        let image = match picture {
            Some((bytes, kind)) if fits(bytes) => {
                self.spent += bytes.len();
                format!("<img alt=\"{}\" src=\"data:{kind};base64,{}\">", escape(&shown.caption), STANDARD.encode(bytes))
            }
            _ => {
                self.left_out += u64::from(shown.picture.is_some());
                "<span class=\"none\">not shown</span>".to_owned()
            }
        };
        let (caption, remark) = (escape(&shown.caption), escape(&shown.remark));
        let _ = write!(self.out, "<div class=\"{class}\">{image}{caption}<div class=\"score\">{remark}</div></div>");
    }
}

/// What the bytes are, by their beginning; nothing else goes into a page.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}
