//! JSON that is compared as it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::entry::Raw;

/// Numbers are compared by their digits, because a number of 64 bits cannot hold all of them. The order of an object's
/// fields does not count.
#[derive(PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Exact {
    Object(BTreeMap<String, Exact>),
    List(Vec<Exact>),
    Text(String),
    /// A number, `true`, `false` or `null`.
    Other(Raw),
}

impl Exact {
    pub(super) fn read(json: &RawValue) -> Result<Self, serde_json::Error> {
        let text = json.get();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
                let read = |(name, value)| Ok((name, Self::read(value)?));
                Self::Object(fields.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                Self::List(items.into_iter().map(Self::read).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str(text)?),
            _ => Self::Other(json.into()),
        })
    }
}

/// The JSON over many lines, for a diff.
impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?)
    }
}
