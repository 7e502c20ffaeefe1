//! A digest of the meaning of a JSON text. It distinguishes a repeat of a command from another
//! command with the same id, when the first one's data is no longer at hand.
//!
//! Texts that are equal as JSON values have the same digest, in every build and on every machine. Spaces, the order of
//! an object's members, escapes in strings and the notation of a number do not count. `1`, `1.0` and `1e0` are one
//! number, and so are `0` and `-0`. Numbers are compared as decimals of any length, never as floats. (An exponent
//! beyond 64 bits counts as the largest of 64 bits.) An object that has a key twice is equal only to one that has the
//! same members, each as often.
//!
//! The digest is not cryptographic. A client that constructs two commands with one digest harms only itself: the second
//! becomes a duplicate of its first.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::limits::COMMAND_DEPTH_MAX;

/// 64 bits that stand for a JSON text. They are written as 16 hexadecimal digits, because a number of varying length
/// would make the size of an entry, and so whether it is too large, depend on chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(u64);

impl Digest {
    /// The digest of a JSON text. A text that is nested deeper than requests may be is digested byte by byte.
    pub fn of_json(json: &str) -> Self {
        let mut reader = Reader { rest: json.as_bytes() };
        let meaning = reader.value(0);
        Self(meaning.unwrap_or_else(|| json.bytes().fold(Hash::NEW, Hash::byte).end()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        u64::from_str_radix(text, 16).map(Self).map_err(D::Error::custom)
    }
}

/// FNV-1a, 64 bits, byte by byte, so that escaped text need not be decoded into a buffer first.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().copied().fold(self, Self::byte)
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Spreads the bits (the finalizer of MurmurHash3), so that digests can be added up.
    fn end(self) -> u64 {
        let mut bits = self.0;
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        bits ^ (bits >> 33)
    }
}

/// Reads valid JSON. Invalid JSON has a digest, too, which means nothing.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The first byte that is neither white space nor punctuation between values.
    fn peek(&mut self) -> Option<u8> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':');
        let at = self.rest.iter().position(|byte| !blank(byte))?;
        self.rest = &self.rest[at..];
        Some(self.rest[0])
    }

    /// `None` if the value is nested too deeply.
    fn value(&mut self, depth: usize) -> Option<u64> {
        if depth > COMMAND_DEPTH_MAX {
            return None;
        }
        let first = self.peek().unwrap_or_default();
        let hash = Hash::NEW.byte(first);
        Some(match first {
            b'{' => {
                self.next();
                let (mut members, mut n) = (0u64, 0);
                while self.peek().is_some_and(|byte| byte != b'}') {
                    self.next();
                    let key = self.string(Hash::NEW);
                    let member = key.number(self.value(depth + 1)?).end();
                    (members, n) = (members.wrapping_add(member), n + 1);
                }
                self.next();
                hash.number(members).number(n).end()
            }
            b'[' => {
                self.next();
                let mut hash = hash;
                while self.peek().is_some_and(|byte| byte != b']') {
                    hash = hash.number(self.value(depth + 1)?);
                }
                self.next();
                hash.end()
            }
            b'"' => {
                self.next();
                self.string(hash).end()
            }
            b'-' | b'0'..=b'9' => self.decimal().end(),
            // `true`, `false` and `null` differ in their first letters.
            _ => {
                let at = self.rest.iter().position(|byte| !byte.is_ascii_alphabetic());
                self.rest = &self.rest[at.unwrap_or(self.rest.len()).max(1).min(self.rest.len())..];
                hash.end()
            }
        })
    }

    /// A string, from behind its opening quote to behind its closing one.
    fn string(&mut self, mut hash: Hash) -> Hash {
        while let Some(byte) = self.next() {
            hash = match byte {
                b'"' => break,
                b'\\' => match self.next() {
                    Some(b'u') => self.unicode(hash),
                    Some(b'b') => hash.byte(0x08),
                    Some(b'f') => hash.byte(0x0C),
                    Some(b'n') => hash.byte(b'\n'),
                    Some(b'r') => hash.byte(b'\r'),
                    Some(b't') => hash.byte(b'\t'),
                    Some(itself) => hash.byte(itself),
                    None => break,
                },
                byte => hash.byte(byte),
            };
        }
        // This byte is in no UTF-8 text, so it marks the end of the string.
        hash.byte(0xFF)
    }

    /// The digits behind `\u`, as UTF-8.
    fn unicode(&mut self, hash: Hash) -> Hash {
        let unit = self.hex();
        let low = match self.rest {
            [b'\\', b'u', ..] if (0xD800..0xDC00).contains(&unit) => {
                let behind = self.rest;
                self.rest = &self.rest[2..];
                let low = self.hex();
                if !(0xDC00..0xE000).contains(&low) {
                    self.rest = behind;
                }
                low
            }
            _ => 0,
        };
        let character = char::decode_utf16([unit, low]).next();
        match character {
            Some(Ok(character)) => hash.bytes(character.encode_utf8(&mut [0; 4]).as_bytes()),
            // Half a surrogate pair is no character, but serde_json does not check that in raw text.
            _ => hash.byte(0xFE).number(unit.into()),
        }
    }

    fn hex(&mut self) -> u16 {
        let (digits, rest) = self.rest.split_at(self.rest.len().min(4));
        self.rest = rest;
        digits.iter().fold(0, |unit, digit| {
            unit << 4 | char::from(*digit).to_digit(16).unwrap_or_default() as u16
        })
    }

    /// A number as `0.<digits> * 10^<exponent>`, the first and the last digit not being zero.
    fn decimal(&mut self) -> Hash {
        let end = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let (text, rest) =
            self.rest.split_at(self.rest.iter().position(end).unwrap_or(self.rest.len()));
        self.rest = rest;
        let (is_negative, text) = match text.split_first() {
            Some((b'-', text)) => (true, text),
            _ => (false, text),
        };
        let e = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (mantissa, exponent) = text.split_at(e.unwrap_or(text.len()));
        let is_significant = |byte: &u8| matches!(byte, b'1'..=b'9');
        let hash = Hash::NEW.byte(b'0');
        let (Some(first), Some(last)) =
            (mantissa.iter().position(is_significant), mantissa.iter().rposition(is_significant))
        else {
            return hash;
        };
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        // The number of digits before the point, or, negative, of zeros behind it: at most the bytes of a command.
        let places = point as i64 - first as i64 + i64::from(first > point);
        let digits = mantissa[first..=last].iter().filter(|byte| **byte != b'.');
        let hash = digits.fold(hash.byte(u8::from(is_negative)), |hash, digit| hash.byte(*digit));
        hash.byte(b'e').number(places.saturating_add(read_exponent(exponent)) as u64)
    }
}

