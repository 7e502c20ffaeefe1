//! The commands to send: of many organisations' users, from one seed.
//!
//! Users, ids, repetitions and late commands are the same for every service. What the commands ask
//! for comes from the [`ledger`], or from a workload [`file`].

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;

use auditor::receipts::{Command, Digest, LEDGER, Sent, ledger_views};

mod described;
mod file;
#[cfg(test)]
mod file_tests;
mod ledger;
mod names;
mod program;
mod source;
mod template;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use described::check as check_with_description;
pub use file::Partition;
use ledger::Action;
pub(crate) use program::Program;
use program::Rendered;
pub(crate) use program::WorkloadError;
use source::{Drawn, FileSource};

/// The separator behind the name of a run in its users' names. Names of runs cannot contain it, so
/// users of different runs have different prefixes.
pub(crate) const AFTER_NAME: char = '+';
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
    /// The workload file; `None`: the commands are the ledger's.
    pub(crate) program: Option<Arc<Program>>,
    /// The number of threads, each with users of its own.
    pub(crate) threads: u16,
    /// The number of tenants. Organisations are `<prefix>0`, `<prefix>1`, …
    pub(crate) tenants: u32,
    pub(crate) org_prefix: String,
    /// The exponent of Zipf's law, by which tenants are chosen; 0: uniformly.
    pub(crate) zipf: f64,
    pub(crate) users: u32,
    /// The number of clients of each user. Each numbers by the clock. 0: users number 1, 2, 3 …
    pub(crate) clients: u32,
    pub(crate) user_prefix: String,
    /// Bytes of each command of the ledger; shorter ones are filled up with a memo.
    pub(crate) payload: usize,
    /// Share of commands that are sent again, whatever the answer was.
    pub(crate) duplicates: f64,
    /// Share of commands that have the id of another command.
    pub(crate) reused: f64,
    /// Share of commands with a lower id than their user has sent.
    pub(crate) out_of_order: f64,
    /// Share of the ledger's commands that it will reject.
    pub(crate) rejected: f64,
    pub(crate) transfers: f64,
    pub(crate) seed: u64,
}

impl Spec {
    /// The service of all commands.
    pub(crate) fn service(&self) -> &str {
        self.program.as_ref().map_or(LEDGER, |program| &program.service)
    }

    /// What a tenant is.
    pub(crate) fn partition(&self) -> Partition {
        self.program.as_ref().map_or(Partition::Org, |program| program.partition)
    }

    /// The views that are sampled and audited.
    pub(crate) fn views(&self) -> Vec<String> {
        self.program.as_ref().map_or_else(ledger_views, |program| program.views.clone())
    }

    /// The number of commands that set a tenant up.
    pub(crate) fn openings(&self) -> usize {
        self.program.as_ref().map_or(ledger::OPENINGS.len(), |program| program.setup_len())
    }

    /// The name of the run, without its separator.
    fn run(&self) -> &str {
        self.user_prefix.trim_end_matches(AFTER_NAME)
    }

    /// What begins the log of each tenant.
    fn log_prefix(&self) -> (&str, &str, &str) {
        match self.partition() {
            Partition::Org => (self.service(), "org:", &self.org_prefix),
            Partition::User => (self.service(), "user:", &self.user_prefix),
        }
    }
}

/// A command of one user of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClientCommand {
    origin: Origin,
    id: u64,
    content: Content,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Ledger(Action),
    Rendered(Arc<Rendered>),
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

/// Where the commands of a thread come from.
enum Source {
    Ledger,
    File(Box<FileSource>),
}

impl Source {
    fn of(spec: &Spec, thread: u16) -> Self {
        let Some(program) = &spec.program else { return Self::Ledger };
        let drawn = Drawn {
            seed: spec.seed,
            run: spec.run(),
            thread,
            threads: spec.threads,
            tenants: spec.tenants,
        };
        Self::File(Box::new(FileSource::new(Arc::clone(program), &drawn)))
    }

    fn next(
        &mut self,
        spec: &Spec,
        random: &mut SmallRng,
        tenant: u32,
    ) -> Result<Content, WorkloadError> {
        Ok(match self {
            Self::Ledger => Content::Ledger(Action::draw(spec, random)),
            Self::File(file) => Content::Rendered(file.next(tenant)?),
        })
    }

    /// One that differs from `first`, if there is one.
    fn another(&mut self, tenant: u32, first: &Content) -> Result<Option<Content>, WorkloadError> {
        Ok(match (self, first) {
            (Self::File(file), Content::Rendered(first)) => {
                file.another(tenant, first)?.map(Content::Rendered)
            }
            (_, Content::Ledger(first)) => Some(Content::Ledger(first.another())),
            (Self::Ledger, Content::Rendered(_)) => None,
        })
    }
}

