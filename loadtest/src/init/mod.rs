//! `loadtest init`: a first workload file, from the OpenAPI document of a target.
//!
//! The document says which commands a service has and what their data look like, but not what they
//! mean. So this is a guess that a person edits: a command that seems to make a thing comes first, and
//! its id is used by the others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jiff::Span;
use jiff::civil::Date;
use serde_json::{Map, Value};

use crate::description::{Description, resolved};
use crate::options::TargetOptions;
use crate::workload::Program;

#[cfg(test)]
mod tests;

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
/// Words of fields that say when a thing ends: such a field is later than the others of its command.
const LATER: [&str; 12] = [
    "to",
    "until",
    "till",
    "end",
    "ends",
    "ending",
    "due",
    "finish",
    "departure",
    "out",
    "last",
    "expiry",
];
/// Dates begin this long after the draft, so that they are in the future when a person uses it.
const YEARS_AHEAD: i32 = 1;
/// Dates are from this many years: with a day for each command some 3,650 days, before one is used
/// again.
const YEARS: i32 = 10;
/// The hour of a command's first time, and the hours of a day from there on.
const HOURS: (u32, u32) = (9, 14);
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
/// shown in its first line. Dates are after `today`.
pub(crate) fn draft(
    document: &Value,
    service: Option<&str>,
    url: &str,
    today: Date,
) -> Result<String> {
    let description = Description::of(document)?;
    let (schemas, service) = (description.schemas, choose(&description, service)?);
    let commands = commands(&description, service);
    let makers = makers(schemas, &commands);
    let (values, days) = (Cell::new(0), Days::after(today)?);
    let draft = Draft { schemas, commands: &commands, makers: &makers, values: &values, days };
    let text = draft.write(service, &description.views(service), url)?;
    // What this writes must be what `run` reads.
    Program::compile(Path::new("the drafted workload"), &text)?;
    Ok(text)
}

/// The service: the one that is asked for, or the only one.
fn choose<'a>(description: &Description<'a>, asked: Option<&str>) -> Result<&'a str> {
    let services = &description.services;
    let all = services.join("`, `");
    match (asked, &services[..]) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("the target has the services `{all}`: choose one by --service"),
        (Some(asked), _) => services
            .iter()
            .find(|service| **service == asked)
            .copied()
            .with_context(|| format!("the target has no service `{asked}`, only `{all}`")),
    }
}

fn commands<'a>(description: &Description<'a>, service: &str) -> Vec<Command<'a>> {
    let commands = description.commands(service).into_iter().map(|(name, data)| {
        let data = description.object(data);
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
        Command { name, fields, optional }
    });
    commands.collect()
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
    days: Days,
}

/// The days of dates: one for each command, in order.
#[derive(Clone, Copy)]
struct Days {
    first: Date,
    last: Date,
}

impl Days {
    fn after(today: Date) -> Result<Self> {
        let first = today.checked_add(Span::new().years(YEARS_AHEAD))?;
        Ok(Self { first, last: first.checked_add(Span::new().years(YEARS))? })
    }

    /// The template of the day that is so many days after that of the command.
    fn later(self, days: u32) -> String {
        let later = |date: Date| date.saturating_add(Span::new().days(i64::from(days)));
        format!("{{{{ date('{}', '{}', n) }}}}", later(self.first), later(self.last))
    }
}

/// What was written of one command.
struct Step {
    /// In a mix: the number of things of this command that the setup has made.
    made_before: u32,
    /// The makers and fields of earlier commands that its ids refer to.
    references: RefCell<Vec<(usize, String)>>,
    /// The number of its dates and times, of which each is later than the one before it.
    moments: Cell<u32>,
    /// Whether there are dates without a time among them.
    has_dates: bool,
}

