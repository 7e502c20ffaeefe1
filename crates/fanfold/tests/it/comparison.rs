//! Comparisons of two descriptions.

use std::collections::BTreeMap;

use fanfold::DocumentId;
use fanfold::host::describe::{Change, Description};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::describe::is_valid;

fn described(command: Value, event: (u32, Value), row: Value) -> Description {
    serde_json::from_value(json!({
        "app": "a",
        "services": { "s": {
            "commands": { "do": { "data": command } },
            "events": { "done": { "version": event.0, "data": event.1 } },
        } },
        "views": { "v": {
            "version": 1, "services": ["s"], "events": { "done": event.0 }, "can_be_awaited": true, "row": row,
        } },
    }))
    .expect("it is a description")
}

pub(crate) fn shown(changes: &[Change]) -> String {
    let line = |change: &Change| format!("{} {change}\n", if change.breaks { "!" } else { "-" });
    changes.iter().map(line).collect()
}

/// The description, with the view in its second version.
fn raised(mut of: Description) -> Description {
    of.views.values_mut().for_each(|view| view.version = 2);
    of
}

#[test]
fn a_change_that_breaks_names_where_it_is() {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let text = json!({ "type": "string" });
    let old = object(&["a"], json!({ "a": text, "b": { "type": ["string", "null"] } }));
    // What is said of a command, an event, a row of a new version of the view, and a row of the same version.
    for (new, expected) in [
        (old.clone(), [""; 4]),
        // Readers ignore what they do not know, and what is new may be absent.
        (
            object(&["a"], json!({ "a": text, "b": { "type": ["string", "null"] }, "c": text })),
            [""; 4],
        ),
        (
            object(&["a", "c"], json!({ "a": text, "c": text })),
            [
                "data.c: is required now, and may be absent in commands",
                "data.c: is required now, and may be absent in stored events",
                "",
                "row.c: is required now, and may be absent in stored rows",
            ],
        ),
        (object(&["a"], json!({ "a": text })), [""; 4]),
        (
            object(&[], json!({ "a": text })),
            [
                "",
                "data.a: may be absent now, and is required by views of other apps",
                "row.a: may be absent now, and is required by old readers",
                "row.a: may be absent now, and is required by old readers",
            ],
        ),
        (
            object(&["a"], json!({ "a": { "type": "integer" } })),
            [
                "data.a: may be `string` in commands",
                "data.a: may be `string` in stored events",
                "row.a: may be `integer` in new rows",
                "row.a: may be `string` in stored rows",
            ],
        ),
        (
            object(&["a"], json!({ "a": { "type": "string", "maxLength": 3 } })),
            [
                "data.a: may be beyond `maxLength` 3 in commands",
                "data.a: may be beyond `maxLength` 3 in stored events",
                "",
                "row.a: may be beyond `maxLength` 3 in stored rows",
            ],
        ),
        (
            object(&["a"], json!({ "a": { "enum": ["x"] } })),
            [
                "data.a: may be any value in commands",
                "data.a: may be any value in stored events",
                "",
                "row.a: may be any value in stored rows",
            ],
        ),
        (
            object(&["a"], json!({ "a": { "type": "string", "pattern": "x" } })),
            ["differs in `pattern`"; 4],
        ),
    ] {
        let same = (1, old.clone());
        let was = described(old.clone(), same.clone(), old.clone());
        let apps = [
            described(new.clone(), same.clone(), old.clone()),
            described(old.clone(), (1, new.clone()), old.clone()),
            raised(described(old.clone(), same.clone(), new.clone())),
            described(old.clone(), same, new.clone()),
        ];
        for (now, expected) in apps.into_iter().zip(expected) {
            let changes = now.compare(&was);
            let found = shown(&changes);
            let breaks = changes.iter().any(|change| change.breaks);
            assert_eq!(breaks, !expected.is_empty(), "{new}: {found}");
            assert!(found.contains(expected), "{new}: {found}");
        }
        // With another version the data may be anything.
        let now = described(old.clone(), (2, new.clone()), old.clone());
        let changes = now.compare(&was);
        assert_eq!(changes.len(), 1, "{new}");
        assert!(!changes[0].breaks && changes[0].what.contains("upcast"), "{}", shown(&changes));
        let back = shown(&was.compare(&now));
        assert!(back.starts_with("! ") && back.contains("cannot read"), "{back}");
    }
}

/// The changes of a command from one type to another, and of a row.
fn between<Old: JsonSchema, New: JsonSchema>() -> [bool; 2] {
    let of = |root: schemars::Schema| {
        let mut schema = root.to_value();
        let definitions = schema.as_object_mut().expect("it is an object").remove("$defs");
        let row = schema.clone();
        let mut described = described(schema, (1, json!(true)), row);
        let definitions =
            definitions.map(|all| serde_json::from_value(all).expect("they are named"));
        described.definitions = definitions.unwrap_or_default();
        described
    };
    let changes = raised(of(schemars::schema_for!(New))).compare(&of(schemars::schema_for!(Old)));
    ["command", "view"]
        .map(|at| changes.iter().any(|change| change.breaks && change.at.starts_with(at)))
}

