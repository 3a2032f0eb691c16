//! Datasets of the Hugging Face hub: `hf://datasets/org/name`, with `@revision` after the name and a path or pattern behind it.
//!
//! ```text
//!   hf://datasets/org/name@main/data/*.parquet ──listing of one commit──► files ──download, checked──► paths of plain files
//! ```
//!
//! Rows are known by `org/name/data/...`, whichever commit they came from: a row that a later commit changed takes the earlier one's place.

use std::path::{Component, Path, PathBuf};

use anchorite_encoder::hub::{HubError, HubOptions, dataset};

use super::{pattern, pictures::is_picture_name, tar};
use crate::{Limits, SourceError};

/// What an argument begins with that names a dataset of the hub.
const SCHEME: &str = "hf://datasets/";
/// Names of a listing that are shown where none fits.
const SHOWN: usize = 5;

/// A dataset of the hub, or files of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    repository: String,
    revision: Option<String>,
    /// A path, a folder or a pattern; none means everything that ingest reads.
    path: Option<String>,
}

/// Files of a dataset, downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Sources for [`crate::ingest`].
    pub sources: Vec<PathBuf>,
    /// The dataset with the commit that `revision` stands for, as it may be named to get the same again.
    pub pinned: String,
}

impl HubSource {
    /// What an argument names; none where it is a path.
    #[must_use]
    pub fn parse(argument: &Path) -> Option<Self> {
        let rest = argument.to_str()?.strip_prefix(SCHEME)?;
        let mut parts = rest.splitn(3, '/');
        let (organisation, name) = (parts.next()?, parts.next().unwrap_or_default());
        let path = parts.next().map(|path| path.trim_end_matches('/').to_owned()).filter(|path| !path.is_empty());
        let (name, revision) = name.split_once('@').map_or((name, None), |(name, revision)| (name, Some(revision)));
        // In an address, a revision's own slashes are written %2F.
        let revision = revision.map(|revision| revision.replace("%2F", "/").replace("%2f", "/"));
        Some(Self { repository: format!("{organisation}/{name}"), revision, path })
    }

    /// Downloads what is not in the cache yet. `progress` gets a short sentence now and then.
    ///
    /// # Errors
    /// [`HubError`]; each says what to do.
    pub fn fetch(&self, options: &HubOptions, progress: &dyn Fn(&str)) -> Result<Fetched, HubError> {
        let choose = |names: &[String]| self.choose(names);
        let snapshot = dataset(&self.repository, self.revision.as_deref(), &choose, options, progress)?;
        let behind = self.path.as_ref().map_or_else(String::new, |path| format!("/{path}"));
        let pinned = format!("{SCHEME}{}@{}{behind}", self.repository, snapshot.commit);
        let source = self.path.as_ref().map_or_else(|| snapshot.folder.clone(), |path| snapshot.folder.join(path));
        Ok(Fetched { sources: vec![source], pinned })
    }

    /// The files to download: those that are sources, and captions and tables beside pictures.
    fn choose(&self, names: &[String]) -> Result<Vec<String>, String> {
        let chosen = match &self.path {
            None => names.to_vec(),
            Some(path) => pattern::choose(path, names, &Limits::default()).map_err(|e: SourceError| e.to_string())?,
        };
        let chosen: Vec<String> = chosen.into_iter().filter(|name| is_wanted(name)).collect();
        if chosen.iter().any(|name| is_source(name)) {
            return Ok(chosen);
        }
        let first: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
        let asked = self.path.as_deref().unwrap_or("the dataset");
        Err(format!(
            "nothing to ingest in {asked}: no parquet file, tar, table or picture (it has {} files: {}, ...)",
            names.len(),
            first.join(", ")
        ))
    }
}

fn is_source(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let table = [".parquet", ".jsonl", ".csv", ".tsv", ".npy"].iter().any(|ending| lower.ends_with(ending));
    table || tar::is_tar_name(&lower) || is_picture_name(name.rsplit('/').next().unwrap_or_default())
}

fn is_wanted(name: &str) -> bool {
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    let beside = [".txt", ".json"].iter().any(|ending| name.ends_with(ending)) && name.contains('/');
    !hidden && (is_source(name) || beside)
}

/// The dataset, the commit, and the path in it of a file that [`HubSource::fetch`] has put where it is.
pub(crate) fn fetched(path: &Path) -> Option<(String, String, String)> {
    let parts: Vec<&str> =
        path.components().filter_map(|c| if let Component::Normal(c) = c { c.to_str() } else { None }).collect();
    let at = parts.windows(2).rposition(|pair| pair[1] == "anchorite" && pair[0].starts_with("datasets--"))?;
    let (repository, commit) = (parts.get(at)?.strip_prefix("datasets--")?.replacen("--", "/", 1), parts.get(at + 2)?);
    Some((repository, (*commit).to_owned(), parts.get(at + 3..)?.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_apart() {
        let parse = |text: &str| HubSource::parse(Path::new(text));
        let is = |repository: &str, revision: Option<&str>, path: Option<&str>| {
            let (repository, revision, path) = (repository.to_owned(), revision.map(str::to_owned), path.map(str::to_owned));
            Some(HubSource { repository, revision, path })
        };
        assert_eq!(parse("hf://datasets/org/name"), is("org/name", None, None));
        assert_eq!(parse("hf://datasets/org/name/"), is("org/name", None, None));
        assert_eq!(parse("hf://datasets/org/name@v1/data/*.parquet"), is("org/name", Some("v1"), Some("data/*.parquet")));
        assert_eq!(
            parse("hf://datasets/org/name@refs%2Fconvert%2Fparquet/x"),
            is("org/name", Some("refs/convert/parquet"), Some("x"))
        );
        assert_eq!(parse("data/x.parquet"), None);
        assert_eq!(parse("hf://org/name"), None);
    }

    #[test]
    fn a_fetched_file_is_called_after_its_dataset() {
        let found = fetched(Path::new("/c/hub/datasets--org--my--name/anchorite/abc/data/x.parquet"));
        assert_eq!(found, Some(("org/my--name".to_owned(), "abc".to_owned(), "data/x.parquet".to_owned())));
        assert_eq!(fetched(Path::new("/c/datasets--org--name/snapshots/abc/x")), None);
    }
}
