//! Schemas without references, so that a comparison sees what is behind them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{DEFINITIONS, Description};

/// The most schemas in an expanded one. Source: our choice, some hundred times as many as a large type has; types that
/// refer to others in many ways grow with each level.
const SCHEMAS_MAX: usize = 100_000;
/// Keywords that say nothing about which values are valid.
const NOTES: [&str; 8] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
];

pub(super) fn is_note(keyword: &str) -> bool {
    NOTES.contains(&keyword)
}

/// Expands schemas of one description.
#[derive(Clone)]
pub(super) struct Expander<'a>(&'a BTreeMap<String, Value>);

impl<'a> Expander<'a> {
    pub(super) fn of(description: &'a Description) -> Self {
        Self(&description.definitions)
    }

    /// The schema with every definition in place of its reference, without notes, and with the bounds of integers. Inside
    /// of a definition, a reference to itself stays. `None`: it would be too large.
    pub(super) fn expand(&self, schema: &Value) -> Option<Value> {
        self.schema(schema, &mut Vec::new(), &mut 0)
    }

    fn schema(&self, schema: &Value, inside: &mut Vec<String>, count: &mut usize) -> Option<Value> {
        *count += 1;
        if *count > SCHEMAS_MAX {
            return None;
        }
        let Value::Object(members) = schema else { return Some(schema.clone()) };
        let mut expanded = Map::new();
        for (keyword, value) in members.iter().filter(|(keyword, _)| !is_note(keyword)) {
            let value = match (keyword.as_str(), value) {
                ("properties" | "patternProperties", Value::Object(named)) => {
                    let named = named.iter().map(|(name, schema)| {
                        Some((name.clone(), self.schema(schema, inside, count)?))
                    });
                    Value::Object(named.collect::<Option<_>>()?)
                }
                ("oneOf" | "anyOf" | "allOf" | "prefixItems", Value::Array(all)) => {
                    let all = all.iter().map(|schema| self.schema(schema, inside, count));
                    Value::Array(all.collect::<Option<_>>()?)
                }
                // These hold values and not schemas.
                ("const" | "enum", value) => value.clone(),
                (_, value @ Value::Object(_)) => self.schema(value, inside, count)?,
                (_, value) => value.clone(),
            };
            expanded.insert(keyword.clone(), value);
        }
        bound(&mut expanded);
        let reference = members.get("$ref").and_then(Value::as_str);
        let name = reference.and_then(|reference| reference.strip_prefix(DEFINITIONS));
        let (Some(name), Some(found)) = (name, name.and_then(|name| self.0.get(name))) else {
            return Some(Value::Object(expanded));
        };
        if inside.iter().any(|outer| outer == name) {
            return Some(Value::Object(expanded));
        }
        expanded.remove("$ref");
        inside.push(name.to_owned());
        let found = self.schema(found, inside, count);
        inside.pop();
        Some(match found? {
            Value::Object(found) => Value::Object(merged(found, expanded)),
            other if expanded.is_empty() => other,
            other => json!({ "allOf": [other, expanded] }),
        })
    }
}

/// One schema of the keywords of two. Where they cannot be united, the second stays in `allOf`.
pub(super) fn merged(mut one: Map<String, Value>, other: Map<String, Value>) -> Map<String, Value> {
    for (keyword, value) in other {
        let Some(before) = one.get_mut(&keyword) else {
            one.insert(keyword, value);
            continue;
        };
        match (keyword.as_str(), before, value) {
            (_, before, value) if *before == value => {}
            ("properties", Value::Object(before), Value::Object(value))
                if value
                    .iter()
                    .all(|(name, schema)| before.get(name).is_none_or(|b| b == schema)) =>
            {
                before.extend(value);
            }
            ("required", Value::Array(before), Value::Array(value)) => {
                let more: Vec<_> =
                    value.into_iter().filter(|name| !before.contains(name)).collect();
                before.extend(more);
            }
            (keyword, _, value) => {
                let rest = json!({ keyword: value });
                match one.get_mut("allOf").and_then(Value::as_array_mut) {
                    Some(all) => all.push(rest),
                    None => {
                        one.insert("allOf".to_owned(), json!([rest]));
                    }
                }
            }
        }
    }
    one
}

/// Gives all integers in a schema the bounds of their formats. Derived schemas have those of small formats only.
pub(super) fn bound_all(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let format = members.get("format").cloned();
            bound(members);
            members.extend(format.map(|format| ("format".to_owned(), format)));
            members.values_mut().for_each(bound_all);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_all),
        _ => {}
    }
}

/// Gives an integer the bounds of its format, instead of that.
fn bound(schema: &mut Map<String, Value>) {
    let format = schema.get("format").and_then(Value::as_str);
    let (least, most) = match format {
        Some("int8") => (json!(i8::MIN), json!(i8::MAX)),
        Some("int16") => (json!(i16::MIN), json!(i16::MAX)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("int64" | "int") => (json!(i64::MIN), json!(i64::MAX)),
        Some("int128") => (json!(i128::MIN as f64), json!(i128::MAX as f64)),
        Some("uint8") => (json!(0), json!(u8::MAX)),
        Some("uint16") => (json!(0), json!(u16::MAX)),
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint64" | "uint") => (json!(0), json!(u64::MAX)),
        Some("uint128") => (json!(0), json!(u128::MAX as f64)),
        _ => return,
    };
    schema.remove("format");
    schema.entry("minimum").or_insert(least);
    schema.entry("maximum").or_insert(most);
}
