//! One log of the fake target, with its planted fault.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::digest::digest;
use crate::plant::Plant;

mod rows;

/// Ids that a window holds.
const WINDOW_IDS: usize = 2_048;
/// The time in ms after which a window without a new id forgets its ids.
const WEEK_MS: u64 = 604_800_000;
/// Most faults happen once a log has this many entries.
const BEFORE: u64 = 6;
/// With [`Plant::Forgets`], a log with this many entries forgets further commands.
const FORGETS_AFTER: u64 = 30;

#[derive(Clone, Copy)]
struct Account {
    balance: i64,
    movements: u64,
    seq: u64,
}

#[derive(Default)]
struct Window {
    floor: u64,
    /// For each id the seq of its first entry, and the command with its data.
    seqs: BTreeMap<u64, (u64, Value)>,
    touched: u64,
}

/// An event: its type, its account, and the change of the balance.
type Change<'a> = (&'static str, &'a str, i64);

pub(crate) struct Log {
    name: String,
    plant: Option<Plant>,
    fired: bool,
    /// Whether pages were read: only auditors read pages.
    audited: bool,
    forgotten: u64,
    /// Milliseconds by which the clock was set forward.
    passed_ms: u64,
    grows: bool,
    views_read: u64,
    entries: Vec<Value>,
    windows: HashMap<String, Window>,
    accounts: BTreeMap<String, Account>,
    /// Each account before its last change.
    older: BTreeMap<String, Account>,
    lines: BTreeMap<String, Value>,
    balance: i128,
    movements: u64,
    rejected: u64,
    totals_seq: u64,
}

impl Log {
    pub(crate) fn new(name: &str, plant: Option<Plant>) -> Self {
        Self {
            name: name.to_owned(),
            plant,
            fired: false,
            audited: false,
            forgotten: 0,
            passed_ms: 0,
            grows: true,
            views_read: 0,
            entries: Vec::new(),
            windows: HashMap::new(),
            accounts: BTreeMap::new(),
            older: BTreeMap::new(),
            lines: BTreeMap::new(),
            balance: 0,
            movements: 0,
            rejected: 0,
            totals_seq: 0,
        }
    }

    fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Whether the fault happens now. It happens once, after [`BEFORE`] entries.
    fn fires(&mut self, plant: Plant) -> bool {
        let fires = self.has(plant) && !self.fired && self.tail() >= BEFORE;
        self.fired |= fires;
        fires
    }

    fn is_ledger(&self) -> bool {
        self.name.starts_with("ledger/")
    }

    pub(crate) fn tail(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn accepted(&self) -> u64 {
        match self.plant {
            Some(Plant::AcceptedAhead) => self.tail() + 3,
            Some(Plant::AcceptedBehind) => self.tail() - 1,
            _ => self.tail(),
        }
    }

    /// Sets the clock forward.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.passed_ms += ms;
    }

    fn time(&self, seq: u64) -> u64 {
        1_795_401_660_000 + self.passed_ms + seq * 7
    }

    /// Looks up an id. Returns the status, and the entry if it is 200.
    pub(crate) fn look_up(&self, origin: &str, id: u64) -> (u16, Option<Value>) {
        let window = self.windows.get(origin);
        let found = window.and_then(|window| window.seqs.get(&id));
        let of_another = u64::from(self.has(Plant::LookupOfAnother));
        match (found, window) {
            (Some(_), _) if self.has(Plant::LookupFindsNothing) => (404, None),
            (Some(_), _) if self.has(Plant::LookupRefused) => (400, None),
            (Some((seq, _)), _) => (200, self.entry(seq - of_another)),
            (None, Some(window)) if id <= window.floor => (410, None),
            _ if self.has(Plant::LookupInvents) => (200, self.entry(1)),
            _ => (404, None),
        }
    }