/// `e<integer>`, or nothing, which is zero.
fn read_exponent(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let is_negative = text.contains(&b'-');
    digits.fold(0, |exponent: i64, digit| {
        let digit = i64::from(digit - b'0');
        exponent.saturating_mul(10).saturating_add(if is_negative { -digit } else { digit })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn digest(json: &str) -> Digest {
        Digest::of_json(json)
    }

    #[test]
    fn equal_values_have_the_same_digest() {
        let groups: [&[&str]; 17] = [
            &["{}", " { } "],
            &["[]", "[ \n]"],
            &["[[]]"],
            &["[[],[]]"],
            &["null"],
            &["true"],
            &["false"],
            &["\"\"", "\"\" "],
            &["0", "-0", "0.0", "0e7", "-0.00E-3"],
            &["1", "1.0", "1e0", "10e-1", "0.1e1", "0.001E+3", "1.000"],
            &["-1", "-1.0", "-10e-1"],
            &["100", "1e2", "1.00e2", "10.0e1"],
            &["0.1", "1e-1"],
            &[r#""a""#, r#""\u0061""#],
            &[r#""\n\"\/\\""#, r#""\u000a\u0022/\u005C""#],
            &[r#""\ud83e\udd80""#, "\"🦀\"", r#""\uD83E\uDD80""#],
            &[r#"{"a":1,"b":[1,2]}"#, r#"{ "b" : [ 1.0, 2 ], "\u0061" : 1 }"#],
        ];
        let mut seen: Vec<Digest> = Vec::new();
        for group in groups {
            let first = digest(group[0]);
            assert!(!seen.contains(&first), "{group:?}");
            seen.push(first);
            for other in group {
                assert_eq!(digest(other), first, "{other}");
            }
        }
    }

    #[test]
    fn different_values_have_different_digests() {
        for (one, other) in [
            ("[1,2]", "[2,1]"),
            ("[1,[2]]", "[[1],2]"),
            ("[12]", "[1,2]"),
            ("1", "\"1\""),
            ("null", "\"null\""),
            ("{}", "[]"),
            ("{}", r#"{"a":null}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":1,"b":1}"#),
            (r#"{"a":"b"}"#, r#"{"b":"a"}"#),
            (r#"["a","b"]"#, r#"["ab"]"#),
            (r#"["a","b"]"#, r#"["","ab"]"#),
            // Beyond what a float holds.
            ("9007199254740992", "9007199254740993"),
            ("340282366920938463463374607431768211455", "340282366920938463463374607431768211454"),
            ("0.1", "0.10000000000000000555"),
            ("1e400", "1e401"),
            // With a key twice, all members count, each as often as it is there.
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"a":1}"#, r#"{"a":1}"#),
            (r#""\ud83e""#, r#""\udd80""#),
            (r#""\ud83e\u0061""#, r#""\ud83ea\u0061""#),
        ] {
            assert_ne!(digest(one), digest(other), "{one} {other}");
        }
        assert_eq!(digest(r#"{"a":1,"a":2}"#), digest(r#"{"a":2,"a":1}"#));
        assert_eq!(digest(r#""\ud83e\u0061""#), digest(r#""\ud83ea""#));
    }

    /// Digests are stored beside entries, so every build must compute the same ones.
    #[test]
    fn digests_never_change() {
        for (json, digest) in [
            ("{}", 4_804_980_027_688_672_262),
            (r#"{"account":"cash","amount":100}"#, 3_295_745_473_918_359_808),
            (r#"[null,true,-1.5e3,"\u00e9",{"a":[]}]"#, 9_842_252_663_926_211_240),
        ] {
            assert_eq!(Digest::of_json(json), Digest(digest), "{json}");
        }
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_is_digested_as_written() {
        let deep = |n: usize, blank: &str| format!("{}{blank}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(digest(&deep(60, "")), digest(&deep(60, " ")));
        assert_eq!(digest(&deep(100_000, "")), digest(&deep(100_000, "")));
        assert_ne!(digest(&deep(100_000, "")), digest(&deep(100_000, " ")));
    }

    /// A number by the definition, with all zeros written out.
    fn plain(digits: &str, exponent: i32) -> (String, String) {
        let zeros = |n: i32| "0".repeat(n.unsigned_abs() as usize);
        let (whole, part) = match exponent {
            0.. => (format!("{digits}{}", zeros(exponent)), String::new()),
            _ => {
                let padded = format!("{}{digits}", zeros(exponent));
                let (whole, part) =
                    padded.split_at(padded.len() - exponent.unsigned_abs() as usize);
                (whole.to_owned(), part.to_owned())
            }
        };
        (whole.trim_start_matches('0').to_owned(), part.trim_end_matches('0').to_owned())
    }

    /// The same JSON value in another notation.
    fn rewritten(value: &Value, turn: usize) -> String {
        let blank = [" ", "", "\n"][turn % 3];
        match value {
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if turn % 2 == 1 {
                    members.reverse();
                }
                let members = members.iter().map(|(key, value)| {
                    format!(
                        "{}{blank}:{}",
                        rewritten(&json!(key), turn),
                        rewritten(value, turn + 1)
                    )
                });
                format!("{{{blank}{}}}", members.collect::<Vec<_>>().join(","))
            }
            Value::Array(items) => {
                let items = items.iter().map(|item| rewritten(item, turn + 1));
                format!("[{}{blank}]", items.collect::<Vec<_>>().join(","))
            }
            Value::String(text) if turn % 2 == 1 => {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
                format!("\"{}\"", units.collect::<String>())
            }
            other => other.to_string(),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // A float without a fraction is the same number as an integer.
            any::<f64>().prop_filter("whole", |n| n.fract() != 0.0).prop_map(Value::from),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,3}", inner, 0..4)
                    .prop_map(|members: BTreeMap<String, Value>| json!(members)),
            ]
        })
    }

    proptest! {
        #[test]
        fn numbers_have_equal_digests_if_and_only_if_they_are_equal(
            one in ("[0-9]{1,4}", -6..6i32), other in ("[0-9]{1,4}", -6..6i32),
        ) {
            let written = |(digits, exponent): &(String, i32)| {
                let digits = digits.trim_start_matches('0');
                format!("{}e{exponent}", if digits.is_empty() { "0" } else { digits })
            };
            let same = plain(&one.0, one.1) == plain(&other.0, other.1);
            prop_assert_eq!(digest(&written(&one)) == digest(&written(&other)), same);
            let (whole, part) = plain(&one.0, one.1);
            let whole = if whole.is_empty() { "0" } else { &whole };
            prop_assert_eq!(digest(&format!("{whole}.{part}0")), digest(&written(&one)));
        }

        #[test]
        fn every_notation_of_a_value_has_its_digest(value in any_json(), turn in 0usize..6) {
            prop_assert_eq!(digest(&rewritten(&value, turn)), digest(&value.to_string()));
        }

        #[test]
        fn different_random_values_have_different_digests(one in any_json(), other in any_json()) {
            if one != other {
                prop_assert_ne!(digest(&one.to_string()), digest(&other.to_string()));
            }
        }

        #[test]
        fn any_text_has_a_digest(text in ".{0,40}", json in "[\\[\\]{}\",:0-9eE.\\\\ua-]{0,40}") {
            digest(&text);
            digest(&json);
        }
    }
}
