//! A snapshot as a tar: what arrives is what was there, and nothing but a whole and honest stream leaves anything behind.

use std::{fs, io, path::Path, sync::Arc};

use crate::{
    medium::Hooked,
    support::{clustered, image_pair, one_thread, rows, spec},
};
use anchorite_index::{
    Cancel, Effort, Pair, PairSink, PairStore, Precision, StoreError,
    pool::{CopyTo, OpenOptions, Pool, PoolWriter, Verify, WriterOptions, copy, export, import},
};
use tar::{Builder, EntryType, Header};

const DIM: usize = 12;

fn fill(dir: &Path, precision: Precision) {
    let vectors = clustered(60, DIM, 4, 6);
    let options = WriterOptions { precision: Some(precision), merge: None, ..one_thread() };
    let mut writer = PoolWriter::open(dir, &spec(DIM), &options).unwrap();
    for part in 0..3 {
        let pair = |n: usize| Pair {
            picture: n.is_multiple_of(4).then(|| vec![n as u8; 3_000]),
            text: n.is_multiple_of(2).then(|| vectors[0].clone()),
            ..image_pair(n, vectors[n].clone())
        };
        writer.append(&(part * 20..part * 20 + 20).map(pair).collect::<Vec<_>>()).unwrap();
        writer.commit_with(&[part as u8], &Cancel::default()).unwrap();
    }
    writer.delete(&[image_pair(5, Vec::new()).key]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
}

fn exported(dir: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    let copied = export(dir, &mut tar, &Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!((copied.generation, copied.files), (4, 3 * 6 + 1));
    tar
}

fn imported(tar: &[u8], dir: &Path) -> Result<Pool, StoreError> {
    import(&mut &*tar, dir, &Cancel::default(), &mut |_| {})?;
    Pool::open(dir, &OpenOptions { verify: Verify::Full, ..OpenOptions::default() })
}

#[test]
fn what_arrives_is_what_was_there() {
    for precision in [Precision::Half, Precision::SevenBit] {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(dir.path(), precision);
        let tar = exported(dir.path());
        assert_eq!(tar, exported(dir.path()), "equal to the byte");
        let there = imported(&tar, &to.path().join("new")).unwrap();
        let here = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
        assert_eq!((there.status(), there.progress(), there.info()), (here.status(), here.progress(), here.info()));
        let query = clustered(1, DIM, 1, 2).remove(0);
        assert_eq!(rows(&there, &query, 20, Effort::Exact), rows(&here, &query, 20, Effort::Exact));
        // It can be written on.
        let mut writer = PoolWriter::open(to.path().join("new"), &spec(DIM), &one_thread()).unwrap();
        writer.append(&[image_pair(99, query)]).unwrap();
        writer.commit(&Cancel::default()).unwrap();
    }
}

/// The entries of a tar: header and content.
fn entries(tar: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let all = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        io::copy(&mut entry, &mut content).unwrap();
        (entry.header().clone(), content)
    });
    all.collect()
}

fn packed(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    entries.iter().for_each(|(header, content)| tar.append(header, content.as_slice()).unwrap());
    tar.into_inner().unwrap()
}

/// An entry whose name is written as it is, whatever it says.
fn hostile(name: &[u8], kind: EntryType, content: &[u8], link: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o777);
    header.set_entry_type(kind);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name);
    gnu.linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    (header, content.to_vec())
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "LOCK").collect();
    names.sort();
    names
}

/// Refused by name; the folder is as it was, and so is what lies around it.
fn refused(tar: &[u8], story: &str) -> StoreError {
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("pool");
    let error = imported(tar, &dir).err().unwrap_or_else(|| panic!("{story}: it was taken"));
    let named = matches!(error, StoreError::Stream { .. } | StoreError::Corrupt { .. } | StoreError::Version { .. });
    assert!(named, "{story}: {error:?}");
    assert!(!dir.exists() || names(&dir).is_empty(), "{story}: {:?} stay", names(&dir));
    assert!(names(around.path()).iter().all(|name| name == "pool"), "{story}: {:?}", names(around.path()));
    error
}

