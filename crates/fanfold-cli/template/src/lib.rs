//! The service `booking`: the rooms of an organisation, and their bookings.
//!
//! A service declares its **commands**, the **events** that follow from them, the **refusals**, and the **documents**,
//! which are its state between two commands. [`decide`](Service::decide) makes events from a command and documents,
//! [`evolve`](Service::evolve) makes the next document from an event. Both are pure: there is no storage, no network and
//! no clock here, so the same code runs in a test, in one process and in a Lambda.
//!
//! The [`views`] fold the same events into the rows that people read.

use fanfold::entry::Raw;
use fanfold::{
    App, AppError, Code, Context, DocumentId, Documents, Example, Rfc3339, Service, Time, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod views;

use views::{Agenda, Rooms};

/// The service and its views, for any host.
pub fn app() -> Result<App, AppError> {
    let app = App::named("my-app").service::<Booking>();
    let app = app.view::<Rooms>().view::<Agenda>();
    app.example(Example {
        command: EXAMPLE,
        view: Rooms::NAME,
    })
    .build()
}

const EXAMPLE: &str = r#"{"type":"booking","command":"add_room","id":1,"user":"ann","org":"acme","data":{"room":"blue","seats":8}}"#;

/// The rooms of an organisation. Two bookings of a room never overlap.
pub struct Booking;

/// The commands. The data of a request must have exactly these fields.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(
    tag = "command",
    content = "data",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Command {
    AddRoom {
        room: DocumentId,
        seats: u32,
    },
    Book {
        /// The caller's name for the booking.
        booking: DocumentId,
        room: DocumentId,
        #[serde(with = "Rfc3339")]
        from: Time,
        #[serde(with = "Rfc3339")]
        to: Time,
        seats: u32,
    },
    Cancel {
        booking: DocumentId,
    },
}

/// The events. Each changes one document: a room or a booking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// Of a room: it can be booked from now on.
    RoomAdded { seats: u32 },
    /// Of a room: a booking has taken it for a time.
    Taken(Taken),
    /// Of a room: a booking was cancelled.
    Freed { booking: DocumentId },
    /// Of a booking: it was made.
    Booked(Booked),
    /// Of a booking: it was cancelled. Its name can be used again.
    Cancelled {
        room: DocumentId,
        #[serde(with = "Rfc3339")]
        from: Time,
    },
}

/// The time that a booking takes of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    pub booking: DocumentId,
    #[serde(with = "Rfc3339")]
    pub from: Time,
    #[serde(with = "Rfc3339")]
    pub to: Time,
    /// When the command was accepted.
    #[serde(with = "Rfc3339")]
    pub at: Time,
}

/// A booking, whole, so that a view needs no other event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Booked {
    pub room: DocumentId,
    #[serde(with = "Rfc3339")]
    pub from: Time,
    #[serde(with = "Rfc3339")]
    pub to: Time,
    /// Since version 2 of `booked`: see [`Booking::upcast`].
    pub seats: u32,
}

/// Why a command is refused. Clients see the code and the message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the name `{name}` is in use")]
    NameInUse { name: DocumentId },
    #[error("there is no room `{room}`")]
    NoSuchRoom { room: DocumentId },
    #[error("there is no booking `{booking}`")]
    NoSuchBooking { booking: DocumentId },
    #[error("a booking must begin in the future, and end after that")]
    InvalidTime,
    #[error("the room has {seats} seats")]
    TooSmall { seats: u32 },
    #[error("the booking `{booking}` has the room from {from} to {to}")]
    Overlaps {
        booking: DocumentId,
        from: Time,
        to: Time,
    },
}

impl Code for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::NameInUse { .. } => "name_in_use",
            Self::NoSuchRoom { .. } => "no_such_room",
            Self::NoSuchBooking { .. } => "no_such_booking",
            Self::InvalidTime => "invalid_time",
            Self::TooSmall { .. } => "too_small",
            Self::Overlaps { .. } => "overlaps",
        }
    }
}

/// What decisions need to know of a name. Rooms and bookings share their names, since both are documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    Unused,
    /// `taken` holds the bookings that were not over when the last one was made.
    Room {
        seats: u32,
        taken: Vec<Taken>,
    },
    Booking {
        room: DocumentId,
        from: Time,
    },
}

