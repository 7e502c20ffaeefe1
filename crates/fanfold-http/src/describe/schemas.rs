//! The schemas of requests and answers.

use fanfold::host::describe::names::{NAME, PARTITION, ROW_KEY};
use fanfold::host::describe::{
    CommandDescription, Description, EventDescription, ServiceDescription, ViewDescription,
};
use fanfold::host::limits::{
    COMMAND_ID_END, NAME_BYTES_MAX, REQUEST_COMMANDS_MAX, ROW_KEY_BYTES_MAX, SEQ_END,
};
use serde_json::{Map, Value, json};

use super::{COMPONENTS, definitions, key, placed};
use crate::problem::Kind;

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{COMPONENTS}{}", key(name)) })
}

/// A user's or client's name, or an organisation's.
pub(super) fn name() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX, "pattern": NAME })
}

/// `org:<name>` or `user:<name>`.
pub(super) fn partition() -> Value {
    json!({ "type": "string", "pattern": PARTITION })
}

pub(super) fn row_key() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": ROW_KEY_BYTES_MAX, "pattern": ROW_KEY })
}

/// The key of a row, or nothing.
pub(super) fn after() -> Value {
    let pattern = format!("^$|{ROW_KEY}");
    json!({ "type": "string", "maxLength": ROW_KEY_BYTES_MAX, "pattern": pattern })
}

/// The beginning of keys.
pub(super) fn prefix() -> Value {
    let pattern = r"^[^?#%\\\x00-\x1f\x7f-\x9f]*$";
    json!({ "type": "string", "maxLength": ROW_KEY_BYTES_MAX, "pattern": pattern })
}

pub(super) fn id() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": COMMAND_ID_END - 1 })
}

pub(super) fn seq(from: u64) -> Value {
    json!({ "type": "integer", "minimum": from, "maximum": SEQ_END - 1 })
}

fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// All components.
pub(super) fn components(of: &Description) -> Map<String, Value> {
    let commands = of.services.values().flat_map(|service| service.commands.values());
    let events = of.services.values().flat_map(|service| service.events.values());
    let row = of.views.values().map(|view| &view.row);
    let used = commands.filter_map(|command| command.data.as_ref());
    let used = used.chain(events.map(|event| &event.data)).chain(row);
    let mut all: Map<String, Value> = definitions(of, used).collect();
    let mut requests = Vec::new();
    for (service, described) in &of.services {
        for (command, described) in &described.commands {
            let name = format!("Request.{service}.{command}");
            requests.push(reference(&name));
            all.insert(key(&name), request(of, service, command, described));
        }
        for (kind, described) in &described.events {
            all.insert(key(&format!("Event.{service}.{kind}")), event(kind, described));
        }
        all.insert(key(&format!("Entry.{service}")), entry(service, described));
        all.insert(key(&format!("Entries.{service}")), entries(service));
    }
    for (view, described) in &of.views {
        all.insert(key(&format!("Row.{view}")), placed(&described.row));
        all.insert(key(&format!("Rows.{view}")), rows(view, described));
        all.insert(key(&format!("OneRow.{view}")), one_row(view, described));
    }
    // An app of views alone takes no command.
    let any = if requests.is_empty() { json!(false) } else { json!({ "oneOf": requests }) };
    all.insert("Request".to_owned(), any);
    all.insert("Receipt".to_owned(), receipt());
    all.insert("Results".to_owned(), results());
    all.insert("Pending".to_owned(), pending());
    all.insert("Views".to_owned(), views());
    all.insert("Logs".to_owned(), logs());
    all.insert("Parked".to_owned(), parked());
    all.insert("Problem".to_owned(), problem());
    all
}

