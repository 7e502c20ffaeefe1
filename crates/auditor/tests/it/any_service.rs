//! The audit without a model finds every planted fault that needs no rules of a service.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use auditor::Invariant::{self, F1, F3, F4, F5, F6, F8, Outcome, Time};
use auditor::http::Target;
use auditor::receipts::Digest;
use auditor::{AuditError, Model, Options, Verdict, audit};
use bytes::Bytes;
use fake_target::{Fake, Plant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{options, run};

const SEED: u64 = 12;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Commands in each of the logs.
const COMMANDS: usize = 120;

/// A run of `seats`, which writes receipts as the generator does with a workload file.
struct Seats<'a> {
    target: &'a Target,
    lines: Vec<Value>,
    clock_us: u64,
}

impl<'a> Seats<'a> {
    async fn drive(target: &'a Target) -> Self {
        let first = json!({"run": {
            "format": 1, "users": "r-", "service": "seats", "views": ["holders", "counts"],
            "model": "none",
        }});
        let mut run = Self { target, lines: vec![first], clock_us: 0 };
        let mut random = SmallRng::seed_from_u64(SEED);
        for log in ["b", "a"] {
            for at in 0..COMMANDS as u64 {
                let user = format!("r-{}", random.random_range(0..3));
                let (command, refuse) = match at % 6 {
                    0 => ("add room", false),
                    4 => ("book", true),
                    _ => ("book", false),
                };
                let mut data = json!({
                    "room": format!("r\u{e9}{at}"), "seats": at, "price": at as f64 / 4.0,
                    "tags": ["a", null, true, {"b": -1}],
                });
                let mut expect = if at % 5 == 0 { json!("either") } else { json!("accepted") };
                if refuse {
                    data["refuse"] = json!("full");
                    expect = json!({"rejected": ["closed", "full"]});
                }
                run.send(log, &user, 1 + at, command, &data, &expect).await;
                match random.random_range(0..10) {
                    // The same command again, with its fields in another order of writing.
                    0 => run.send(log, &user, 1 + at, command, &data, &expect).await,
                    // Another command with the id.
                    1 => {
                        let other = json!({"room": "other"});
                        run.send(log, &user, 1 + at, command, &other, &json!("accepted")).await;
                    }
                    _ => {}
                }
                if at % 20 == 19 {
                    run.read(log).await;
                }
            }
        }
        run
    }

    async fn send(
        &mut self,
        log: &str,
        user: &str,
        id: u64,
        name: &str,
        data: &Value,
        expect: &Value,
    ) {
        let request = json!({
            "type": "seats", "command": name, "id": id, "user": user, "org": log, "data": data,
        });
        let answer = self.target.post("/command", Bytes::from(request.to_string()), TIMEOUT).await;
        let answer: Value =
            serde_json::from_slice(&answer.expect("an answer").body).expect("it is JSON");
        let digest = Digest::of_json(&data.to_string()).expect("it is JSON");
        let log = format!("seats/org:{log}");
        let command = json!({"named": {"name": name, "data": digest, "expect": expect}});
        let mut sent = json!({"log": log, "user": user, "id": id, "command": command});
        self.lines.push(match answer["seq"].as_u64() {
            Some(seq) => {
                sent["seq"] = json!(seq);
                json!({"receipt": sent})
            }
            None => json!({"refused": sent}),
        });
    }

    async fn read(&mut self, log: &str) {
        let log = format!("seats/org:{log}");
        let entry = self.get(&format!("/logs/{log}/10")).await;
        self.lines.push(json!({"entry": {"log": log, "seq": 10, "entry": entry}}));
        for view in ["holders", "counts"] {
            let page = self.get(&format!("/views/{view}/{log}?limit=1&seq=10")).await;
            let began_us = self.clock_us + 10;
            self.clock_us = began_us + 10;
            self.lines.push(json!({"cursor": {
                "view": view, "log": log, "wanted": 10, "seq": page["seq"], "began_us": began_us,
                "ended_us": self.clock_us,
            }}));
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.target.get(path, TIMEOUT).await.expect("an answer");
        serde_json::from_slice(&answer.body).expect("it is JSON")
    }

    fn write(&self, path: &Path) {
        let mut file = std::fs::File::create(path).expect("a file");
        for line in self.lines.iter().chain([&json!({"end": {}})]) {
            writeln!(file, "{line}").expect("it is written");
        }
    }
}

fn audited(plant: Option<Plant>, options: &Options) -> Result<Verdict, AuditError> {
    let fake = Fake::start(plant);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = NamedTempFile::new().expect("a file");
        Seats::drive(&target).await.write(file.path());
        audit(&target, file.path(), options, |_| ()).await
    })
}

fn verdict(plant: Option<Plant>) -> Verdict {
    audited(plant, &options()).expect("the file is good")
}