    /// Takes a command. Returns the seq of its receipt.
    pub(crate) fn take(&mut self, user: &str, id: u64, command: &str, data: &Value) -> u64 {
        if self.has(Plant::Forgets) && self.tail() >= FORGETS_AFTER {
            self.forgotten += 1;
            return self.tail() + self.forgotten;
        }
        if user.starts_with("r-") && self.fires(Plant::Invented) {
            self.append(user, 1_000_000, "open", &json!({"account": "invented"}));
        }
        if user.starts_with("r-") && self.fires(Plant::GivenUp) {
            let seq = self.tail() + 1;
            self.entries.push(json!({
                "log": self.name, "seq": seq, "status": "lost", "at": self.time(seq),
                "reason": "it was never read",
            }));
            return seq;
        }
        let known = self.windows.get(user).and_then(|window| window.seqs.get(&id));
        if let Some(seq) = known.map(|(seq, _)| *seq).filter(|_| user.starts_with("r-"))
            && self.fires(Plant::PromisedAgain)
        {
            return seq;
        }
        let seq = self.append(user, id, command, data);
        match self.fires(Plant::PromisedTwice) {
            true => seq - 1,
            false => seq,
        }
    }

    /// Whether the answer to the last command refuses it, although it was taken.
    pub(crate) fn is_refused_and_taken(&mut self, user: &str) -> bool {
        user.starts_with("r-") && self.fires(Plant::RefusedAndTaken)
    }

    /// Damages the memo, if that is planted.
    fn damage(&mut self, memo: &mut Value) {
        let Some(text) = memo.as_str() else { return };
        let (cut, swapped) = (text[1..].to_owned(), text.replace('h', "H"));
        if self.fires(Plant::MemoCut) {
            *memo = json!(cut);
        }
        if self.fires(Plant::MemoSwapped) {
            *memo = json!(swapped);
        }
        if self.fires(Plant::MemoLost) {
            *memo = Value::Null;
        }
    }

    fn append(&mut self, user: &str, id: u64, command: &str, data: &Value) -> u64 {
        let seq = self.tail() + 1;
        let earlier = if self.fires(Plant::TimeGoesBack) { 20 } else { 0 };
        let at = self.time(seq) - earlier;
        let (name, client) = user.split_once('/').map_or((user, None), |(u, c)| (u, Some(c)));
        let mut entry = json!({
            "log": self.name, "seq": seq, "user": name, "id": id, "at": at, "command": command,
        });
        if let Some(client) = client.filter(|_| !self.fires(Plant::ClientForgotten)) {
            entry["client"] = json!(client);
        }
        let mut data = data.clone();
        if user.starts_with("r-") && self.fires(Plant::DataChanged) {
            data["changed"] = json!(true);
        }
        let (status, more) = self.outcome(seq, at, user, id, command, &data);
        entry["status"] = json!(status);
        let is_decided = ["accepted", "rejected", "faulted"].contains(&status);
        if is_decided && more["of"].is_null() && !self.fires(Plant::NoDigest) {
            entry["digest"] = json!(digest(&data));
        }
        for (name, value) in more.as_object().into_iter().flatten() {
            entry[name] = value.clone();
        }
        if user.starts_with("r-") && self.fires(Plant::AnotherUser) {
            entry["user"] = json!("r-nobody");
        }
        if status == "rejected" && self.fires(Plant::RejectedWithEvents) {
            entry["events"] = json!([{"type": "opened", "document": "ghost", "data": {}}]);
        }
        if status == "accepted" && self.fires(Plant::AcceptedWithFirst) {
            entry["of"] = json!(1);
        }
        if (command == "open" || !self.is_ledger()) && self.fires(Plant::AnotherCommand) {
            entry["command"] = json!("close");
        }
        if self.fires(Plant::UnknownStatus) {
            entry["status"] = json!("pondered");
        }
        if self.fires(Plant::NoUser) {
            entry["user"] = Value::Null;
        }
        if self.fires(Plant::NoTime) {
            entry["at"] = Value::Null;
        }
        if self.fires(Plant::AnotherLog) {
            entry["log"] = json!("ledger/org:elsewhere");
        }
        self.entries.push(entry);
        seq
    }

