//! The AsyncAPI 3.0 document of the notification that independent view services receive.

use fanfold::host::body::notification::SCHEMA;
use fanfold::host::describe::{Description, map_references};
use serde_json::{Map, Value, json};

use super::{COMPONENTS, definitions, key, placed};

/// Before the names of the notification's own definitions, which an app's types may also have.
const PREFIX: &str = "notification.";

/// The AsyncAPI document of an app's notifications, with the data of its events.
pub fn asyncapi(of: &Description) -> Value {
    // Cannot fail: a test reads the same text.
    let mut notification: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    map_references(&mut notification, &|reference| {
        reference.replacen("#/$defs/", &format!("{COMPONENTS}{PREFIX}"), 1)
    });
    let events = of.services.values().flat_map(|service| service.events.values());
    let mut schemas: Map<String, Value> =
        definitions(of, events.map(|event| &event.data)).collect();
    if let Some(own) = notification.as_object_mut() {
        own.remove("$id");
        own.remove("$schema");
        if let Some(Value::Object(definitions)) = own.remove("$defs") {
            schemas.extend(
                definitions.into_iter().map(|(name, schema)| (PREFIX.to_owned() + &name, schema)),
            );
        }
    }
    let mut known = Vec::new();
    for (service, described) in &of.services {
        for (kind, event) in &described.events {
            let name = format!("{service}.{kind}.v{}", event.version);
            let mut data = placed(&event.data);
            if let (Some(description), Some(data)) = (&event.description, data.as_object_mut()) {
                data.entry("description").or_insert_with(|| json!(description));
            }
            let key = key(&name);
            schemas.insert(key.clone(), data);
            known.push(json!({
                "if": { "properties": { "type": { "const": name } } },
                "then": { "properties": { "data": { "$ref": format!("{COMPONENTS}{key}") } } },
            }));
        }
    }
    if let Some(happened) =
        schemas.get_mut(&format!("{PREFIX}happened")).filter(|_| !known.is_empty())
    {
        happened["allOf"] = Value::Array(known);
    }
    schemas.insert("notification".to_owned(), notification);
    let schemas: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, older(schema))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("Notifications of {}", of.app),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What happened, for independent view services. Messages come at least once, in any order; \
                            the newest of a log may be lost.",
        },
        "defaultContentType": "application/json",
        "channels": { "notifications": {
            "address": null,
            "description": "The topic of the stack: on AWS the output `TopicArn`, an SNS topic.",
            "messages": { "batch": { "$ref": "#/components/messages/batch" } },
        } },
        "operations": { "receive": {
            "action": "send",
            "summary": "Fanfold sends what it has stored to every subscriber.",
            "channel": { "$ref": "#/channels/notifications" },
            "messages": [{ "$ref": "#/channels/notifications/messages/batch" }],
        } },
        "components": {
            "messages": { "batch": {
                "name": "batch",
                "title": "A CloudEvents batch",
                "contentType": "application/cloudevents-batch+json",
                "payload": { "$ref": format!("{COMPONENTS}notification") },
            } },
            "schemas": schemas,
        },
    })
}

/// The schema in the terms of draft 7, which AsyncAPI's schemas extend: nothing counts beside a `$ref`, and `items` may be
/// an array.
fn older(schema: Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut members: Map<String, Value> =
                members.into_iter().map(|(key, value)| (key, older(value))).collect();
            if members.len() > 1
                && let Some(reference @ Value::String(_)) = members.remove("$ref")
            {
                let referred = json!({ "$ref": reference });
                match members.get_mut("allOf").and_then(Value::as_array_mut) {
                    Some(all) => all.push(referred),
                    None => {
                        members.insert("allOf".to_owned(), json!([referred]));
                    }
                }
            }
            if let Some(first @ Value::Array(_)) = members.remove("prefixItems")
                && let Some(rest) = members.insert("items".to_owned(), first)
            {
                members.insert("additionalItems".to_owned(), rest);
            }
            Value::Object(members)
        }
        Value::Array(items) => items.into_iter().map(older).collect(),
        other => other,
    }
}