#[test]
fn a_correct_service_has_no_breach() {
    let verdict = verdict(None);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!((verdict.logs, &*verdict.service, verdict.model), (2, "seats", Model::None));
    assert_eq!((verdict.balance, verdict.expects), (None, true));
    assert!(verdict.entries > 2 * COMMANDS as u64 && verdict.receipts == verdict.entries);
    assert!(verdict.rows > 100 && verdict.seen > 20 && verdict.lookups > 4, "{verdict:#?}");
    for status in ["accepted", "rejected", "duplicate"] {
        assert!(verdict.outcomes.contains_key(status), "{status}: {verdict:#?}");
    }
}

#[test]
fn every_fault_that_needs_no_model_is_found() {
    let faults: [(Plant, Invariant, &str); 39] = [
        (Plant::Hole, F1, "the entry is missing, the next has the seq 8"),
        (Plant::EntryTwice, F1, "an entry with the seq 7 is here"),
        (Plant::AcceptedAhead, F1, "are accepted, and the entries end at"),
        (Plant::AcceptedBehind, F1, "the page says accepted"),
        (Plant::PromisedTwice, F1, "two receipts have this seq"),
        (Plant::PromisedAgain, F1, "two receipts have this seq"),
        (Plant::EndsEarly, F1, "are missing"),
        (Plant::Forgets, F8, "there is no entry"),
        (Plant::DataChanged, F3, "was sent with data of the digest"),
        (Plant::NoDigest, F3, "and the entry shows none"),
        (Plant::AnotherCommand, F3, "was sent, and the entry has Some(\"close\")"),
        (Plant::AnotherUser, F3, "and the entry has id"),
        (Plant::AnotherLog, F3, "the entry names the log ledger/org:elsewhere"),
        (Plant::PageOfAnother, F3, "the page names the log ledger/org:elsewhere"),
        (Plant::EntryChanges, F3, "a reader saw"),
        (Plant::PagesDisagree, F3, "its page shows"),
        (Plant::NoTime, F3, "this is not an entry"),
        (Plant::NoUser, F3, "has no user or no id"),
        (Plant::UnknownStatus, F3, "is `pondered`, and should be"),
        (Plant::RefusedAndTaken, F3, "was refused, and has an entry"),
        (Plant::Invented, F3, "never sent the id 1000000"),
        (Plant::AcceptedWithFirst, F3, "has `of`"),
        (Plant::RejectedWithEvents, F6, "has `events`"),
        (Plant::AcceptedTwice, F4, "and should be a duplicate of"),
        (Plant::WrongFirst, F4, "and should be a duplicate of"),
        (Plant::NewIsDuplicate, F4, "is `duplicate` of 1, and should be neither"),
        (Plant::NewIsStale, F4, "is `stale`, and should be neither"),
        (Plant::ReusedIsDuplicate, F4, "`id_reused`, since"),
        (Plant::SameIsReused, F4, "is `id_reused` of"),
        (Plant::LookupFindsNothing, F4, "returns 404, and should return the entry"),
        (Plant::FineRejected, Outcome, "is rejected with full, and should be accepted"),
        (
            Plant::OverdrawnAccepted,
            Outcome,
            "is accepted, and should be rejected with closed or full",
        ),
        (Plant::WrongCode, Outcome, "is rejected with too_large, and should be rejected with"),
        (Plant::ViewStuck, F5, "holders: the view has the cursor 3, and should"),
        (Plant::ViewStuckParked, F5, "counts: the view has the cursor 3 and is parked"),
        (Plant::ViewParked, F5, "holders: the view is parked"),
        (Plant::CursorBack, F6, "and a later one"),
        (Plant::CursorAhead, F6, "the log ends at"),
        (Plant::TimeGoesBack, Time, "is earlier than"),
    ];
    let mut missed = Vec::new();
    for (plant, invariant, says) in faults {
        let verdict = verdict(Some(plant));
        assert_eq!(verdict.unfinished, None, "{plant:?}");
        let is_it = |b: &auditor::Breach| b.invariant == invariant && b.what.contains(says);
        if !verdict.examples.iter().any(is_it) {
            missed.push(format!("{plant:?} should break {invariant}, `{says}`: {verdict:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn the_model_of_another_service_is_refused() {
    let options = Options { model: Some(Model::Ledger), ..options() };
    let error = audited(None, &options).expect_err("it has no such model");
    assert!(error.to_string().contains("receipts are of `seats`: use the model `none`"), "{error}");
}

/// Without the model a wrong sum is no breach, since nothing says how sums are made.
#[test]
fn without_its_model_the_ledger_is_audited_as_any_service() {
    let without = Options { model: Some(Model::None), ..options() };
    for (plant, broken) in [
        (None, None),
        (Some(Plant::WrongBalance), None),
        (Some(Plant::AmountChanged), None),
        (Some(Plant::AcceptedTwice), Some(F4)),
        (Some(Plant::ViewStuck), Some(F5)),
        (Some(Plant::AnotherCommand), Some(F3)),
    ] {
        let verdict = crate::verdict_with(plant, &without);
        let found: Vec<Invariant> = verdict.broken.keys().copied().collect();
        assert_eq!(found.first().copied(), broken, "{plant:?}: {verdict:#?}");
        assert_eq!((verdict.model, verdict.balance), (Model::None, None), "{plant:?}");
    }
}