    fn outcome(
        &mut self,
        seq: u64,
        at: u64,
        user: &str,
        id: u64,
        command: &str,
        data: &Value,
    ) -> (&'static str, Value) {
        let stale_is_decided = self.has(Plant::StaleIsDecided);
        let week_ms = match self.plant {
            Some(Plant::NeverIdle) => u64::MAX,
            Some(Plant::IdleTooSoon) => WEEK_MS / 2,
            _ => WEEK_MS,
        };
        let whose = match self.plant {
            // The clients of a user share its window.
            Some(Plant::ClientsMixed) => user.split('/').next().unwrap_or(user),
            _ => user,
        };
        let window = self.windows.entry(whose.to_owned()).or_default();
        if at.saturating_sub(window.touched) > week_ms {
            let highest = window.seqs.last_key_value().map_or(window.floor, |(id, _)| *id);
            window.floor = highest;
            window.seqs.clear();
        }
        let content = json!([command, data]);
        let known = window.seqs.get(&id).cloned();
        let is_another = known.as_ref().is_some_and(|(_, first)| *first != content);
        let known = known.map(|(seq, _)| seq);
        let stale = known.is_none() && id <= window.floor && !stale_is_decided;
        if known.is_none() && !stale {
            window.touched = at;
            window.seqs.insert(id, (seq, content));
            if window.seqs.len() > WINDOW_IDS {
                window.floor = window.seqs.pop_first().map_or(0, |(id, _)| id);
            }
        }
        match known {
            Some(of)
                if is_another && !self.fires(Plant::ReusedIsDuplicate)
                    || !is_another && user.starts_with("r-") && self.fires(Plant::SameIsReused) =>
            {
                let wrong = u64::from(self.fires(Plant::ReusedWrongFirst));
                self.rejected += 1;
                self.totals_seq = seq;
                let of = of - wrong;
                return ("rejected", json!({"code": "id_reused", "message": "another", "of": of}));
            }
            Some(of) if !self.fires(Plant::AcceptedTwice) => {
                let wrong = u64::from(self.fires(Plant::WrongFirst));
                return ("duplicate", json!({"of": of - wrong}));
            }
            _ if stale => return ("stale", json!({})),
            None if self.fires(Plant::NewIsDuplicate) => return ("duplicate", json!({"of": 1})),
            None if self.fires(Plant::NewIsStale) => return ("stale", json!({})),
            _ => {}
        }
        if self.fires(Plant::Faulted) {
            return ("faulted", json!({"message": "it panicked"}));
        }
        if !self.is_ledger() {
            return self.seated(command, data);
        }
        let mut data = data.clone();
        if command == "deposit" && self.fires(Plant::AmountChanged) {
            data["amount"] = json!(data["amount"].as_i64().unwrap_or(0) + 1);
        }
        match self.decide(user, command, &data) {
            Ok(changes) => {
                let mut memo = data["memo"].clone();
                if user.starts_with("r-") && !changes.is_empty() {
                    self.damage(&mut memo);
                }
                let events = self.apply(seq, at, user, &changes, &memo);
                ("accepted", json!({"events": events}))
            }
            Err(code) => {
                self.rejected += 1;
                self.totals_seq = seq;
                let code = if self.fires(Plant::WrongCode) { "too_large" } else { code };
                ("rejected", json!({"code": code, "message": "it cannot be"}))
            }
        }
    }

    /// The outcome of a command of `seats`.
    fn seated(&mut self, command: &str, data: &Value) -> (&'static str, Value) {
        let code = match data["refuse"].as_str() {
            Some(_) if self.fires(Plant::OverdrawnAccepted) => None,
            Some(_) if self.fires(Plant::WrongCode) => Some("too_large"),
            None if self.fires(Plant::FineRejected) => Some("full"),
            code => code,
        };
        match code {
            Some(code) => ("rejected", json!({"code": code, "message": "it cannot be"})),
            None => {
                let event = json!({"type": format!("{command}ed"), "document": "d", "data": data});
                ("accepted", json!({"events": [event]}))
            }
        }
    }

