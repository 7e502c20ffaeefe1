//! The clients' commands for all simulated services: of a few organisations, in batches, with
//! repeated ids, invalid amounts, faults, and sizes above every limit.

use serde_json::{Value, json};

use crate::executor::World;
use crate::services::{BREAKING_AMOUNT, NOTES};

/// Most notes that a command writes, and most appends to each.
const NOTES_MAX: u64 = 4;
const TIMES_MAX: u64 = 6;
/// Bytes of an append, as a power of two: most are tiny, and some are above each limit.
const BYTES_LOG2: u64 = 10;
const BYTES_LARGE_LOG2: u64 = 17;
/// Bytes that lengthen a large command, as a power of two: sometimes above its limit.
const PADDING_LOG2: u64 = 17;

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
    /// How many of a thousand commands are for the service `notes`.
    pub notes: u64,
    /// How many of a thousand commands for `notes` are large.
    pub large: u64,
}

impl Habits {
    /// Draws the habits from the seed.
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
            notes: if world.happens(250) { 0 } else { world.pick(50..800) },
            large: if world.happens(700) { 0 } else { world.pick(1..50) },
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
            _ if world.happens(self.notes) => self.for_notes(world),
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
    fn for_notes(&self, world: &World) -> (&'static str, &'static str, Value) {
        let notes = || -> Vec<u64> {
            let from = world.pick(0..NOTES);
            (from..from + world.pick(1..NOTES_MAX)).map(|n| n % NOTES).collect()
        };
        let is_large = world.happens(self.large);
        let (command, data) = match world.pick(0..11) {
            0..6 => {
                let log2 = if is_large { BYTES_LARGE_LOG2 } else { BYTES_LOG2 };
                let bytes = (1 << world.pick(0..log2)) - 1;
                let mut data =
                    json!({"notes": notes(), "times": world.pick(1..TIMES_MAX), "bytes": bytes});
                if world.happens(self.large) {
                    data["padding"] = "p".repeat(1 << world.pick(0..PADDING_LOG2)).into();
                }
                ("write", data)
            }
            6..8 => ("clear", json!({"notes": notes(), "rewrite": world.happens(500)})),
            8 => ("nothing", json!({})),
            9 => ("follow", json!({"note": world.pick(0..NOTES), "steps": world.pick(0..7)})),
            _ => ("refuse", json!({"note": world.pick(0..NOTES)})),
        };
        ("notes", command, data)
    }
}