/// The commands of one thread. Each thread has users of its own, so that threads need not agree on
/// ids.
pub(crate) struct Workload {
    spec: Spec,
    thread: u16,
    source: Source,
    random: SmallRng,
    /// Chooses what is sent again. It is separate, so that it does not change the other choices.
    again: SmallRng,
    zipf: Zipf<f64>,
    /// The last id of every client of every user of every tenant.
    ids: Vec<u64>,
    /// The last commands, whether answered or not: so the answers do not change what is sent.
    sent: VecDeque<ClientCommand>,
    held_back: VecDeque<ClientCommand>,
}

/// The commands that set tenants up.
pub(crate) struct Openings {
    source: Source,
}

impl Openings {
    pub(crate) fn new(spec: &Spec) -> Self {
        Self { source: Source::of(spec, 0) }
    }

    /// The commands that set these tenants up: each tenant's in order.
    pub(crate) fn of(
        &self,
        tenants: std::ops::Range<u32>,
    ) -> Result<Vec<ClientCommand>, WorkloadError> {
        let mut commands = Vec::new();
        for tenant in tenants {
            let contents: Vec<Content> = match &self.source {
                Source::Ledger => ledger::OPENINGS.map(Content::Ledger).into(),
                Source::File(file) => {
                    file.setup(tenant)?.into_iter().map(Content::Rendered).collect()
                }
            };
            let origin = Origin { tenant, user: User::Opener };
            let command = |(id, content)| ClientCommand { origin, id, content };
            commands.extend((1..).zip(contents).map(command));
        }
        Ok(commands)
    }
}

