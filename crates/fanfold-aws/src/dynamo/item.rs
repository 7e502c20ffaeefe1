//! Encodes and decodes the attributes of items.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use fanfold::{Seq, Time};

/// An item, or the key of an item.
pub(super) type Item = HashMap<String, AttributeValue>;

/// An attribute of an item is not as Fanfold writes it.
#[derive(Debug, thiserror::Error)]
#[error("attribute `{attribute}` of an item is {problem}")]
pub(super) struct Malformed {
    pub attribute: &'static str,
    pub problem: &'static str,
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn bytes(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

/// 128 random bits, as 16 bytes in big-endian order.
pub(super) fn random_bits(bits: u128) -> AttributeValue {
    bytes(&bits.to_be_bytes())
}

/// An item of these attributes.
pub(super) fn item<const N: usize>(attributes: [(&str, AttributeValue); N]) -> Item {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Takes attributes out of an item. `take_…` return `None` if the attribute is missing, the others fail.
pub(super) trait Take {
    fn take(&mut self, attribute: &'static str) -> Option<AttributeValue>;

    fn take_number(&mut self, attribute: &'static str) -> Result<Option<u64>, Malformed> {
        match self.take(attribute) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => digits
                .parse()
                .map(Some)
                .map_err(|_| Malformed { attribute, problem: "not a whole number" }),
            Some(_) => Err(Malformed { attribute, problem: "not a number" }),
        }
    }

    fn number(&mut self, attribute: &'static str) -> Result<u64, Malformed> {
        self.take_number(attribute)?.ok_or(Malformed { attribute, problem: "missing" })
    }

    fn seq(&mut self, attribute: &'static str) -> Result<Seq, Malformed> {
        self.number(attribute).map(Seq)
    }

    fn time(&mut self, attribute: &'static str) -> Result<Time, Malformed> {
        self.number(attribute).map(Time)
    }

    fn take_text(&mut self, attribute: &'static str) -> Result<Option<String>, Malformed> {
        match self.take(attribute) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed { attribute, problem: "not a text" }),
        }
    }

    fn text(&mut self, attribute: &'static str) -> Result<String, Malformed> {
        self.take_text(attribute)?.ok_or(Malformed { attribute, problem: "missing" })
    }

    fn take_bytes(&mut self, attribute: &'static str) -> Result<Option<Bytes>, Malformed> {
        match self.take(attribute) {
            None => Ok(None),
            Some(AttributeValue::B(blob)) => Ok(Some(blob.into_inner().into())),
            Some(_) => Err(Malformed { attribute, problem: "not binary" }),
        }
    }

    fn bytes(&mut self, attribute: &'static str) -> Result<Bytes, Malformed> {
        self.take_bytes(attribute)?.ok_or(Malformed { attribute, problem: "missing" })
    }

    fn random_bits(&mut self, attribute: &'static str) -> Result<u128, Malformed> {
        let bytes = self.bytes(attribute)?;
        let bits = bytes.as_ref().try_into();
        let bits = bits.map_err(|_| Malformed { attribute, problem: "not 16 bytes" })?;
        Ok(u128::from_be_bytes(bits))
    }
}

impl Take for Item {
    fn take(&mut self, attribute: &'static str) -> Option<AttributeValue> {
        self.remove(attribute)
    }
}
