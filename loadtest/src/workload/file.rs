//! The workload file: commands of any service, as its author writes them in YAML.
//!
//! These types are the format. They can be written, too, so that a tool can make a first file.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::Spanned;

use auditor::receipts::Expect;

/// A workload file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadFile {
    /// The service of all commands.
    pub(crate) service: Spanned<String>,
    /// What the partition of a command is.
    #[serde(default)]
    pub(crate) partition: Partition,
    /// The views whose progress is sampled and audited.
    #[serde(default)]
    pub(crate) views: Vec<Spanned<String>>,
    /// Sent once for each tenant, in order, before the mix.
    #[serde(default)]
    pub(crate) setup: Vec<Spanned<SetupStep>>,
    /// What is sent then.
    pub(crate) mix: Vec<Spanned<MixStep>>,
}

/// Where commands go by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// A tenant is an organisation: commands name one.
    #[default]
    Org,
    /// A tenant is a user: commands name no organisation.
    User,
}

/// Commands of the setup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupStep {
    /// The command's name.
    pub(crate) command: String,
    /// How many times it is sent, with `n` from 0 on.
    #[serde(default = "one")]
    pub(crate) each: u32,
    /// Its data.
    #[serde(default = "no_data")]
    pub(crate) data: Spanned<Data>,
    /// The expected outcome.
    #[serde(default = "Outcome::accepted")]
    pub(crate) expect: Outcome,
}

/// A command of the mix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MixStep {
    /// How often it is drawn, relative to the others.
    #[serde(default = "one_weight")]
    pub(crate) weight: f64,
    /// The command's name.
    pub(crate) command: String,
    /// Its data.
    #[serde(default = "no_data")]
    pub(crate) data: Spanned<Data>,
    /// The expected outcome.
    #[serde(default)]
    pub(crate) expect: Outcome,
}

fn one() -> u32 {
    1
}

fn one_weight() -> f64 {
    1.0
}

fn no_data() -> Spanned<Data> {
    Spanned::new(
        Data::Map(Vec::new()),
        serde_saphyr::Location::UNKNOWN,
        serde_saphyr::Location::UNKNOWN,
    )
}

/// `accepted`, `either`, `{ rejected: code }` or `{ rejected: [code, code] }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Accepted,
    Rejected(Codes),
    #[default]
    Either,
}

/// One code or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Codes {
    One(String),
    Several(Vec<String>),
}

impl Outcome {
    fn accepted() -> Self {
        Self::Accepted
    }

    /// As receipts show it.
    pub(crate) fn expected(&self) -> Expect {
        match self {
            Self::Accepted => Expect::Accepted,
            Self::Either => Expect::Either,
            Self::Rejected(Codes::One(code)) => Expect::Rejected(vec![code.clone()]),
            Self::Rejected(Codes::Several(codes)) => Expect::Rejected(codes.clone()),
        }
    }
}

/// Data with templates in its texts. Each part has its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// Anything but a text, an array and an object.
    Plain(Value),
    Text(String),
    List(Vec<Spanned<Data>>),
    /// In the order of the file.
    Map(Vec<(String, Spanned<Data>)>),
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(to),
            Self::Text(text) => to.serialize_str(text),
            Self::List(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&item.value))?;
                list.end()
            }
            Self::Map(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                members
                    .iter()
                    .try_for_each(|(key, value)| map.serialize_entry(key, &value.value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data, as in JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Data, E> {
        Ok(Data::Plain(Value::Null))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Plain(value.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Plain(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Plain(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Data, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Data::Plain(number.into())),
            None => Err(E::custom(format!("{value} is not a number of JSON"))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Data, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Data::Map(map))
    }
}
