//! Reads `{"<tag>": "<name>", "<content>": …}` from a name and raw JSON, without building that text first. Authors'
//! commands and events are such adjacently tagged enums.

use std::cell::Cell;

use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess};
use serde_json::value::RawValue;

/// Why a tagged value could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaggedError {
    /// No variant has this name.
    UnknownTag,
    /// The content does not fit the variant; `path` begins with the content's key.
    BadContent { path: String, message: String },
}

/// Reads a value. `keys` are the keys of the tag and of the content.
pub(crate) fn from_tagged<T: DeserializeOwned>(
    keys: [&'static str; 2],
    tag: &str,
    content: &RawValue,
) -> Result<T, TaggedError> {
    let tag_read = Cell::new(false);
    let access = |content| {
        MapAccessDeserializer::new(Access {
            keys,
            tag,
            content,
            tag_read: &tag_read,
            next: Part::TagKey,
        })
    };
    match T::deserialize(access(Some(content))) {
        Ok(value) => Ok(value),
        Err(_) if !tag_read.get() => Err(TaggedError::UnknownTag),
        Err(_) => {
            // A variant without content takes `{}`, the default of a request's `data`, and so does one whose content may
            // be `null`.
            if is_empty(content) {
                let absent = [None, Some(RawValue::NULL)].into_iter();
                if let Some(value) =
                    absent.filter_map(|none| T::deserialize(access(none)).ok()).next()
                {
                    return Ok(value);
                }
            }
            // Read again, with the path of the error: tracking paths is slow, so the first read does without.
            match serde_path_to_error::deserialize::<_, T>(access(Some(content))) {
                Ok(value) => Ok(value),
                Err(error) => Err(TaggedError::BadContent {
                    path: error.path().to_string(),
                    message: without_position(&error.into_inner().to_string()),
                }),
            }
        }
    }
}

/// Whether the JSON is `{}`, with any white space, or `null`.
fn is_empty(content: &RawValue) -> bool {
    let inside = content.get().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim().is_empty()) || content.get() == "null"
}

/// Removes the position from an error: it counts from the start of the content, which the sender never saw alone.
fn without_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(at) => message[..at].to_owned(),
        None => message.to_owned(),
    }
}

enum Part {
    TagKey,
    Tag,
    ContentKey,
    Content,
    End,
}

struct Access<'a> {
    keys: [&'static str; 2],
    tag: &'a str,
    content: Option<&'a RawValue>,
    tag_read: &'a Cell<bool>,
    next: Part,
}

impl<'de> MapAccess<'de> for Access<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let key = match self.next {
            Part::TagKey => {
                self.next = Part::Tag;
                self.keys[0]
            }
            Part::ContentKey if self.content.is_some() => {
                self.next = Part::Content;
                self.keys[1]
            }
            _ => return Ok(None),
        };
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        match (&self.next, self.content) {
            (Part::Tag, _) => {
                let value = seed.deserialize(BorrowedStrDeserializer::new(self.tag))?;
                self.tag_read.set(true);
                self.next = Part::ContentKey;
                Ok(value)
            }
            (Part::Content, Some(content)) => {
                self.next = Part::End;
                seed.deserialize(content)
            }
            _ => Err(serde::de::Error::custom("a value was asked for without its key")),
        }
    }
}
