//! The clients' commands: the ledger's, for a few organisations, in batches, with repeated ids,
//! invalid amounts and faults.

use fanfold::canary::Canary;
use fanfold::{
    Code, Context, DocumentId, Documents, Recorded, RowKey, Service, Services, View, Views,
};
use ledger::views::{Balances, Statement, Totals};
use ledger::{Event, Ledger};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::executor::World;

/// A deposit of this amount makes the view `fragile` panic.
const BREAKING_AMOUNT: i64 = 666;

/// The services of the simulated host.
pub fn services() -> Services {
    Services::new().with::<Ledger>().with::<Mine>().with::<Canary>()
}

/// The views of the simulated host.
pub fn views() -> Views {
    Views::new().with::<Balances>().with::<Statement>().with::<Totals>().with::<Fragile>()
}

/// A second service beside the ledger, with a command that makes `decide` panic.
pub struct Mine;

/// The commands of [`Mine`].
#[derive(Debug, Deserialize)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MineCommand {
    Dig,
    Explode,
}

/// The events of [`Mine`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MineEvent {
    Dug,
}

/// The rejection of [`Mine`], which rejects nothing.
#[derive(Debug, thiserror::Error)]
#[error("it never refuses")]
pub struct Never;

impl Code for Never {
    fn code(&self) -> &'static str {
        "never"
    }
}

impl Service for Mine {
    const NAME: &'static str = "mine";
    const DOCUMENT_VERSION: u32 = 2;
    const EVENTS: &'static [(&'static str, u32)] = &[("dug", 1)];
    type Command = MineCommand;
    type Event = MineEvent;
    type Document = u64;
    type Rejection = Never;

    fn documents(_: &MineCommand) -> Vec<DocumentId> {
        DocumentId::new("shaft").into_iter().collect()
    }

    fn init(_: &DocumentId) -> u64 {
        0
    }

    fn decide(
        _: &Documents<'_, u64>,
        command: &MineCommand,
        _: &Context,
    ) -> Result<Vec<(DocumentId, MineEvent)>, Never> {
        match command {
            MineCommand::Dig => {
                Ok(DocumentId::new("shaft").into_iter().map(|id| (id, MineEvent::Dug)).collect())
            }
            MineCommand::Explode => panic!("boom"),
        }
    }

    fn evolve(depth: &mut u64, _: &MineEvent) {
        *depth += 1;
    }
}

/// A view that panics on one amount.
pub struct Fragile;

impl View for Fragile {
    const NAME: &'static str = "fragile";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Ledger::NAME];
    const EVENTS: &'static [(&'static str, u32)] = &[("deposited", 1)];
    type Event = Event;
    type Row = u64;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        if entry.events().is_empty() {
            vec![]
        } else {
            RowKey::new("deposits").into_iter().collect()
        }
    }

    fn apply(row: Option<u64>, _: &RowKey, entry: &Recorded<Event>) -> Option<u64> {
        let mut deposits = row.unwrap_or_default();
        for (_, event) in entry.events() {
            match event {
                Event::Deposited(moved) if moved.amount == BREAKING_AMOUNT => panic!("{moved:?}"),
                _ => deposits += 1,
            }
        }
        Some(deposits)
    }
}

/// How one run's clients behave.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Number of organisations.
    pub orgs: u64,
    /// Users of each organisation.
    pub users: u64,
    /// Clients of each user with ids of their own; 0: all commands of a user share its ids.
    pub numbering: u64,
    /// Concurrent clients.
    pub clients: u64,
    /// Requests of each client.
    pub requests: u64,
    /// Most commands in a request.
    pub batch_max: u64,
    /// Bytes that lengthen names, so that the windows of many users leave the head.
    pub padding: usize,
    /// Bytes of each memo. Memos make journals grow fast enough for snapshots.
    pub memo: usize,
    /// Whether clients break the view `fragile`.
    pub breaks: bool,
}

impl Habits {
    /// Drawn from the seed.
    pub fn draw(world: &World) -> Self {
        let crowd = world.happens(60);
        Self {
            orgs: world.pick(1..4),
            users: if crowd { 250 } else { world.pick(1..5) },
            numbering: world.pick(0..3),
            clients: world.pick(1..5),
            // Only long runs replace the head many times.
            requests: match (crowd, world.happens(100)) {
                (_, true) => 300,
                (true, false) => 100,
                (false, false) => world.pick(5..50),
            },
            batch_max: world.pick(1..10),
            padding: if world.happens(300) { world.pick(40..90) as usize } else { 0 },
            memo: if world.happens(800) { world.pick(100..800) as usize } else { 0 },
            breaks: world.happens(200),
        }
    }

    /// A random command. `id` gives its id for an organisation and an origin.
    pub fn command(&self, world: &World, id: impl FnOnce(&str, &str) -> u64) -> Value {
        let pad = "x".repeat(self.padding);
        let org = format!("o{}", world.pick(0..self.orgs));
        let user = format!("u{}{pad}", world.pick(0..self.users));
        let account = |n: u64| format!("a{n}{pad}");
        let account = || account(world.pick(0..3));
        let client = match world.pick(0..self.numbering + 1) {
            0 => None,
            n => Some(format!("c{n}")),
        };
        let origin = client.as_ref().map_or_else(|| user.clone(), |c| format!("{user}/{c}"));
        let id = id(&org, &origin);
        let amount = || match world.pick(0..20) {
            0 => 0,
            1 => -5,
            2 if self.breaks => BREAKING_AMOUNT,
            _ => world.pick(1..100) as i64,
        };
        let memo = (self.memo > 0).then(|| "m".repeat(self.memo));
        let moved = || json!({"account": account(), "amount": amount(), "memo": memo});
        let (kind, command, data) = match world.pick(0..20) {
            0..4 => ("ledger", "open", json!({"account": account()})),
            4..11 => ("ledger", "deposit", moved()),
            11..15 => ("ledger", "withdraw", moved()),
            15..17 => {
                let (from, to) = (account(), account());
                let data = json!({"from": from, "to": to, "amount": amount(), "memo": memo});
                ("ledger", "transfer", data)
            }
            17 => ("ledger", "close", json!({"account": account()})),
            18 if world.happens(200) => ("mine", "explode", json!({})),
            _ => ("mine", "dig", json!({})),
        };
        json!({
            "type": kind, "command": command, "id": id, "user": user, "client": client, "org": org,
            "data": data,
        })
    }
}
