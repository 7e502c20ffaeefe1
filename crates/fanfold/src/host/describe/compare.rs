//! Compares two descriptions: does the new app read what was written by the old one, and do old readers read what the
//! new one writes?
//!
//! The comparison knows the keywords that derived schemas have. Where it cannot tell whether a difference is harmless,
//! it reports the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::expand::{Expander, is_note, merged};
use super::{Description, EventDescription};

/// A difference between two descriptions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where: `event booking.booked, data.room`.
    pub at: String,
    /// What is different, and what to do.
    pub what: String,
    /// Whether something that relies on the old description cannot take it.
    pub breaks: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Which values must stay valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    /// Every value of the old schema is one of the new: old commands, stored events.
    OldIsRead,
    /// Every value of the new schema is one that readers of the old can take. They ignore members that they do not
    /// know.
    NewIsRead,
}

impl Direction {
    /// Of an old and a new one: what is given, and what takes it. Also the way back.
    fn of<T>(self, [old, new]: [T; 2]) -> (T, T) {
        match self {
            Self::OldIsRead => (old, new),
            Self::NewIsRead => (new, old),
        }
    }
}

impl Description {
    /// The differences to an older description.
    ///
    /// - Commands of old clients must be valid.
    /// - Events of one version must be readable both ways: stored ones by this build, new ones by other teams' views. A
    ///   change of their data needs a new version, which is reported and breaks nothing: a view that does not know it
    ///   stops at the first such event until it is deployed anew.
    /// - Rows must be readable by old readers.
    pub fn compare(&self, old: &Self) -> Vec<Change> {
        let mut found =
            Found { old: Expander::of(old), new: Expander::of(self), changes: BTreeSet::new() };
        for (name, was) in &old.services {
            let Some(now) = self.services.get(name) else {
                found.breaks(format!("service {name}"), "is gone, and its logs with it");
                continue;
            };
            for (command, was) in &was.commands {
                let at = format!("command {name}.{command}");
                match now.commands.get(command) {
                    None => found.breaks(at, "is gone: old clients send it"),
                    Some(now) => match (&was.data, &now.data) {
                        (Some(was), Some(now)) => {
                            found.whole(&at, "data", [was, now], Direction::OldIsRead);
                        }
                        (None, None) => {}
                        (None, Some(_)) => {
                            found.breaks(at, "takes data now, and old clients send none")
                        }
                        (Some(_), None) => {
                            found.breaks(at, "takes no data any more, and old clients send some")
                        }
                    },
                }
            }
            for (kind, was) in &was.events {
                let at = format!("event {name}.{kind}");
                match now.events.get(kind) {
                    None => found.breaks(
                        at,
                        "is gone: logs have such events, and this build cannot read them",
                    ),
                    Some(now) => found.event(&at, was, now),
                }
            }
        }
        for (name, was) in &old.views {
            let at = format!("view {name}");
            match self.views.get(name) {
                None => found.breaks(at, "is gone: old readers ask for it"),
                Some(now) => {
                    for service in
                        was.services.iter().filter(|service| !now.services.contains(service))
                    {
                        found.breaks(
                            at.clone(),
                            format!("does not read the service `{service}` any more"),
                        );
                    }
                    if was.can_be_awaited && !now.can_be_awaited {
                        found.breaks(
                            at.clone(),
                            "cannot be waited for any more: it does not read every event type",
                        );
                    }
                    found.whole(&at, "row", [&was.row, &now.row], Direction::NewIsRead);
                }
            }
        }
        found.changes.into_iter().collect()
    }
}

struct Found<'a> {
    old: Expander<'a>,
    new: Expander<'a>,
    changes: BTreeSet<Change>,
}

