//! Validated names, and the keys that are built from them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use compact_str::{CompactString, ToCompactString, format_compact};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::limits::{NAME_BYTES_MAX, ROW_KEY_BYTES_MAX, SERVICE_NAME_BYTES_MAX};

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
    /// A character that is not allowed.
    #[error("contains {}, allowed are {allowed}", shown(*.character))]
    BadCharacter {
        /// The first offending character.
        character: char,
        /// What is allowed instead.
        allowed: &'static str,
    },
    /// A blank, or an invisible joiner, at the beginning or the end.
    #[error("begins or ends with {}: send it without blanks and joiners around it", shown(*.character))]
    BadEdge {
        /// The character.
        character: char,
    },
    /// HTTP clients remove such segments from URLs, so no URL could address the thing.
    #[error("must not be `.` or `..`, nor have one of these between slashes: no URL can name it")]
    DotSegment,
    /// The same text could be written with other code points.
    #[error("is not in Unicode normalization form C (NFC): normalize it before it is sent")]
    NotNfc,
    /// The name is one of Fanfold's own origins.
    #[error("is reserved: a user must not be called `resend` or begin with `reactor:`")]
    Reserved,
    /// Neither `org:<name>` nor `user:<name>`.
    #[error("must begin with `org:` or `user:`")]
    NotAPartition,
    /// No slash between service and partition.
    #[error(
        "must have the form `<service>/org:<name>` or `<service>/user:<name>`, as `orders/org:acme`"
    )]
    NotALog,
}

const NAME_CHARACTERS: &str = "printable characters without `/ ? # % \\`";
const SERVICE_CHARACTERS: &str = "[a-z][a-z0-9-]*";
const ROW_KEY_CHARACTERS: &str = "printable characters without `? # % \\`";

/// The character as a code point, and as itself if it is visible.
fn shown(character: char) -> String {
    let code = u32::from(character);
    if character.is_ascii_graphic() {
        format!("{character:?} (U+{code:04X})")
    } else {
        format!("U+{code:04X}")
    }
}

fn check_bytes(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > max => Err(NameError::TooLong { bytes, max }),
        _ => Ok(()),
    }
}

/// The joiners are invisible, but some scripts, and emoji, need them.
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200C}' | '\u{200D}')
}

fn is_printable(character: char) -> bool {
    use unicode_general_category::{GeneralCategory as Category, get_general_category};
    match character {
        ' '..='~' => true,
        character if is_joiner(character) => true,
        // A later version of Unicode may assign the character, and the name would then not be in NFC.
        character => !matches!(
            get_general_category(character),
            Category::Control
                | Category::Format
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::PrivateUse
                | Category::Surrogate
                | Category::Unassigned
        ),
    }
}

/// Checks what holds for every part of a name: allowed characters, in NFC.
fn check_characters(text: &str, with_slash: bool) -> Result<(), NameError> {
    let is_allowed = |c: char| match c {
        '?' | '#' | '%' | '\\' => false,
        '/' => with_slash,
        c => is_printable(c),
    };
    if let Some(character) = text.chars().find(|c| !is_allowed(*c)) {
        let allowed = if with_slash { ROW_KEY_CHARACTERS } else { NAME_CHARACTERS };
        return Err(NameError::BadCharacter { character, allowed });
    }
    if text.is_ascii() || unicode_normalization::is_nfc(text) {
        Ok(())
    } else {
        Err(NameError::NotNfc)
    }
}

fn check_edges(text: &str) -> Result<(), NameError> {
    let is_bad = |c: &char| c.is_whitespace() || is_joiner(*c);
    let edges = text.chars().next().into_iter().chain(text.chars().next_back());
    match edges.into_iter().find(is_bad) {
        Some(character) => Err(NameError::BadEdge { character }),
        None => Ok(()),
    }
}

/// Names are read for every command. Fast path: plain ASCII, which needs no further check.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@=+-/".contains(&byte))
}

fn check_name(text: &str) -> Result<(), NameError> {
    check_bytes(text, NAME_BYTES_MAX)?;
    if !is_plain(text) || text.contains('/') {
        check_characters(text, false)?;
        check_edges(text)?;
    }
    if matches!(text, "." | "..") { Err(NameError::DotSegment) } else { Ok(()) }
}

