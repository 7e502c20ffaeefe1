//! Packing: how many messages one call of the topic carries, and when the deadline ends it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fanfold::entry::{Entry, Outcome};
use fanfold::host::body::notification::{Commit, Message};
use fanfold::{CommandId, Origin, Seq, Time};
use fanfold_pipeline::packing::{MessageTopics, PackingTopic};
use fanfold_pipeline::ports::{Env, PublishError, Topic, Unavailable};

use crate::check::play;
use crate::world::{World, acme};

/// The result of every message of a call.
#[derive(Clone, Copy)]
enum Answer {
    Published,
    Refused,
    Failed,
}

/// A topic whose every call takes a second.
struct SlowTopic {
    world: Arc<World>,
    /// The results of the first calls. Later calls succeed.
    answers: Mutex<VecDeque<Answer>>,
    /// How many messages each call had.
    calls: Mutex<Vec<usize>>,
}

#[async_trait]
impl MessageTopics for SlowTopic {
    fn topics(&self) -> usize {
        1
    }

    async fn publish_messages(
        &self,
        _: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        self.calls.lock().expect("no test panics here").push(messages.len());
        self.world.env.pass(1_000);
        let answer = self.answers.lock().expect("no test panics here").pop_front();
        let failed = || Unavailable::Failed { hop: "topic", message: "no answer".to_owned() };
        let result = match answer.unwrap_or(Answer::Published) {
            Answer::Published => Ok(()),
            Answer::Refused => Err(PublishError::Refused("too strange".to_owned())),
            Answer::Failed => Err(failed().into()),
        };
        Ok(vec![result; messages.len()])
    }
}

/// A commit of one entry, whose text has so many bytes.
fn commit(seq: u64, bytes: usize) -> Commit {
    let outcome =
        Outcome::Rejected { code: "long".to_owned(), message: "x".repeat(bytes), of: None };
    let entry = Entry {
        seq: Seq(seq),
        time: Time(0),
        origin: Origin::nobody(),
        id: CommandId::NONE,
        command: None,
        digest: None,
        trace: None,
        outcome,
    };
    Commit { log: acme(), entries: [entry].into(), prev: Arc::default() }
}

/// Publishes commits, with a deadline in `ms`. Returns which were published, and the calls.
async fn published(answers: &[Answer], commits: &[Commit], ms: u64) -> (Vec<bool>, Vec<usize>) {
    let world = World::new();
    let (until, env) = (world.env.now().plus_ms(ms), world.env.clone());
    let answers = Mutex::new(answers.iter().copied().collect());
    let topic = Arc::new(SlowTopic { world, answers, calls: Mutex::default() });
    let packing = PackingTopic::new(topic.clone(), env);
    let commits: Vec<&Commit> = commits.iter().collect();
    let results = packing.publish(&commits, until).await;
    let calls = topic.calls.lock().expect("no test panics here").clone();
    (results.iter().map(Result::is_ok).collect(), calls)
}

/// Stored commits must be published, so a call goes on after its deadline while it succeeds.
#[test]
fn the_deadline_ends_publishing_only_after_a_failure() {
    play(async || {
        let large: Vec<Commit> = (1..=3).map(|seq| commit(seq, 200_000)).collect();
        let (done, calls) = published(&[], &large, 1_000).await;
        assert_eq!((done, calls), (vec![true; 3], vec![1, 1, 1]));
        let (done, calls) = published(&[Answer::Failed], &large, 1_000).await;
        assert_eq!((done, calls), (vec![false; 3], vec![1]));
        // A refused message is sent once more, without its entries.
        let (done, calls) = published(&[Answer::Refused], &large, 1_000).await;
        assert_eq!((done, calls), (vec![true, false, false], vec![1, 1]));
    });
}

/// The commits of a refused message are sent one by one, in calls of at most ten messages.
#[test]
fn a_call_has_at_most_ten_messages() {
    play(async || {
        let small: Vec<Commit> = (1..=21).map(|seq| commit(seq, 10)).collect();
        let (done, calls) = published(&[Answer::Refused], &small, 60_000).await;
        assert_eq!((done, calls), (vec![true; 21], vec![1, 10, 10, 1]));
    });
}
