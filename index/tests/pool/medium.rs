//! Media for tests: one that calls a hook before every change, and one that knows what a power cut would leave.
//!
//! Both change the real folder too, without its syncs: the pool reads from there, and a test's folder need not survive.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use anchorite_index::pool::{Medium, MediumFile};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn create(path: &Path, replace: bool) -> io::Result<File> {
    if replace { File::create(path) } else { OpenOptions::new().write(true).create_new(true).open(path) }
}

/// Called before each change with what and to which file; an error is taken for the system's. A write that fails has written half.
pub(crate) type Hook = Arc<dyn Fn(&'static str, &str) -> io::Result<()> + Send + Sync>;

/// The real folder behind a hook.
#[derive(Clone)]
pub(crate) struct Hooked(pub(crate) Hook);

struct HookedFile {
    hook: Hook,
    name: String,
    file: File,
}

impl Medium for Hooked {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        (self.0)("create", ".")?;
        fs::create_dir_all(dir)
    }
    fn create(&self, path: &Path, replace: bool) -> io::Result<Box<dyn MediumFile>> {
        (self.0)("create", &name(path))?;
        Ok(Box::new(HookedFile { hook: Arc::clone(&self.0), name: name(path), file: create(path, replace)? }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)("rename", &name(from))?;
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.0)("remove", &name(path))?;
        fs::remove_file(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        (self.0)("sync", ".")
    }
}

impl MediumFile for HookedFile {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = (self.hook)("write", &self.name);
        let written = if failed.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.file.write_all_at(&bytes[..written], at)?;
        failed
    }
    fn sync(&mut self) -> io::Result<()> {
        (self.hook)("sync", &self.name)
    }
    fn protect(&mut self) -> io::Result<()> {
        (self.hook)("protect", &self.name)
    }
}

/// What happened to a name since the folder was last synced.
#[derive(Clone)]
enum Entry {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

type Names = BTreeMap<String, usize>;

/// A folder as the program sees it, and as much of it as is durable.
#[derive(Clone, Default)]
pub(crate) struct State {
    inodes: Vec<Arc<Inode>>,
    live: Names,
    durable: Names,
    entries: Vec<Entry>,
    last_written: usize,
}

/// What a power cut does to changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All are lost.
    Lost,
    /// Any of them may be there, in any order.
    Subset,
    /// All are there but the last write, which is torn at a sector of 512 bytes.
    Torn,
    /// Names are there, data is not.
    NamesOnly,
    /// Names and lengths are there; data is zeros or garbage.
    Garbage,
}

pub(crate) const CUTS: [Cut; 5] = [Cut::Lost, Cut::Subset, Cut::Torn, Cut::NamesOnly, Cut::Garbage];

