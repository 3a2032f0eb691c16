//! Arguments to shards: what each file is, its name, and the order.
//!
//! A file is what its ending says (`.parquet`, `.tar`, `.tar.gz`, `.tgz`, `.jsonl`, `.csv`, `.tsv`); one that is named itself
//! and has none of these is looked into. Folders are walked: a table or parquet file in a folder owns the pictures below it,
//! other pictures are a shard of their own for each folder. img2dataset's files beside its shards are no sources; they are counted.
//!
//! Names. A shard is called after its folder and itself: `cc3m/00000.tar`, whether it was named itself, found through its
//! folder, or matched by a pattern, and wherever `cc3m` lies. With a source root it is called by its path below that. Rows are
//! known to the pool by these names (files of a hub's dataset by `org/name/` and their path in it), so moving a dataset keeps its rows as long as the last folder keeps its name.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    Reach, Shard, ShardKind, clip_retrieval, hub,
    pattern::{self, natural},
    pictures, sidecar, tar,
};
use crate::{Limits, SourceError};

/// What the arguments stand for.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) shards: Vec<Shard>,
    /// img2dataset's statistics and lists beside its shards.
    pub(crate) sidecars: u64,
    /// Pictures below a folder with a table or parquet file: they are read as that names them, if it does.
    pub(crate) owned_pictures: u64,
    /// Files of kinds that no reader takes, by ending.
    pub(crate) ignored: BTreeMap<String, u64>,
}

/// The shards of all arguments, in order; those of a folder or pattern in natural order of their names.
pub(crate) fn find(arguments: &[PathBuf], root: Option<&Path>, limits: &Limits, reach: &Reach) -> Result<Found, SourceError> {
    if arguments.is_empty() {
        return Err(SourceError::NoSources);
    }
    let root = root.map(|root| failed_open(root, root.canonicalize())).transpose()?;
    let mut finder = Finder { root, limits, reach, found: Found::default(), picture: None };
    for argument in arguments {
        let before = finder.found.shards.len();
        for source in pattern::expand(argument, limits, reach)? {
            finder.source(&source)?;
        }
        if let (true, Some(path)) = (finder.found.shards.len() == before, finder.picture.take()) {
            return Err(SourceError::Picture { path });
        }
        if finder.found.shards.len() == before {
            return Err(SourceError::NothingFound { path: argument.clone() });
        }
        if finder.found.shards.len() > limits.max_shards {
            return Err(SourceError::TooManyShards { path: argument.clone(), max: limits.max_shards });
        }
    }
    Ok(finder.found)
}

impl Found {
    /// Refuses two shards of one name, whose rows would have the same keys.
    pub(crate) fn with_distinct_names(self) -> Result<Self, SourceError> {
        let mut names = HashSet::new();
        match self.shards.iter().find(|shard| !names.insert(shard.name.as_str())) {
            Some(shard) => Err(SourceError::SameName { name: shard.name.clone() }),
            None => Ok(self),
        }
    }
}

fn failed_open<T>(path: &Path, result: io::Result<T>) -> Result<T, SourceError> {
    result.map_err(|source| SourceError::Open { path: path.to_owned(), source })
}

struct Finder<'a> {
    root: Option<PathBuf>,
    limits: &'a Limits,
    reach: &'a Reach,
    found: Found,
    /// A picture that a pattern matched.
    picture: Option<PathBuf>,
}

