//! Single calls: the meaning of errors, the number of attempts, and the deadline. There is no database
//! here, and tokio's clock is paused.

use std::time::Duration;

use bytes::Bytes;
use fanfold::{LogId, Seq, StateKey, Time};
use fanfold_aws::dynamo::{DynamoCommands, DynamoJournal, DynamoState};
use fanfold_pipeline::ports::{
    Append, AppendError, Commands, CommitItem, Journal, JournalAppendError, Nonce, State,
    StateItem, Token, Unavailable,
};
use tokio::time::Instant;

use crate::dynamo::Dynamo;
use crate::wire::Trouble;

/// Attempts of a call that the adapters retry.
const ATTEMPTS: usize = 6;
const ALWAYS: usize = usize::MAX;

/// Errors of AWS, each with its meaning, and whether the adapters retry it.
const TROUBLES: &[(Trouble, Means, bool)] = &[
    (Trouble::Answer(400, "ProvisionedThroughputExceededException"), Means::Throttled, true),
    (Trouble::Answer(400, "RequestLimitExceeded"), Means::Throttled, true),
    (Trouble::Answer(400, "ThrottlingException"), Means::Throttled, true),
    (Trouble::Answer(400, "KMSThrottlingException"), Means::Throttled, true),
    (Trouble::Answer(400, "TransactionConflictException"), Means::Throttled, true),
    (Trouble::Answer(429, "TooFast"), Means::Throttled, true),
    (Trouble::LoseRequest, Means::TimedOut, true),
    (Trouble::Answer(500, "InternalServerError"), Means::Failed, true),
    (Trouble::Answer(503, "ServiceUnavailable"), Means::Failed, true),
    (Trouble::Answer(400, "AccessDeniedException"), Means::Refused, false),
    (Trouble::Answer(400, "ValidationException"), Means::Refused, false),
    (Trouble::Answer(400, "ResourceNotFoundException"), Means::Refused, false),
    (Trouble::Answer(400, "UnrecognizedClientException"), Means::Refused, false),
    (Trouble::Answer(400, "KMSAccessDeniedException"), Means::Refused, false),
    (Trouble::Answer(400, "NeverHeardOf"), Means::Refused, false),
];

#[derive(Debug, Clone, Copy)]
enum Means {
    Throttled,
    TimedOut,
    Failed,
    Refused,
}

fn log() -> LogId {
    "ledger/org:acme".parse().expect("a log")
}

