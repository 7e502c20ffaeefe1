//! Compares two schemas: can the reader of the one take every value of the other?
//!
//! The comparison knows the keywords that derived schemas have. Where it cannot tell whether a difference is harmless,
//! it reports the difference.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::expand::{is_note, merged};

/// Values, and what reads them.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Whether the values are of the old schema, and are read by the new: old commands, stored events and rows. Otherwise
    /// the values are new, and their readers know the old schema, and ignore members that it has not.
    pub(super) is_of_old: bool,
    /// What the values are: `stored rows`.
    pub(super) given: &'static str,
    /// What reads them: `this build`.
    pub(super) taker: &'static str,
}

/// A difference: the path of the member, and what is different.
pub(super) type Difference = (String, String);

/// The differences between two expanded schemas that the reader cannot take: of the values that are given, and of those
/// that are taken. `path` is that of the whole. A schema is `None` if it is too large.
pub(super) fn differences(
    reading: Reading,
    path: &str,
    given: Option<&Value>,
    taken: Option<&Value>,
) -> BTreeSet<Difference> {
    let mut fits = Fits { reading, found: BTreeSet::new() };
    match (given, taken) {
        (Some(given), Some(taken)) => fits.schemas(path, given, taken),
        _ => fits.unknown(path, "is too large to be compared"),
    }
    fits.found
}

struct Fits {
    reading: Reading,
    found: BTreeSet<Difference>,
}

impl Fits {
    fn breaks(&mut self, path: &str, what: impl Into<String>) {
        self.found.insert((path.to_owned(), what.into()));
    }

    /// Reports what this comparison cannot judge.
    fn unknown(&mut self, path: &str, what: &str) {
        let Reading { given, taker, .. } = self.reading;
        self.breaks(path, format!("{what}, so {given} may not be taken by {taker}"));
    }

    /// Reports values that are given and not taken.
    fn untaken(&mut self, path: &str, values: impl std::fmt::Display) {
        let Reading { given, taker, .. } = self.reading;
        self.breaks(path, format!("may be {values} in {given}, which is not taken by {taker}"));
    }

    /// Compares two schemas without references.
    fn schemas(&mut self, path: &str, given: &Value, taken: &Value) {
        if given == taken {
            return;
        }
        let (plain_given, plain_taken) = (plain(given), plain(taken));
        let (own_given, given) = split(&plain_given);
        let (own_taken, taken) = split(&plain_taken);
        let whole = |own: &Map<String, Value>, alternative: &Value| {
            Value::Object(merged(own.clone(), plain(alternative)))
        };
        match (given.is_empty(), taken.is_empty()) {
            (true, true) => self.keywords(path, &own_given, &own_taken),
            (false, true) => {
                let taken = Value::Object(own_taken);
                for alternative in given.iter().flat_map(|(_, some)| *some) {
                    self.schemas(path, &whole(&own_given, alternative), &taken);
                }
            }
            (true, false) => {
                let given = Value::Object(own_given);
                let fits = |alternative: &Value| {
                    let mut trial = Self { reading: self.reading, found: BTreeSet::new() };
                    trial.schemas(path, &given, &whole(&own_taken, alternative));
                    trial.found.is_empty()
                };
                let is_one = named(&taken).is_some();
                if !(is_one && taken.iter().flat_map(|(_, some)| *some).any(fits)) {
                    self.unknown(path, "has alternatives on one side, of which none fits");
                }
            }
            (false, false) => {
                let (Some(given), Some(taken)) = (named(&given), named(&taken)) else {
                    return self.unknown(path, "has alternatives that cannot be told apart");
                };
                for (name, alternative) in given {
                    match taken.get(&name) {
                        None => self.untaken(path, format_args!("`{name}`")),
                        Some(other) => {
                            let (given, taken) =
                                (whole(&own_given, alternative), whole(&own_taken, other));
                            self.schemas(&format!("{path}<{name}>"), &given, &taken);
                        }
                    }
                }
            }
        }
    }