fn check_service(text: &str) -> Result<(), NameError> {
    check_bytes(text, SERVICE_NAME_BYTES_MAX)?;
    let is_allowed = |(at, c): &(usize, char)| {
        c.is_ascii_lowercase() || (*at > 0 && (c.is_ascii_digit() || *c == '-'))
    };
    match text.char_indices().find(|found| !is_allowed(found)) {
        Some((_, character)) => {
            Err(NameError::BadCharacter { character, allowed: SERVICE_CHARACTERS })
        }
        None => Ok(()),
    }
}

fn check_row_key(text: &str) -> Result<(), NameError> {
    check_bytes(text, ROW_KEY_BYTES_MAX)?;
    if !is_plain(text) {
        check_characters(text, true)?;
        check_edges(text)?;
    }
    match text.split('/').find(|segment| matches!(*segment, "." | "..")) {
        Some(_) => Err(NameError::DotSegment),
        None => Ok(()),
    }
}

/// Implements a validated text: parse, display, serde, comparison with `str`.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks `text` and wraps it.
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
    /// A user, a client, an organisation, a command or an event type: up to 128 bytes of printable
    /// Unicode in NFC, but `/ ? # % \`, blanks at its ends, `.` and `..`.
    Name, check_name
}
text! {
    /// A service's, view's or reactor's name: `[a-z][a-z0-9-]{0,31}`.
    ServiceName, check_service
}
text! {
    /// One thing that a service owns, for example an account. Unique within its log. The rules are those of [`Name`].
    DocumentId, check_name
}
text! {
    /// A row of a view within its log: up to 512 bytes, as [`Name`] but with slashes.
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

/// Spare bytes for a slash and a number, so that a join allocates once.
const JOINED_BYTES: usize = 24;

impl RowKey {
    /// The key with one more level: `cash` joined with `17` is `cash/17`. This does not check the limits. The projector
    /// checks the key when it uses it, and a bad key parks the log in the view.
    #[must_use]
    pub fn join(&self, part: impl fmt::Display) -> Self {
        // Padding is written character by character, which is faster into a `String`.
        let mut joined = String::with_capacity(self.0.len() + JOINED_BYTES);
        joined.push_str(&self.0);
        joined.push('/');
        // Writing into a string cannot fail.
        let _ = write!(joined, "{part}");
        Self(joined.into())
    }

    /// A prefix of keys. It may end anywhere, so also with a blank.
    pub fn check_prefix(text: &str) -> Result<(), NameError> {
        check_bytes(text, ROW_KEY_BYTES_MAX)?;
        check_characters(text, true)
    }

    /// Checks the key again, because [`RowKey::join`] does not.
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

/// The numberer of a command's id: a user, a client of a user, or one of Fanfold's own origins, which no request can
/// claim.
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

    /// A client of a user, which numbers its own commands. Refused if the user's name is reserved.
    pub fn client(user: &Name, client: &Name) -> Result<Self, NameError> {
        Self::user(user).map(|Self(user)| Self(format_compact!("{user}/{client}")))
    }

    /// A reactor that answers the entries of `source`.
    pub fn reactor(name: &ServiceName, source: &LogId) -> Self {
        Self(format_compact!("reactor:{name}@{source}"))
    }

    /// The origin of commands that an operator sends again.
    pub fn resend() -> Self {
        Self(CompactString::const_new("resend"))
    }

    /// The origin of entries that no command caused: those that an operator declared lost.
    pub fn nobody() -> Self {
        Self(CompactString::const_new(""))
    }

    /// The origin in an entry or a notification. Fanfold wrote it, so it needs no check.
    pub(crate) fn from_wire(text: &str) -> Self {
        Self(text.into())
    }

    /// The text: `<user>`, or `<user>/<client>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user, without the client. For Fanfold's own origins, the whole text.
    pub fn user_name(&self) -> &str {
        self.split().0
    }

    /// The client of the user, if the request named one.
    pub fn client_name(&self) -> Option<&str> {
        self.split().1
    }

    fn split(&self) -> (&str, Option<&str>) {
        match self.0.split_once('/') {
            Some((user, client)) if !self.is_reactor() => (user, Some(client)),
            _ => (&self.0, None),
        }
    }

    /// Whether this is a reactor. A reactor's command is never resent.
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
