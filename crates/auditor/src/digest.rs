//! Digests by which texts and data are compared.
//!
//! The digest of data is that of the design ("Digest of the data"), written again and in another
//! way, so that a target and the auditor do not share a bug.

use std::borrow::Cow;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A digest by which two texts, or the data of two commands, are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// FNV-1a, 64 bits. It is short and portable, and need not withstand forgery.
    pub fn of(text: &str) -> Self {
        Self(fnv(text.as_bytes()))
    }

    /// The digest of data, equal for texts that are equal as JSON values. Fails if the text is not
    /// JSON.
    pub fn of_json(json: &str) -> serde_json::Result<Self> {
        value(serde_json::from_str(json)?).map(Self)
    }

    /// The number, which serves as a seed.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(from)?;
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| serde::de::Error::custom("a digest is 16 hex digits"))
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    // The offset basis and the prime of FNV (draft-eastlake-fnv).
    let (basis, prime) = (0xcbf2_9ce4_8422_2325_u64, 0x0000_0100_0000_01b3);
    bytes.iter().fold(basis, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(prime))
}

/// FNV-1a of these parts, with the finalizer of MurmurHash3.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut bits = fnv(&parts.concat());
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        bits = (bits ^ (bits >> 33)).wrapping_mul(factor);
    }
    bits ^ (bits >> 33)
}

fn value(raw: &RawValue) -> serde_json::Result<u64> {
    let text = raw.get();
    Ok(match text.as_bytes() {
        [b'{', ..] => {
            let Members { sum, count } = serde_json::from_str(text)?;
            hash(&[b"{", &sum.to_le_bytes(), &count.to_le_bytes()])
        }
        [b'[', ..] => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let mut digests = Vec::with_capacity(8 * items.len());
            for item in items {
                digests.extend(value(item)?.to_le_bytes());
            }
            hash(&[b"[", &digests])
        }
        [b'"', ..] => {
            let text: Cow<'_, str> = serde_json::from_str(text)?;
            hash(&[b"\"", text.as_bytes(), b"\xff"])
        }
        [first @ (b'n' | b't' | b'f'), ..] => hash(&[&[*first]]),
        _ => number(text),
    })
}

/// A number as ±0.digits × 10^exponent.
fn number(text: &str) -> u64 {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let significant = digits.trim_start_matches('0');
    let zeros = (digits.len() - significant.len()) as i64;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return hash(&[b"0"]);
    }
    // An exponent beyond 64 bits counts as the largest of 64 bits.
    let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
    let exponent = exponent.parse().unwrap_or(beyond);
    let exponent = (whole.len() as i64 - zeros).saturating_add(exponent);
    let sign = [u8::from(is_negative)];
    hash(&[b"0", &sign, significant.as_bytes(), b"e", &exponent.to_le_bytes()])
}

/// The members of an object, each counted as often as it is there.
struct Members {
    sum: u64,
    count: u64,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members { sum: 0, count: 0 };
        while let Some((key, raw)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            let digest = value(raw).map_err(serde::de::Error::custom)?;
            let member = hash(&[key.as_bytes(), b"\xff", &digest.to_le_bytes()]);
            members.sum = members.sum.wrapping_add(member);
            members.count += 1;
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_a_text_is_fnv_1a() {
        // From the test vectors of the FNV draft.
        for (text, hex) in
            [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")]
        {
            let json = format!("\"{hex}\"");
            assert_eq!(serde_json::to_string(&Digest::of(text)).expect("it is JSON"), json);
            assert_eq!(serde_json::from_str::<Digest>(&json).expect(hex), Digest::of(text));
        }
        for wrong in ["\"\"", "\"+f63dc4c8601ec8c\"", "\"af63dc4c8601ec8c0\"", "7"] {
            assert!(serde_json::from_str::<Digest>(wrong).is_err(), "{wrong}");
        }
    }

    /// The examples are those of the design, and of a third implementation in Python.
    #[test]
    fn a_digest_of_data_is_that_of_the_design() {
        for (json, hex) in [
            ("{}", "42aeb7e0973adc06"),
            (r#"{"account":"cash","amount":100}"#, "2dbcd70c03015900"),
            (r#"{ "amount" : 1.00e2, "\u0061ccount":"cash" }"#, "2dbcd70c03015900"),
            (r#"[null,true,-1.5e3,"\u00e9",{"a":[]}]"#, "8896b4a6bef6c2a8"),
            ("[null, true, -1500, \"é\", {\"a\":[ ]}]", "8896b4a6bef6c2a8"),
            ("0.001", "35c36b9df9989d7e"),
            ("1E-3", "35c36b9df9989d7e"),
            ("-12.50", "a8871a5628e3c3df"),
            ("1e400", "57442c41fe42685d"),
        ] {
            assert_eq!(Digest::of_json(json).expect(json).to_string(), hex, "{json}");
        }
        assert_eq!(Digest::of_json("-0.0e9").expect("0"), Digest::of_json("0").expect("0"));
        assert!(Digest::of_json("{").is_err());
    }
}
