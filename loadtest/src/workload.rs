//! The commands to send: of many organisations' users, from one seed.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;

use auditor::receipts::{Command, Digest, Sent};

/// Commands that open the accounts of an organisation.
pub(crate) const OPENINGS: usize = 3;
const ACCOUNTS: [&str; 2] = ["cash", "bank"];
/// The first deposit of every organisation, in minor units. No run withdraws more.
const BEGIN_WITH: i64 = 1_000_000_000_000;
/// More than any balance, so that its withdrawal is rejected.
const TOO_MUCH: i64 = i64::MAX;
/// The largest amount of a command, in minor units.
const AMOUNT_MAX: i64 = 1_000;
/// The separator behind the name of a run in its users' names. Names of runs cannot contain it, so
/// users of different runs have different prefixes.
pub(crate) const AFTER_NAME: char = '+';
/// The beginning of a memo, and the end of a request.
const MEMO: &[u8] = br#","memo":""#;
const END: &[u8] = b"}}";
/// The 64 letters of memos: six random bits choose one.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Letters from one random number of 64 bits.
const LETTERS_PER_NUMBER: usize = 10;
/// Commands that can be sent again. Far fewer than the 2,048 ids of a window, so that the target
/// recognises them.
const REMEMBERED_MAX: usize = 512;
/// Ids per millisecond of clients that number by the clock. The client's number keeps the ids of
/// several apart.
const IDS_PER_MS: u64 = 1_024;
/// Commands that are held back to be sent out of order.
const HELD_BACK_MAX: usize = 256;

#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The number of organisations: `<prefix>0`, `<prefix>1`, …
    pub(crate) tenants: u32,
    pub(crate) org_prefix: String,
    /// The exponent of Zipf's law, by which organisations are chosen; 0: uniformly.
    pub(crate) zipf: f64,
    pub(crate) users: u32,
    /// The number of clients of each user. Each numbers by the clock. 0: users name no client and
    /// number 1, 2, 3 …
    pub(crate) clients: u32,
    pub(crate) user_prefix: String,
    /// Bytes of each command; shorter ones are filled up with a memo.
    pub(crate) payload: usize,
    /// Share of commands that are sent again, whatever the answer was.
    pub(crate) duplicates: f64,
    /// Share of commands that have the id of another command.
    pub(crate) reused: f64,
    /// Share of commands with a lower id than their user has sent.
    pub(crate) out_of_order: f64,
    /// Share of commands that the ledger will reject.
    pub(crate) rejected: f64,
    pub(crate) transfers: f64,
    pub(crate) seed: u64,
}

/// A command of one user of one organisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClientCommand {
    tenant: u32,
    user: User,
    id: u64,
    action: Action,
}

/// A user, with its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum User {
    Opener,
    Number { thread: u16, user: u32, client: Option<u32> },
}

/// An origin in a log. Its commands are sent in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    tenant: u32,
    user: User,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Open(usize),
    Deposit(usize, i64),
    Withdraw(usize, i64),
    Transfer(usize, usize, i64),
}

/// The commands of one thread. Each thread has users of its own, so that threads need not agree on
/// ids.
pub(crate) struct Workload {
    spec: Spec,
    thread: u16,
    random: SmallRng,
    /// Chooses what is sent again. It is separate, so that it does not change the other choices.
    again: SmallRng,
    zipf: Zipf<f64>,
    /// The last id of every client of every user of every organisation.
    ids: Vec<u64>,
    /// The last commands, whether answered or not: so the answers do not change what is sent.
    sent: VecDeque<ClientCommand>,
    held_back: VecDeque<ClientCommand>,
}

