//! The read models, folded from the log's entries.
//!
//! A view defines which [rows](View::rows) an entry touches, and the [new state](View::apply) of each. Both views list
//! every event type of the service, so a reader can wait until a view shows a command.

use fanfold::{DocumentId, Recorded, RowKey, Service, Time, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Booked, Booking, Event};

/// `rooms`: a row per room, under its name.
pub struct Rooms;

/// A room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Room {
    pub seats: u32,
    /// The number of its bookings, without those that were cancelled.
    pub bookings: u64,
}

impl View for Rooms {
    const NAME: &'static str = "rooms";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Booking::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Booking::EVENTS;
    type Event = Event;
    type Row = Room;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        let of_rooms = entry.events().iter().filter(|(_, event)| match event {
            Event::RoomAdded { .. } | Event::Taken(_) | Event::Freed { .. } => true,
            Event::Booked(_) | Event::Cancelled { .. } => false,
        });
        of_rooms.map(|(room, _)| room.into()).collect()
    }

    fn apply(row: Option<Room>, key: &RowKey, entry: &Recorded<Event>) -> Option<Room> {
        let of_row = entry
            .events()
            .iter()
            .filter(|(room, _)| RowKey::from(room) == *key);
        of_row.fold(row, |row, (_, event)| match (event, row) {
            (Event::RoomAdded { seats }, _) => Some(Room {
                seats: *seats,
                bookings: 0,
            }),
            (Event::Taken(_), Some(room)) => Some(Room {
                bookings: room.bookings + 1,
                ..room
            }),
            (Event::Freed { .. }, Some(room)) => Some(Room {
                bookings: room.bookings - 1,
                ..room
            }),
            (_, row) => row,
        })
    }
}

/// `agenda`: a row per booking, under `<room>/<from>`. Rows are sorted by their keys, so a range of keys is the agenda of a
/// room in the order of time, and the prefix `blue/2099-06-01` is its agenda of one day.
pub struct Agenda;

/// A booking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Appointment {
    pub booking: DocumentId,
    #[serde(with = "fanfold::Rfc3339")]
    pub to: Time,
    pub seats: u32,
}

impl View for Agenda {
    const NAME: &'static str = "agenda";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Booking::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Booking::EVENTS;
    type Event = Event;
    type Row = Appointment;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        let of_bookings = entry.events().iter().filter_map(|(_, event)| match event {
            Event::Booked(Booked { room, from, .. }) | Event::Cancelled { room, from } => {
                Some(agenda_key(room, *from))
            }
            Event::RoomAdded { .. } | Event::Taken(_) | Event::Freed { .. } => None,
        });
        of_bookings.collect()
    }

    fn apply(row: Option<Appointment>, _: &RowKey, entry: &Recorded<Event>) -> Option<Appointment> {
        // A command books or cancels one booking, so all of these events are of this row.
        entry
            .events()
            .iter()
            .fold(row, |row, (booking, event)| match event {
                Event::Booked(booked) => Some(Appointment {
                    booking: booking.clone(),
                    to: booked.to,
                    seats: booked.seats,
                }),
                Event::Cancelled { .. } => None,
                Event::RoomAdded { .. } | Event::Taken(_) | Event::Freed { .. } => row,
            })
    }
}

fn agenda_key(room: &DocumentId, from: Time) -> RowKey {
    RowKey::from(room).join(from)
}