fn write_into(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    bytes.resize(bytes.len().max(at + data.len()), 0);
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn apply(names: &mut Names, entry: &Entry) {
    match entry {
        Entry::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        Entry::Unlink(name) => drop(names.remove(name)),
        Entry::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl State {
    /// The folder while power holds.
    pub(crate) fn whole(&self) -> BTreeMap<String, Vec<u8>> {
        self.live.iter().map(|(name, inode)| (name.clone(), self.inodes[*inode].live.clone())).collect()
    }

    /// The folder that a restart finds.
    pub(crate) fn after(&self, cut: Cut, rng: &mut ChaCha8Rng) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.durable.clone();
        for entry in &self.entries {
            let kept = match cut {
                Cut::Lost => false,
                Cut::Subset => rng.random(),
                Cut::Torn | Cut::NamesOnly | Cut::Garbage => true,
            };
            if kept {
                apply(&mut names, entry);
            }
        }
        names.into_iter().map(|(name, inode)| (name, self.content(inode, cut, rng))).collect()
    }

    fn content(&self, number: usize, cut: Cut, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let inode = &self.inodes[number];
        let mut bytes = inode.synced.clone();
        for (place, (at, data)) in inode.pending.iter().enumerate() {
            let last = number == self.last_written && place + 1 == inode.pending.len();
            match cut {
                Cut::Lost | Cut::NamesOnly => {}
                Cut::Subset if rng.random() => write_into(&mut bytes, *at, data),
                Cut::Subset => {}
                Cut::Torn if last => write_into(&mut bytes, *at, &data[..rng.random_range(0..=data.len() / 512) * 512]),
                Cut::Torn => write_into(&mut bytes, *at, data),
                Cut::Garbage => {
                    let mut garbage = vec![0; data.len()];
                    if rng.random() {
                        rng.fill_bytes(&mut garbage);
                    }
                    write_into(&mut bytes, *at, &garbage);
                }
            }
        }
        bytes
    }
}

/// A medium that remembers what is durable and keeps the state before every change.
#[derive(Clone, Default)]
pub(crate) struct Remembering(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    state: State,
    history: Option<Vec<(State, u64)>>,
    acknowledged: u64,
}

impl Remembering {
    /// Keeps every state from now on.
    pub(crate) fn recording() -> Self {
        let medium = Self::default();
        medium.lock().history = Some(Vec::new());
        medium
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    /// From now on, this generation was promised.
    pub(crate) fn acknowledge(&self, generation: u64) {
        self.lock().acknowledged = generation;
    }

    /// The states before every change and after the last, each with the generation promised by then.
    pub(crate) fn history(&self) -> Vec<(State, u64)> {
        let mut memory = self.lock();
        let last = (memory.state.clone(), memory.acknowledged);
        let mut history = memory.history.take().unwrap_or_default();
        history.push(last);
        history
    }

    /// Whether the folder on disk is what this medium holds of it, byte for byte; else which names differ.
    pub(crate) fn differs(&self, dir: &Path) -> Vec<String> {
        let held = self.lock().state.whole();
        let there = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| name(path) != "LOCK");
        let there: BTreeMap<String, Vec<u8>> = there.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
        let all: std::collections::BTreeSet<&String> = held.keys().chain(there.keys()).collect();
        all.into_iter().filter(|name| held.get(*name) != there.get(*name)).cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut memory = self.lock();
        let before = (memory.state.clone(), memory.acknowledged);
        if let Some(history) = &mut memory.history {
            history.push(before);
        }
        change(&mut memory.state);
    }
}

struct RememberedFile {
    memory: Remembering,
    inode: usize,
    file: File,
}

impl Medium for Remembering {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }
    fn create(&self, path: &Path, replace: bool) -> io::Result<Box<dyn MediumFile>> {
        let file = create(path, replace)?;
        let mut number = 0;
        self.change(|state| {
            number = state.inodes.len();
            state.inodes.push(Arc::default());
            state.live.insert(name(path), number);
            state.entries.push(Entry::Link(name(path), number));
        });
        Ok(Box::new(RememberedFile { memory: self.clone(), inode: number, file }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.change(|state| {
            let entry = Entry::Rename(name(from), name(to));
            apply(&mut state.live, &entry);
            state.entries.push(entry);
        });
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        self.change(|state| {
            let entry = Entry::Unlink(name(path));
            apply(&mut state.live, &entry);
            state.entries.push(entry);
        });
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.change(|state| {
            state.durable = state.live.clone();
            state.entries.clear();
        });
        Ok(())
    }
}

impl MediumFile for RememberedFile {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.memory.change(|state| {
            state.last_written = self.inode;
            let inode = Arc::make_mut(&mut state.inodes[self.inode]);
            write_into(&mut inode.live, at as usize, bytes);
            inode.pending.push((at as usize, bytes.to_vec()));
        });
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.memory.change(|state| {
            let inode = Arc::make_mut(&mut state.inodes[self.inode]);
            inode.synced = inode.live.clone();
            inode.pending.clear();
        });
        Ok(())
    }
    fn protect(&mut self) -> io::Result<()> {
        Ok(())
    }
}