fn request(
    of: &Description,
    service: &str,
    command: &str,
    described: &CommandDescription,
) -> Value {
    let (data, is_required) = match &described.data {
        // A variant without data takes `{}`.
        None => (json!({ "type": ["object", "null"], "maxProperties": 0 }), false),
        Some(data) => {
            let is_required = !of.takes_no_data(data);
            (if is_required { placed(data) } else { nullable(placed(data)) }, is_required)
        }
    };
    let mut user = name();
    user["pattern"] = json!(NAME.replacen('^', "^(?!resend$)(?!reactor:)", 1));
    user["description"] = json!("The user that sends the command, within whose ids its id counts.");
    let mut client = nullable(name());
    client["description"] =
        json!("The process that numbers the user's commands, if there are several.");
    let mut org = nullable(name());
    org["description"] =
        json!("The organisation whose log the command is for; without it, the user's own.");
    let timestamp = json!({
        "description": "The client's own time, in milliseconds.",
        "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX,
    });
    let mut id = id();
    id["description"] = json!(
        "Recognises the command when it is sent again. Ids of a user, or of its client, grow."
    );
    let mut required = vec!["type", "command", "id", "user"];
    required.extend(is_required.then_some("data"));
    let mut schema = object(
        &required,
        json!({
            "type": { "const": service }, "command": { "const": command }, "id": id, "user": user,
            "client": client, "org": org, "timestamp": timestamp, "data": data,
        }),
    );
    schema["additionalProperties"] = json!(false);
    if let Some(description) = &described.description {
        schema["description"] = json!(description);
    }
    schema
}

/// An event of an entry. An entry that is shown as it is stored may have events of older versions.
fn event(kind: &str, described: &EventDescription) -> Value {
    let EventDescription { version, description, data } = described;
    let of = |required: &[&str], version: Value, data: Value| {
        let properties = json!({ "type": { "const": kind }, "document": name(), "data": data, "version": version });
        object(&[&["type", "document", "data"], required].concat(), properties)
    };
    let current = |required: &[&str]| of(required, json!({ "const": version }), placed(data));
    let mut schema = match version {
        // Without a version it is the first.
        1 => current(&[]),
        _ => json!({ "oneOf": [
            current(&["version"]),
            of(&[], json!({ "type": "integer", "minimum": 1, "maximum": version - 1 }), json!(true)),
        ] }),
    };
    if let Some(description) = description {
        schema["description"] = json!(description);
    }
    schema
}

fn entry(service: &str, described: &ServiceDescription) -> Value {
    let events: Vec<_> =
        described.events.keys().map(|kind| reference(&format!("Event.{service}.{kind}"))).collect();
    let events = if events.is_empty() { json!({}) } else { json!({ "oneOf": events }) };
    let text = json!({ "type": "string" });
    let of = |status: &str, required: &[&str], properties: Value| {
        let mut schema = object(&[&["status"], required].concat(), properties);
        schema["properties"]["status"] = json!({ "const": status });
        schema
    };
    let digest = json!({
        "description": "The digest of the command's data: see docs/design.md.",
        "type": "string", "pattern": "^[0-9a-f]{16}$",
    });
    let traceparent = json!({
        "description": "The trace of the command's request, as W3C Trace Context writes it.",
        "type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
    });
    let refused = json!({ "code": text, "message": text, "of": seq(1) });
    let mut schema = object(
        &["log", "seq", "status", "at"],
        json!({
            "log": text,
            "seq": seq(1),
            "user": text,
            "client": text,
            "id": id(),
            "at": { "description": "Milliseconds since 1970.", "type": "integer", "minimum": 0 },
            "command": text,
            "digest": digest,
            "traceparent": traceparent,
        }),
    );
    schema["description"] = json!("The outcome of one command.");
    schema["oneOf"] = json!([
        of(
            "accepted",
            &["events", "id", "user", "command"],
            json!({ "events": { "type": "array", "items": events } })
        ),
        of("rejected", &["code", "message", "id", "user"], refused),
        of("duplicate", &["of", "id", "user"], json!({ "of": seq(1) })),
        of("stale", &["id", "user"], json!({})),
        of("faulted", &["message", "id", "user"], json!({ "message": text })),
        of("lost", &["reason"], json!({ "reason": text })),
    ]);
    schema
}

fn entries(service: &str) -> Value {
    object(
        &["log", "accepted", "tail", "entries", "next"],
        json!({
            "log": { "type": "string" },
            "accepted": { "description": "The seq of the last accepted command.", "allOf": [seq(0)] },
            "tail": { "description": "The seq of the last entry.", "allOf": [seq(0)] },
            "entries": { "type": "array", "items": reference(&format!("Entry.{service}")) },
            "next": { "description": "Where the next page begins.", "anyOf": [seq(1), { "type": "null" }] },
        }),
    )
}

