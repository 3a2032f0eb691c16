//! A dataset's files as plain files: `datasets--ORG--NAME/anchorite/COMMIT/...`, hard links to the cache's blobs, beside a list of all names of
//! that commit. The cache's own snapshots are links, which readers of pictures that are named by data do not follow.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{HubError, Snapshot};

/// The folder of such trees in a repository's folder.
const TREES: &str = "anchorite";

/// Where trees of the repository lie to which the snapshot belongs.
fn trees(snapshot: &Path) -> Option<PathBuf> {
    Some(snapshot.parent()?.parent()?.join(TREES))
}

/// Makes the tree of the chosen files, as far as it is not there.
pub(super) fn make(snapshot: &Path, commit: &str, names: &[String], chosen: &[String]) -> Result<Snapshot, HubError> {
    let trees = trees(snapshot).unwrap_or_default();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HubError::Io { path, source }
    };
    let folder = trees.join(commit);
    for name in chosen {
        let place = folder.join(name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        link(&snapshot.join(name), &place).map_err(failed(&place))?;
    }
    let list = list_path(&trees, commit);
    fs::write(&list, names.join("\n")).map_err(failed(&list))?;
    Ok(Snapshot { folder, commit: commit.to_owned() })
}

/// All names of a commit, as they were listed when its files came.
pub(super) fn listing(snapshot: &Path, commit: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(list_path(&trees(snapshot)?, commit)).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

fn list_path(trees: &Path, commit: &str) -> PathBuf {
    trees.join(format!("{commit}.files"))
}

/// A hard link, or a copy where the file system has none. One of another length is of a download that was damaged and came again.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let blob = from.canonicalize()?;
    if to.metadata().is_ok_and(|there| blob.metadata().is_ok_and(|blob| blob.len() == there.len())) {
        return Ok(());
    }
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(&blob, to).or_else(|_| fs::copy(&blob, to).map(drop))
}
