//! `loadtest init`: a first workload file, from the OpenAPI document of a target.
//!
//! The document says which commands a service has and what their data look like, but not what they
//! mean. So this is a guess that a person edits: a command that seems to make a thing comes first, and
//! its id is used by the others.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};

use crate::options::TargetOptions;
use crate::workload::Program;

/// Verbs of commands that make a thing, with which their names begin.
const MAKING: [&str; 10] =
    ["add", "book", "create", "make", "new", "open", "place", "put", "register", "start"];
/// Verbs of commands that end a thing.
const ENDING: [&str; 9] =
    ["cancel", "close", "delete", "drop", "end", "finish", "release", "remove", "stop"];
/// How many things a setup makes.
const EACH: u32 = 5;
/// How often a command is drawn that does not end a thing, relative to one that does.
const WEIGHT: u32 = 5;
/// References and nested objects that are followed.
const DEPTH_MAX: usize = 8;
/// Values of one draft: more than anyone edits by hand.
const VALUES_MAX: usize = 1_000;
/// The range of an integer without bounds.
const INTEGERS: (i64, i64) = (1, 100);

/// The options of `loadtest init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    /// The service; by default the only one that the target has.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Writes into this new file instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A command as the document describes it.
#[derive(Debug)]
struct Command<'a> {
    name: &'a str,
    /// The members of its data that must be given.
    fields: BTreeMap<&'a str, &'a Value>,
    /// The names of the others.
    optional: Vec<&'a str>,
}

/// Writes a workload file for a service of the document; the only one if none is named. `url` is
/// shown in its first line.
pub(crate) fn draft(document: &Value, service: Option<&str>, url: &str) -> Result<String> {
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    let schemas = schemas.context("the target's /openapi.json has no schemas")?;
    let service = choose(schemas, service)?;
    let commands = commands(schemas, service);
    let makers = makers(schemas, &commands);
    let values = Cell::new(0);
    let draft = Draft { schemas, commands: &commands, makers: &makers, values: &values };
    let text = draft.write(service, &views(document, service), url)?;
    // What this writes must be what `run` reads.
    Program::compile(Path::new("the drafted workload"), &text)?;
    Ok(text)
}

/// The service: the one that is asked for, or the only one.
fn choose<'a>(schemas: &'a Map<String, Value>, asked: Option<&str>) -> Result<&'a str> {
    let mut services: Vec<&str> =
        schemas.keys().filter_map(|name| name.strip_prefix("Entry.")).collect();
    services.sort_unstable();
    let all = services.join("`, `");
    match (asked, &services[..]) {
        (_, []) => bail!("the target's /openapi.json describes no service"),
        (None, [only]) => Ok(only),
        (None, _) => bail!("the target has the services `{all}`: choose one by --service"),
        (Some(asked), _) => services
            .iter()
            .find(|service| **service == asked)
            .copied()
            .with_context(|| format!("the target has no service `{asked}`, only `{all}`")),
    }
}

/// The views of the service that can be awaited, by the paths of their rows.
fn views<'a>(document: &'a Value, service: &str) -> Vec<&'a str> {
    let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
    let end = format!("/{service}/{{partition}}");
    let views = paths.filter_map(|(path, of)| {
        let view = path.strip_prefix("/views/")?.strip_suffix(&end)?;
        let parameters = of.pointer("/get/parameters").and_then(Value::as_array)?;
        parameters.iter().any(|parameter| parameter["name"] == "seq").then_some(view)
    });
    views.collect()
}