mod before {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    pub(super) struct Money {
        pub(super) amount: i64,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    pub(super) enum External {
        Open(Money),
        Named { at: u8 },
        Closed,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    #[serde(tag = "kind")]
    pub(super) enum Internal {
        Open(Money),
        Closed,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    pub(super) struct Tree {
        pub(super) money: Money,
        pub(super) children: Vec<Tree>,
    }
}

mod after {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    pub(super) struct Money {
        pub(super) amount: i64,
        pub(super) currency: String,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    pub(super) struct Tree {
        pub(super) money: Money,
        pub(super) children: Vec<Tree>,
    }
}

#[test]
fn types_are_compared_with_all_that_is_inside_them() {
    assert_eq!(between::<i32, i64>(), [false, true]);
    assert_eq!(between::<i64, i32>(), [true, false]);
    assert_eq!(between::<i128, i64>(), [true, false]);
    assert_eq!(between::<u64, i64>(), [true, true]);
    assert_eq!(between::<u32, u64>(), [false, true]);
    assert_eq!(between::<f32, f64>(), [true, true], "a conservative answer");
    assert_eq!(between::<before::Money, Option<before::Money>>(), [false, true]);
    assert_eq!(between::<Option<before::Money>, before::Money>(), [true, false]);
    // The same type breaks nothing, however it is written.
    assert_eq!(between::<before::External, before::External>(), [false, false]);
    assert_eq!(between::<before::Internal, before::Internal>(), [false, false]);
    assert_eq!(between::<before::Tree, before::Tree>(), [false, false]);
    // A member more, wherever the type is.
    type Old = before::Money;
    type New = after::Money;
    assert_eq!(between::<Old, New>(), [true, false]);
    assert_eq!(between::<Vec<Old>, Vec<New>>(), [true, false]);
    assert_eq!(between::<Option<Old>, Option<New>>(), [true, false]);
    assert!(between::<(Old, u8), (New, u8)>()[0], "in a tuple");
    assert!(between::<BTreeMap<String, Old>, BTreeMap<String, New>>()[0], "in a map");
    assert!(between::<BTreeMap<u8, Old>, BTreeMap<u8, New>>()[0], "in a map of numbers");
    assert!(between::<BTreeMap<DocumentId, Old>, BTreeMap<DocumentId, New>>()[0], "by document");
    assert_eq!(between::<before::Tree, after::Tree>(), [true, false]);
}

#[test]
fn what_is_gone_breaks() {
    let text = json!({ "type": "string" });
    let old = described(text.clone(), (1, text.clone()), text.clone());
    for (path, expected) in [
        ("/services/s/commands/do", "command s.do: is gone"),
        ("/services/s/events/done", "event s.done: is gone"),
        ("/services/s", "service s: is gone"),
        ("/views/v", "view v: is gone"),
    ] {
        let mut new = serde_json::to_value(&old).expect("it can be written");
        let (parent, name) = path.rsplit_once('/').expect("it is a path");
        new.pointer_mut(parent).and_then(Value::as_object_mut).expect("it is there").remove(name);
        let new: Description = serde_json::from_value(new).expect("it is a description");
        let changes = new.compare(&old);
        let found = shown(&changes);
        assert!(changes.iter().all(|change| change.breaks) && found.contains(expected), "{found}");
        let back = old.compare(&new);
        assert!(back.iter().all(|change| !change.breaks), "what is new breaks nothing");
    }
}

/// Schemas as they are derived, of few values, so that two of them often have values in common.
fn schema() -> impl Strategy<Value = Value> {
    let bound = prop::option::of(-1i64..3);
    let number = (bound.clone(), bound).prop_map(|(least, most)| {
        let mut schema = json!({ "type": "integer" });
        if let Some(least) = least {
            schema["minimum"] = json!(least);
        }
        if let Some(most) = most {
            schema["maximum"] = json!(most);
        }
        schema
    });
    let leaf = prop_oneof![
        number,
        Just(json!(true)),
        Just(json!({ "type": "number" })),
        Just(json!({ "type": "string" })),
        Just(json!({ "type": ["string", "null"] })),
        prop::sample::subsequence(vec!["x", "y", "z"], 1..3)
            .prop_map(|some| json!({ "type": "string", "enum": some })),
        prop::sample::subsequence(vec!["x", "y"], 1).prop_map(|one| json!({ "const": one[0] })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let object = (btree_map("[ab]", inner.clone(), 0..3), any::<(bool, bool, bool)>())
            .prop_map(|(properties, (requires, is_closed, all))| {
                let names: Vec<_> = properties.keys().take(if all { 2 } else { 1 }).collect();
                let required = if requires { json!(names) } else { json!([]) };
                let mut schema =
                    json!({ "type": "object", "properties": properties, "required": required });
                if is_closed {
                    schema["additionalProperties"] = json!(false);
                }
                schema
            });
        let map =
            inner.clone().prop_map(|of| json!({ "type": "object", "additionalProperties": of }));
        let tagged = vec(inner.clone(), 1..3).prop_map(|contents| {
            let variants = contents.into_iter().zip(["x", "y"]).map(|(content, tag)| {
                json!({
                    "type": "object",
                    "properties": { "a": { "type": "string", "const": tag }, "b": content },
                    "required": ["a", "b"],
                })
            });
            json!({ "oneOf": variants.collect::<Vec<_>>() })
        });
        let list = (inner.clone(), prop::option::of(0u8..2)).prop_map(|(items, least)| {
            let mut schema = json!({ "type": "array", "items": items });
            if let Some(least) = least {
                schema["minItems"] = json!(least);
            }
            schema
        });
        let nullable = inner.prop_map(|of| json!({ "anyOf": [of, { "type": "null" }] }));
        prop_oneof![3 => object, 1 => map, 2 => tagged, 1 => list, 1 => nullable]
    })
}

/// Two schemas of which the second is often almost the first.
fn schemas() -> impl Strategy<Value = (Value, Value)> {
    let changed = (schema(), schema(), any::<prop::sample::Index>()).prop_map(|(old, part, at)| {
        let mut paths = vec![];
        inner_schemas(&old, &mut String::new(), &mut paths);
        let mut new = old.clone();
        if let Some(place) = new.pointer_mut(&paths[at.index(paths.len())]) {
            *place = part;
        }
        (old, new)
    });
    prop_oneof![changed, (schema(), schema())]
}

/// The paths of the schemas in a schema, its own first.
fn inner_schemas(schema: &Value, path: &mut String, paths: &mut Vec<String>) {
    paths.push(path.clone());
    let mut below = |at: String| {
        let length = path.len();
        path.push_str(&at);
        if let Some(inner) = schema.pointer(&at) {
            inner_schemas(inner, path, paths);
        }
        path.truncate(length);
    };
    for name in ["a", "b"] {
        below(format!("/properties/{name}"));
    }
    for alternative in 0..2 {
        below(format!("/oneOf/{alternative}"));
        below(format!("/anyOf/{alternative}"));
    }
    below("/items".to_owned());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (-2i64..4).prop_map(|n| json!(n)),
        Just(json!(0.5)),
        Just(Value::Null),
        "[xyzw]".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let object = btree_map("[abc]", inner.clone(), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()));
        let list = vec(inner, 0..3).prop_map(Value::Array);
        prop_oneof![3 => object, 1 => list]
    })
}

/// The schema for readers that ignore members that they do not know.
fn open(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members
                .iter()
                .filter(|(key, value)| *key != "additionalProperties" || **value != json!(false));
            Value::Object(members.map(|(key, value)| (key.clone(), open(value))).collect())
        }
        Value::Array(items) => items.iter().map(open).collect(),
        other => other.clone(),
    }
}

