//! `ReportBatchItemFailures`, as AWS documents it.

use lambda_host::answer::{Outcome, failures, of_stream};

const IDS: [&str; 4] = ["10", "11", "12", "13"];

#[test]
fn the_checkpoint_is_the_lowest_reported_record() {
    for (answer, expected) in [
        (None, Outcome::Failed),
        (Some(""), Outcome::Done),
        (Some("null"), Outcome::Done),
        (Some("{}"), Outcome::Done),
        (Some(r#"{"batchItemFailures": null}"#), Outcome::Done),
        (Some(r#"{"batchItemFailures": []}"#), Outcome::Done),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": "10"}]}"#), Outcome::From(0)),
        (
            Some(r#"{"batchItemFailures": [{"itemIdentifier": "13"}, {"itemIdentifier": "11"}]}"#),
            Outcome::From(1),
        ),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": ""}]}"#), Outcome::Failed),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": null}]}"#), Outcome::Failed),
        (Some(r#"{"batchItemFailures": [{"id": "10"}]}"#), Outcome::Failed),
        (
            Some(r#"{"batchItemFailures": [{"itemIdentifier": "11"}, {"itemIdentifier": "9"}]}"#),
            Outcome::Failed,
        ),
        (Some(r#"{"batchItemFailures": "11"}"#), Outcome::Failed),
        (Some("no JSON"), Outcome::Failed),
    ] {
        assert_eq!(of_stream(answer.map(str::as_bytes), &IDS), expected, "{answer:?}");
    }
}

#[test]
fn only_reported_messages_of_a_queue_fail() {
    let answer = br#"{"batchItemFailures": [{"itemIdentifier": "13"}, {"itemIdentifier": "11"}]}"#;
    assert_eq!(failures(Some(answer), &IDS), Some([1, 3].into()));
    assert_eq!(failures(Some(b"{}"), &IDS), Some([].into()));
    assert_eq!(failures(None, &IDS), None);
}