fn commands<'a>(schemas: &'a Map<String, Value>, service: &str) -> Vec<Command<'a>> {
    let begin = format!("Request.{service}.");
    let commands = schemas.iter().filter_map(|(name, schema)| {
        let data = resolved(schemas, schema.pointer("/properties/data")?);
        let members = data.get("properties").and_then(Value::as_object);
        let required: Vec<&str> = data
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (mut fields, mut optional) = (BTreeMap::new(), Vec::new());
        for (field, schema) in members.into_iter().flatten() {
            match required.contains(&field.as_str()) {
                true => drop(fields.insert(field.as_str(), schema)),
                false => optional.push(field.as_str()),
            }
        }
        Some(Command { name: name.strip_prefix(&begin)?, fields, optional })
    });
    commands.collect()
}

/// Follows references.
fn resolved<'a>(schemas: &'a Map<String, Value>, mut schema: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        let name = schema.get("$ref").and_then(Value::as_str);
        let Some(name) = name.and_then(|of| of.strip_prefix("#/components/schemas/")) else {
            // A reference with a description beside it.
            match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([only]) => schema = only,
                _ => break,
            }
            continue;
        };
        match schemas.get(name) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// Whether the schema is that of a name, by which things are told apart: a text with a pattern, and
/// without a format as that of times.
fn is_id(schemas: &Map<String, Value>, schema: &Value) -> bool {
    let schema = resolved(schemas, schema);
    schema["type"] == "string" && schema.get("pattern").is_some() && schema.get("format").is_none()
}

fn begins_with(name: &str, verbs: &[&str]) -> bool {
    verbs.iter().any(|verb| {
        name.strip_prefix(verb).is_some_and(|rest| !rest.starts_with(|c: char| c.is_lowercase()))
    })
}

/// For each field that is an id: the command that seems to make what it names, by its position. It
/// begins with a fitting verb, or at least with none that ends a thing, and needs the fewest ids.
fn makers<'a>(schemas: &Map<String, Value>, commands: &[Command<'a>]) -> BTreeMap<&'a str, usize> {
    let mut makers: BTreeMap<&str, (bool, bool, usize, usize)> = BTreeMap::new();
    for (at, command) in commands.iter().enumerate() {
        let ids: Vec<&str> = command
            .fields
            .iter()
            .filter(|(_, schema)| is_id(schemas, schema))
            .map(|(field, _)| *field)
            .collect();
        let (makes, ends) =
            (begins_with(command.name, &MAKING), begins_with(command.name, &ENDING));
        for field in &ids {
            let rank = (!makes, ends, ids.len(), at);
            let best = makers.entry(field).or_insert(rank);
            *best = rank.min(*best);
        }
    }
    makers.into_iter().map(|(field, (.., at))| (field, at)).collect()
}

struct Draft<'a> {
    schemas: &'a Map<String, Value>,
    commands: &'a [Command<'a>],
    /// The position of the command that makes what a field names.
    makers: &'a BTreeMap<&'a str, usize>,
    /// How many values were made.
    values: &'a Cell<usize>,
}