/// What all answers of a view have.
fn of_view(view: &str, described: &ViewDescription, required: &[&str], more: Value) -> Value {
    let mut properties = json!({
        "view": { "const": view },
        "version": { "const": described.version },
        "log": { "type": "string" },
        "seq": { "description": "Every entry up to here is in the rows.", "allOf": [seq(0)] },
        "parked": { "anyOf": [reference("Parked"), { "type": "null" }] },
    });
    if let (Some(all), Value::Object(more)) = (properties.as_object_mut(), more) {
        all.extend(more);
    }
    object(&[&["view", "version", "log", "seq", "parked"], required].concat(), properties)
}

fn rows(view: &str, described: &ViewDescription) -> Value {
    let row = json!({ "key": row_key(), "seq": seq(1), "row": reference(&format!("Row.{view}")) });
    let next = json!({
        "description": "The row after which the next page begins: the value of `after`.",
        "anyOf": [row_key(), { "type": "null" }],
    });
    let rows = json!({ "type": "array", "items": object(&["key", "seq", "row"], row) });
    of_view(view, described, &["rows", "next"], json!({ "rows": rows, "next": next }))
}

fn one_row(view: &str, described: &ViewDescription) -> Value {
    let row =
        json!({ "key": row_key(), "rowSeq": seq(1), "row": reference(&format!("Row.{view}")) });
    of_view(view, described, &["key", "rowSeq", "row"], row)
}

fn receipt() -> Value {
    let mut schema = object(&["log", "seq"], json!({ "log": { "type": "string" }, "seq": seq(1) }));
    schema["description"] = json!("The command is accepted, and has this position in its log.");
    schema["additionalProperties"] = json!(false);
    schema
}

fn results() -> Value {
    let refused = object(&["problem"], json!({ "problem": reference("Problem") }));
    let items = json!({ "oneOf": [reference("Receipt"), refused] });
    let results = json!({
        "description": "One per request, in their order.",
        "type": "array", "minItems": 1, "maxItems": REQUEST_COMMANDS_MAX, "items": items,
    });
    object(&["results"], json!({ "results": results }))
}

fn pending() -> Value {
    let mut schema = object(
        &["status", "seq"],
        json!({ "status": { "const": "pending" }, "seq": seq(0), "parked": reference("Parked") }),
    );
    schema["description"] =
        json!("It is not there yet; `seq` is what the log or the view has reached.");
    schema
}

fn logs() -> Value {
    let log = object(&["log"], json!({ "log": { "type": "string" } }));
    let next = json!({
        "description": "Where the next page begins: the value of `after`.",
        "type": ["string", "null"],
    });
    object(&["logs", "next"], json!({ "logs": { "type": "array", "items": log }, "next": next }))
}

fn views() -> Value {
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let view = object(
        &["view", "version", "services", "events", "awaitable", "since", "table"],
        json!({
            "view": { "type": "string" },
            "version": { "type": "integer", "minimum": 0 },
            "services": texts,
            "events": texts,
            "awaitable": { "description": "Whether `seq` and `wait` can be given.", "type": "boolean" },
            "since": {
                "description": "When it was announced, in milliseconds since 1970; null if it was not yet.",
                "type": ["integer", "null"], "minimum": 0,
            },
            "table": {
                "description": "The table of its rows, as it was announced; null if it was not yet.",
                "type": ["string", "null"],
            },
        }),
    );
    object(&["views"], json!({ "views": { "type": "array", "items": view } }))
}

fn parked() -> Value {
    let properties =
        json!({ "seq": seq(1), "reason": { "type": "string" }, "at": { "type": "integer" } });
    let mut schema = object(&["seq", "reason", "at"], properties);
    schema["description"] =
        json!("The view cannot apply this entry, and waits for an operator or another build.");
    schema
}

fn problem() -> Value {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.urn).collect();
    let mut schema = object(
        &["type", "title", "status", "detail"],
        json!({
            "type": { "enum": kinds },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "description": "Begins with the field or parameter at fault.", "type": "string" },
        }),
    );
    schema["description"] = json!("An error, by RFC 9457. Programs match its type.");
    schema
}