fn assert_means(error: &Unavailable, means: Means, trouble: Trouble, operation: &str, table: &str) {
    match (error, means) {
        (Unavailable::Throttled { .. }, Means::Throttled)
        | (Unavailable::TimedOut { .. }, Means::TimedOut) => {}
        (Unavailable::Failed { message, .. }, Means::Failed)
        | (Unavailable::Refused { message, .. }, Means::Refused) => {
            let Trouble::Answer(_, code) = trouble else { panic!("{trouble:?}: {message}") };
            for part in [operation, table, code, "the test says so"] {
                assert!(message.contains(part), "`{part}` is in: {message}");
            }
        }
        _ => panic!("{trouble:?} means {means:?}, but was: {error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_aws_are_told_apart() {
    for (trouble, means, retried) in TROUBLES.iter().copied() {
        let dynamo = Dynamo::nowhere();
        let table = dynamo.tables.journal();
        dynamo.wire.trouble("Query", &table, ALWAYS, trouble);
        let journal = DynamoJournal::new(&dynamo.aws, &table);
        let error = journal.tail(&log()).await.expect_err("the wire is troubled");
        assert_means(&error, means, trouble, "Query", &table);
        let attempts = if retried { ATTEMPTS } else { 1 };
        assert_eq!(dynamo.wire.count("Query", &table), attempts, "attempts: {trouble:?}");
        let counted = dynamo.aws.meter.snapshot().calls_of("Query");
        assert_eq!(counted, attempts as u64, "the meter counts every attempt");
    }
}

/// The stages retry these calls, so the adapters must not.
#[tokio::test(start_paused = true)]
async fn calls_that_the_stages_retry_have_one_attempt() {
    for (trouble, means, _) in TROUBLES.iter().copied() {
        let dynamo = Dynamo::nowhere();
        let (commands, journal) = (dynamo.tables.commands(), dynamo.tables.journal());
        dynamo.wire.trouble("UpdateItem", &commands, ALWAYS, trouble);
        dynamo.wire.trouble("PutItem", &journal, ALWAYS, trouble);

        let (at, body) = (Time(1), Bytes::from_static(b"[]"));
        let append = Append { n: 1, body: body.clone(), at, token: Token(1) };
        let slots = DynamoCommands::new(&dynamo.aws, &commands);
        match slots.append(&log(), append).await {
            Err(AppendError::Unavailable(error)) => {
                assert_means(&error, means, trouble, "UpdateItem", &commands);
            }
            other => panic!("{trouble:?}: {other:?}"),
        }
        let commit = CommitItem { first: Seq(1), n: 1, at, nonce: Nonce(1), body };
        match DynamoJournal::new(&dynamo.aws, &journal).append(&log(), &commit).await {
            Err(JournalAppendError::Unavailable(error)) => {
                assert_means(&error, means, trouble, "PutItem", &journal);
            }
            other => panic!("{trouble:?}: {other:?}"),
        }
        assert_eq!(dynamo.wire.seen().len(), 2, "one attempt each: {trouble:?}");
    }
}

/// [`Unavailable::Throttled`] promises that there was no effect, so it is returned only if no attempt
/// may have had one.
#[tokio::test(start_paused = true)]
async fn an_earlier_attempt_that_may_have_had_an_effect_decides_the_error() {
    let throttled = Trouble::Answer(400, "ThrottlingException");
    for (first, means) in [
        (throttled, Means::Throttled),
        (Trouble::LoseRequest, Means::TimedOut),
        (Trouble::Answer(500, "InternalServerError"), Means::Failed),
    ] {
        let dynamo = Dynamo::nowhere();
        let table = dynamo.tables.state();
        dynamo.wire.trouble("PutItem", &table, 1, first);
        dynamo.wire.trouble("PutItem", &table, ALWAYS, throttled);
        let state = DynamoState::new(&dynamo.aws, &table);
        let item = StateItem { seq: Seq(1), body: Bytes::new() };
        let put = state.put(&log(), &StateKey::head(1), &item).await;
        assert_means(&put.expect_err("throttled"), means, first, "PutItem", &table);
        assert_eq!(dynamo.wire.count("PutItem", &table), ATTEMPTS);
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_lasts_longer_than_the_deadline() {
    let throttled = Trouble::Answer(400, "ThrottlingException");
    for (trouble, means) in [(throttled, Means::Throttled), (Trouble::LoseRequest, Means::TimedOut)]
    {
        let mut attempts_max = 0;
        for left_ms in [0, 1, 20, 100, 300] {
            let left = Duration::from_millis(left_ms);
            let dynamo = Dynamo::nowhere();
            let table = dynamo.tables.journal();
            dynamo.wire.trouble("Query", &table, ALWAYS, trouble);
            let journal = DynamoJournal::new(&dynamo.aws, &table);
            let begun = Instant::now();
            dynamo.aws.deadline.set_in(left);
            let error = journal.tail(&log()).await.expect_err("the wire is troubled");
            assert!(begun.elapsed() <= left + Duration::from_millis(1), "timers count whole ms");
            let seen = dynamo.wire.seen();
            assert!(seen.iter().all(|call| call.at < begun + left), "{left:?}: {seen:?}");
            match left_ms {
                // It was not sent, which is not the same as throttled.
                0 => assert!(seen.is_empty() && matches!(error, Unavailable::TimedOut { .. })),
                _ => assert_means(&error, means, trouble, "Query", &table),
            }
            attempts_max = attempts_max.max(seen.len());
        }
        assert!(attempts_max >= 1, "there was time for an attempt");
    }
}

/// A warm environment's next invocation has its own deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_holds_until_the_next_is_set() {
    let dynamo = Dynamo::nowhere();
    let table = dynamo.tables.journal();
    dynamo.wire.trouble("Query", &table, ALWAYS, Trouble::Answer(400, "ThrottlingException"));
    let journal = DynamoJournal::new(&dynamo.aws, &table);
    for (left, attempts) in [
        (None, ATTEMPTS),
        (Some(Duration::ZERO), 0),
        (Some(Duration::from_secs(900)), ATTEMPTS),
        (Some(Duration::ZERO), 0),
    ] {
        if let Some(left) = left {
            dynamo.aws.deadline.set_in(left);
        }
        journal.tail(&log()).await.expect_err("the wire is troubled");
        assert_eq!(dynamo.wire.count("Query", &table), attempts, "{left:?}");
    }
}