impl Workload {
    pub(crate) fn new(spec: Spec, thread: u16) -> Self {
        let seed = spec.seed ^ (u64::from(thread) << 48);
        let (random, again) = (SmallRng::seed_from_u64(seed), SmallRng::seed_from_u64(!seed));
        let zipf = Zipf::new(f64::from(spec.tenants), spec.zipf).expect("the options were checked");
        let origins = spec.tenants as usize * spec.users as usize * spec.clients.max(1) as usize;
        let (source, ids) = (Source::of(&spec, thread), vec![0; origins]);
        let (sent, held_back) = (VecDeque::new(), VecDeque::new());
        Self { spec, thread, source, random, again, zipf, ids, sent, held_back }
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The next request of `batch` commands, each of a random tenant, or all of the same one.
    /// Repetitions and late commands may be of another. Fails if the data of a workload file cannot
    /// be rendered.
    pub(crate) fn next_request(
        &mut self,
        batch: usize,
        of_one_tenant: bool,
    ) -> Result<Vec<ClientCommand>, WorkloadError> {
        let one = of_one_tenant.then(|| self.tenant());
        (0..batch)
            .map(|_| {
                let tenant = one.unwrap_or_else(|| self.tenant());
                self.next(tenant)
            })
            .collect()
    }

    fn next(&mut self, tenant: u32) -> Result<ClientCommand, WorkloadError> {
        if let Some(command) = self.repeated_command() {
            return Ok(command);
        }
        if let Some(command) = self.with_a_used_id()? {
            return Ok(command);
        }
        let command = self.first_sent_command(tenant)?;
        if self.sent.len() == REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(command.clone());
        Ok(command)
    }

    fn repeated_command(&mut self) -> Option<ClientCommand> {
        let share = self.spec.duplicates;
        if share == 0.0 || self.sent.is_empty() || !self.again.random_bool(share) {
            return None;
        }
        Some(self.sent[self.again.random_range(0..self.sent.len())].clone())
    }

    /// A different command with the id of one that was sent.
    fn with_a_used_id(&mut self) -> Result<Option<ClientCommand>, WorkloadError> {
        let share = self.spec.reused;
        if share == 0.0 || self.sent.is_empty() || !self.again.random_bool(share) {
            return Ok(None);
        }
        let ClientCommand { origin, id, content } =
            &self.sent[self.again.random_range(0..self.sent.len())];
        let (origin, id) = (*origin, *id);
        let another = self.source.another(origin.tenant, content)?;
        Ok(another.map(|content| ClientCommand { origin, id, content }))
    }

    fn first_sent_command(&mut self, tenant: u32) -> Result<ClientCommand, WorkloadError> {
        if rolls(&mut self.random, self.spec.out_of_order)
            && let Some(late) = self.held_back.pop_front()
        {
            return Ok(late);
        }
        let user = self.random.random_range(0..self.spec.users);
        // Without clients nothing is drawn, so that the other choices stay the same.
        let clients = Some(self.spec.clients).filter(|clients| *clients > 0);
        let client = clients.map(|clients| self.random.random_range(0..clients));
        let command = self.fresh(tenant, user, client)?;
        if rolls(&mut self.random, self.spec.out_of_order) && self.held_back.len() < HELD_BACK_MAX {
            // The user goes on with the next id.
            self.held_back.push_back(command);
            return self.fresh(tenant, user, client);
        }
        Ok(command)
    }

    fn fresh(
        &mut self,
        tenant: u32,
        user: u32,
        client: Option<u32>,
    ) -> Result<ClientCommand, WorkloadError> {
        let content = self.source.next(&self.spec, &mut self.random, tenant)?;
        let id = self.next_id(tenant, user, client);
        let user = User::Number { thread: self.thread, user, client };
        Ok(ClientCommand { origin: Origin { tenant, user }, id, content })
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
}

/// A share of 0 draws nothing, so that the other choices stay the same.
fn rolls(random: &mut SmallRng, share: f64) -> bool {
    share > 0.0 && random.random_bool(share)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

impl Origin {
    fn log(&self, spec: &Spec) -> String {
        let (service, kind, prefix) = spec.log_prefix();
        format!("{service}/{kind}{prefix}{}", self.tenant)
    }

    fn user(&self, spec: &Spec) -> String {
        let prefix = &spec.user_prefix;
        match (spec.partition(), self.user) {
            (Partition::User, _) => format!("{prefix}{}", self.tenant),
            (Partition::Org, User::Opener) => format!("{prefix}opener"),
            (Partition::Org, User::Number { thread, user, .. }) => {
                format!("{prefix}{thread}.{user}")
            }
        }
    }

    /// If a tenant is a user, its origins are clients of this user.
    fn client(&self, spec: &Spec) -> Option<String> {
        match (spec.partition(), self.user) {
            (Partition::Org, User::Opener | User::Number { client: None, .. }) => None,
            (Partition::Org, User::Number { client: Some(client), .. }) => {
                Some(format!("w{client}"))
            }
            (Partition::User, User::Opener) => Some("opener".to_owned()),
            (Partition::User, User::Number { thread, user, client }) => {
                let client = client.map_or(String::new(), |client| format!(".{client}"));
                Some(format!("w{thread}.{user}{client}"))
            }
        }
    }
}

impl ClientCommand {
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn log(&self, spec: &Spec) -> String {
        self.origin.log(spec)
    }

    pub(crate) fn is_of_log(&self, spec: &Spec, log: &str) -> bool {
        let (service, kind, prefix) = spec.log_prefix();
        let rest = [service, "/", kind, prefix]
            .into_iter()
            .try_fold(log, |rest, part| rest.strip_prefix(part));
        rest.and_then(|tenant| tenant.parse().ok()) == Some(self.origin.tenant)
    }

    /// The error for a refusal of this command, if it is of a workload file: it can have no entry, so
    /// its expectation cannot be met.
    pub(crate) fn refused(&self, spec: &Spec, why: &str) -> Option<WorkloadError> {
        let (Content::Rendered(rendered), Some(program)) = (&self.content, &spec.program) else {
            return None;
        };
        Some(WorkloadError::Refused {
            path: program.path().to_owned(),
            line: rendered.line,
            command: rendered.command.to_string(),
            why: why.to_owned(),
        })
    }

    /// The command as a file of receipts shows it.
    pub(crate) fn sent(&self, spec: &Spec) -> Sent {
        let (command, memo) = match &self.content {
            Content::Ledger(action) => {
                let head = |out: &mut Vec<u8>| self.write_head(spec, action.name(), out);
                let memo = action.memo(spec, &self.origin, self.id, head);
                (action.command(), memo.map(|memo| Digest::of(&memo)))
            }
            Content::Rendered(rendered) => {
                let Rendered { command, expect, digest, .. } = &**rendered;
                let (name, data) = (command.to_string(), *digest);
                (Command::Named { name, data, expect: (**expect).clone() }, None)
            }
        };
        let (log, user) = (self.log(spec), self.origin.user(spec));
        Sent { log, user, client: self.origin.client(spec), id: self.id, command, memo }
    }

    /// Appends the JSON of the request. No name but that of the command has a character that JSON
    /// escapes.
    pub(crate) fn write_request(&self, spec: &Spec, out: &mut Vec<u8>) {
        let begun = out.len();
        match &self.content {
            Content::Ledger(action) => {
                self.write_head(spec, action.name(), out);
                action.write(spec, &self.origin, self.id, begun, out);
            }
            Content::Rendered(rendered) => {
                let name = serde_json::Value::from(&*rendered.command).to_string();
                self.write_head(spec, &name[1..name.len() - 1], out);
                out.extend_from_slice(rendered.data.as_bytes());
                out.push(b'}');
            }
        }
    }

    /// Appends the request up to its data.
    fn write_head(&self, spec: &Spec, name: &str, out: &mut Vec<u8>) {
        let (service, id, user) = (spec.service(), self.id, self.origin.user(spec));
        let mut write = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to memory never fails");
        };
        write(format_args!(
            r#"{{"type":"{service}","command":"{name}","id":{id},"user":"{user}","#
        ));
        if spec.partition() == Partition::Org {
            let (org, tenant) = (&spec.org_prefix, self.origin.tenant);
            write(format_args!(r#""org":"{org}{tenant}","#));
        }
        if let Some(client) = self.origin.client(spec) {
            write(format_args!(r#""client":"{client}","#));
        }
        write(format_args!(r#""data":"#));
    }
}
