//! Whether what a host says agrees with what its clients were told: over HTTP alone, with a ledger
//! of its own.

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::{Deed, Load, Sent, get};

/// What the logs hold, all together.
#[derive(Debug, Default)]
pub(crate) struct Audited {
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
    pub(crate) duplicates: usize,
    pub(crate) balance: i64,
}

/// Checks everything, once all that was accepted is processed.
pub(crate) fn audit(url: &str, load: &Load) -> Audited {
    let mut audited = Audited::default();
    let mut orgs: BTreeMap<&str, Vec<&Sent>> = BTreeMap::new();
    for sent in load.sent() {
        orgs.entry(&sent.org).or_default().push(sent);
    }
    for (org, sent) in orgs {
        audit_log(url, &format!("ledger/org:{org}"), &sent, &mut audited);
    }
    audited
}

fn audit_log(url: &str, log: &str, sent: &[&Sent], audited: &mut Audited) {
    let Some(entries) = entries(url, log) else {
        assert!(sent.iter().all(|sent| sent.seqs.is_empty()), "{log} is gone");
        return;
    };
    let by_id: HashMap<(&str, u64), &Sent> =
        sent.iter().map(|sent| ((sent.user.as_str(), sent.id), *sent)).collect();
    let mut first: HashMap<(&str, u64), u64> = HashMap::new();
    let mut ledger = Ledger::default();
    for (index, entry) in entries.iter().enumerate() {
        let seq = index as u64 + 1;
        assert_eq!(entry["seq"], seq, "F3: {log} has a hole");
        let id = (entry["user"].as_str().unwrap_or(""), entry["id"].as_u64().unwrap_or(0));
        let Some(sent) = by_id.get(&id) else { panic!("nobody sent {entry}") };
        let of = *first.entry((&sent.user, sent.id)).or_insert(seq);
        if of < seq {
            let found = (&entry["status"], &entry["of"]);
            assert_eq!(found, (&json!("duplicate"), &json!(of)), "F4: {entry}");
            audited.duplicates += 1;
            continue;
        }
        match ledger.apply(seq, &entry["at"], &sent.deed) {
            Ok(events) => {
                let expected = (&json!("accepted"), &json!(events));
                assert_eq!((&entry["status"], &entry["events"]), expected, "{entry}");
                audited.accepted += 1;
            }
            Err(code) => {
                let expected = (&json!("rejected"), &json!(code));
                assert_eq!((&entry["status"], &entry["code"]), expected, "{entry}");
                audited.rejected += 1;
            }
        }
    }
    for sent in sent {
        for seq in &sent.seqs {
            let entry = usize::try_from(*seq).ok().and_then(|seq| entries.get(seq - 1));
            let entry = entry.unwrap_or_else(|| panic!("F8: {sent:?} is not in {log}"));
            let id = (&entry["user"], &entry["id"]);
            assert_eq!(id, (&json!(sent.user), &json!(sent.id)), "F8: not {sent:?} is at {seq}");
        }
    }
    let tail = entries.len() as u64;
    for (view, expected) in ledger.views() {
        assert_eq!(rows(url, view, log, tail), expected, "F6: {view} of {log}");
    }
    audited.balance += ledger.accounts.values().map(|account| account.balance).sum::<i64>();
}

/// All entries of a log, once each command that was accepted has one; `None`: there is no such log.
fn entries(url: &str, log: &str) -> Option<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let from = entries.len() + 1;
        let (status, page) = get(&format!("{url}/logs/{log}?from={from}&limit=1000"));
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200, "{page}");
        entries.extend(page["entries"].as_array().expect("entries").iter().cloned());
        if page["next"].is_null() {
            if page["accepted"] == page["tail"] && page["tail"] == entries.len() {
                return Some(entries);
            }
            assert!(
                Instant::now() < deadline,
                "F1: {log} is at {}, {}",
                page["accepted"],
                page["tail"]
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// All rows of a view: `[key, seq, row]`.
fn rows(url: &str, view: &str, log: &str, tail: u64) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let query = format!("seq={tail}&wait=20000&limit=1000{after}");
        let (status, page) = get(&format!("{url}/views/{view}/{log}?{query}"));
        assert_eq!((status, &page["seq"]), (200, &json!(tail)), "F5: {view} of {log}: {page}");
        assert_eq!(page["parked"], Value::Null);
        let found = page["rows"].as_array().expect("rows").iter();
        rows.extend(found.map(|row| json!([row["key"], row["seq"], row["row"]])));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
            None => return rows,
        }
    }
}

