//! A fixed run of commands and reads, which writes receipts as the generator does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use auditor::http::Target;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(10);
const ACCOUNTS: [&str; 4] = ["cash", "cash-box", "debts", "rent"];
/// Commands in each of the logs.
const COMMANDS: usize = 250;
/// A reader reads after this many commands.
const READ_EVERY: usize = 20;
/// Commands of one user in the long log: more than the ids of a window.
const LONG: u64 = 2_200;

/// Sends commands, and writes down the answers.
pub(crate) struct Script<'a> {
    target: &'a Target,
    rng: SmallRng,
    lines: Vec<Value>,
    ids: BTreeMap<(String, String), u64>,
    clock_us: u64,
}

impl<'a> Script<'a> {
    /// Fills two logs with all kinds of commands.
    pub(crate) async fn short(target: &'a Target, seed: u64) -> Self {
        let mut script = Self::new(target, seed);
        for log in ["b", "a"] {
            script.drive(log).await;
        }
        script
    }

    fn new(target: &'a Target, seed: u64) -> Self {
        let lines = vec![json!({"run": {"format": 1, "users": "r-"}})];
        let rng = SmallRng::seed_from_u64(seed);
        Self { target, rng, lines, ids: BTreeMap::new(), clock_us: 0 }
    }

    /// Fills a log with more ids of one user than a window holds.
    pub(crate) async fn long(&mut self) {
        let log = "long";
        self.send(log, "r-9", 1_000, json!({"open": {"account": "cash"}}), Noted::Receipt).await;
        let ids: Vec<u64> = (1_001..1_001 + LONG).collect();
        for (at, ids) in ids.chunks(400).enumerate() {
            let deposit = json!({"deposit": {"account": "cash", "amount": 1}});
            let requests = ids.iter().map(|id| request(log, "r-9", *id, &deposit, None));
            let requests: Vec<Value> = requests.collect();
            // Batches are sent as arrays and as lines.
            let body = match at % 2 {
                0 => json!(requests).to_string(),
                _ => requests.iter().map(|request| format!("{request}\n")).collect(),
            };
            let answer = self.post("/commands", body).await;
            for (id, receipt) in ids.iter().zip(answer["results"].as_array().expect("results")) {
                self.note(receipt["seq"].as_u64(), log, "r-9", *id, &deposit);
            }
        }
        // Ids below the window: one that was never used, one that was; and one that is still in it.
        for id in [500, 1_010, 3_000] {
            let deposit = json!({"deposit": {"account": "cash", "amount": 1}});
            self.send(log, "r-9", id, deposit, Noted::Receipt).await;
        }
        self.read_views(log).await;
    }

    /// Fills a log whose users pause for days.
    pub(crate) async fn idle(&mut self) {
        let (log, day_ms) = ("idle", 86_400_000);
        let open = json!({"open": {"account": "cash"}});
        let deposit = json!({"deposit": {"account": "cash", "amount": 1}});
        self.send(log, "r-8/w1", 5, open.clone(), Noted::Receipt).await;
        for (days, id) in [(0, 6), (5, 5), (1, 6), (2, 6), (0, 4), (0, 7), (6, 7), (2, 9)] {
            self.post(&format!("/pass/org:{log}/{}", days * day_ms), String::new()).await;
            let command = if id == 5 { &open } else { &deposit };
            self.send(log, "r-8/w1", id, command.clone(), Noted::Receipt).await;
        }
        self.read_views(log).await;
    }

    async fn drive(&mut self, log: &str) {
        for at in 0..COMMANDS {
            let user = match self.rng.random_range(0..10) {
                // A client that the file does not name.
                0 | 1 => "zoe".to_owned(),
                // Clients of one user that use the same ids.
                n @ (2 | 3) => format!("r-7/w{n}"),
                n => format!("r-{}", n % 3),
            };
            let next = self.ids.entry((log.to_owned(), user.clone())).or_insert(1);
            let id = *next + u64::from(self.rng.random_range(0..5u8) == 0);
            *next = id + 1;
            let command = self.command(at);
            let noted = match self.rng.random_range(0..12) {
                _ if user == "zoe" => Noted::Never,
                0 => Noted::Unanswered,
                1 => Noted::Unsent,
                _ => Noted::Receipt,
            };
            self.send(log, &user, id, command.clone(), noted).await;
            if self.rng.random_range(0..10) == 0 && noted != Noted::Unsent {
                self.send(log, &user, id, command, noted).await;
            }
            if self.rng.random_range(0..10) == 0 && noted == Noted::Receipt {
                let another = json!({"deposit": {"account": "rent", "amount": 1_000 + at}});
                self.send(log, &user, id, another, noted).await;
            }
            if at % READ_EVERY == READ_EVERY - 1 {
                self.read_entry(log, (at as u64).min(10)).await;
                self.read_views(log).await;
            }
        }
    }

