//! Requests, and their validation.
//!
//! ```json
//! {"type":"ledger","command":"deposit","id":17,"timestamp":11178,"user":"ann","org":"acme",
//!  "data":{"account":"cash","amount":100}}
//! ```

use compact_str::CompactString;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::host::catch::truncated;
use crate::host::command::Command;
use crate::host::limits::{COMMAND_BYTES_MAX, COMMAND_DEPTH_MAX};
use crate::host::position::CommandId;
use crate::names::{LogId, Name, NameError, Origin, Partition, ServiceName};
use crate::service::InvalidCommand;
use crate::services::Services;

/// A request that a service of this host can take.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The log of its command.
    pub log: LogId,
    /// Its command.
    pub command: Command,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The text is not UTF-8.
    #[error("the request is not valid UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// The text is not JSON.
    #[error("the request is not JSON: {0}")]
    NotJson(String),
    /// The text is JSON, but not an object.
    #[error(
        "the request must be a JSON object, as {{\"type\":\"<service>\",\"command\":\"<command>\",…}}"
    )]
    NotAnObject,
    /// A required field is absent.
    #[error("`{field}`: is required")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field that requests do not have.
    #[error(
        "`{field}`: unknown field, expected one of `type`, `command`, `id`, `timestamp`, `user`, `client`, `org`, `data`"
    )]
    UnknownField {
        /// The field.
        field: String,
    },
    /// A field that is given twice.
    #[error("`{field}`: is given twice")]
    Repeated {
        /// The field.
        field: &'static str,
    },
    /// A value of another JSON type.
    #[error("`{field}`: must be {expected}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// An id outside its range.
    #[error("`id`: must be an integer from 1 to 9007199254740991 (2^53 - 1)")]
    BadId,
    /// A name outside the rules.
    #[error("`{field}`: {error}")]
    BadName {
        /// The field.
        field: &'static str,
        /// The rule that it breaks.
        error: NameError,
    },
    /// The data is nested too deeply.
    #[error("`data`: is nested more than {COMMAND_DEPTH_MAX} levels deep")]
    TooDeep,
    /// The command is too large.
    #[error("the command is {bytes} bytes long, at most {COMMAND_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This host has no service of this name.
    #[error("`type`: there is no service `{service}` here")]
    UnknownService {
        /// The service.
        service: ServiceName,
    },
    /// The service refuses the command's name or data.
    #[error("{0}")]
    InvalidCommand(InvalidCommand),
}

impl Request {
    /// Reads one request and checks it against the services of this host.
    pub fn parse(json: &[u8], services: &Services) -> Result<Self, RequestError> {
        if json.len() > COMMAND_BYTES_MAX {
            return Err(RequestError::TooLarge { bytes: json.len() });
        }
        let text =
            std::str::from_utf8(json).map_err(|e| RequestError::NotUtf8 { at: e.valid_up_to() })?;
        let fields = Fields::parse(text)?;

        let service = ServiceName::new(fields.text("type")?)
            .map_err(|error| RequestError::BadName { field: "type", error })?;
        let name = fields.name("command")?;
        let id = fields.id()?;
        let user = fields.name("user")?;
        let origin = match fields.optional("client") {
            Some(_) => Origin::client(&user, &fields.name("client")?),
            None => Origin::user(&user),
        };
        let origin = origin.map_err(|error| RequestError::BadName { field: "user", error })?;
        let partition = match fields.optional("org") {
            Some(_) => Partition::org(&fields.name("org")?),
            None => Partition::user(&user),
        };
        let timestamp = fields.timestamp()?;
        let data = fields.data()?;

        let hosted = services
            .get(service.as_str())
            .ok_or_else(|| RequestError::UnknownService { service: service.clone() })?;
        hosted.parse(&name, &data).map_err(RequestError::InvalidCommand)?;
        let command = Command { origin, id, name, timestamp, data, trace: None };
        Ok(Self { log: LogId::new(&service, &partition), command })
    }
}