impl Step {
    /// The next date or time.
    fn moment(&self, days: Days, has_time: bool) -> String {
        let at = self.moments.replace(self.moments.get() + 1);
        let (hour, day) = (HOURS.0 + at % HOURS.1, at / HOURS.1);
        match has_time {
            false => days.later(at),
            true if self.has_dates => format!("{}T{:02}:00:00Z", days.later(at), HOURS.0),
            true => format!("{}T{hour:02}:00:00Z", days.later(day)),
        }
    }
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
            self.write_step(&mut text, at, &format!("each: {EACH}"), "accepted", 0)?;
        }
        text.push_str("mix:\n");
        for (at, command) in self.commands.iter().enumerate() {
            let weight = if begins_with(command.name, &ENDING) { 1 } else { WEIGHT };
            let made_before = if self.comes_first(at) { EACH } else { 0 };
            self.write_step(&mut text, at, &format!("weight: {weight}"), "either", made_before)?;
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

    fn write_step(
        &self,
        text: &mut String,
        at: usize,
        how: &str,
        expect: &str,
        made_before: u32,
    ) -> Result<()> {
        let command = &self.commands[at];
        let is_date = |schema: &Value| resolved(self.schemas, schema)["format"] == "date";
        let step = Step {
            made_before,
            references: RefCell::default(),
            moments: Cell::default(),
            has_dates: command.fields.values().any(|schema| is_date(schema)),
        };
        writeln!(text, "  - command: {}\n    {how}", quoted(command.name))?;
        if !command.optional.is_empty() {
            let optional: Vec<String> = command.optional.iter().map(|name| quoted(name)).collect();
            writeln!(text, "    # It may also have: {}.", optional.join(", "))?;
        }
        if !command.fields.is_empty() {
            text.push_str("    data:\n");
        }
        let mut fields: Vec<_> = command.fields.iter().collect();
        fields.sort_by_key(|(field, _)| is_later(field));
        for (field, schema) in fields {
            let value = match is_id(self.schemas, schema) {
                true => Value::from(self.id(at, field, schema, &step)),
                false => self.value(schema, 0, &step),
            };
            writeln!(text, "      {}: {value}", quoted(field))?;
        }
        writeln!(text, "    expect: {expect}")?;
        Ok(())
    }

    /// The template of an id: a new one in the command that makes it, an earlier one in all others.
    fn id(&self, at: usize, field: &str, schema: &Value, step: &Step) -> String {
        let made = match step.made_before {
            0 => format!("{field}-{{{{ n }}}}"),
            before => format!("{field}-{{{{ n + {before} }}}}"),
        };
        match self.makers.get(field) {
            Some(maker) if *maker == at => {
                // `from` and `to` may name what another command makes as `account`.
                let other = self.makers.iter().find(|(other, maker)| {
                    let makes = begins_with(self.commands[**maker].name, &MAKING);
                    let of = self.commands[**maker].fields.get(*other);
                    makes && **maker != at && of.is_some_and(|of| same(self.schemas, of, schema))
                });
                match other.filter(|_| !begins_with(self.commands[at].name, &MAKING)) {
                    Some((other, maker)) => self.earlier(*maker, other, step),
                    None => made,
                }
            }
            Some(maker) => self.earlier(*maker, field, step),
            None => made,
        }
    }

    /// The template of an earlier id: another one for each that the command has of this kind.
    fn earlier(&self, maker: usize, field: &str, step: &Step) -> String {
        let reference = (maker, field.to_owned());
        let mut references = step.references.borrow_mut();
        let before = references.iter().filter(|one| **one == reference).count();
        references.push(reference);
        let command = in_template(self.commands[maker].name);
        match before {
            0 => format!("{{{{ earlier({command}, {}) }}}}", in_template(field)),
            _ => format!("{{{{ earlier({command}, {}, {}) }}}}", in_template(field), before + 1),
        }
    }

    /// A value that the schema allows, with templates in its texts.
    fn value(&self, schema: &Value, depth: usize, step: &Step) -> Value {
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
                return self.value(first, depth + 1, step);
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
                let items = schema.get("items").map(|items| self.value(items, depth + 1, step));
                Value::Array(items.into_iter().collect())
            }
            Some(&"object") => {
                let required = schema.get("required").and_then(Value::as_array);
                let required = required.into_iter().flatten().filter_map(Value::as_str);
                let members = required.map(|field| {
                    let of = &schema["properties"][field];
                    (field.to_owned(), self.value(of, depth + 1, step))
                });
                Value::Object(members.collect())
            }
            Some(&"string") => match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => Value::from(step.moment(self.days, true)),
                Some("date") => Value::from(step.moment(self.days, false)),
                _ if schema.get("pattern").is_some() => Value::from("name-{{ n }}"),
                _ => Value::from("{{ name() }}"),
            },
            _ => Value::Null,
        }
    }
}

/// Whether a field seems to say when a thing ends.
fn is_later(field: &str) -> bool {
    let mut words = String::new();
    for c in field.chars() {
        // A word of `camelCase` begins with a capital.
        words.extend(c.is_uppercase().then_some('_'));
        words.extend(c.to_lowercase());
    }
    words.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| LATER.contains(&word))
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