#[test]
fn hostile_streams_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    let good = entries(&exported(dir.path()));
    let (first, second) = (good[0].clone(), good[1].clone());
    let second_name = second.0.path().unwrap().to_str().unwrap().as_bytes().to_vec();
    let with = |place: usize, entry: (Header, Vec<u8>)| {
        let mut all = good.clone();
        all.insert(place, entry);
        packed(&all)
    };
    let plain = |name: &[u8]| hostile(name, EntryType::Regular, b"x", b"");
    let paths: [&[u8]; 10] = [
        b"../escape",
        b"/tmp/anchorite-escape",
        b"./LOCK",
        b"LOCK",
        b"a/b",
        b"..",
        b"seg-0000000000000001.pairs/../../x",
        b"\xff\xfe",
        b"",
        b"manifest-0000000000000005",
    ];
    for name in paths {
        refused(&with(1, plain(name)), &String::from_utf8_lossy(name));
        refused(&with(good.len(), plain(name)), &String::from_utf8_lossy(name));
        refused(&with(0, plain(name)), &String::from_utf8_lossy(name));
    }
    let kinds = [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
    ];
    for kind in kinds {
        // In the place of a file that is wanted, before it, and in the place of the manifest.
        let link = hostile(&second_name, kind, b"", b"/etc/passwd");
        refused(&packed(&[&[first.clone(), link.clone()], &good[2..]].concat()), &format!("{kind:?} for a file"));
        refused(&with(1, link), &format!("{kind:?} before a file"));
        let name = first.0.path().unwrap().to_str().unwrap().as_bytes().to_vec();
        refused(&with(0, hostile(&name, kind, b"", b"x")), &format!("{kind:?} for the manifest"));
    }
    refused(&with(2, second.clone()), "a file twice");
    refused(&with(1, first.clone()), "the manifest twice");
    refused(&packed(&good[1..]), "no manifest");
    let mut missing = good.clone();
    missing.remove(4);
    assert!(refused(&packed(&missing), "a file too few").to_string().contains("missing"));
    let longer = hostile(&second_name, EntryType::Regular, &[second.1.as_slice(), b"x"].concat(), b"");
    refused(&packed(&[&[first.clone(), longer], &good[2..]].concat()), "a file too long");
    // A size that no machine has: refused before anything is made for it.
    let mut huge = hostile(&second_name, EntryType::Regular, b"", b"");
    huge.0.set_size(u64::MAX >> 2);
    huge.0.set_cksum();
    refused(
        &[packed(std::slice::from_ref(&first))[..first.1.len().next_multiple_of(512) + 512].to_vec(), huge.0.as_bytes().to_vec()]
            .concat(),
        "huge",
    );
    let mut vast = hostile(first.0.path().unwrap().to_str().unwrap().as_bytes(), EntryType::Regular, b"", b"");
    vast.0.set_size(1 << 40);
    vast.0.set_cksum();
    refused(vast.0.as_bytes(), "a vast manifest");
    for text in [&b""[..], b"PK\x03\x04 no tar at all", &[0; 1024], &[0xFF; 4096]] {
        refused(text, "no tar");
    }
    // Another order is fine: nothing depends on it.
    let mut turned = good.clone();
    turned[1..].reverse();
    let to = tempfile::tempdir().unwrap();
    imported(&packed(&turned), to.path()).unwrap();
}

#[test]
fn a_cut_or_changed_stream_is_refused_wherever_it_is_cut_or_changed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    let tar = exported(dir.path());
    let whole = entries(&tar).iter().map(|(_, content)| 512 + content.len().next_multiple_of(512)).sum::<usize>();
    for cut in (0..whole).step_by(1_009).chain([511, 512, 513, whole - 513]) {
        let missing_padding_only = entries_end(&tar, cut);
        if !missing_padding_only {
            refused(&tar[..cut], &format!("cut to {cut} of {whole}"));
        }
    }
    let contents = content_ranges(&tar);
    for at in (0..whole).step_by(739) {
        if contents.iter().any(|range| range.contains(&at)) {
            let mut changed = tar.clone();
            changed[at] ^= 0x10;
            refused(&changed, &format!("byte {at}"));
        }
    }
}

/// Where the contents of entries lie.
fn content_ranges(tar: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    let mut ranges = Vec::new();
    for (_, content) in entries(tar) {
        ranges.push(at + 512..at + 512 + content.len());
        at += 512 + content.len().next_multiple_of(512);
    }
    ranges
}

/// Whether a cut leaves every content whole.
fn entries_end(tar: &[u8], cut: usize) -> bool {
    content_ranges(tar).last().is_none_or(|last| cut >= last.end)
}

#[test]
fn damage_in_the_pool_is_not_copied_and_a_failed_copy_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), Precision::Half);
    let to = tempfile::tempdir().unwrap();
    // The disk is full at any change: named, and nothing stays that takes room.
    let tar = exported(dir.path());
    for (stream, action) in [(false, "write"), (true, "write"), (false, "sync"), (true, "create")] {
        let target = to.path().join("full");
        let hook = Hooked(Arc::new(move |what, name: &str| {
            let full = what == action && name.contains(".graph");
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }));
        let place = CopyTo { dir: target.clone(), medium: Arc::new(hook) };
        let error = match stream {
            true => import(&mut tar.as_slice(), place, &Cancel::default(), &mut |_| {}),
            false => copy(dir.path(), place, &Cancel::default(), &mut |_| {}),
        };
        let error = error.unwrap_err();
        let full = matches!(&error, StoreError::Io { source, file, .. } if source.kind() == io::ErrorKind::StorageFull && file.contains(".graph"));
        assert!(full, "{error:?}");
        assert!(names(&target).is_empty(), "{:?}", names(&target));
        copy(dir.path(), &target, &Cancel::default(), &mut |_| {}).unwrap();
        assert_eq!(Pool::open(&target, &OpenOptions::default()).unwrap().status().rows, 59);
        fs::remove_dir_all(&target).unwrap();
    }
    // What a copy left that was killed is no hindrance; what is not ours is.
    let target = to.path().join("again");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("seg-0000000000000001.pairs"), b"half a copy").unwrap();
    assert_eq!(imported(&tar, &target).unwrap().status().rows, 59);
    assert!(matches!(imported(&tar, &target), Err(StoreError::NotAPool { .. })));
    // Ended on the way, nothing stays.
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let ended = import(&mut tar.as_slice(), to.path().join("ended"), &cancel, &mut |_| stop.cancel());
    assert!(matches!(ended, Err(StoreError::Cancelled)) && names(&to.path().join("ended")).is_empty());

    let damaged = names(dir.path()).into_iter().find(|name| name.ends_with("image.vectors")).unwrap();
    let mut bytes = fs::read(dir.path().join(&damaged)).unwrap();
    bytes[700] ^= 1;
    fs::remove_file(dir.path().join(&damaged)).unwrap();
    fs::write(dir.path().join(&damaged), bytes).unwrap();
    let mut part = Vec::new();
    let error = export(dir.path(), &mut part, &Cancel::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if *file == damaged), "{error}");
    refused(&part, "a stream that ended at damage");
}