    /// Compares all but alternatives.
    fn keywords(&mut self, path: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        self.types(path, given, taken);
        self.values(path, given, taken);
        self.bounds(path, given, taken);
        self.members(path, given, taken);
        match (given.get("items"), taken.get("items")) {
            (_, None) => {}
            (None, Some(_)) if may_be(given, "array") => {
                self.unknown(path, "may have items of any kind on one side");
            }
            (None, Some(_)) => {}
            (Some(given), Some(taken)) => self.schemas(&format!("{path}[]"), given, taken),
        }
        for keyword in given.keys().chain(taken.keys()).collect::<BTreeSet<_>>() {
            let is_known = KNOWN.contains(&keyword.as_str());
            if !is_known && given.get(keyword) != taken.get(keyword) {
                self.unknown(path, &format!("differs in `{keyword}`"));
            }
        }
    }

    fn types(&mut self, path: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        let Some(takes) = types(taken) else { return };
        let Reading { given: values_of, taker, .. } = self.reading;
        let of_values =
            || Some(values(given)?.iter().map(|value| type_of(value).to_owned()).collect());
        let Some(gives) = types(given).or_else(of_values) else {
            let takes = list(&takes);
            let what =
                format!("may be of any type in {values_of}, and only {takes} is taken by {taker}");
            return self.breaks(path, what);
        };
        let is_taken =
            |kind: &String| takes.contains(kind) || kind == "integer" && takes.contains("number");
        let extra: BTreeSet<_> = gives.into_iter().filter(|kind| !is_taken(kind)).collect();
        if !extra.is_empty() {
            let (extra, takes) = (list(&extra), list(&takes));
            let what =
                format!("may be {extra} in {values_of}, and only {takes} is taken by {taker}");
            self.breaks(path, what);
        }
    }

    /// Compares `const` and `enum`.
    fn values(&mut self, path: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        let Some(takes) = values(taken) else { return };
        let Some(gives) = values(given) else {
            let (Reading { given, taker, .. }, takes) = (self.reading, shown(&takes));
            let what = format!("may be any value in {given}, and only {takes} is taken by {taker}");
            return self.breaks(path, what);
        };
        let extra: Vec<_> = gives.into_iter().filter(|value| !takes.contains(value)).collect();
        if !extra.is_empty() {
            self.untaken(path, shown(&extra));
        }
    }

    fn bounds(&mut self, path: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        for (keyword, is_lower, kinds) in [
            ("minimum", true, &["integer", "number"][..]),
            ("maximum", false, &["integer", "number"]),
            ("exclusiveMinimum", true, &["integer", "number"]),
            ("exclusiveMaximum", false, &["integer", "number"]),
            ("minLength", true, &["string"]),
            ("maxLength", false, &["string"]),
            ("minItems", true, &["array"]),
            ("maxItems", false, &["array"]),
            ("minProperties", true, &["object"]),
            ("maxProperties", false, &["object"]),
        ] {
            let number = |of: &Map<String, Value>| of.get(keyword).and_then(Value::as_f64);
            let Some(limit) = number(taken) else { continue };
            if !kinds.iter().any(|kind| may_be(given, kind)) {
                continue;
            }
            let fits = match number(given) {
                Some(given) if is_lower => given >= limit,
                Some(given) => given <= limit,
                None => false,
            };
            if !fits {
                let (Reading { given, taker, .. }, limit) = (self.reading, &taken[keyword]);
                let what =
                    format!("may be beyond `{keyword}` {limit} in {given}, the limit of {taker}");
                self.breaks(path, what);
            }
        }
    }

    /// Compares the members of objects.
    fn members(&mut self, path: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        let none = Map::new();
        let properties = |of| -> &Map<String, Value> {
            Map::get(of, "properties").and_then(Value::as_object).unwrap_or(&none)
        };
        let (all_given, all_taken) = (properties(given), properties(taken));
        let Reading { is_of_old, given: values_of, taker } = self.reading;
        let always = required(given);
        for name in required(taken).difference(&always) {
            let what = if is_of_old {
                format!("is required now, and may be absent in {values_of}")
            } else {
                format!("may be absent now, and is required by {taker}")
            };
            self.breaks(&format!("{path}.{name}"), what);
        }
        // Members that the properties do not name. By default there may be some, which readers ignore.
        let (others_given, others_taken) =
            (given.get("additionalProperties"), taken.get("additionalProperties"));
        let is_closed = is_of_old && others_taken == Some(&Value::Bool(false));
        let gone = format!("may be in {values_of}, and is not taken by {taker} any more");
        for (name, given) in all_given {
            let path = format!("{path}.{name}");
            match (all_taken.get(name), others_taken) {
                (Some(taken), _) => self.schemas(&path, given, taken),
                (None, Some(others @ Value::Object(_))) => self.schemas(&path, given, others),
                (None, _) if is_closed => self.breaks(&path, gone.clone()),
                (None, _) => {}
            }
        }
        let Some(others_given) = others_given.filter(|others| **others != Value::Bool(false))
        else {
            // Nothing is known of other members, so none is written.
            return;
        };
        for (name, taken) in all_taken.iter().filter(|(name, _)| !all_given.contains_key(*name)) {
            self.schemas(&format!("{path}.{name}"), others_given, taken);
        }
        let path = format!("{path}.*");
        match others_taken {
            Some(others @ Value::Object(_)) => self.schemas(&path, others_given, others),
            _ if is_closed => self.breaks(&path, gone),
            _ => {}
        }
    }
}