/// The schema for writers that write only the members that it names.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut closed: Map<String, Value> =
                members.iter().map(|(key, value)| (key.clone(), closed(value))).collect();
            if closed.get("type") == Some(&json!("object")) {
                closed.entry("additionalProperties").or_insert(json!(false));
            }
            Value::Object(closed)
        }
        Value::Array(items) => items.iter().map(closed).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// The comparison may report too much, and never too little: where it reports nothing, every value of one side is
    /// a value of the other.
    #[test]
    fn what_breaks_nothing_is_valid_on_the_other_side((old, new) in schemas(), values in vec(value(), 40)) {
        let event = (1, json!(true));
        let was = described(old.clone(), event.clone(), old.clone());
        let now = described(new.clone(), event, new.clone());
        let breaks = |now: &Description, at: &str| {
            now.compare(&was).iter().any(|change| change.breaks && change.at.starts_with(at))
        };
        let [command, row] = ["command", "view"].map(|at| breaks(&now, at));
        let row_of_new_version = breaks(&raised(now.clone()), "view");
        prop_assert!(row || !(command || row_of_new_version), "a row of one version is read both ways");
        for value in values {
            if !command && is_valid(&was, &closed(&old), &value) {
                prop_assert!(is_valid(&now, &new, &value), "an old command: {value} by {old} and {new}");
            }
            if !row_of_new_version && is_valid(&now, &closed(&new), &value) {
                prop_assert!(is_valid(&was, &open(&old), &value), "a new row: {value} by {old} and {new}");
            }
        }
        let takes_no_data = now.takes_no_data(&new);
        let is_taken = |value: Value| is_valid(&now, &new, &value);
        prop_assert!(!takes_no_data || is_taken(json!({})) || is_taken(Value::Null), "{new}");
    }
}
