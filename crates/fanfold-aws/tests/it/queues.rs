//! A view's queue, and the order of the command stream.

use std::sync::{Arc, Mutex};

use fanfold_aws::events::Delivery;
use fanfold_aws::{SqsQueue, StreamOrder};
use fanfold_pipeline::ports::Unavailable;
use serde_json::{Value, json};

use crate::answers::aws;

const URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/balances";

fn delivery(at: u32) -> Delivery {
    Delivery { receipt_handle: format!("h-{at}"), times: at }
}

#[tokio::test]
async fn a_failed_message_stays_hidden_longer_the_more_often_it_was_received() {
    let asked = Arc::new(Mutex::new(Vec::<Value>::new()));
    let asking = asked.clone();
    let aws = aws(move |body| {
        let request: Value = serde_json::from_str(body).unwrap();
        assert_eq!(request["QueueUrl"], URL);
        asking.lock().unwrap().extend(request["Entries"].as_array().unwrap().clone());
        assert!(request["Entries"].as_array().unwrap().len() <= 10);
        Some((200, json!({ "Successful": [], "Failed": [] }).to_string()))
    });
    let failed: Vec<Delivery> = (1..=25).map(delivery).collect();
    let queue = SqsQueue::new(&aws, URL);
    queue.change_visibility(&failed.iter().collect::<Vec<_>>()).await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 25, "each once");
    for (handle, seconds) in [("h-1", 10), ("h-2", 20), ("h-3", 40), ("h-6", 300), ("h-25", 300)] {
        let entry = asked.iter().find(|entry| entry["ReceiptHandle"] == handle).unwrap();
        assert_eq!(entry["VisibilityTimeout"], seconds, "{handle}");
    }
}

#[tokio::test]
async fn a_change_of_visibility_that_fails_is_an_error() {
    let failed = json!([{ "Id": "0", "SenderFault": true, "Code": "ReceiptHandleIsInvalid" }]);
    for (status, answer, is_refused) in [
        (200, json!({ "Successful": [], "Failed": failed }), false),
        (403, json!({ "__type": "AccessDeniedException", "message": "no" }), true),
    ] {
        let answer = answer.to_string();
        let aws = aws(move |_| Some((status, answer.clone())));
        let refused = match SqsQueue::new(&aws, URL).change_visibility(&[&delivery(1)]).await {
            Err(Unavailable::Failed { .. }) => Some(false),
            Err(Unavailable::Refused { .. }) => Some(true),
            _ => None,
        };
        assert_eq!(refused, Some(is_refused), "{status}");
    }
}

/// The answer of DescribeStreamSummary (API reference), with a strategy.
fn summary(strategy: Option<&str>) -> String {
    let mut summary = json!({
        "StreamName": "s", "StreamARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/s",
        "StreamStatus": "ACTIVE", "RetentionPeriodHours": 168,
        "StreamCreationTimestamp": 1_795_401_660, "EnhancedMonitoring": [], "OpenShardCount": 4,
        "StreamModeDetails": { "StreamMode": "ON_DEMAND" },
    });
    if let Some(strategy) = strategy {
        summary["RecordDistributionStrategy"] = json!(strategy);
    }
    json!({ "StreamDescriptionSummary": summary }).to_string()
}

#[tokio::test]
async fn a_stream_that_ignores_partition_keys_is_recognised() {
    for (strategy, keeps) in
        [(Some("AUTO"), false), (Some("USER_PARTITION_KEY"), true), (None, true)]
    {
        let answer = summary(strategy);
        let aws = aws(move |body| {
            assert_eq!(body, r#"{"StreamName":"s"}"#);
            Some((200, answer.clone()))
        });
        let found = StreamOrder::new(&aws, "s").keeps_order().await.unwrap();
        assert_eq!(found, keeps, "{strategy:?}");
    }
    let refused = json!({ "__type": "AccessDeniedException", "message": "no" }).to_string();
    let aws = aws(move |_| Some((400, refused.clone())));
    assert!(StreamOrder::new(&aws, "s").keeps_order().await.is_err(), "a refusal is no answer");
}