    fn decide<'a>(
        &mut self,
        user: &str,
        command: &str,
        data: &'a Value,
    ) -> Result<Vec<Change<'a>>, &'static str> {
        let name = |field: &str| data[field].as_str().ok_or("invalid_data");
        let held = |log: &Self, name: &str| {
            log.accounts.get(name).map(|account| account.balance).ok_or("no_such_account")
        };
        let amount = data["amount"].as_i64().unwrap_or(0);
        match command {
            "open" => {
                let account = name("account")?;
                match held(self, account) {
                    Ok(_) => Err("already_open"),
                    Err(_) => Ok(vec![("opened", account, 0)]),
                }
            }
            "close" => {
                let account = name("account")?;
                match held(self, account)? {
                    0 => Ok(vec![("closed", account, 0)]),
                    _ => Err("not_empty"),
                }
            }
            "deposit" => {
                let account = name("account")?;
                let balance = held(self, account)?;
                if amount <= 0 || balance.checked_add(amount).is_none() {
                    return Err("invalid_amount");
                }
                if self.fires(Plant::FineRejected) {
                    return Err("overdrawn");
                }
                Ok(vec![("deposited", account, amount)])
            }
            "withdraw" => {
                let account = name("account")?;
                let balance = held(self, account)?;
                match amount {
                    ..=0 => Err("invalid_amount"),
                    _ if amount > balance && !self.fires(Plant::OverdrawnAccepted) => {
                        Err("overdrawn")
                    }
                    _ => Ok(vec![("withdrawn", account, -amount)]),
                }
            }
            "transfer" => {
                let (from, to) = (name("from")?, name("to")?);
                let (source, target) = (held(self, from)?, held(self, to)?);
                match amount {
                    ..=0 => Err("invalid_amount"),
                    _ if amount > source => Err("overdrawn"),
                    _ if from == to => Ok(vec![]),
                    _ if target.checked_add(amount).is_none() => Err("invalid_amount"),
                    _ => {
                        let made = user == "zoe" && self.fires(Plant::MoneyMade);
                        Ok(vec![
                            ("sent", from, -amount),
                            ("received", to, amount + i64::from(made)),
                        ])
                    }
                }
            }
            _ => Err("unknown_command"),
        }
    }

    fn apply(
        &mut self,
        seq: u64,
        at: u64,
        user: &str,
        changes: &[Change<'_>],
        memo: &Value,
    ) -> Vec<Value> {
        let mut events = Vec::new();
        for (kind, name, change) in changes {
            self.totals_seq = seq;
            if let Some(account) = self.accounts.get(*name) {
                self.older.insert((*name).to_owned(), *account);
            }
            let mut event = json!({"type": kind, "document": name, "data": {}});
            match *kind {
                "opened" => {
                    let account = Account { balance: 0, movements: 0, seq };
                    self.accounts.insert((*name).to_owned(), account);
                }
                "closed" => drop(self.accounts.remove(*name)),
                _ => {
                    let wrong = i64::from(
                        *kind == "deposited" && user == "zoe" && self.fires(Plant::WrongSum),
                    );
                    let account = self.accounts.get_mut(*name).expect("the decision has found it");
                    let (balance, movements) =
                        (account.balance + change + wrong, account.movements + 1);
                    *account = Account { balance, movements, seq };
                    self.balance += i128::from(*change);
                    self.movements += 1;
                    event["data"] = json!({"amount": change.abs(), "balance": balance});
                    let mut line = json!({
                        "account": name, "kind": kind, "amount": change.abs(), "balance": balance,
                        "at": at,
                    });
                    if memo.is_string() {
                        event["data"]["memo"] = memo.clone();
                        line["memo"] = memo.clone();
                        if self.fires(Plant::LineMemo) {
                            line["memo"] = json!("something else");
                        }
                    }
                    if self.fires(Plant::LineTime) {
                        line["at"] = json!(at + 1);
                    }
                    let key = format!("{name}/{seq:020}");
                    let row = json!({"key": key, "seq": seq, "row": line});
                    if !self.fires(Plant::LineMissing) {
                        self.lines.insert(key, row);
                    }
                    if self.fires(Plant::LineExtra) {
                        let key = format!("{name}/{:020}", seq - 1);
                        let row = json!({"key": key, "seq": seq - 1, "row": line});
                        self.lines.insert(key, row);
                    }
                }
            }
            events.push(event);
        }
        events
    }

    pub(crate) fn entry(&self, seq: u64) -> Option<Value> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        let mut entry = self.entries.get(at)?.clone();
        if self.has(Plant::PagesDisagree) && self.audited {
            entry["at"] = json!(1);
        }
        Some(entry)
    }

    pub(crate) fn page(&mut self, from: u64, limit: u64) -> Value {
        self.audited = true;
        let tail = self.tail();
        let end = (from - 1 + limit).min(tail).max(from - 1);
        let mut entries: Vec<Value> =
            (from..=end).map(|seq| self.entries[seq as usize - 1].clone()).collect();
        for entry in &mut entries {
            if self.has(Plant::EntryChanges) && entry["seq"] == 10 {
                entry["at"] = json!(1);
            }
        }
        if self.has(Plant::Hole) {
            entries.retain(|entry| entry["seq"] != 7);
        }
        if self.has(Plant::EntryTwice) && from == 1 && entries.len() > 8 {
            entries[7] = entries[6].clone();
        }
        if self.has(Plant::EndsEarly) {
            entries.retain(|entry| entry["seq"].as_u64() < Some(100));
        }
        let next = (end < tail).then_some(end + 1).filter(|_| !self.has(Plant::NoNext));
        let log = if self.has(Plant::PageOfAnother) { "ledger/org:elsewhere" } else { &self.name };
        json!({
            "log": log, "accepted": self.accepted(), "tail": tail, "entries": entries,
            "next": next,
        })
    }

    /// Whether rows are returned before the view has reached the wanted seq.
    pub(crate) fn is_too_early(&self) -> bool {
        self.has(Plant::ViewTooEarly)
    }

    /// The `next` of a page of rows.
    pub(crate) fn next_row(&self, next: Option<Value>) -> Option<Value> {
        match self.has(Plant::RowsGoOnElsewhere) && self.audited {
            true => Some(json!("elsewhere")),
            false => next,
        }
    }

    /// The cursor of a view, and why it is parked.
    pub(crate) fn cursor(&mut self, view: &str) -> (u64, Value) {
        self.views_read += 1;
        let grows = match self.plant {
            Some(Plant::GrowsLater | Plant::ViewStuckGrows) => {
                self.audited && std::mem::take(&mut self.grows)
            }
            Some(Plant::GrowsForEver) => self.audited && view == "totals",
            _ => false,
        };
        if grows {
            let id = 1_000_000 + self.views_read;
            self.append("zoe", id, "deposit", &json!({"account": "cash", "amount": 1}));
        }
        let tail = self.tail();
        let parked = json!({"seq": 4, "reason": "planted", "at": 1});
        match self.plant {
            Some(Plant::ViewStuck | Plant::ViewStuckGrows)
                if ["balances", "holders"].contains(&view) =>
            {
                (tail.min(3), Value::Null)
            }
            Some(Plant::ViewStuckParked) if ["totals", "counts"].contains(&view) => {
                (tail.min(3), parked)
            }
            Some(Plant::ViewParked) if ["statement", "holders"].contains(&view) => (tail, parked),
            Some(Plant::ViewTooEarly) if self.audited => (tail - 30, Value::Null),
            Some(Plant::CursorBack) if !self.audited && self.views_read.is_multiple_of(4) => {
                (tail.saturating_sub(25), Value::Null)
            }
            Some(Plant::CursorAhead) if !self.audited => (tail + 1_000_000, Value::Null),
            Some(Plant::CursorAheadLater) if self.audited => (tail + 1, Value::Null),
            _ => (tail, Value::Null),
        }
    }
}
