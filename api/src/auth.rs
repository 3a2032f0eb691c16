//! Keys: who may ask for what.
//!
//! A key file has a line for each key, `NAME SCOPE sha256:HEX`; what is stored is the hash of the secret, never the secret. A request shows
//! its secret as `Authorization: Bearer ...`; its hash is compared with every key's in constant time. Several keys at once allow rotation.
//! Which scope a route wants is part of the route table (`routes.rs`); a route outside the table does not exist.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use anchorite_anchors::hex;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{app::App, error::ApiError};

/// Longest secret that is looked at, in bytes.
const SECRET_BYTES: usize = 512;

/// What a key allows. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Ask and look.
    Read,
    /// Change what pools hold.
    Write,
    /// Operate the server.
    Admin,
}

impl Scope {
    /// As key files and the OpenAPI document name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = KeysError;

    fn from_str(name: &str) -> Result<Self, KeysError> {
        let all = [Self::Read, Self::Write, Self::Admin];
        all.into_iter().find(|scope| scope.name() == name).ok_or_else(|| KeysError::Scope { name: name.to_owned() })
    }
}

/// Why a key file is refused. Messages do not repeat what might be a secret.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeysError {
    /// No such scope.
    #[error("{name:?} is no scope; give read, write or admin")]
    Scope {
        /// As given.
        name: String,
    },
    /// Another shape.
    #[error("line {line} of the key file is not NAME SCOPE sha256:HEX; `anchorite keys add` writes such lines")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// One name twice.
    #[error("line {line} of the key file names {name:?} again; give each key its own name")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// No key at all.
    #[error("the key file has no key, so that nobody could ask; `anchorite keys add` adds one")]
    Empty,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    name: String,
    scope: Scope,
    digest: [u8; 32],
}

/// The keys of a server; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads a key file's text. Empty lines and those that start with `#` are left out.
    ///
    /// # Errors
    /// [`KeysError`] names the line.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let keys: Vec<(usize, Key)> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, text)| Ok((line, Key::parse(text).ok_or(KeysError::Line { line })?)))
            .collect::<Result<_, KeysError>>()?;
        let mut names = BTreeSet::new();
        if let Some((line, key)) = keys.iter().find(|(_, key)| !names.insert(&key.name)) {
            return Err(KeysError::Twice { line: *line, name: key.name.clone() });
        }
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self(keys.into_iter().map(|(_, key)| key).collect())) }
    }

    /// The key of this secret. Takes the same time whichever it is, and if it is none.
    fn of(&self, secret: &[u8]) -> Option<&Key> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        // No early end: every key is compared.
        self.0.iter().fold(None, |found, key| if bool::from(key.digest.ct_eq(&digest)) { Some(key) } else { found })
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split_whitespace();
        let (name, scope, digest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.strip_prefix("sha256:")?);
        let bytes: Vec<u8> = (0..digest.len()).step_by(2).map(|at| byte(digest, at)).collect::<Option<_>>()?;
        let key = Self { name: name.to_owned(), scope, digest: bytes.try_into().ok()? };
        parts.next().is_none().then_some(key)
    }
}

fn byte(hex: &str, at: usize) -> Option<u8> {
    u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()
}

/// The line of a key file for a secret.
#[must_use]
pub fn key_line(name: &str, scope: Scope, secret: &str) -> String {
    format!("{name} {scope} sha256:{}", hex(&Sha256::digest(secret)))
}

/// The name of the key that a request showed, for the log.
#[derive(Clone, Debug)]
pub(crate) struct KeyName(pub(crate) String);

/// Lets a request through that shows a key of `scope` or more; every request where the server has no keys.
pub(crate) async fn require(State((app, scope)): State<(Arc<App>, Scope)>, request: Request, next: Next) -> Response {
    let Some(keys) = &app.options.keys else { return next.run(request).await };
    match checked(keys, scope, request.headers()) {
        Ok(name) => {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(name);
            response
        }
        Err(error) => {
            let unknown = error.status == StatusCode::UNAUTHORIZED;
            let mut response = error.into_response();
            if unknown {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

fn checked(keys: &Keys, scope: Scope, headers: &HeaderMap) -> Result<KeyName, ApiError> {
    let refused = |code, message| ApiError::new(StatusCode::UNAUTHORIZED, code, message);
    let shown = headers.get(header::AUTHORIZATION).and_then(|v| secret(v.as_bytes()));
    let Some(secret) = shown.filter(|secret| secret.len() <= SECRET_BYTES) else {
        return Err(refused("key_missing", "this server asks for a key; send the header Authorization: Bearer KEY"));
    };
    let key = keys.of(secret).ok_or_else(|| refused("key_unknown", "this server does not know the key that was sent"))?;
    if key.scope < scope {
        let message = format!("this key allows {}, and the route asks for {scope}", key.scope);
        return Err(ApiError::new(StatusCode::FORBIDDEN, "key_scope", message));
    }
    Ok(KeyName(key.name.clone()))
}

fn secret(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| secret.trim_ascii())
}
