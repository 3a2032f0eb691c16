//! Escaping, tables, the page.

use std::fmt::Write;

/// Text as HTML, in content and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in HTML text.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A page in the making.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
    contents: Vec<String>,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: String::new(), contents: Vec::new() }
    }

    /// Starts a section.
    pub fn section(&mut self, title: &str) {
        self.contents.push(title.to_owned());
        let _ = write!(self.body, "<h2 id=\"s{}\">{}</h2>", self.contents.len(), escape(title));
    }

    /// A heading within a section.
    pub fn heading(&mut self, title: &str) {
        let _ = write!(self.body, "<h3>{}</h3>", escape(title));
    }

    /// A paragraph of text.
    pub fn text(&mut self, text: &str) {
        let _ = write!(self.body, "<p>{}</p>", escape(text));
    }

    /// Text as it is, folded away under `summary`.
    pub fn folded(&mut self, summary: &str, text: &str) {
        let _ = write!(self.body, "<details><summary>{}</summary><pre>{}</pre></details>", escape(summary), escape(text));
    }

    /// A table; cells are text. The first column is a heading of its row, others that begin like a number are set as figures.
    pub fn table(&mut self, head: &[String], rows: &[Vec<String>]) {
        self.body.push_str("<div class=\"wide\"><table><thead><tr>");
        head.iter().for_each(|cell| {
            let _ = write!(self.body, "<th scope=\"col\">{}</th>", escape(cell));
        });
        self.body.push_str("</tr></thead><tbody>");
        for row in rows {
            self.body.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                let figure = cell.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == '−');
                let _ = match (i, figure) {
                    (0, _) => write!(self.body, "<th scope=\"row\">{}</th>", escape(cell)),
                    (_, true) => write!(self.body, "<td class=\"n\">{}</td>", escape(cell)),
                    _ => write!(self.body, "<td>{}</td>", escape(cell)),
                };
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</tbody></table></div>");
    }

    /// Markup made by this crate: a chart, a gallery.
    pub fn figure(&mut self, markup: &str) {
        let _ = write!(self.body, "<figure>{markup}</figure>");
    }

    /// The whole file.
    #[must_use]
    pub fn finish(self) -> String {
        let link = |(i, title): (usize, &String)| format!("<a href=\"#s{}\">{}</a>", i + 1, escape(title));
        let contents: Vec<String> = self.contents.iter().enumerate().map(link).collect();
        let title = escape(&self.title);
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
             <title>{title}</title><style>{}</style></head><body><header><h1>{title}</h1><nav>{}</nav></header><main>{}</main></body></html>\n",
            include_str!("page.css"),
            contents.join(" "),
            self.body
        )
    }
}