    fn command(&mut self, at: usize) -> Value {
        let mut account = || ACCOUNTS[self.rng.random_range(0..ACCOUNTS.len())];
        let (one, other) = (account(), account());
        if at < ACCOUNTS.len() {
            return json!({"open": {"account": ACCOUNTS[at]}});
        }
        let amount = self.rng.random_range(-5..100i64);
        match self.rng.random_range(0..14) {
            0 => json!({"open": {"account": one}}),
            1 => json!({"close": {"account": one}}),
            2 => json!({"open": {"account": "attic"}}),
            3 => json!({"close": {"account": "attic"}}),
            4..7 => json!({"withdraw": {"account": one, "amount": amount}}),
            7..10 => json!({"transfer": {"from": one, "to": other, "amount": amount}}),
            _ => json!({"deposit": {"account": one, "amount": amount}}),
        }
    }

    async fn send(&mut self, log: &str, user: &str, id: u64, command: Value, noted: Noted) {
        let has_amount =
            command.as_object().and_then(|c| c.values().next()?.get("amount")).is_some();
        let memo = (has_amount && id.is_multiple_of(3)).then(|| format!("the {id}th"));
        let (mut seq, mut is_refused) = (None, false);
        if noted != Noted::Unsent {
            let body = request(log, user, id, &command, memo.clone()).to_string();
            let receipt = self.post("/command", body).await;
            seq = receipt["seq"].as_u64().filter(|_| noted == Noted::Receipt);
            is_refused = receipt["status"] == 400;
        }
        if noted != Noted::Never {
            self.note(seq, log, user, id, &command);
        }
        let line = self.lines.last_mut().and_then(Value::as_object_mut).expect("there are lines");
        if let Some(memo) = memo
            && noted != Noted::Never
        {
            line.values_mut().for_each(|line| line["memo"] = json!(digest(&memo)));
        }
        if is_refused {
            let refused = line.remove("unanswered").expect("it has no receipt");
            line.insert("refused".to_owned(), refused);
        }
    }

    fn note(&mut self, seq: Option<u64>, log: &str, user: &str, id: u64, command: &Value) {
        let log = format!("ledger/org:{log}");
        let (user, client) = user.split_once('/').map_or((user, None), |(u, c)| (u, Some(c)));
        let mut sent = json!({"log": log, "user": user, "id": id, "command": command});
        if let Some(client) = client {
            sent["client"] = json!(client);
        }
        self.lines.push(match seq {
            Some(seq) => {
                sent["seq"] = json!(seq);
                json!({"receipt": sent})
            }
            None => json!({"unanswered": sent}),
        });
    }

    async fn read_entry(&mut self, log: &str, seq: u64) {
        let entry = self.get(&format!("/logs/ledger/org:{log}/{seq}?wait=1000")).await;
        let log = format!("ledger/org:{log}");
        self.lines.push(json!({"entry": {"log": log, "seq": seq, "entry": entry}}));
    }

    async fn read_views(&mut self, log: &str) {
        for (view, query) in
            [("balances", "limit=1000"), ("statement", "order=desc&limit=10"), ("totals", "")]
        {
            let page = self.get(&format!("/views/{view}/ledger/org:{log}?{query}")).await;
            if !page["rows"].is_array() {
                continue;
            }
            let began_us = self.clock_us + 10;
            self.clock_us = began_us + 10;
            self.lines.push(json!({"rows": {
                "view": view, "log": format!("ledger/org:{log}"), "seq": page["seq"],
                "began_us": began_us, "ended_us": self.clock_us, "rows": page["rows"],
            }}));
        }
    }

    async fn post(&self, path: &str, body: String) -> Value {
        let answer = self.target.post(path, Bytes::from(body), TIMEOUT).await.expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.target.get(path, TIMEOUT).await.expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Writes the file of receipts, with its end.
    pub(crate) fn write(&self, path: &Path) {
        let mut file = std::fs::File::create(path).expect("a file");
        for line in self.lines.iter().chain([&json!({"end": {}})]) {
            writeln!(file, "{line}").expect("it is written");
        }
    }
}

/// How the file shows a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Receipt,
    /// As sent without an answer.
    Unanswered,
    /// As sent without an answer, though it never arrived.
    Unsent,
    /// Not at all: another client sent it.
    Never,
}

/// FNV-1a, 64 bits.
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn request(log: &str, user: &str, id: u64, command: &Value, memo: Option<String>) -> Value {
    let (name, data) = command.as_object().and_then(|c| c.iter().next()).expect("a command");
    let mut data = data.clone();
    if let Some(memo) = memo {
        data["memo"] = json!(memo);
    }
    let (user, client) = user.split_once('/').map_or((user, None), |(u, c)| (u, Some(c)));
    let mut request = json!({"type": "ledger", "command": name, "id": id, "user": user, "org": log, "data": data});
    if let Some(client) = client {
        request["client"] = json!(client);
    }
    request
}
