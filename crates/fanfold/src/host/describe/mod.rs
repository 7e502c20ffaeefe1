//! What an app's commands, events and rows look like, as JSON Schemas of draft 2020-12. [`compare`](Description::compare)
//! finds changes that clients, other teams' views or stored events cannot take.

mod compare;
mod expand;
mod fits;
pub mod names;

use std::collections::{BTreeMap, BTreeSet};

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::compare::Change;
use self::expand::bound_all;
use crate::app::App;
use crate::service::current_version;

/// Where schemas refer to [`Description::definitions`].
pub const DEFINITIONS: &str = "#/$defs/";
/// Ends the name of a definition of what is written, if a command's definition has that name and is another.
const WRITTEN: &str = "Written";

/// The description of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The app's name.
    pub app: String,
    /// Its services, by name.
    pub services: BTreeMap<String, ServiceDescription>,
    /// Its views, by name.
    pub views: BTreeMap<String, ViewDescription>,
    /// Schemas to which others refer, by name.
    #[serde(rename = "$defs", default)]
    pub definitions: BTreeMap<String, Value>,
}

/// The description of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDescription {
    /// Its commands, by name.
    pub commands: BTreeMap<String, CommandDescription>,
    /// Its event types, by name.
    pub events: BTreeMap<String, EventDescription>,
}

/// The description of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandDescription {
    /// What it is for: the comment of its variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema of its `data`; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// The description of an event type in its current version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventDescription {
    /// The version.
    pub version: u32,
    /// What it means: the comment of its variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema of its `data`, as it is written.
    pub data: Value,
}

/// The description of a view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewDescription {
    /// Its version.
    pub version: u32,
    /// The services whose logs it reads.
    pub services: Vec<String>,
    /// The event types that it lists, with their current versions.
    pub events: BTreeMap<String, u32>,
    /// Whether readers can wait for it to reach a seq: it understands every event type of its services.
    pub can_be_awaited: bool,
    /// The schema of a row, as it is written.
    pub row: Value,
    /// The schema by which a stored row is read, if it is another: a field with a default may be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Value>,
}

impl ViewDescription {
    /// The schema by which a stored row is read.
    pub fn stored(&self) -> &Value {
        self.stored.as_ref().unwrap_or(&self.row)
    }
}

/// The two generators of schemas: of what is read, and of what is written. A field with a default may be absent from
/// what is read, and is always in what is written.
pub struct Generators {
    /// Of commands, and of stored rows.
    pub read: SchemaGenerator,
    /// Of events and rows.
    pub written: SchemaGenerator,
}

impl Generators {
    fn new() -> Self {
        Self {
            read: SchemaSettings::draft2020_12().for_deserialize().into_generator(),
            written: SchemaSettings::draft2020_12().for_serialize().into_generator(),
        }
    }
}

/// A variant of an adjacently tagged enum.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its comment.
    pub description: Option<String>,
    /// The schema of its content; `None` without content.
    pub content: Option<Value>,
}

/// The variants of an adjacently tagged enum, by their tags.
pub type Variants = BTreeMap<String, Variant>;

/// The variants of an adjacently tagged enum; none if the schema is of another form.
pub(crate) fn variants(schema: &Schema, tag: &str, content: &str) -> Variants {
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    let alternatives = alternatives.into_iter().flatten();
    let variants = alternatives.filter_map(|variant| {
        let properties = variant.get("properties")?;
        let name = properties.get(tag)?.get("const")?.as_str()?;
        let description = variant.get("description").and_then(Value::as_str).map(str::to_owned);
        let content = properties.get(content).cloned();
        Some((name.to_owned(), Variant { description, content }))
    });
    variants.collect()
}

