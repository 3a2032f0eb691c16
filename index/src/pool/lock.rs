//! One writer at a time: a flock on a file that stays, released by the system however the process ends.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::generations::LOCK;
use crate::StoreError;

/// Takes the writer's lock.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path: PathBuf = dir.join(LOCK);
    let failed = |action| move |source| StoreError::Io { action, file: LOCK.to_owned(), source };
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only a hint for people: the lock itself decides.
            let _ = (&file).take(200).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "an unnamed process".to_owned() } else { holder.trim().to_owned() };
            return Err(StoreError::Locked { file: path.display().to_string(), holder });
        }
        Err(error) => return Err(failed("lock")(io::Error::from(error))),
    }
    let holder = format!("process {}\n", std::process::id());
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(holder.as_bytes())
    };
    write(&mut file).map_err(failed("write"))?;
    Ok(file)
}
