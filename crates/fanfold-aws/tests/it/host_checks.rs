//! The settings of a stack, as `fanfold doctor` compares them.

use fanfold_aws::StackChecks;
use fanfold_aws::names::Tables;
use fanfold_pipeline::ports::HostChecks;
use serde_json::{Value, json};

use crate::answers::aws;

/// The answers of all calls in one: each reads its own field.
fn settings() -> Value {
    json!({
        "StreamDescriptionSummary": {
            "StreamName": "s", "StreamARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/s",
            "StreamStatus": "ACTIVE", "RetentionPeriodHours": 168,
            "StreamCreationTimestamp": 1_795_401_660, "EnhancedMonitoring": [], "OpenShardCount": 4,
            "RecordDistributionStrategy": "USER_PARTITION_KEY",
        },
        "Table": { "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_IMAGE" } },
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": { "PointInTimeRecoveryStatus": "ENABLED" },
        },
        "TimeToLiveDescription": { "TimeToLiveStatus": "ENABLED", "AttributeName": "ttl" },
    })
}

/// The names of the findings when the settings are so, and of the checks that could not be made.
async fn found(settings: Value) -> (Vec<&'static str>, Vec<&'static str>) {
    let aws = aws(move |_| Some((200, settings.to_string())));
    let checked = StackChecks::new(&aws, Tables::new("shop"), "s").check().await;
    let all = ["stream_order", "change_stream", "point_in_time_recovery", "time_to_live"];
    assert_eq!(checked.checked, all);
    let names = |found: Vec<fanfold_pipeline::ports::HostFinding>| {
        found.into_iter().map(|finding| finding.what).collect()
    };
    (names(checked.findings), names(checked.unchecked))
}

#[tokio::test]
async fn each_setting_that_was_changed_is_found_and_nothing_else() {
    assert_eq!(found(settings()).await, (vec![], vec![]));
    let recovery = &["point_in_time_recovery"; 4][..];
    for (path, value, expected) in [
        (
            "/StreamDescriptionSummary/RecordDistributionStrategy",
            json!("AUTO"),
            &["stream_order"][..],
        ),
        ("/Table/StreamSpecification/StreamEnabled", json!(false), &["change_stream"]),
        ("/Table/StreamSpecification/StreamViewType", json!("KEYS_ONLY"), &["change_stream"]),
        ("/Table/StreamSpecification", json!(null), &["change_stream"]),
        (
            "/ContinuousBackupsDescription/PointInTimeRecoveryDescription/PointInTimeRecoveryStatus",
            json!("DISABLED"),
            recovery,
        ),
        ("/TimeToLiveDescription/TimeToLiveStatus", json!("DISABLED"), &["time_to_live"]),
        ("/TimeToLiveDescription/AttributeName", json!("x"), &["time_to_live"]),
    ] {
        let mut changed = settings();
        *changed.pointer_mut(path).expect(path) = value.clone();
        assert_eq!(found(changed).await, (expected.to_vec(), vec![]), "{path}: {value}");
    }
}

#[tokio::test]
async fn a_check_that_is_refused_is_no_finding() {
    let refused = json!({ "__type": "AccessDeniedException", "message": "no" }).to_string();
    let aws = aws(move |_| Some((400, refused.clone())));
    let checked = StackChecks::new(&aws, Tables::new("shop"), "s").check().await;
    assert_eq!((checked.findings, checked.checked), (vec![], vec![]));
    assert_eq!(checked.unchecked.len(), 7);
}