impl Found<'_> {
    fn breaks(&mut self, at: String, what: impl Into<String>) {
        self.changes.insert(Change { at, what: what.into(), breaks: true });
    }

    fn event(&mut self, at: &str, was: &EventDescription, now: &EventDescription) {
        let (old, new) = (was.version, now.version);
        if new > old {
            let what = format!(
                "has version {new} instead of {old}: the service must upcast version {old}, and views of other apps \
                 stop at the first such event until they know version {new}"
            );
            self.changes.insert(Change { at: at.to_owned(), what, breaks: false });
        } else if new < old {
            let what = format!(
                "has version {new} instead of {old}: this build cannot read what is stored"
            );
            self.breaks(at.to_owned(), what);
        } else {
            let before = self.changes.len();
            let schemas = [&was.data, &now.data];
            self.whole(at, "data", schemas, Direction::OldIsRead);
            self.whole(at, "data", schemas, Direction::NewIsRead);
            if self.changes.len() > before {
                let what = format!(
                    "has changed within version {old}: raise its version, and upcast version {old}"
                );
                self.breaks(at.to_owned(), what);
            }
        }
    }

    /// Compares the schemas of a whole command, event or row, `[old, new]`.
    fn whole(&mut self, of: &str, path: &str, [was, now]: [&Value; 2], way: Direction) {
        match (self.old.expand(was), self.new.expand(now)) {
            (Some(was), Some(now)) => self.schemas(of, path, [&was, &now], way),
            _ => self.breaks(format!("{of}, {path}"), "is too large to be compared"),
        }
    }

    /// Compares two schemas without references.
    fn schemas(&mut self, of: &str, path: &str, [was, now]: [&Value; 2], way: Direction) {
        if was == now {
            return;
        }
        // The values of one side must fit into what the other takes.
        let (given, taken) = way.of([plain(was), plain(now)]);
        let (own_given, given) = split(&given);
        let (own_taken, taken) = split(&taken);
        let whole = |own: &Map<String, Value>, alternative: &Value| {
            Value::Object(merged(own.clone(), plain(alternative)))
        };
        match (given.is_empty(), taken.is_empty()) {
            (true, true) => {
                self.keywords(of, path, way.of([&own_given, &own_taken]).into(), way);
            }
            (false, true) => {
                let taken = Value::Object(own_taken);
                for alternative in given.iter().flat_map(|(_, some)| *some) {
                    let given = whole(&own_given, alternative);
                    self.schemas(of, path, way.of([&given, &taken]).into(), way);
                }
            }
            (true, false) => {
                let given = Value::Object(own_given);
                let fits = |alternative: &Value| {
                    let taken = whole(&own_taken, alternative);
                    let mut trial = self.empty();
                    trial.schemas(of, path, way.of([&given, &taken]).into(), way);
                    trial.changes.is_empty()
                };
                let is_one = named(&taken).is_some();
                if !(is_one && taken.iter().flat_map(|(_, some)| *some).any(fits)) {
                    self.breaks(format!("{of}, {path}"), "fits no alternative of the other side");
                }
            }
            (false, false) => {
                let at = format!("{of}, {path}");
                let (Some(given), Some(taken)) = (named(&given), named(&taken)) else {
                    let what = "has alternatives that this comparison cannot tell apart";
                    return self.breaks(at, what);
                };
                for (name, alternative) in given {
                    let Some(other) = taken.get(&name) else {
                        self.breaks(at.clone(), format!("may be `{name}`, which is not taken"));
                        continue;
                    };
                    let (given, taken) = (whole(&own_given, alternative), whole(&own_taken, other));
                    let path = format!("{path}<{name}>");
                    self.schemas(of, &path, way.of([&given, &taken]).into(), way);
                }
            }
        }
    }

    /// The same without changes.
    fn empty(&self) -> Self {
        Self { old: self.old.clone(), new: self.new.clone(), changes: BTreeSet::new() }
    }

    /// Compares all but alternatives.
    fn keywords(
        &mut self,
        of: &str,
        path: &str,
        [was, now]: [&Map<String, Value>; 2],
        way: Direction,
    ) {
        let at = format!("{of}, {path}");
        let (given, taken) = way.of([was, now]);
        self.types(&at, given, taken);
        self.values(&at, given, taken);
        self.bounds(&at, given, taken);
        self.members(of, path, [was, now], way);
        match (given.get("items"), taken.get("items")) {
            (_, None) => {}
            (None, Some(_)) if may_be(given, "array") => {
                self.breaks(at.clone(), "has items of any kind on one side only");
            }
            (None, Some(_)) => {}
            (Some(_), Some(_)) => {
                let items = [&was["items"], &now["items"]];
                self.schemas(of, &format!("{path}[]"), items, way);
            }
        }
        for keyword in given.keys().chain(taken.keys()).collect::<BTreeSet<_>>() {
            let is_known = KNOWN.contains(&keyword.as_str());
            if !is_known && given.get(keyword) != taken.get(keyword) {
                let what = format!("differs in `{keyword}`, which this comparison does not know");
                self.breaks(at.clone(), what);
            }
        }
    }

    fn types(&mut self, at: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        let Some(takes) = types(taken) else { return };
        let of_values =
            || Some(values(given)?.iter().map(|value| type_of(value).to_owned()).collect());
        let Some(gives) = types(given).or_else(of_values) else {
            let what = format!("may be of any type, and only {} is taken", list(&takes));
            self.breaks(at.to_owned(), what);
            return;
        };
        let is_taken =
            |kind: &String| takes.contains(kind) || kind == "integer" && takes.contains("number");
        let extra: BTreeSet<_> = gives.into_iter().filter(|kind| !is_taken(kind)).collect();
        if !extra.is_empty() {
            self.breaks(
                at.to_owned(),
                format!("may be {}, and only {} is taken", list(&extra), list(&takes)),
            );
        }
    }

    /// Compares `const` and `enum`.
    fn values(&mut self, at: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
        let Some(takes) = values(taken) else { return };
        let Some(gives) = values(given) else {
            self.breaks(
                at.to_owned(),
                format!("may be any value, and only {} are taken", shown(&takes)),
            );
            return;
        };
        let extra: Vec<_> = gives.into_iter().filter(|value| !takes.contains(value)).collect();
        if !extra.is_empty() {
            self.breaks(at.to_owned(), format!("may be {}, which is not taken", shown(&extra)));
        }
    }

    fn bounds(&mut self, at: &str, given: &Map<String, Value>, taken: &Map<String, Value>) {
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
                self.breaks(
                    at.to_owned(),
                    format!("is not bound by `{keyword}` {limit}, which the other side needs"),
                );
            }
        }
    }

    /// Compares the members of objects.
    fn members(
        &mut self,
        of: &str,
        path: &str,
        [was, now]: [&Map<String, Value>; 2],
        way: Direction,
    ) {
        let none = Map::new();
        let properties = |of: &'_ Map<String, Value>| -> Map<String, Value> {
            of.get("properties").and_then(Value::as_object).unwrap_or(&none).clone()
        };
        let (old, new) = (properties(was), properties(now));
        let (given, taken, given_schema, taken_schema) = match way {
            Direction::OldIsRead => (&old, &new, was, now),
            Direction::NewIsRead => (&new, &old, now, was),
        };
        let always = required(given_schema);
        for name in required(taken_schema).difference(&always) {
            let what = match way {
                Direction::OldIsRead => "is required now, and is not in what is old",
                Direction::NewIsRead => "may be absent now, and old readers need it",
            };
            self.breaks(format!("{of}, {path}.{name}"), what);
        }
        // Members that the properties do not name. By default there may be some, which readers ignore.
        let (given_others, taken_others) =
            (given_schema.get("additionalProperties"), taken_schema.get("additionalProperties"));
        let is_closed = taken_others == Some(&Value::Bool(false));
        for name in given.keys() {
            let path = format!("{path}.{name}");
            match (taken.get(name), taken_others) {
                (Some(_), _) => {
                    self.schemas(of, &path, [&old[name], &new[name]], way);
                }
                (None, Some(others @ Value::Object(_))) => {
                    let pair = way.of([&given[name], others]).into();
                    self.schemas(of, &path, pair, way);
                }
                (None, _) if is_closed && way == Direction::OldIsRead => {
                    self.breaks(format!("{of}, {path}"), "is not taken any more");
                }
                (None, _) => {}
            }
        }
        let Some(given_others) = given_others.filter(|others| **others != Value::Bool(false))
        else {
            // Nothing is known of other members, so none is written.
            return;
        };
        for (name, schema) in taken.iter().filter(|(name, _)| !given.contains_key(*name)) {
            let pair = way.of([given_others, schema]).into();
            self.schemas(of, &format!("{path}.{name}"), pair, way);
        }
        match taken_others {
            Some(taken_others @ Value::Object(_)) => {
                let pair = way.of([given_others, taken_others]).into();
                self.schemas(of, &format!("{path}.*"), pair, way);
            }
            _ if is_closed && way == Direction::OldIsRead => {
                self.breaks(format!("{of}, {path}.*"), "is not taken any more");
            }
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
