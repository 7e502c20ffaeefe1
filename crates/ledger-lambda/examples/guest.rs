//! A view of another team: what each user of an organisation has deposited. It shares no code with
//! the ledger, only the event types that its API describes (`/openapi.json`). `cargo xtask e2e`
//! deploys it beside a running stack that does not know it.

use std::process::ExitCode;

use fanfold::{App, Recorded, RowKey, View};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// `deposits`: a row for each user that has deposited money, under the user's name.
struct Deposits;

/// The events of the ledger. All are listed, so that a reader can wait for the view.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Event {
    Opened,
    Closed,
    Deposited { amount: i64 },
    Withdrawn(IgnoredAny),
    Sent(IgnoredAny),
    Received(IgnoredAny),
}

/// What a user has deposited.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Deposited {
    /// In minor units.
    amount: i64,
    /// How often.
    times: u64,
}

impl View for Deposits {
    const NAME: &'static str = "deposits";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &["ledger"];
    const EVENTS: &'static [(&'static str, u32)] = &[
        ("opened", 1),
        ("closed", 1),
        ("deposited", 1),
        ("withdrawn", 1),
        ("sent", 1),
        ("received", 1),
    ];
    type Event = Event;
    type Row = Deposited;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        let deposits =
            entry.events().iter().any(|(_, event)| matches!(event, Event::Deposited { .. }));
        let user = deposits.then(|| RowKey::new(entry.origin.user_name()));
        user.into_iter().flatten().collect()
    }

    fn apply(row: Option<Deposited>, _: &RowKey, entry: &Recorded<Event>) -> Option<Deposited> {
        let mut row = row.unwrap_or_default();
        for (_, event) in entry.events() {
            if let Event::Deposited { amount } = event {
                row.amount += amount;
                row.times += 1;
            }
        }
        Some(row)
    }
}

fn main() -> ExitCode {
    fanfold_lambda::main(App::named("guest").view::<Deposits>().build())
}