const FIELDS: [&str; 8] = ["type", "command", "id", "timestamp", "user", "client", "org", "data"];

/// The fields of a request, each as the raw JSON of its value.
#[derive(Default)]
struct Fields<'a> {
    values: [Option<&'a RawValue>; FIELDS.len()],
    error: Option<RequestError>,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, RequestError> {
        match serde_json::from_str::<Self>(text) {
            Ok(Self { error: Some(error), .. }) => Err(error),
            Ok(fields) => Ok(fields),
            // The fields of an object are read as raw JSON, so this error means: no object, or no JSON.
            Err(error) => match serde_json::from_str::<&RawValue>(text) {
                Ok(_) if !text.trim_ascii_start().starts_with('{') => {
                    Err(RequestError::NotAnObject)
                }
                Ok(_) => Err(RequestError::NotJson(error.to_string())),
                Err(error) => Err(RequestError::NotJson(error.to_string())),
            },
        }
    }

    fn get(&self, field: &str) -> Option<&'a RawValue> {
        FIELDS.iter().position(|f| *f == field).and_then(|at| self.values[at])
    }

    /// `null` counts as absent.
    fn optional(&self, field: &str) -> Option<&'a RawValue> {
        self.get(field).filter(|raw| raw.get() != "null")
    }

    fn required(&self, field: &'static str) -> Result<&'a RawValue, RequestError> {
        self.get(field).ok_or(RequestError::Missing { field })
    }

    fn text(&self, field: &'static str) -> Result<CompactString, RequestError> {
        let raw = self.required(field)?.get();
        // Fast path: a string without escapes.
        let inside = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
        match inside.filter(|inside| !inside.contains('\\')) {
            Some(text) => Ok(text.into()),
            None => serde_json::from_str(raw)
                .map_err(|_| RequestError::WrongType { field, expected: "a string" }),
        }
    }

    fn name(&self, field: &'static str) -> Result<Name, RequestError> {
        Name::new(self.text(field)?).map_err(|error| RequestError::BadName { field, error })
    }

    fn id(&self) -> Result<CommandId, RequestError> {
        let raw = self.required("id")?.get();
        let is_number = raw.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        if !is_number {
            return Err(RequestError::WrongType { field: "id", expected: "an integer" });
        }
        raw.parse().ok().and_then(CommandId::new).ok_or(RequestError::BadId)
    }

    fn timestamp(&self) -> Result<Option<u64>, RequestError> {
        let expected = "an integer from 0 on: milliseconds";
        let wrong = |_| RequestError::WrongType { field: "timestamp", expected };
        self.optional("timestamp").map(|raw| raw.get().parse().map_err(wrong)).transpose()
    }

    fn data(&self) -> Result<Box<RawValue>, RequestError> {
        let Some(raw) = self.optional("data") else {
            let empty = RawValue::from_string("{}".to_owned());
            return empty.map_err(|e| RequestError::NotJson(e.to_string()));
        };
        if !raw.get().starts_with('{') {
            return Err(RequestError::WrongType { field: "data", expected: "a JSON object" });
        }
        if depth(raw.get()) > COMMAND_DEPTH_MAX {
            return Err(RequestError::TooDeep);
        }
        Ok(raw.to_owned())
    }
}

/// How deep valid JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// The name of a field.
enum Key {
    /// The place among [`FIELDS`].
    Known(usize),
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field")
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
                Ok(match FIELDS.iter().position(|field| *field == key) {
                    Some(at) => Key::Known(at),
                    None => Key::Unknown(truncated(key.to_owned(), 64)),
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Known(at) => {
                            let value = map.next_value()?;
                            if fields.values[at].replace(value).is_some() {
                                let repeated = RequestError::Repeated { field: FIELDS[at] };
                                fields.error.get_or_insert(repeated);
                            }
                        }
                        Key::Unknown(field) => {
                            map.next_value::<de::IgnoredAny>()?;
                            fields.error.get_or_insert(RequestError::UnknownField { field });
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