impl Service for Booking {
    const NAME: &'static str = "booking";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[
        ("room_added", 1),
        ("taken", 1),
        ("freed", 1),
        ("booked", 2),
        ("cancelled", 1),
    ];
    type Command = Command;
    type Event = Event;
    type Document = Document;
    type Rejection = Refusal;

    fn documents(command: &Command) -> Vec<DocumentId> {
        match command {
            Command::AddRoom { room, .. } => vec![room.clone()],
            Command::Book { booking, room, .. } => vec![booking.clone(), room.clone()],
            Command::Cancel { booking } => vec![booking.clone()],
        }
    }

    /// A command that cancels a booking does not name the room. The booking does.
    fn more(command: &Command, documents: &Documents<'_, Document>) -> Vec<DocumentId> {
        match command {
            Command::Cancel { booking } => match &documents[booking] {
                Document::Booking { room, .. } => vec![room.clone()],
                Document::Unused | Document::Room { .. } => vec![],
            },
            Command::AddRoom { .. } | Command::Book { .. } => vec![],
        }
    }

    fn init(_: &DocumentId) -> Document {
        Document::Unused
    }

    fn decide(
        documents: &Documents<'_, Document>,
        command: &Command,
        context: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Refusal> {
        match command {
            Command::AddRoom { room, seats } => {
                must_be_unused(documents, room)?;
                Ok(vec![(room.clone(), Event::RoomAdded { seats: *seats })])
            }
            Command::Book {
                booking,
                room,
                from,
                to,
                seats,
            } => {
                must_be_unused(documents, booking)?;
                let taken = Taken {
                    booking: booking.clone(),
                    from: *from,
                    to: *to,
                    at: context.time,
                };
                must_fit(&documents[room], room, *seats, &taken)?;
                let booked = Booked {
                    room: room.clone(),
                    from: *from,
                    to: *to,
                    seats: *seats,
                };
                // One decision changes two documents: both or none.
                Ok(vec![
                    (room.clone(), Event::Taken(taken)),
                    (booking.clone(), Event::Booked(booked)),
                ])
            }
            Command::Cancel { booking } => {
                let Document::Booking { room, from } = &documents[booking] else {
                    return Err(Refusal::NoSuchBooking {
                        booking: booking.clone(),
                    });
                };
                let freed = Event::Freed {
                    booking: booking.clone(),
                };
                let cancelled = Event::Cancelled {
                    room: room.clone(),
                    from: *from,
                };
                Ok(vec![(room.clone(), freed), (booking.clone(), cancelled)])
            }
        }
    }

    fn evolve(document: &mut Document, event: &Event) {
        match (document, event) {
            (document, Event::RoomAdded { seats }) => {
                *document = Document::Room {
                    seats: *seats,
                    taken: vec![],
                };
            }
            (Document::Room { taken, .. }, Event::Taken(new)) => {
                // A new booking begins in the future, so it cannot overlap one that is over. Without
                // this, the document would grow for as long as the room is used.
                taken.retain(|earlier| earlier.to > new.at);
                taken.push(new.clone());
            }
            (Document::Room { taken, .. }, Event::Freed { booking }) => {
                taken.retain(|earlier| earlier.booking != *booking);
            }
            (document, Event::Booked(Booked { room, from, .. })) => {
                *document = Document::Booking {
                    room: room.clone(),
                    from: *from,
                };
            }
            (document, Event::Cancelled { .. }) => *document = Document::Unused,
            // Only rooms are taken and freed.
            (_, Event::Taken(_) | Event::Freed { .. }) => {}
        }
    }

    /// Version 1 of `booked` had no `seats`: a booking was for one person. Stored events are never changed. Services and
    /// views see each of them as its current version.
    fn upcast(kind: &str, from: u32, data: Raw) -> Raw {
        match (kind, from) {
            ("booked", 1) => data.change(|fields| {
                fields.insert("seats".to_owned(), Raw::of(&1));
            }),
            _ => data,
        }
    }
}

fn must_be_unused(documents: &Documents<'_, Document>, name: &DocumentId) -> Result<(), Refusal> {
    match documents[name] {
        Document::Unused => Ok(()),
        Document::Room { .. } | Document::Booking { .. } => {
            Err(Refusal::NameInUse { name: name.clone() })
        }
    }
}

fn must_fit(
    document: &Document,
    room: &DocumentId,
    wanted: u32,
    new: &Taken,
) -> Result<(), Refusal> {
    let Document::Room { seats, taken } = document else {
        return Err(Refusal::NoSuchRoom { room: room.clone() });
    };
    if new.from < new.at || new.to <= new.from {
        return Err(Refusal::InvalidTime);
    }
    if wanted > *seats {
        return Err(Refusal::TooSmall { seats: *seats });
    }
    let overlaps = |earlier: &&Taken| earlier.from < new.to && new.from < earlier.to;
    match taken.iter().find(overlaps) {
        Some(earlier) => Err(Refusal::Overlaps {
            booking: earlier.booking.clone(),
            from: earlier.from,
            to: earlier.to,
        }),
        None => Ok(()),
    }
}
