//! A first workload is drafted from a description.

use jiff::civil::date;
use serde_json::json;

use super::*;

/// The schema of a request, with these members of its data.
fn request(data: &Value, required: &[&str]) -> Value {
    let data = json!({ "type": "object", "properties": data, "required": required });
    json!({ "type": "object", "properties": { "data": data } })
}

fn drafted_of(document: &Value, service: Option<&str>) -> Result<String> {
    draft(document, service, "http://here", date(2026, 11, 30))
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
    let add = json!({ "room": room, "seats": { "type": "integer", "minimum": 0, "maximum": 12 } });
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
    let drafted = drafted_of(&booking(), None).expect("a draft");
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
              room: "room-{{ n + 5 }}"
              seats: "{{ int(1, 12) }}"
            expect: either
          - command: book
            weight: 5
            # It may also have: note.
            data:
              at: "{{ date('2027-11-30', '2037-11-30', n) }}T09:00:00Z"
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

#[test]
fn a_second_reference_is_of_another_thing() {
    let id = json!({ "type": "string", "pattern": "^[^/]+$" });
    let of = |fields: &[&str]| {
        let members: Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), id.clone())).collect();
        request(&members.into(), fields)
    };
    let document = json!({ "components": { "schemas": {
        "Entry.ledger": {},
        "Request.ledger.open": of(&["account"]),
        "Request.ledger.transfer": of(&["from", "to"]),
    } } });
    let drafted = drafted_of(&document, None).expect("a draft");
    let (from, to) = ("earlier('open', 'account')", "earlier('open', 'account', 2)");
    assert!(
        drafted.contains(&format!("from: \"{{{{ {from} }}}}\"\n      to: \"{{{{ {to} }}}}\"")),
        "{drafted}"
    );
    // The mix makes others than the setup.
    assert!(drafted.contains("account: \"account-{{ n + 5 }}\""), "{drafted}");
}

#[test]
fn the_times_of_a_command_are_in_the_future_and_ascend() {
    let (time, day) = (
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "format": "date" }),
    );
    let members =
        json!({ "end": time, "start": time, "checkOut": day, "check_in": day, "stop_at": time });
    let document = json!({ "components": { "schemas": {
        "Entry.stays": {},
        "Request.stays.book": request(&json!({ "end": time, "start": time }), &["end", "start"]),
        "Request.stays.stay": request(&members, &["checkOut", "check_in", "start"]),
    } } });
    let drafted = drafted_of(&document, None).expect("a draft");
    let whole = "start: \"{{ date('2027-11-30', '2037-11-30', n) }}T09:00:00Z\"\n      end: \"{{ date('2027-11-30', '2037-11-30', n) }}T10:00:00Z\"";
    assert!(drafted.contains(whole), "{drafted}");
    let days = [
        "check_in: \"{{ date('2027-11-30', '2037-11-30', n) }}\"",
        "start: \"{{ date('2027-12-01', '2037-12-01', n) }}T09:00:00Z\"",
        "checkOut: \"{{ date('2027-12-02', '2037-12-02', n) }}\"",
    ];
    assert!(drafted.contains(&days.join("\n      ")), "{drafted}");
}

/// A key of the document spells some characters of a name in another way.
#[test]
fn names_are_those_that_requests_have() {
    let mut document = booking();
    let mut go = request(&json!({}), &[]);
    go["properties"]["type"] = json!({ "const": "booking" });
    go["properties"]["command"] = json!({ "const": "go there" });
    document["components"]["schemas"]["Request.booking.go.20.there"] = go;
    let drafted = drafted_of(&document, None).expect("a draft");
    assert!(drafted.contains("- command: \"go there\"\n"), "{drafted}");
}

/// Names come from the target: they add no lines, and end no text.
#[test]
fn a_draft_of_hostile_names_is_a_workload_all_the_same() {
    let id = json!({ "type": "string", "pattern": "^a$" });
    let nested = json!({ "$ref": "#/components/schemas/Type.Nest" });
    let members: Map<String, Value> = (0..100).map(|n| (format!("m{n}"), nested.clone())).collect();
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
    let drafted = drafted_of(&document, None).expect("it can be compiled");
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
        let error = drafted_of(&document, service).expect_err("no service");
        assert_eq!(error.to_string(), said);
    }
    let doors = drafted_of(&document, Some("doors")).expect("a draft");
    assert!(doors.contains("views: []\nmix:\n  - command: open\n"), "{doors}");
    for (document, said) in [
        (json!({}), "has no schemas"),
        (json!({ "components": { "schemas": {} } }), "describes no service"),
    ] {
        let error = drafted_of(&document, None).expect_err("no service");
        assert!(error.to_string().contains(said), "{error}");
    }
}
