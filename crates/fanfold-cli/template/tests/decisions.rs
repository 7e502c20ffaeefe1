//! Given events, when a command comes, then events follow, or a refusal.

use fanfold::testing::{ServiceKit, service, view};
use fanfold::{DocumentId, Time};
use serde_json::{Value, json};

use my_app::views::{Agenda, Rooms};
use my_app::{Booked, Booking, Event, Taken};

/// The room `blue`, which the booking `kickoff` has from 09:00 to 11:00.
fn booking() -> ServiceKit<Booking> {
    let taken = Taken {
        booking: name("kickoff"),
        from: at("09:00"),
        to: at("11:00"),
        at: at("08:00"),
    };
    let booked = Booked {
        room: name("blue"),
        from: at("09:00"),
        to: at("11:00"),
        seats: 4,
    };
    service::<Booking>()
        .at(at("08:00"))
        .given("blue", Event::RoomAdded { seats: 8 })
        .given("blue", Event::Taken(taken))
        .given("kickoff", Event::Booked(booked))
}

fn name(text: &str) -> DocumentId {
    text.parse().expect("it is a name")
}

fn at(hour: &str) -> Time {
    format!("2099-06-01T{hour}:00Z")
        .parse()
        .expect("it is a time")
}

fn book(booking: &str, room: &str, from: &str, to: &str) -> Value {
    let [from, to] = [from, to].map(|hour| at(hour).to_string());
    json!({ "booking": booking, "room": room, "from": from, "to": to, "seats": 4 })
}

#[test]
fn a_booking_takes_its_room() {
    let taken = Taken {
        booking: name("review"),
        from: at("11:00"),
        to: at("12:00"),
        at: at("08:30"),
    };
    let booked = Booked {
        room: name("blue"),
        from: at("11:00"),
        to: at("12:00"),
        seats: 4,
    };
    booking()
        .at(at("08:30"))
        .when("book", book("review", "blue", "11:00", "12:00"))
        .then([
            ("blue", Event::Taken(taken)),
            ("review", Event::Booked(booked)),
        ]);
}

#[test]
fn a_cancelled_booking_frees_the_room_that_only_the_booking_names() {
    let freed = Event::Freed {
        booking: name("kickoff"),
    };
    let cancelled = Event::Cancelled {
        room: name("blue"),
        from: at("09:00"),
    };
    booking()
        .when("cancel", json!({ "booking": "kickoff" }))
        .then([("blue", freed), ("kickoff", cancelled)])
        .then_document("blue", json!({ "room": { "seats": 8, "taken": [] } }))
        .when("cancel", json!({ "booking": "kickoff" }))
        .then_rejected("no_such_booking");
}

#[test]
fn wrong_commands_are_refused_with_these_codes() {
    let many = json!({ "seats": 9 });
    let too_many = |mut data: Value| {
        data["seats"] = many["seats"].clone();
        data
    };
    for (command, data, code) in [
        (
            "add_room",
            json!({ "room": "blue", "seats": 2 }),
            "name_in_use",
        ),
        (
            "add_room",
            json!({ "room": "kickoff", "seats": 2 }),
            "name_in_use",
        ),
        (
            "book",
            book("kickoff", "blue", "12:00", "13:00"),
            "name_in_use",
        ),
        (
            "book",
            book("review", "red", "12:00", "13:00"),
            "no_such_room",
        ),
        ("book", book("review", "blue", "10:59", "12:00"), "overlaps"),
        ("book", book("review", "blue", "08:30", "09:01"), "overlaps"),
        (
            "book",
            book("review", "blue", "07:00", "08:00"),
            "invalid_time",
        ),
        (
            "book",
            book("review", "blue", "12:00", "12:00"),
            "invalid_time",
        ),
        (
            "book",
            too_many(book("review", "blue", "12:00", "13:00")),
            "too_small",
        ),
        ("cancel", json!({ "booking": "review" }), "no_such_booking"),
        ("cancel", json!({ "booking": "blue" }), "no_such_booking"),
        ("cancel", json!({}), "invalid_data"),
        ("paint", json!({}), "unknown_command"),
    ] {
        booking().when(command, data).then_rejected(code);
    }
}

#[test]
fn a_room_forgets_bookings_that_are_over() {
    booking()
        .at(at("12:00"))
        .when("book", book("review", "blue", "13:00", "14:00"))
        .then_document(
            "blue",
            json!({ "room": { "seats": 8, "taken": [{
                "booking": "review",
                "from": "2099-06-01T13:00:00.000Z",
                "to": "2099-06-01T14:00:00.000Z",
                "at": "2099-06-01T12:00:00.000Z",
            }] } }),
        );
}

#[test]
fn the_views_show_rooms_and_their_bookings() {
    let booked = booking().when("book", book("review", "blue", "11:00", "12:00"));
    let rooms = view::<Rooms>().given(booked.entries());
    rooms.then_rows([("blue", json!({ "seats": 8, "bookings": 2 }))]);

    let cancelled = booked.when("cancel", json!({ "booking": "kickoff" }));
    let rooms = view::<Rooms>().given(cancelled.entries());
    rooms.then_rows([("blue", json!({ "seats": 8, "bookings": 1 }))]);
    let agenda = view::<Agenda>().given(cancelled.entries());
    agenda.then_rows([(
        "blue/2099-06-01T11:00:00.000Z",
        json!({ "booking": "review", "to": "2099-06-01T12:00:00.000Z", "seats": 4 }),
    )]);
}

#[test]
fn a_booking_that_version_1_stored_is_still_read() {
    let stored = json!({
        "room": "blue",
        "from": "2099-06-01T15:00:00.000Z",
        "to": "2099-06-01T16:00:00.000Z",
    });
    booking()
        .given_stored("old", "booked", 1, &stored)
        .when("cancel", json!({ "booking": "old" }))
        .then([
            (
                "blue",
                Event::Freed {
                    booking: name("old"),
                },
            ),
            (
                "old",
                Event::Cancelled {
                    room: name("blue"),
                    from: at("15:00"),
                },
            ),
        ]);
    view::<Agenda>()
        .beside::<Booking>()
        .given_stored("old", "booked", 1, &stored)
        .then_rows([(
            "blue/2099-06-01T15:00:00.000Z",
            json!({ "booking": "old", "to": "2099-06-01T16:00:00.000Z", "seats": 1 }),
        )]);
}
