//! All that may change in a description, and what is said of it.

use fanfold::host::describe::Description;
use serde_json::{Value, json};

use crate::comparison::shown;

/// The description of one app, to be changed.
fn shop() -> Value {
    let text = json!({ "type": "string" });
    let of = |required: &[&str]| json!({ "type": "object", "required": required, "properties": { "a": text, "b": text } });
    json!({
        "app": "shop",
        "services": { "shop": {
            "commands": { "buy": { "data": of(&["a"]) }, "stop": {} },
            "events": {
                "sold": { "version": 2, "data": of(&["a", "b"]) },
                "shut": { "version": 1, "data": { "type": "object", "maxProperties": 0 } },
            },
        } },
        "views": { "sales": {
            "version": 3, "services": ["shop"], "events": { "sold": 2, "shut": 1 }, "can_be_awaited": true,
            "row": of(&["a", "b"]), "stored": of(&["a"]),
        } },
    })
}

/// The paths of values, and those to set there.
type Edits<'a> = &'a [(&'a str, Value)];

/// The changes after the values at these paths were set. `null` removes a member.
fn after(set: Edits<'_>) -> String {
    let mut new = shop();
    for (path, value) in set {
        let (parent, name) = path.rsplit_once('/').expect("it is a path");
        let parent = new.pointer_mut(parent).unwrap_or_else(|| panic!("nothing is at {path}"));
        match value {
            Value::Null => _ = parent.as_object_mut().expect("it is an object").remove(name),
            value => parent[name] = value.clone(),
        }
    }
    let read = |of: Value| serde_json::from_value::<Description>(of).expect("it is a description");
    shown(&read(new).compare(&read(shop())))
}

/// Each member of a description, what may change in it, and all that is said of that.
#[test]
fn each_change_of_a_member_is_said_in_one_line() {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer" });
    let other_row = json!({ "type": "boolean" });
    let service = json!({ "commands": {}, "events": {} });
    let event = json!({ "version": 1, "data": text });
    let optional = json!({ "type": "object", "properties": { "a": text } });
    let mut view = shop()["views"]["sales"].clone();
    view["services"] = json!(["other"]);
    let cases: &[(Edits<'_>, &[&str])] = &[
        // Services.
        (&[("/services/other", service)], &[]),
        (
            &[("/services/shop", Value::Null)],
            &[
                "! service shop: is gone, so this build refuses its commands and cannot read its logs: keep it",
            ],
        ),
        // Commands.
        (&[("/services/shop/commands/more", json!({ "data": text }))], &[]),
        (&[("/services/shop/commands/buy/description", json!("Buys."))], &[]),
        (
            &[("/services/shop/commands/buy", Value::Null)],
            &[
                "! command shop.buy: is gone, and old clients send it: keep it, and let `decide` refuse it",
            ],
        ),
        (
            &[("/services/shop/commands/buy/data", Value::Null)],
            &[
                "! command shop.buy: takes no data any more, and old clients send some: go on taking it, or make another command",
            ],
        ),
        (&[("/services/shop/commands/stop/data", optional)], &[]),
        (
            &[("/services/shop/commands/stop/data", text.clone())],
            &[
                "! command shop.stop: takes data now, and old clients send none: make its fields optional, or make another command",
            ],
        ),
        (&[("/services/shop/commands/buy/data/required", json!([]))], &[]),
        (
            &[("/services/shop/commands/buy/data/required", json!(["a", "b"]))],
            &[
                "! command shop.buy, data.b: is required now, and may be absent in commands of old clients: go on taking what old clients send, or make another command",
            ],
        ),
        (
            &[("/services/shop/commands/buy/data/properties/a", number.clone())],
            &[
                "! command shop.buy, data.a: may be `string` in commands of old clients, and only `integer` is taken by this build: go on taking what old clients send, or make another command",
            ],
        ),
        (
            &[
                ("/services/shop/commands/buy/data/additionalProperties", json!(false)),
                ("/services/shop/commands/buy/data/properties/b", Value::Null),
            ],
            &[
                "! command shop.buy, data.b: may be in commands of old clients, and is not taken by this build any more: go on taking what old clients send, or make another command",
            ],
        ),
        // Events.
        (
            &[("/services/shop/events/lent", event)],
            &[
                "- event shop.lent: is new, and a view of another app cannot be waited for (`?seq=` gets 400) until it lists it: list it there, and raise that view's `VERSION`",
            ],
        ),
        (&[("/services/shop/events/sold/description", json!("Sold."))], &[]),
        (
            &[("/services/shop/events/sold", Value::Null)],
            &[
                "! event shop.sold: is gone, and this build cannot read the stored ones: keep it in `EVENTS`",
            ],
        ),
        (
            &[("/services/shop/events/sold/version", json!(3))],
            &[
                "- event shop.sold: has version 3 instead of 2, and views of other apps stop at the first such event until they know it: let the service upcast version 2, and tell the owners of those views",
            ],
        ),
        (
            &[
                ("/services/shop/events/sold/version", json!(3)),
                ("/services/shop/events/sold/data", text.clone()),
            ],
            &[
                "- event shop.sold: has version 3 instead of 2, and views of other apps stop at the first such event until they know it: let the service upcast version 2, and tell the owners of those views",
            ],
        ),
        (
            &[("/services/shop/events/sold/version", json!(1))],
            &[
                "! event shop.sold: has version 1 instead of 2, and this build cannot read stored events of version 2: raise it to 2 or more",
            ],
        ),
        (
            &[("/services/shop/events/sold/data/required", json!(["a"]))],
            &[
                "! event shop.sold, data.b: may be absent now, and is required by views of other apps: raise the event's version, and upcast version 2",
            ],
        ),
        (
            &[
                ("/services/shop/events/sold/data/properties/c", text.clone()),
                ("/services/shop/events/sold/data/required", json!(["a", "b", "c"])),
            ],
            &[
                "! event shop.sold, data.c: is required now, and may be absent in stored events: raise the event's version, and upcast version 2",
            ],
        ),
        // Views.
        (&[("/views/more", view)], &[]),
        (
            &[("/views/sales", Value::Null)],
            &["! view sales: is gone, so old readers get 404: keep it until nothing reads it"],
        ),
        (
            &[("/views/sales/version", json!(4))],
            &[
                "- view sales: has version 4 instead of 3, and is built again from the journal: readers miss rows until that is done",
            ],
        ),
        (
            &[("/views/sales/version", json!(2))],
            &[
                "! view sales: has version 2 instead of 3, and the table of version 2 may hold rows of an earlier build: raise `VERSION` above 3",
            ],
        ),
        (
            &[("/views/sales/services", json!(["shop", "other"]))],
            &[
                "! view sales: has another list of services within version 3 (`other` is new), and hosts refuse it: raise `VERSION`",
            ],
        ),
        (
            &[
                ("/views/sales/services", json!(["shop", "other"])),
                ("/views/sales/version", json!(4)),
            ],
            &[
                "- view sales: has version 4 instead of 3, and is built again from the journal: readers miss rows until that is done",
            ],
        ),
        (
            &[("/views/sales/services", json!(["other"])), ("/views/sales/version", json!(4))],
            &[
                "! view sales: does not read the service `shop` any more, so old readers of its rows get 404: go on reading it, or make another view",
                "- view sales: has version 4 instead of 3, and is built again from the journal: readers miss rows until that is done",
            ],
        ),
        (
            &[("/views/sales/events/lent", json!(1)), ("/views/sales/events/shut", Value::Null)],
            &[
                "! view sales: has another list of event types within version 3 (`lent` is new, `shut` is gone), and hosts refuse it: raise `VERSION`",
            ],
        ),
        (
            &[("/views/sales/events/lent", json!(1)), ("/views/sales/version", json!(4))],
            &[
                "- view sales: has version 4 instead of 3, and is built again from the journal: readers miss rows until that is done",
            ],
        ),
        (&[("/views/sales/events/sold", json!(3))], &[]),
        (
            &[("/views/sales/events/sold", json!(1))],
            &[
                "! view sales: reads version 1 of the event `sold` instead of 2, and stops at stored events of version 2: list version 2 or more in its `EVENTS`",
            ],
        ),
        (
            &[("/views/sales/can_be_awaited", json!(false))],
            &[
                "! view sales: cannot be waited for any more (`?seq=` gets 400), since it does not list every event type of its services: list them, and raise `VERSION`",
            ],
        ),
        (
            &[("/views/sales/row/required", json!(["a"]))],
            &[
                "! view sales, row.b: may be absent now, and is required by old readers: go on writing what old readers take, or make another view",
            ],
        ),
        (
            &[("/views/sales/stored/required", json!(["a", "b"]))],
            &[
                "! view sales, row.b: is required now, and may be absent in stored rows: raise `VERSION`, or give it a default, else such rows park the view",
            ],
        ),
        (
            &[
                ("/views/sales/row/properties/a", number.clone()),
                ("/views/sales/stored/properties/a", number),
            ],
            &[
                "! view sales, row.a: may be `integer` in new rows, and only `string` is taken by old readers: go on writing what old readers take, or make another view",
                "! view sales, row.a: may be `string` in stored rows, and only `integer` is taken by this build: raise `VERSION`, or give it a default, else such rows park the view",
            ],
        ),
        (
            &[("/views/sales/version", json!(4)), ("/views/sales/stored", other_row)],
            &[
                "- view sales: has version 4 instead of 3, and is built again from the journal: readers miss rows until that is done",
            ],
        ),
        // A member more, with a default and without.
        (
            &[
                ("/views/sales/row/properties/c", text.clone()),
                ("/views/sales/row/required", json!(["a", "b", "c"])),
                ("/views/sales/stored/properties/c", text.clone()),
            ],
            &[
                "- view sales, row.c: is required now, and may be absent in stored rows: let new readers take them, or raise `VERSION`",
            ],
        ),
        (
            &[
                ("/views/sales/row/properties/c", text),
                ("/views/sales/row/required", json!(["a", "b", "c"])),
                ("/views/sales/stored", Value::Null),
            ],
            &[
                "! view sales, row.b: is required now, and may be absent in stored rows: raise `VERSION`, or give it a default, else such rows park the view",
                "! view sales, row.c: is required now, and may be absent in stored rows: raise `VERSION`, or give it a default, else such rows park the view",
            ],
        ),
    ];
    for (set, expected) in cases {
        let found = after(set);
        let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(found, expected, "{set:?}");
    }
}