impl Workload {
    pub(crate) fn new(spec: Spec, thread: u16) -> Self {
        let seed = spec.seed ^ (u64::from(thread) << 48);
        let (random, again) = (SmallRng::seed_from_u64(seed), SmallRng::seed_from_u64(!seed));
        let zipf = Zipf::new(f64::from(spec.tenants), spec.zipf).expect("the options were checked");
        let origins = spec.tenants as usize * spec.users as usize * spec.clients.max(1) as usize;
        let ids = vec![0; origins];
        let (sent, held_back) = (VecDeque::new(), VecDeque::new());
        Self { spec, thread, random, again, zipf, ids, sent, held_back }
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The commands that open the accounts of these organisations.
    pub(crate) fn openings(tenants: std::ops::Range<u32>) -> Vec<ClientCommand> {
        let of_one = |tenant| -> [ClientCommand; OPENINGS] {
            let command =
                move |id, action| ClientCommand { tenant, user: User::Opener, id, action };
            [
                command(1, Action::Open(0)),
                command(2, Action::Open(1)),
                command(3, Action::Deposit(0, BEGIN_WITH)),
            ]
        };
        tenants.flat_map(of_one).collect()
    }

    /// The next request of `batch` commands, each of a random organisation, or all of the same one.
    /// Repetitions and late commands may be of another.
    pub(crate) fn next_request(&mut self, batch: usize, of_one_tenant: bool) -> Vec<ClientCommand> {
        let one = of_one_tenant.then(|| self.tenant());
        (0..batch)
            .map(|_| {
                let tenant = one.unwrap_or_else(|| self.tenant());
                self.next(tenant)
            })
            .collect()
    }

    fn next(&mut self, tenant: u32) -> ClientCommand {
        if let Some(command) = self.repeated_command() {
            return command;
        }
        if let Some(command) = self.with_a_used_id() {
            return command;
        }
        let command = self.first_sent_command(tenant);
        if self.sent.len() == REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(command);
        command
    }

    fn repeated_command(&mut self) -> Option<ClientCommand> {
        let share = self.spec.duplicates;
        if share == 0.0 || self.sent.is_empty() || !self.again.random_bool(share) {
            return None;
        }
        Some(self.sent[self.again.random_range(0..self.sent.len())])
    }

    /// A different command with the id of one that was sent.
    fn with_a_used_id(&mut self) -> Option<ClientCommand> {
        let share = self.spec.reused;
        if share == 0.0 || self.sent.is_empty() || !self.again.random_bool(share) {
            return None;
        }
        let first = self.sent[self.again.random_range(0..self.sent.len())];
        let action = match first.action {
            Action::Deposit(to, amount) => Action::Deposit(to, amount + 1),
            _ => Action::Deposit(0, 1),
        };
        Some(ClientCommand { action, ..first })
    }

    fn first_sent_command(&mut self, tenant: u32) -> ClientCommand {
        if self.rolls(self.spec.out_of_order)
            && let Some(late) = self.held_back.pop_front()
        {
            return late;
        }
        let user = self.random.random_range(0..self.spec.users);
        // Without clients nothing is drawn, so that the other choices stay the same.
        let clients = Some(self.spec.clients).filter(|clients| *clients > 0);
        let client = clients.map(|clients| self.random.random_range(0..clients));
        let command = self.fresh(tenant, user, client);
        if self.rolls(self.spec.out_of_order) && self.held_back.len() < HELD_BACK_MAX {
            // The user goes on with the next id.
            self.held_back.push_back(command);
            return self.fresh(tenant, user, client);
        }
        command
    }

    fn fresh(&mut self, tenant: u32, user: u32, client: Option<u32>) -> ClientCommand {
        let (action, id) = (self.action(), self.next_id(tenant, user, client));
        ClientCommand {
            tenant,
            user: User::Number { thread: self.thread, user, client },
            id,
            action,
        }
    }

    fn action(&mut self) -> Action {
        let account = self.random.random_range(0..ACCOUNTS.len());
        let amount = self.random.random_range(1..=AMOUNT_MAX);
        if self.rolls(self.spec.rejected) {
            Action::Withdraw(account, TOO_MUCH)
        } else if self.rolls(self.spec.transfers) {
            Action::Transfer(0, 1, amount)
        } else if account == 0 && self.random.random() {
            // Only the first account has the money for it.
            Action::Withdraw(0, amount)
        } else {
            Action::Deposit(account, amount)
        }
    }

    fn next_id(&mut self, tenant: u32, user: u32, client: Option<u32>) -> u64 {
        let at = tenant as usize * self.spec.users as usize + user as usize;
        let Some(client) = client else {
            self.ids[at] += 1;
            return self.ids[at];
        };
        let last = &mut self.ids[at * self.spec.clients as usize + client as usize];
        *last = (*last + 1).max(now_ms() * IDS_PER_MS + u64::from(client) % IDS_PER_MS);
        *last
    }

    fn tenant(&mut self) -> u32 {
        // Zipf's numbers begin with 1.
        (self.random.sample(self.zipf) as u32).clamp(1, self.spec.tenants) - 1
    }

    /// A share of 0 draws nothing, so that the other choices stay the same.
    fn rolls(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

impl ClientCommand {
    pub(crate) fn origin(&self) -> Origin {
        Origin { tenant: self.tenant, user: self.user }
    }

    pub(crate) fn log(&self, spec: &Spec) -> String {
        format!("ledger/org:{}{}", spec.org_prefix, self.tenant)
    }

    pub(crate) fn is_of_log(&self, spec: &Spec, log: &str) -> bool {
        let org =
            log.strip_prefix("ledger/org:").and_then(|org| org.strip_prefix(&spec.org_prefix));
        org.and_then(|tenant| tenant.parse().ok()) == Some(self.tenant)
    }

    fn user(&self, spec: &Spec) -> String {
        match self.user {
            User::Opener => format!("{}opener", spec.user_prefix),
            User::Number { thread, user, .. } => format!("{}{thread}.{user}", spec.user_prefix),
        }
    }

    fn client(&self) -> Option<String> {
        match self.user {
            User::Number { client: Some(client), .. } => Some(format!("w{client}")),
            User::Opener | User::Number { client: None, .. } => None,
        }
    }

    /// The command as a file of receipts shows it.
    pub(crate) fn sent(&self, spec: &Spec) -> Sent {
        let account = |number: usize| ACCOUNTS[number].to_owned();
        let command = match self.action {
            Action::Open(of) => Command::Open { account: account(of) },
            Action::Deposit(to, amount) => Command::Deposit { account: account(to), amount },
            Action::Withdraw(from, amount) => Command::Withdraw { account: account(from), amount },
            Action::Transfer(from, to, amount) => {
                Command::Transfer { from: account(from), to: account(to), amount }
            }
        };
        let memo = self.memo(spec).map(|memo| Digest::of(&memo));
        let (log, user, client) = (self.log(spec), self.user(spec), self.client());
        Sent { log, user, client, id: self.id, command, memo }
    }

    /// The memo that fills the command up to its size, if there is room for one.
    fn memo(&self, spec: &Spec) -> Option<String> {
        if spec.payload == 0 || matches!(self.action, Action::Open(_)) {
            return None;
        }
        let mut plain = Vec::new();
        self.write_plain(spec, &mut plain);
        let least = plain.len() + MEMO.len() + 1 + END.len();
        let bytes = spec.payload.checked_sub(least).filter(|bytes| *bytes > 0)?;
        let whose = format!("{} {} {}", self.log(spec), self.user(spec), self.id);
        Some(letters(Digest::of(&whose).number(), bytes))
    }

    /// Appends the JSON of the request. No name has a character that JSON escapes.
    pub(crate) fn write_request(&self, spec: &Spec, out: &mut Vec<u8>) {
        self.write_plain(spec, out);
        if let Some(memo) = self.memo(spec) {
            out.extend_from_slice(MEMO);
            out.extend_from_slice(memo.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(END);
    }

    /// Appends the request without memo and end.
    fn write_plain(&self, spec: &Spec, out: &mut Vec<u8>) {
        let (org, tenant, id) = (&spec.org_prefix, self.tenant, self.id);
        let user = self.user(spec);
        let name = match self.action {
            Action::Open(_) => "open",
            Action::Deposit(..) => "deposit",
            Action::Withdraw(..) => "withdraw",
            Action::Transfer(..) => "transfer",
        };
        let mut write = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to memory never fails");
        };
        write(format_args!(
            r#"{{"type":"ledger","command":"{name}","id":{id},"user":"{user}","org":"{org}{tenant}","#
        ));
        if let Some(client) = self.client() {
            write(format_args!(r#""client":"{client}","#));
        }
        write(format_args!(r#""data":"#));
        match self.action {
            Action::Open(of) => {
                write(format_args!(r#"{{"account":"{}""#, ACCOUNTS[of]));
            }
            Action::Deposit(of, amount) | Action::Withdraw(of, amount) => {
                write(format_args!(r#"{{"account":"{}","amount":{amount}"#, ACCOUNTS[of]));
            }
            Action::Transfer(from, to, amount) => {
                let (from, to) = (ACCOUNTS[from], ACCOUNTS[to]);
                write(format_args!(r#"{{"from":"{from}","to":"{to}","amount":{amount}"#));
            }
        }
    }
}

/// Text that hardly compresses, and is the same for the same seed.
fn letters(seed: u64, count: usize) -> String {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut text = String::with_capacity(count + LETTERS_PER_NUMBER);
    while text.len() < count {
        let number: u64 = random.random();
        let letter = |at: usize| char::from(LETTERS[(number >> (6 * at)) as usize % LETTERS.len()]);
        text.extend((0..LETTERS_PER_NUMBER).map(letter));
    }
    text.truncate(count);
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;

    pub(crate) fn spec() -> Spec {
        Spec {
            tenants: 100,
            org_prefix: "load-".into(),
            zipf: 1.0,
            users: 3,
            clients: 0,
            user_prefix: "r7-".into(),
            payload: 0,
            duplicates: 0.0,
            reused: 0.0,
            out_of_order: 0.0,
            rejected: 0.0,
            transfers: 0.0,
            seed: 7,
        }
    }

    fn commands(spec: Spec, n: usize) -> Vec<ClientCommand> {
        let mut workload = Workload::new(spec, 0);
        let mut commands = Vec::new();
        for _ in 0..n {
            commands.extend(workload.next_request(1, false));
        }
        commands
    }

    fn share(of: usize, all: usize) -> f64 {
        of as f64 / all as f64
    }

    #[test]
    fn the_same_seed_gives_the_same_commands() {
        let mixed = || Spec { duplicates: 0.1, out_of_order: 0.1, rejected: 0.1, ..spec() };
        assert_eq!(commands(mixed(), 5_000), commands(mixed(), 5_000));
        assert_ne!(commands(mixed(), 5_000), commands(Spec { seed: 8, ..mixed() }, 5_000));
    }

    #[test]
    fn users_number_their_commands_from_one_on() {
        let mut last = HashMap::new();
        for command in commands(spec(), 10_000) {
            let sent = command.sent(&spec());
            let id = last.entry((sent.log, sent.user)).or_insert(0);
            *id += 1;
            assert_eq!(sent.id, *id);
        }
    }

    #[test]
    fn each_client_numbers_its_own_commands_by_the_clock() {
        let spec = Spec { clients: 4, ..spec() };
        let (before, mut last) = (now_ms() * IDS_PER_MS - 1, HashMap::new());
        let all = commands(spec.clone(), 5_000);
        let after = (now_ms() + 5_000) * IDS_PER_MS;
        for command in all {
            let sent = command.sent(&spec);
            let client = sent.client.expect("each is of a client");
            let last = last.entry((sent.log, sent.user, client)).or_insert(before);
            assert!((*last..after).contains(&sent.id) && *last < sent.id, "{}", sent.id);
            *last = sent.id;
        }
        assert!(last.len() > 400, "100 organisations, 3 users, 4 clients: {}", last.len());
    }

    #[test]
    fn ids_are_used_again_for_other_commands() {
        let spec = Spec { reused: 0.1, ..spec() };
        let mut first = HashMap::new();
        let all = commands(spec, 20_000);
        let again = all.iter().filter(|command| {
            let first = *first.entry((command.origin(), command.id)).or_insert(command.action);
            first != command.action
        });
        let again = share(again.count(), all.len());
        assert!((0.09..0.11).contains(&again), "{again}");
    }

    #[test]
    fn tenants_have_the_shares_of_zipfs_law() {
        let count = |zipf| {
            let mut per_tenant = [0; 100];
            commands(Spec { zipf, ..spec() }, 50_000)
                .iter()
                .for_each(|command| per_tenant[command.tenant as usize] += 1);
            per_tenant.map(|n| share(n, 50_000))
        };
        let (alike, zipf) = (count(0.0), count(1.0));
        assert!(alike.iter().all(|share| (0.008..0.012).contains(share)), "{alike:?}");
        // 1/H(100) = 0.193, and the tenth a tenth of that.
        assert!((0.18..0.205).contains(&zipf[0]) && (0.016..0.023).contains(&zipf[9]), "{zipf:?}");
    }

    #[test]
    fn commands_have_the_shares_of_the_options() {
        let mixed =
            Spec { duplicates: 0.1, out_of_order: 0.05, rejected: 0.2, transfers: 0.5, ..spec() };
        let all = commands(mixed, 50_000);
        let (mut seen, mut highest) = (HashSet::new(), HashMap::new());
        let (mut again, mut late) = (0, 0);
        for command in &all {
            let sent = command.sent(&spec());
            if !seen.insert((sent.log.clone(), sent.user.clone(), sent.id)) {
                again += 1;
                continue;
            }
            let highest = highest.entry((sent.log, sent.user)).or_insert(0);
            late += usize::from(sent.id < *highest);
            *highest = sent.id.max(*highest);
        }
        let of = |is: fn(&Action) -> bool| {
            share(all.iter().filter(|o| is(&o.action)).count(), all.len())
        };
        let rejected = of(|action| matches!(action, Action::Withdraw(_, TOO_MUCH)));
        let transfers = of(|action| matches!(action, Action::Transfer(..)));
        let (again, late) = (share(again, all.len()), share(late, all.len()));
        assert!((0.09..0.11).contains(&again), "sent again: {again}");
        assert!((0.04..0.055).contains(&late), "out of order: {late}");
        assert!((0.19..0.21).contains(&rejected), "rejected: {rejected}");
        assert!((0.38..0.42).contains(&transfers), "half of the others: {transfers}");
    }

    #[test]
    fn a_request_equals_the_command_in_its_receipt() {
        for payload in [0, 150, 1_000, 60_000] {
            let clients = u32::from(payload > 150);
            let spec = Spec { payload, clients, rejected: 0.1, transfers: 0.3, ..spec() };
            let openings = Workload::openings(0..2);
            for command in commands(spec.clone(), 200).iter().chain(&openings) {
                let mut body = Vec::new();
                command.write_request(&spec, &mut body);
                let request: Value = serde_json::from_slice(&body).expect("it is JSON");
                let sent = command.sent(&spec);
                assert_eq!(
                    format!("ledger/org:{}", request["org"].as_str().expect("org")),
                    sent.log
                );
                assert_eq!(
                    (&request["user"], &request["id"]),
                    (&sent.user.into(), &sent.id.into())
                );
                assert_eq!(request["client"].as_str(), sent.client.as_deref());
                let mut data = request["data"].clone();
                let memo = data.as_object_mut().expect("data").remove("memo");
                let command = serde_json::to_value(&sent.command).expect("a command is JSON");
                assert_eq!(data, command[request["command"].as_str().expect("command")]);
                let digest = memo.as_ref().map(|memo| Digest::of(memo.as_str().expect("a text")));
                assert_eq!(digest, sent.memo);
                if memo.is_some() {
                    assert_eq!(body.len(), payload);
                }
            }
        }
    }

    #[test]
    fn each_command_has_a_memo_of_its_own_that_does_not_compress() {
        let spec = Spec { payload: 2_000, ..spec() };
        let memos: HashSet<String> =
            commands(spec.clone(), 500).iter().filter_map(|command| command.memo(&spec)).collect();
        assert_eq!(memos.len(), 500, "all are different");
        let long = letters(7, 64_000);
        // Of each pair of letters there are about as many: 64,000 / 4,096 = 16, Poisson.
        let mut pairs = HashMap::new();
        long.as_bytes().windows(2).for_each(|pair| *pairs.entry(pair).or_insert(0) += 1);
        assert!(pairs.len() > 4_000 && pairs.values().all(|n| *n < 50), "{}", pairs.len());
        assert_eq!(letters(7, 64_000), long);
    }

    #[test]
    fn a_request_of_one_tenant_is_of_one_tenant() {
        let mut workload = Workload::new(spec(), 0);
        for _ in 0..100 {
            let request = workload.next_request(10, true);
            assert!(request.iter().all(|command| command.tenant == request[0].tenant));
        }
        let mixed: HashSet<_> =
            workload.next_request(100, false).iter().map(|o| o.tenant).collect();
        assert!(mixed.len() > 10);
    }
}