/// The same rules as the service's, written again.
#[derive(Default)]
struct Ledger {
    accounts: BTreeMap<String, Account>,
    lines: BTreeMap<String, Value>,
    movements: u64,
    rejected: u64,
    last: u64,
}

#[derive(Clone, Copy, Default)]
struct Account {
    balance: i64,
    movements: u64,
    seq: u64,
}

impl Ledger {
    /// The events, or the code of the refusal.
    fn apply(&mut self, seq: u64, at: &Value, deed: &Deed) -> Result<Vec<Value>, &'static str> {
        let moves = match self.decide(deed) {
            Ok(moves) => moves,
            Err(code) => {
                (self.rejected, self.last) = (self.rejected + 1, seq);
                return Err(code);
            }
        };
        // Views are not shown what nothing came of.
        let is_shown = !moves.is_empty() || matches!(deed, Deed::Open(_));
        self.last = if is_shown { seq } else { self.last };
        if let Deed::Open(name) = deed {
            self.accounts.insert(name.clone(), Account { seq, ..Account::default() });
            return Ok(vec![json!({"type": "opened", "document": name, "data": {}})]);
        }
        let mut events = Vec::new();
        for (name, kind, change) in moves {
            let account = self.accounts.get_mut(name).expect("it was looked for");
            let movements = account.movements + 1;
            *account = Account { balance: account.balance + change, movements, seq };
            self.movements += 1;
            let (amount, balance) = (change.abs(), account.balance);
            let line = json!({
                "account": name, "kind": kind, "amount": amount, "balance": balance, "at": at,
            });
            let key = format!("{name}/{seq:020}");
            self.lines.insert(key.clone(), json!([key, seq, line]));
            let data = json!({"amount": amount, "balance": balance});
            events.push(json!({"type": kind, "document": name, "data": data}));
        }
        Ok(events)
    }

    fn decide<'a>(
        &self,
        deed: &'a Deed,
    ) -> Result<Vec<(&'a str, &'static str, i64)>, &'static str> {
        let balance =
            |name: &str| self.accounts.get(name).map(|a| a.balance).ok_or("no_such_account");
        let take = |balance: i64, amount: i64| match amount {
            ..=0 => Err("invalid_amount"),
            _ if amount > balance => Err("overdrawn"),
            _ => Ok(()),
        };
        match deed {
            Deed::Open(name) if balance(name).is_ok() => Err("already_open"),
            Deed::Open(_) => Ok(vec![]),
            Deed::Deposit(name, amount) => match (balance(name)?, *amount) {
                (_, ..=0) => Err("invalid_amount"),
                _ => Ok(vec![(name, "deposited", *amount)]),
            },
            Deed::Withdraw(name, amount) => {
                take(balance(name)?, *amount)?;
                Ok(vec![(name, "withdrawn", -amount)])
            }
            Deed::Transfer(from, to, amount) => {
                let source = balance(from)?;
                balance(to)?;
                take(source, *amount)?;
                match from == to {
                    true => Ok(vec![]),
                    false => Ok(vec![(from, "sent", -amount), (to, "received", *amount)]),
                }
            }
        }
    }

    /// The rows of each view.
    fn views(&self) -> [(&'static str, Vec<Value>); 3] {
        let balance = |(name, account): (&String, &Account)| {
            let row = json!({"balance": account.balance, "movements": account.movements});
            json!([name, account.seq, row])
        };
        let total = json!({
            "accounts": self.accounts.len(),
            "balance": self.accounts.values().map(|account| account.balance).sum::<i64>(),
            "movements": self.movements,
            "rejected": self.rejected,
        });
        [
            ("balances", self.accounts.iter().map(balance).collect()),
            ("statement", self.lines.values().cloned().collect()),
            ("totals", vec![json!(["total", self.last, total])]),
        ]
    }
}