impl Draft<'_> {
    fn write(&self, service: &str, views: &[&str], url: &str) -> Result<String> {
        ensure!(!self.commands.is_empty(), "the service `{service}` has no commands");
        let mut text = format!(
            "# A first workload for the service {} of {url}, by `loadtest init`. It is a guess:\n\
             # set the weights, the values and what you expect. See \"Workload files\" in loadtest/README.md.\n\
             service: {}\npartition: org\nviews: [{}]\n",
            quoted(service),
            quoted(service),
            views.iter().map(|view| quoted(view)).collect::<Vec<_>>().join(", ")
        );
        let first: Vec<usize> =
            (0..self.commands.len()).filter(|at| self.comes_first(*at)).collect();
        if !first.is_empty() {
            text.push_str("setup:\n");
        }
        for at in first {
            self.write_step(&mut text, at, &format!("each: {EACH}"), "accepted")?;
        }
        text.push_str("mix:\n");
        for (at, command) in self.commands.iter().enumerate() {
            let weight = if begins_with(command.name, &ENDING) { 1 } else { WEIGHT };
            self.write_step(&mut text, at, &format!("weight: {weight}"), "either")?;
        }
        Ok(text)
    }

    /// Whether the command makes a thing and needs no other.
    fn comes_first(&self, at: usize) -> bool {
        let command = &self.commands[at];
        let ids = command.fields.iter().filter(|(_, schema)| is_id(self.schemas, schema));
        let mut makers = ids.map(|(field, _)| self.makers.get(field) == Some(&at)).peekable();
        makers.peek().is_some() && makers.all(|itself| itself) && begins_with(command.name, &MAKING)
    }

    fn write_step(&self, text: &mut String, at: usize, how: &str, expect: &str) -> Result<()> {
        let command = &self.commands[at];
        writeln!(text, "  - command: {}\n    {how}", quoted(command.name))?;
        if !command.optional.is_empty() {
            let optional: Vec<String> = command.optional.iter().map(|name| quoted(name)).collect();
            writeln!(text, "    # It may also have: {}.", optional.join(", "))?;
        }
        if !command.fields.is_empty() {
            text.push_str("    data:\n");
        }
        for (field, schema) in &command.fields {
            let value = match is_id(self.schemas, schema) {
                true => Value::from(self.id(at, field, schema)),
                false => self.value(schema, 0),
            };
            writeln!(text, "      {}: {value}", quoted(field))?;
        }
        writeln!(text, "    expect: {expect}")?;
        Ok(())
    }

    /// The template of an id: a new one in the command that makes it, an earlier one in all others.
    fn id(&self, at: usize, field: &str, schema: &Value) -> String {
        let made = format!("{field}-{{{{ n }}}}");
        match self.makers.get(field) {
            Some(maker) if *maker == at => {
                // `from` and `to` may name what another command makes as `account`.
                let other = self.makers.iter().find(|(other, maker)| {
                    let makes = begins_with(self.commands[**maker].name, &MAKING);
                    let of = self.commands[**maker].fields.get(*other);
                    makes && **maker != at && of.is_some_and(|of| same(self.schemas, of, schema))
                });
                match other.filter(|_| !begins_with(self.commands[at].name, &MAKING)) {
                    Some((other, maker)) => self.earlier(*maker, other),
                    None => made,
                }
            }
            Some(maker) => self.earlier(*maker, field),
            None => made,
        }
    }

    fn earlier(&self, maker: usize, field: &str) -> String {
        let command = self.commands[maker].name;
        format!("{{{{ earlier({}, {}) }}}}", in_template(command), in_template(field))
    }

    /// A value that the schema allows, with templates in its texts.
    fn value(&self, schema: &Value, depth: usize) -> Value {
        let schema = resolved(self.schemas, schema);
        self.values.set(self.values.get() + 1);
        if depth > DEPTH_MAX || self.values.get() > VALUES_MAX {
            return Value::Null;
        }
        if let Some(only) = schema.get("const") {
            return literal(only);
        }
        if let Some(Value::Array(all)) = schema.get("enum") {
            return Value::from(format!("{{{{ choice({}) }}}}", Value::from(all.clone())));
        }
        for of in ["anyOf", "oneOf"] {
            let some = schema.get(of).and_then(Value::as_array).into_iter().flatten();
            if let Some(first) =
                some.clone().find(|of| of["type"] != "null").or(some.clone().next())
            {
                return self.value(first, depth + 1);
            }
        }
        let kinds = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(kind)) => vec![kind.as_str()],
            _ => vec![],
        };
        match kinds.iter().find(|kind| **kind != "null") {
            Some(&"integer") => {
                let bound = |name| schema.get(name).and_then(Value::as_i64);
                let low = bound("minimum").map_or(INTEGERS.0, |least| least.max(INTEGERS.0));
                let high = bound("maximum").map_or(INTEGERS.1, |most| most.min(INTEGERS.1));
                let low = low.min(bound("maximum").unwrap_or(low));
                Value::from(format!("{{{{ int({low}, {}) }}}}", high.max(low)))
            }
            Some(&"number") => Value::from("{{ number(1, 100) }}"),
            Some(&"boolean") => Value::from("{{ choice([true, false]) }}"),
            Some(&"array") => {
                let items = schema.get("items").map(|items| self.value(items, depth + 1));
                Value::Array(items.into_iter().collect())
            }
            Some(&"object") => {
                let required = schema.get("required").and_then(Value::as_array);
                let required = required.into_iter().flatten().filter_map(Value::as_str);
                let members = required.map(|field| {
                    let of = &schema["properties"][field];
                    (field.to_owned(), self.value(of, depth + 1))
                });
                Value::Object(members.collect())
            }
            Some(&"string") => {
                const YEAR: &str = "{{ date('2026-01-01', '2026-12-31') }}";
                match schema.get("format").and_then(Value::as_str) {
                    Some("date-time") => Value::from(format!("{YEAR}T12:00:00Z")),
                    Some("date") => Value::from(YEAR),
                    _ if schema.get("pattern").is_some() => Value::from("name-{{ n }}"),
                    _ => Value::from("{{ name() }}"),
                }
            }
            _ => Value::Null,
        }
    }
}

