//! Compares JSON texts: numbers by their digits, which an `f64` would round, and objects without
//! regard to the order of their fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Levels of nesting that are compared as JSON. Below them the texts must be equal.
const DEPTH_MAX: usize = 128;

/// Whether both are the same JSON.
pub(crate) fn is_same(one: &RawValue, other: &RawValue) -> bool {
    is_same_within(one, other, DEPTH_MAX)
}

fn is_same_within(one: &RawValue, other: &RawValue, depth: usize) -> bool {
    let (a, b) = (one.get(), other.get());
    if a == b || depth == 0 {
        return a == b;
    }
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            both::<BTreeMap<String, &RawValue>>(a, b).is_some_and(|(a, b)| {
                let same = |((name, value), (other_name, other)): ((&String, &&RawValue), _)| {
                    let (other_name, other): (&String, &&RawValue) = (other_name, other);
                    name == other_name && is_same_within(value, other, depth - 1)
                };
                a.len() == b.len() && a.iter().zip(&b).all(same)
            })
        }
        (Some(b'['), Some(b'[')) => both::<Vec<&RawValue>>(a, b).is_some_and(|(a, b)| {
            let mut items = a.iter().zip(&b);
            a.len() == b.len() && items.all(|(a, b)| is_same_within(a, b, depth - 1))
        }),
        (Some(b'"'), Some(b'"')) => both::<String>(a, b).is_some_and(|(a, b)| a == b),
        _ => false,
    }
}

fn both<'a, T: Deserialize<'a>>(a: &'a str, b: &'a str) -> Option<(T, T)> {
    Some((serde_json::from_str(a).ok()?, serde_json::from_str(b).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one: &str, other: &str, expected: bool) {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("it is JSON");
        assert_eq!(is_same(&raw(one), &raw(other)), expected, "{one} {other}");
    }

    #[test]
    fn json_is_compared_with_exact_numbers() {
        check(r#"{"a":[1, "\u0062"],"c":null}"#, r#"{"c":null, "a":[1,"b"]}"#, true);
        check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false);
        check(r#"{"a":1}"#, r#"{"b":1}"#, false);
        check("[1]", "[1,2]", false);
        check("[1]", r#"["1"]"#, false);
        let (max, less) = (u128::MAX, u128::MAX - 1_000_000_000);
        check(&format!(r#"[{{"n":{max}}}]"#), &format!(r#"[{{"n":{less}}}]"#), false);
        check("[ 1e400]", "[1e401]", false);
        check("[ -0.0]", "[0.0]", false);
        let deep = |n: &str| format!("{}{n}{}", "[".repeat(10_000), "]".repeat(10_000));
        check(&deep("1"), &deep("2"), false);
    }
}