impl App {
    /// The description of its commands, events and rows.
    pub fn describe(&self) -> Description {
        let mut generators = Generators::new();
        let services = self.services().iter().map(|service| {
            let commands = service.command_variants(&mut generators).into_iter();
            let commands = commands.map(|(name, Variant { description, content })| {
                (name, CommandDescription { description, data: content })
            });
            let events = service.event_variants(&mut generators).into_iter();
            let events = events.filter_map(|(kind, Variant { description, content })| {
                let version = current_version(service.events(), &kind)?;
                // An event without content is stored with `{}`.
                let data =
                    content.unwrap_or_else(|| json!({ "type": "object", "maxProperties": 0 }));
                Some((kind, EventDescription { version, description, data }))
            });
            let described =
                ServiceDescription { commands: commands.collect(), events: events.collect() };
            (service.name().to_owned(), described)
        });
        let mut services: BTreeMap<_, _> = services.collect();
        let views = self.views().iter().map(|view| {
            let [row, stored] = view.row_schemas(&mut generators);
            let described = ViewDescription {
                version: view.version(),
                services: view.services().iter().map(|&name| name.to_owned()).collect(),
                events: view.events().iter().map(|(kind, of)| ((*kind).to_owned(), *of)).collect(),
                can_be_awaited: !view.is_filtered(self.services()),
                row,
                stored: Some(stored),
            };
            (view.name().to_owned(), described)
        });
        let mut views: BTreeMap<_, _> = views.collect();

        let Generators { mut read, mut written } = generators;
        let mut definitions = read.take_definitions(true);
        let mut of_written = written.take_definitions(true);
        let renamed = differing(&definitions, &of_written);
        let rename = |schema: &mut Value| rename_references(schema, &renamed);
        for service in services.values_mut() {
            service.events.values_mut().for_each(|event| rename(&mut event.data));
        }
        for view in views.values_mut() {
            rename(&mut view.row);
            view.stored.take_if(|stored| *stored == view.row);
        }
        of_written.values_mut().for_each(rename);
        for (name, definition) in of_written {
            let name = if renamed.contains(&name) { name + WRITTEN } else { name };
            definitions.insert(name, definition);
        }
        let mut definitions: BTreeMap<_, _> = definitions.into_iter().collect();
        for service in services.values_mut() {
            let commands = service.commands.values_mut().filter_map(|of| of.data.as_mut());
            let events = service.events.values_mut().map(|event| &mut event.data);
            commands.chain(events).for_each(bound_all);
        }
        let rows = views.values_mut();
        rows.flat_map(|view| [&mut view.row].into_iter().chain(&mut view.stored))
            .for_each(bound_all);
        definitions.values_mut().for_each(bound_all);
        Description { app: self.name().to_owned(), services, views, definitions }
    }
}

impl Description {
    /// The definitions to which these schemas refer, also through others.
    pub fn referred<'a>(
        &'a self,
        schemas: impl IntoIterator<Item = &'a Value>,
    ) -> BTreeMap<&'a str, &'a Value> {
        let mut found = BTreeMap::new();
        let mut left: Vec<&Value> = schemas.into_iter().collect();
        while let Some(schema) = left.pop() {
            each_reference(schema, &mut |name| {
                if let Some((name, definition)) = self.definitions.get_key_value(name)
                    && found.insert(name.as_str(), definition).is_none()
                {
                    left.push(definition);
                }
            });
        }
        found
    }
}

/// The definitions that both have and that differ, also in what they refer to.
fn differing(read: &Map<String, Value>, written: &Map<String, Value>) -> BTreeSet<String> {
    let both = || written.iter().filter(|(name, _)| read.contains_key(*name));
    let mut found: BTreeSet<String> = both()
        .filter(|(name, definition)| read.get(*name) != Some(definition))
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let refers = |definition: &Value| {
            let mut refers = false;
            each_reference(definition, &mut |name| refers |= found.contains(name));
            refers
        };
        let more: Vec<String> = both()
            .filter(|(name, definition)| !found.contains(*name) && refers(definition))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Calls `f` with the name of each definition to which the schema refers.
fn each_reference(schema: &Value, f: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match value.as_str().filter(|_| key == "$ref") {
                    Some(reference) => f(reference.strip_prefix(DEFINITIONS).unwrap_or(reference)),
                    None => each_reference(value, f),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_reference(item, f)),
        _ => {}
    }
}

/// Replaces every reference in the schema by what `f` makes of it.
pub fn map_references(schema: &mut Value, f: &impl Fn(&str) -> String) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members.iter_mut() {
                match value {
                    Value::String(reference) if key == "$ref" => *reference = f(reference),
                    _ => map_references(value, f),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| map_references(item, f)),
        _ => {}
    }
}

fn rename_references(schema: &mut Value, renamed: &BTreeSet<String>) {
    map_references(schema, &|reference| match reference.strip_prefix(DEFINITIONS) {
        Some(name) if renamed.contains(name) => format!("{reference}{WRITTEN}"),
        _ => reference.to_owned(),
    });
}