/// Whether two fields have the same type, whatever is said about them.
fn same(schemas: &Map<String, Value>, one: &Value, other: &Value) -> bool {
    let of = |schema| {
        let mut schema = resolved(schemas, schema).clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("description");
        }
        schema
    };
    of(one) == of(other)
}

/// A constant, as a template if it would be read as one.
fn literal(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if text.contains(['{', '}']) => {
            Value::from(format!("{{{{ {} }}}}", in_template(text)))
        }
        _ => value.clone(),
    }
}

/// A text within a template.
fn in_template(text: &str) -> String {
    match text.contains(['\'', '\\']) {
        true => Value::from(text).to_string(),
        false => format!("'{text}'"),
    }
}

/// A word as YAML: quoted if it could be read as something else.
fn quoted(word: &str) -> String {
    let is_plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&word);
    if is_plain { word.to_owned() } else { Value::from(word).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The schema of a request, with these members of its data.
    fn request(data: &Value, required: &[&str]) -> Value {
        let data = json!({ "type": "object", "properties": data, "required": required });
        json!({ "type": "object", "properties": { "data": data } })
    }

    fn booking() -> Value {
        let id = json!({ "type": "string", "minLength": 1, "pattern": "^[^/]+$" });
        let room = json!({ "description": "The room.", "allOf": [{ "$ref": "#/components/schemas/Type.Room" }] });
        let book = json!({
            "booking": id, "room": room,
            "at": { "type": "string", "format": "date-time", "pattern": "^[0-9]" },
            "for": { "enum": ["meeting", "party"] },
            "guests": { "type": "array", "items": { "$ref": "#/components/schemas/Type.Guest" } },
            "note": { "type": ["string", "null"] },
        });
        let guest = json!({
            "type": "object", "required": ["age", "name"],
            "properties": {
                "name": { "type": "string" },
                "age": { "type": "integer", "minimum": 0, "maximum": 255 },
                "email": { "type": "string" },
            },
        });
        let add =
            json!({ "room": room, "seats": { "type": "integer", "minimum": 0, "maximum": 12 } });
        let required = ["booking", "room", "at", "for", "guests"];
        json!({
            "paths": {
                "/views/agenda/booking/{partition}": { "get": { "parameters": [{ "name": "seq" }] } },
                "/views/agenda/booking/{partition}/{row}": { "get": { "parameters": [{ "name": "seq" }] } },
                "/views/few/booking/{partition}": { "get": { "parameters": [] } },
                "/views/other/ledger/{partition}": { "get": { "parameters": [{ "name": "seq" }] } },
            },
            "components": { "schemas": {
                "Entry.booking": {},
                "Type.Room": id,
                "Type.Guest": guest,
                "Request.booking.add_room": request(&add, &["room", "seats"]),
                "Request.booking.book": request(&book, &required),
                "Request.booking.cancel": request(&json!({ "booking": id }), &["booking"]),
                "Request.booking.ping": request(&json!({}), &[]),
            } },
        })
    }

    #[test]
    fn a_draft_uses_what_other_commands_make() {
        let drafted = draft(&booking(), None, "http://here").expect("a draft");
        expect_test::expect![[r##"
            # A first workload for the service booking of http://here, by `loadtest init`. It is a guess:
            # set the weights, the values and what you expect. See "Workload files" in loadtest/README.md.
            service: booking
            partition: org
            views: [agenda]
            setup:
              - command: add_room
                each: 5
                data:
                  room: "room-{{ n }}"
                  seats: "{{ int(1, 12) }}"
                expect: accepted
            mix:
              - command: add_room
                weight: 5
                data:
                  room: "room-{{ n }}"
                  seats: "{{ int(1, 12) }}"
                expect: either
              - command: book
                weight: 5
                # It may also have: note.
                data:
                  at: "{{ date('2026-01-01', '2026-12-31') }}T12:00:00Z"
                  booking: "booking-{{ n }}"
                  for: "{{ choice([\"meeting\",\"party\"]) }}"
                  guests: [{"age":"{{ int(1, 100) }}","name":"{{ name() }}"}]
                  room: "{{ earlier('add_room', 'room') }}"
                expect: either
              - command: cancel
                weight: 1
                data:
                  booking: "{{ earlier('book', 'booking') }}"
                expect: either
              - command: ping
                weight: 5
                expect: either
        "##]]
        .assert_eq(&drafted);
    }

    /// Names come from the target: they add no lines, and end no text.
    #[test]
    fn a_draft_of_hostile_names_is_a_workload_all_the_same() {
        let id = json!({ "type": "string", "pattern": "^a$" });
        let nested = json!({ "$ref": "#/components/schemas/Type.Nest" });
        let members: Map<String, Value> =
            (0..100).map(|n| (format!("m{n}"), nested.clone())).collect();
        let required: Vec<String> = members.keys().cloned().collect();
        let nest = json!({ "type": "object", "properties": members, "required": required });
        let data = json!({
            "it's": id,
            "a\nexpect: rejected #": { "type": "string" },
            "only": { "const": "{{ 7 * 6 }}" },
            "nest": nested,
        });
        let document = json!({ "components": { "schemas": {
            "Entry.odd": {},
            "Type.Nest": nest,
            "Request.odd.add it's": request(&data, &["it's", "only", "nest"]),
            "Request.odd.use": request(&json!({ "it's": id }), &["it's"]),
        } } });
        let drafted = draft(&document, None, "http://here").expect("it can be compiled");
        assert!(!drafted.contains("\nexpect"), "{drafted}");
        assert!(drafted.len() < 1_000_000, "{} bytes", drafted.len());
    }

    #[test]
    fn a_document_of_several_services_needs_a_choice() {
        let mut document = booking();
        let schemas = &mut document["components"]["schemas"];
        schemas["Entry.doors"] = json!({});
        schemas["Request.doors.open"] = request(&json!({}), &[]);
        for (service, said) in [
            (None, "the target has the services `booking`, `doors`: choose one by --service"),
            (Some("lift"), "the target has no service `lift`, only `booking`, `doors`"),
        ] {
            let error = draft(&document, service, "http://here").expect_err("no service");
            assert_eq!(error.to_string(), said);
        }
        let doors = draft(&document, Some("doors"), "http://here").expect("a draft");
        assert!(doors.contains("views: []\nmix:\n  - command: open\n"), "{doors}");
        for (document, said) in [
            (json!({}), "has no schemas"),
            (json!({ "components": { "schemas": {} } }), "describes no service"),
        ] {
            let error = draft(&document, None, "http://here").expect_err("no service");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
