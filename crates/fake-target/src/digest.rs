//! The digest of a command's data, by the design: a third implementation, which shares no bug with
//! the others.

use serde_json::Value;

/// The digest as entries show it: 16 hexadecimal digits.
pub(crate) fn digest(data: &Value) -> String {
    format!("{:016x}", of(data))
}

fn of(value: &Value) -> u64 {
    let mut bytes: Vec<u8> = Vec::new();
    match value {
        Value::Null => bytes.push(b'n'),
        Value::Bool(true) => bytes.push(b't'),
        Value::Bool(false) => bytes.push(b'f'),
        Value::Number(number) => decimal(&number.to_string(), &mut bytes),
        Value::String(text) => {
            bytes.push(b'"');
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0xff);
        }
        Value::Array(items) => {
            bytes.push(b'[');
            items.iter().for_each(|item| bytes.extend(of(item).to_le_bytes()));
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| {
                let mut bytes = key.clone().into_bytes();
                bytes.push(0xff);
                bytes.extend(of(value).to_le_bytes());
                finish(&bytes)
            };
            let sum = members.iter().map(member).fold(0, u64::wrapping_add);
            bytes.push(b'{');
            bytes.extend(sum.to_le_bytes());
            bytes.extend((members.len() as u64).to_le_bytes());
        }
    }
    finish(&bytes)
}

/// FNV-1a, and the finalizer of MurmurHash3.
fn finish(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn decimal(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(b'0');
    let unsigned = text.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let point = mantissa.find('.').unwrap_or(mantissa.len());
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let Some(first) = all.find(|c| c != '0') else { return };
    let exponent: i64 = exponent.parse().unwrap_or(0);
    bytes.push(u8::from(text.starts_with('-')));
    bytes.extend_from_slice(all[first..].trim_end_matches('0').as_bytes());
    bytes.push(b'e');
    bytes.extend((point as i64 - first as i64 + exponent).to_le_bytes());
}