/// The lists of `oneOf` and `anyOf` of a schema, each with its keyword.
type Alternatives<'a> = Vec<(&'static str, &'a Vec<Value>)>;

/// A schema's own keywords, and its alternatives.
fn split(schema: &Map<String, Value>) -> (Map<String, Value>, Alternatives<'_>) {
    let lists = ["oneOf", "anyOf"]
        .into_iter()
        .filter_map(|keyword| Some((keyword, schema.get(keyword)?.as_array()?)));
    let lists: Alternatives<'_> = lists.collect();
    let mut own = schema.clone();
    own.retain(|keyword, _| !lists.iter().any(|(listed, _)| listed == keyword));
    (own, lists)
}

/// Alternatives by a name: the constants that they are or have, their only member, or their type. `None` if that does
/// not tell them apart.
fn named<'a>(lists: &Alternatives<'a>) -> Option<BTreeMap<String, &'a Value>> {
    if lists.len() > 1 {
        return None;
    }
    let mut named = BTreeMap::new();
    for (keyword, alternatives) in lists {
        let objects = alternatives.iter().filter(|alternative| alternative["type"] == "object");
        let is_only_object = objects.count() == 1;
        for alternative in *alternatives {
            let none = Map::new();
            let members = alternative.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let constants = members.values().filter_map(constant);
            let constants: Vec<_> = constant(alternative).into_iter().chain(constants).collect();
            let only = members.keys().next().filter(|name| {
                members.len() == 1
                    && alternative["required"]
                        .as_array()
                        .is_some_and(|all| all[..] == [name.as_str()])
            });
            let kind = alternative.get("type").filter(|kind| *kind != "object" || is_only_object);
            let name = match (&constants[..], only, kind) {
                ([_, ..], ..) => constants.join(" "),
                ([], _, Some(kind)) => kind.to_string(),
                ([], Some(only), None) => only.clone(),
                // Values of two such may be valid for both, which `oneOf` refuses.
                ([], None, None) if *keyword == "oneOf" => return None,
                ([], None, None) => alternative.to_string(),
            };
            if named.insert(name, alternative).is_some() {
                return None;
            }
        }
    }
    Some(named)
}

/// The only text that a schema allows.
fn constant(schema: &Value) -> Option<&str> {
    let one = schema.get("enum").and_then(Value::as_array).filter(|some| some.len() == 1);
    schema.get("const").or_else(|| one?.first())?.as_str()
}

/// Whether a value of the schema may be of this type.
fn may_be(schema: &Map<String, Value>, kind: &str) -> bool {
    types(schema).is_none_or(|types| types.contains(kind))
}

/// Keywords that the comparison knows.
const KNOWN: [&str; 19] = [
    "type",
    "const",
    "enum",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "oneOf",
    "anyOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

/// The schema without its notes. `true` is a schema without keywords.
fn plain(schema: &Value) -> Map<String, Value> {
    let mut plain = schema.as_object().cloned().unwrap_or_default();
    plain.retain(|keyword, _| !is_note(keyword));
    if *schema == Value::Bool(false) {
        plain.insert("not".to_owned(), Value::Object(Map::new()));
    }
    plain
}

fn types(schema: &Map<String, Value>) -> Option<BTreeSet<String>> {
    match schema.get("type")? {
        Value::String(one) => Some(BTreeSet::from([one.clone()])),
        Value::Array(some) => {
            Some(some.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// The JSON type of a value, as schemas name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn values(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(one), _) => Some(vec![one.clone()]),
        (None, Some(some)) => some.as_array().cloned(),
        (None, None) => None,
    }
}

fn required(schema: &Map<String, Value>) -> BTreeSet<String> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

fn shown(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}
