//! What things are called: validated names and the keys built from them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use compact_str::{CompactString, ToCompactString, format_compact};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{NAME_BYTES_MAX, ROW_KEY_BYTES_MAX, SERVICE_NAME_BYTES_MAX};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Names are not empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A character outside the alphabet.
    #[error("contains {character:?}, allowed are {allowed}")]
    BadCharacter {
        /// The first offending character.
        character: char,
        /// The alphabet.
        allowed: &'static str,
    },
    /// Kept for Fanfold's own origins.
    #[error("is reserved: a user must not be called `resend` or begin with `reactor:`")]
    Reserved,
    /// Neither `org:<name>` nor `user:<name>`.
    #[error("must begin with `org:` or `user:`")]
    NotAPartition,
    /// No slash between service and partition.
    #[error("must have the form `<service>/<partition>`, as `ledger/org:acme`")]
    NotALog,
}

const NAME_ALPHABET: &str = "[A-Za-z0-9._:@=+-]";
const SERVICE_ALPHABET: &str = "[a-z][a-z0-9-]*";
const ROW_KEY_ALPHABET: &str = "[A-Za-z0-9._:@=+/-]";

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._:@=+-".contains(character)
}

fn check(
    text: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { bytes: text.len(), max });
    }
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(character) => Err(NameError::BadCharacter { character, allowed }),
        None => Ok(()),
    }
}

fn check_name(text: &str) -> Result<(), NameError> {
    check(text, NAME_BYTES_MAX, NAME_ALPHABET, is_name_character)
}

fn check_service(text: &str) -> Result<(), NameError> {
    check(text, SERVICE_NAME_BYTES_MAX, SERVICE_ALPHABET, |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
    })?;
    match text.chars().next() {
        Some(first) if !first.is_ascii_lowercase() => {
            Err(NameError::BadCharacter { character: first, allowed: SERVICE_ALPHABET })
        }
        _ => Ok(()),
    }
}

fn check_row_key(text: &str) -> Result<(), NameError> {
    check(text, ROW_KEY_BYTES_MAX, ROW_KEY_ALPHABET, |c| is_name_character(c) || c == '/')
}

/// Implements a validated text: parse, display, serde, comparison with `str`.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks `text` and takes it over.
            pub fn new(text: impl Into<CompactString>) -> Result<Self, NameError> {
                let text = text.into();
                ($check)(text.as_str())?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0.as_str(), f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = CompactString::deserialize(deserializer)?;
                Self::new(text.clone())
                    .map_err(|e| serde::de::Error::custom(format_args!("{text:?} {e}")))
            }
        }
    };
}

text! {
    /// A user, an organisation, a command or an event type: up to 128 bytes of `[A-Za-z0-9._:@=+-]`.
    Name, check_name
}
text! {
    /// A service's, view's or reactor's name: `[a-z][a-z0-9-]{0,31}`.
    ServiceName, check_service
}
text! {
    /// One thing that a service owns, an account say. Unique within its log; as [`Name`].
    DocumentId, check_name
}
text! {
    /// A row of a view within its log: up to 512 bytes of `[A-Za-z0-9._:@=+/-]`.
    RowKey, check_row_key
}
text! {
    /// The unit of order and of scale: `org:acme`, or `user:ann` for requests without an org.
    Partition, |text: &str| {
        let name = text.strip_prefix("org:").or_else(|| text.strip_prefix("user:"));
        check_name(name.ok_or(NameError::NotAPartition)?)
    }
}

impl Partition {
    /// The partition of an organisation.
    pub fn org(org: &Name) -> Self {
        Self(format_compact!("org:{org}"))
    }

    /// The partition of a user who acts for no organisation.
    pub fn user(user: &Name) -> Self {
        Self(format_compact!("user:{user}"))
    }
}

/// Enough for a slash and a number.
const JOINED_BYTES: usize = 24;

impl RowKey {
    /// The key of one more level: `cash` joined with `17` is `cash/17`. The caller keeps it within
    /// the limits: the result is checked where it is used, and a bad key parks the view's log.
    #[must_use]
    pub fn join(&self, part: impl fmt::Display) -> Self {
        // Padding comes character by character, which a `String` takes faster.
        let mut joined = String::with_capacity(self.0.len() + JOINED_BYTES);
        joined.push_str(&self.0);
        joined.push('/');
        // Into a string it cannot fail.
        let _ = write!(joined, "{part}");
        Self(joined.into())
    }

    /// Says again whether the key is within the limits; [`RowKey::join`] does not.
    pub fn check(&self) -> Result<(), NameError> {
        check_row_key(&self.0)
    }
}

impl From<&DocumentId> for RowKey {
    fn from(document: &DocumentId) -> Self {
        Self(document.0.clone())
    }
}

/// (service, partition), written `ledger/org:acme`. One ordered, dense, immutable event log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(CompactString);

impl LogId {
    /// The log of a service for a partition.
    pub fn new(service: &ServiceName, partition: &Partition) -> Self {
        Self(format_compact!("{service}/{partition}"))
    }

    /// `ledger/org:acme`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `ledger`.
    pub fn service(&self) -> &str {
        self.split().0
    }

    /// `org:acme`.
    pub fn partition(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }
}

impl FromStr for LogId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (service, partition) = text.split_once('/').ok_or(NameError::NotALog)?;
        check_service(service)?;
        Partition::from_str(partition)?;
        Ok(Self(text.to_compact_string()))
    }
}

impl AsRef<str> for LogId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for LogId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        Self::from_str(&text).map_err(|e| serde::de::Error::custom(format_args!("{text:?} {e}")))
    }
}

/// Who numbers a command's id: a user, or one of Fanfold's own, which no client can claim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Origin(CompactString);

impl Origin {
    /// A user; refused if the name is reserved.
    pub fn user(name: &Name) -> Result<Self, NameError> {
        match name.as_str() {
            "resend" => Err(NameError::Reserved),
            text if text.starts_with("reactor:") => Err(NameError::Reserved),
            _ => Ok(Self(name.0.clone())),
        }
    }

    /// A reactor that answers the entries of `source`.
    pub fn reactor(name: &ServiceName, source: &LogId) -> Self {
        Self(format_compact!("reactor:{name}@{source}"))
    }

    /// Commands that an operator sends again.
    pub fn resend() -> Self {
        Self(CompactString::const_new("resend"))
    }

    /// Of entries that no command caused: those that an operator declared lost.
    pub fn nobody() -> Self {
        Self(CompactString::const_new(""))
    }

    /// As an entry or a notification has it: what Fanfold wrote needs no check.
    pub(crate) fn from_wire(text: &str) -> Self {
        Self(text.into())
    }

    /// The text: the user's name for users.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A reactor's command is never resent.
    pub fn is_reactor(&self) -> bool {
        self.0.starts_with("reactor:")
    }

    /// See [`Origin::nobody`].
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CompactString::deserialize(deserializer).map(Self)
    }
}
