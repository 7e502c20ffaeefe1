//! `ReportBatchItemFailures`, as AWS documents it.

use lambda_host::answer::{BatchAnswer, failures, of_stream};

const IDS: [&str; 4] = ["10", "11", "12", "13"];

#[test]
fn the_checkpoint_is_the_lowest_reported_record() {
    for (answer, expected) in [
        (None, BatchAnswer::Failed),
        (Some(""), BatchAnswer::Done),
        (Some("null"), BatchAnswer::Done),
        (Some("{}"), BatchAnswer::Done),
        (Some(r#"{"batchItemFailures": null}"#), BatchAnswer::Done),
        (Some(r#"{"batchItemFailures": []}"#), BatchAnswer::Done),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": "10"}]}"#), BatchAnswer::From(0)),
        (
            Some(r#"{"batchItemFailures": [{"itemIdentifier": "13"}, {"itemIdentifier": "11"}]}"#),
            BatchAnswer::From(1),
        ),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": ""}]}"#), BatchAnswer::Failed),
        (Some(r#"{"batchItemFailures": [{"itemIdentifier": null}]}"#), BatchAnswer::Failed),
        (Some(r#"{"batchItemFailures": [{"id": "10"}]}"#), BatchAnswer::Failed),
        (
            Some(r#"{"batchItemFailures": [{"itemIdentifier": "11"}, {"itemIdentifier": "9"}]}"#),
            BatchAnswer::Failed,
        ),
        (Some(r#"{"batchItemFailures": "11"}"#), BatchAnswer::Failed),
        (Some("no JSON"), BatchAnswer::Failed),
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