impl Finder<'_> {
    fn source(&mut self, source: &pattern::Expanded) -> Result<(), SourceError> {
        let path = &source.path;
        if failed_open(path, self.reach.is_folder(path))? {
            return self.folder(path);
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = failed_open(parent, self.reach.canonical(parent))?;
        let name = file_name(path);
        let kind = by_name(&name, path);
        if kind.is_none() && pictures::is_picture_name(&name) {
            return self.picture(source);
        }
        if source.matched && kind.is_none() {
            self.ignore(&name);
            return Ok(());
        }
        if source.matched && self.passed_over(&name, &|other| self.reach.exists(&parent.join(other))) {
            return Ok(());
        }
        let kind = kind.unwrap_or_else(|| by_content(path, self.reach));
        self.push(&parent.join(name), kind)
    }

    /// Whether an entry is a folder. One that cannot be looked at, such as a link that leads nowhere, is passed over if its name is no
    /// source's.
    fn is_folder(&self, path: &Path, is_source: bool) -> Result<bool, SourceError> {
        match self.reach.is_folder(path) {
            Err(_) if !is_source => Ok(false),
            looked => failed_open(path, looked),
        }
    }

    fn folder(&mut self, folder: &Path) -> Result<(), SourceError> {
        let folder = failed_open(folder, self.reach.canonical(folder))?;
        if clip_retrieval::is_clip_retrieval(&folder, self.reach) {
            let name = self.name(&folder.join("x"))?;
            let name = name.strip_suffix("/x").unwrap_or_default();
            for (label, partition) in clip_retrieval::partitions(&folder, name, self.reach)? {
                let (name, place) = (format!("{name}/{label}"), folder.join(&label));
                self.found.shards.push(Shard { name, place, kind: ShardKind::ClipRetrieval(partition) });
            }
            return Ok(());
        }
        let before = self.found.shards.len();
        self.walk(&folder, self.limits.max_folder_depth, false)?;
        if let Some(own) = self.found.shards.get_mut(before..) {
            own.sort_by(|a, b| natural(&a.place.to_string_lossy(), &b.place.to_string_lossy()));
        }
        Ok(())
    }

    /// Hidden entries and our own reject lists are passed over.
    fn walk(&mut self, folder: &Path, depth: usize, owned: bool) -> Result<(), SourceError> {
        let failed = |source| SourceError::Open { path: folder.to_owned(), source };
        let (mut names, mut pictures) = (BTreeSet::new(), 0);
        for name in self.reach.names(folder).map_err(failed)? {
            let name = name.map_err(failed)?;
            match (name.starts_with('.'), pictures::is_picture_name(&name)) {
                (true, _) => {}
                (_, true) => pictures += 1,
                // There are as many as pictures, and they are no sources.
                _ if is_beside_pictures(&name) => {}
                _ => {
                    names.insert(name);
                }
            }
            if names.len() > self.limits.max_shards.saturating_mul(4) {
                return Err(SourceError::TooManyShards { path: folder.to_owned(), max: self.limits.max_shards });
            }
        }
        let kinds: Vec<(&String, Option<ShardKind>)> = names.iter().map(|n| (n, by_name(n, &folder.join(n)))).collect();
        let owner = |(name, kind): &(&String, Option<ShardKind>)| match kind {
            Some(ShardKind::Table(_)) => true,
            Some(ShardKind::Parquet(_)) => !is_no_source(name, &|other| names.contains(other)),
            _ => false,
        };
        let owned = owned || kinds.iter().any(owner);
        for (name, kind) in kinds {
            let path = folder.join(name);
            if self.is_folder(&path, kind.is_some())? {
                if depth > 0 {
                    self.walk(&path, depth - 1, owned)?;
                }
            } else if !self.passed_over(name, &|other| names.contains(other)) {
                match kind {
                    Some(kind) => self.push(&path, kind)?,
                    None => self.ignore(name),
                }
            }
            if self.found.shards.len() > self.limits.max_shards {
                return Err(SourceError::TooManyShards { path: folder.to_owned(), max: self.limits.max_shards });
            }
        }
        if owned {
            self.found.owned_pictures += pictures;
        } else if pictures > 0 {
            self.push(folder, ShardKind::Pictures(folder.to_owned(), pictures))?;
        }
        Ok(())
    }

    /// Whether the file is no source although its ending is one's.
    fn passed_over(&mut self, name: &str, has: &dyn Fn(&str) -> bool) -> bool {
        self.found.sidecars += u64::from(sidecar::is_sidecar(name, has));
        is_no_source(name, has)
    }

    /// A picture that is named by itself has no captions but through its folder; one that a pattern matched may lie beside a table.
    fn picture(&mut self, source: &pattern::Expanded) -> Result<(), SourceError> {
        if !source.matched {
            return Err(SourceError::Picture { path: source.path.clone() });
        }
        self.found.owned_pictures += 1;
        self.picture = Some(source.path.clone());
        Ok(())
    }

    /// Counts a file of a kind that is not read. Captions and metadata beside pictures are of no such kind.
    fn ignore(&mut self, name: &str) {
        if is_beside_pictures(name) {
            return;
        }
        let ending = name.rsplit_once('.').map_or(name, |(_, ending)| ending).to_ascii_lowercase();
        *self.found.ignored.entry(ending).or_default() += 1;
    }

    fn push(&mut self, path: &Path, kind: ShardKind) -> Result<(), SourceError> {
        let name = self.name(path)?;
        self.found.shards.push(Shard { name, place: path.to_owned(), kind });
        Ok(())
    }

    /// The name of a file whose folder's path is canonical. The file itself may be a link (the Hugging Face cache is made of them).
    fn name(&self, path: &Path) -> Result<String, SourceError> {
        if let Some(root) = &self.root {
            let below = path.strip_prefix(root);
            let outside = |_| SourceError::OutsideRoot { path: path.to_owned(), root: root.clone() };
            return Ok(below.map_err(outside)?.to_string_lossy().into_owned());
        }
        if let Some((repository, _, below)) = hub::fetched(path) {
            return Ok(format!("{repository}/{below}").trim_end_matches('/').to_owned());
        }
        let folder = path.parent().map(file_name).filter(|name| !name.is_empty());
        Ok(folder.map_or_else(|| file_name(path), |folder| format!("{folder}/{}", file_name(path))))
    }
}

/// Whether the name is that of a caption or of metadata beside pictures.
fn is_beside_pictures(name: &str) -> bool {
    [".txt", ".json"].iter().any(|end| name.ends_with(end)) && !name.ends_with("_stats.json")
}

/// A sidecar, or a list of rejects of our own.
fn is_no_source(name: &str, has: &dyn Fn(&str) -> bool) -> bool {
    sidecar::is_sidecar(name, has) || name.ends_with("rejects.parquet")
}

fn by_name(name: &str, path: &Path) -> Option<ShardKind> {
    let lower = name.to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    if ends(&[".parquet"]) {
        Some(ShardKind::Parquet(path.to_owned()))
    } else if tar::is_tar_name(&lower) {
        Some(ShardKind::Tar(path.to_owned()))
    } else if ends(&[".jsonl", ".csv", ".tsv"]) {
        Some(ShardKind::Table(path.to_owned()))
    } else {
        None
    }
}

/// A file that is named itself and whose ending says nothing. What is no tar is left to the parquet reader to refuse.
fn by_content(path: &Path, reach: &Reach) -> ShardKind {
    let kind = if tar::is_tar_content(&reach.head(path, 512)) { ShardKind::Tar } else { ShardKind::Parquet };
    kind(path.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
