//! Clients of the ledger. Each has its own connection, remembers its receipts, and sends unanswered
//! commands again with the same ids.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use auditor::receipts::Command;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// The prefix of all users' names.
pub(crate) const USERS: &str = "user-";
const ORGS: u64 = 6;
const ACCOUNTS: u64 = 4;
/// One request in this many sends a command again that was answered.
const REPEATED: u32 = 20;

/// A command and the seqs of its receipts, one for each time that it was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) org: String,
    pub(crate) user: String,
    pub(crate) id: u64,
    pub(crate) command: Command,
    pub(crate) seqs: Vec<u64>,
}

impl Sent {
    pub(crate) fn json(&self) -> Value {
        let Self { org, user, id, .. } = self;
        // As receipts show a command: its name, with its data.
        let command = serde_json::to_value(&self.command).expect("a command is JSON");
        let (name, data) =
            command.as_object().and_then(|c| c.iter().next()).expect("it has a name");
        json!({"type": "ledger", "command": name, "id": id, "user": user, "org": org, "data": data})
    }
}

/// All clients.
pub(crate) struct Load {
    clients: Vec<Client>,
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Client {
    user: String,
    chance: SmallRng,
    agent: ureq::Agent,
    sent: Vec<Sent>,
    /// Requests without an answer, as indexes of `sent`.
    unanswered: Vec<Vec<usize>>,
    /// The most new commands of a run. Then the client waits for the run's end.
    per_run_max: usize,
}

/// An HTTP client for which no status is an error.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)));
    config.build().into()
}

/// Sends a `GET`; returns the status and the JSON.
pub(crate) fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    let body = answer.body_mut().read_to_vec().expect("a body");
    (answer.status().as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

/// Sends a `POST`; returns the status and the JSON, or an error if there is no answer.
pub(crate) fn post(
    agent: &ureq::Agent,
    url: &str,
    body: &str,
) -> Result<(u16, Value), ureq::Error> {
    let mut answer = agent.post(url).send(body)?;
    let body = answer.body_mut().read_to_vec()?;
    Ok((answer.status().as_u16(), serde_json::from_slice(&body).expect("JSON")))
}

impl Load {
    pub(crate) fn new(seed: u64, clients: u64, per_run_max: usize) -> Self {
        let client = |number: u64| Client {
            user: format!("{USERS}{number}"),
            chance: SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number)),
            agent: agent(),
            sent: Vec::new(),
            unanswered: Vec::new(),
            per_run_max,
        };
        let mut clients: Vec<Client> = (0..clients).map(client).collect();
        if let Some(first) = clients.first_mut() {
            let all = (0..ORGS).flat_map(|org| (0..ACCOUNTS).map(move |account| (org, account)));
            let opens = all
                .map(|(org, account)| first.new_one(org, Command::Open { account: name(account) }));
            let opens = opens.collect();
            first.unanswered.push(opens);
        }
        Self { clients }
    }

    /// Lets all clients send until `meanwhile` returns, or until the host does not answer.
    pub(crate) fn run(&mut self, url: &str, meanwhile: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in &mut self.clients {
                let stop = &stop;
                scope.spawn(move || client.run(url, stop));
            }
            // Stops the clients also if `meanwhile` panics; otherwise they would never end.
            let _stop = StopOnDrop(&stop);
            meanwhile();
        });
    }

    /// Sends unanswered requests again until all are answered.
    pub(crate) fn resend(&mut self, url: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for client in &mut self.clients {
            while let Some(request) = client.unanswered.pop() {
                assert!(Instant::now() < deadline, "some commands are not accepted");
                assert!(client.send(url, request), "the host does not answer");
            }
        }
    }

    /// All commands so far.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.clients.iter().flat_map(|client| &client.sent)
    }

    /// The number of acknowledged commands.
    pub(crate) fn acknowledged(&self) -> usize {
        self.sent().filter(|sent| !sent.seqs.is_empty()).count()
    }
}

fn name(account: u64) -> String {
    format!("a{account}")
}

impl Client {
    fn run(&mut self, url: &str, stop: &AtomicBool) {
        let limit = self.sent.len() + self.per_run_max;
        while !stop.load(Ordering::Relaxed) {
            let request = match self.unanswered.pop() {
                Some(request) => request,
                None if self.sent.len() >= limit => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                None => self.new_request(),
            };
            if !self.send(url, request) {
                return;
            }
        }
    }

    fn new_request(&mut self) -> Vec<usize> {
        if !self.sent.is_empty() && self.chance.random_ratio(1, REPEATED) {
            let latest = self.sent.len().saturating_sub(200);
            return vec![self.chance.random_range(latest..self.sent.len())];
        }
        let many = if self.chance.random() { 1 } else { self.chance.random_range(20..40) };
        (0..many).map(|_| self.any()).collect()
    }

    fn any(&mut self) -> usize {
        let org = self.chance.random_range(0..ORGS);
        let mut account = || name(self.chance.random_range(0..ACCOUNTS));
        let (one, other) = (account(), account());
        // Some amounts are invalid, and some are more than the account holds.
        let amount = self.chance.random_range(0..100);
        let command = match self.chance.random_range(0..4) {
            0 | 1 => Command::Deposit { account: one, amount },
            2 => Command::Withdraw { account: one, amount: 2 * amount },
            _ => Command::Transfer { from: one, to: other, amount },
        };
        self.new_one(org, command)
    }

    fn new_one(&mut self, org: u64, command: Command) -> usize {
        let (org, user) = (format!("org-{org}"), self.user.clone());
        let id = self.sent.len() as u64 + 1;
        self.sent.push(Sent { org, user, id, command, seqs: Vec::new() });
        self.sent.len() - 1
    }

    /// Sends a request; returns whether the host answered. Notes commands without a receipt.
    fn send(&mut self, url: &str, request: Vec<usize>) -> bool {
        let (route, mut body) = match request.len() {
            1 => ("command", String::new()),
            _ => ("commands", String::new()),
        };
        for command in &request {
            writeln!(body, "{}", self.sent[*command].json()).expect("it is text");
        }
        let Ok((status, answer)) = post(&self.agent, &format!("{url}/{route}"), &body) else {
            self.unanswered.push(request);
            return false;
        };
        let answers = match (status, answer["results"].as_array()) {
            (202, Some(answers)) => answers.clone(),
            (202, None) => vec![answer],
            (429 | 503, _) => {
                let problem = json!({"problem": answer});
                vec![problem; request.len()]
            }
            _ => panic!("{status}: {answer}"),
        };
        assert_eq!(answers.len(), request.len());
        for (command, answer) in request.into_iter().zip(answers) {
            match answer["seq"].as_u64() {
                Some(seq) => self.sent[command].seqs.push(seq),
                None => {
                    let status = answer["problem"]["status"].as_u64();
                    assert!(matches!(status, Some(429 | 503)), "{answer}");
                    self.unanswered.push(vec![command]);
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        true
    }
}
