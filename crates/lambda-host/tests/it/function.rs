//! The runtime API, used by a function whose program is a shell script.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use bytes::Bytes;
use lambda_host::Failed;
use lambda_host::config::{Config, Function as FunctionConfig, OnError};
use lambda_host::function::Function;

/// Requests events, and does what each event says. It needs only `curl`.
const BOOTSTRAP: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
while true; do
    event=$(curl -s -D headers.$$ "$api/invocation/next") || exit 1
    id=$(tr -d '\r' <headers.$$ | sed -n 's/^lambda-runtime-aws-request-id: //p')
    case "$event" in
        '"fail"') curl -s -d '{"errorMessage":"no"}' "$api/invocation/$id/error" ;;
        '"die"') exit 3 ;;
        '"hang"') sleep 60 ;;
        '"slow"') sleep 0.3; curl -s -d '"slow"' "$api/invocation/$id/response" ;;
        *) curl -s -d "{\"pid\":$$,\"event\":$event}" "$api/invocation/$id/response" ;;
    esac
done
"#;

fn function(folder: &Path, workers: usize) -> Arc<Function> {
    let bootstrap = folder.join("bootstrap");
    let script = BOOTSTRAP.replace("headers.$$", &format!("{}/headers.$$", folder.display()));
    std::fs::write(&bootstrap, script).expect("it can be written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&bootstrap, executable).expect("the file is ours");
    let function = FunctionConfig {
        bootstrap,
        env: BTreeMap::new(),
        workers,
        timeout_ms: 4_000,
        memory_mb: 128,
        on_error: OnError::default(),
    };
    let config = Config {
        endpoint: String::new(),
        region: "us-east-1".to_owned(),
        account: "1".to_owned(),
        logs: folder.to_owned(),
        control: ([127, 0, 0, 1], 0).into(),
        front: None,
        functions: [("f".to_owned(), function)].into(),
        streams: BTreeMap::new(),
        queues: BTreeMap::new(),
        subscriptions: BTreeMap::new(),
        schedules: BTreeMap::new(),
    };
    let sdk =
        aws_config::SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12()).build();
    Function::new("f", &config, &aws_sdk_sqs::Client::new(&sdk)).expect("it is configured")
}

fn pid(answer: &Bytes) -> String {
    let text = String::from_utf8(answer.to_vec()).expect("it is text");
    let pid = text.split(['{', ':', ',']).nth(2).expect("the answer has a pid");
    pid.to_owned()
}

#[tokio::test]
async fn a_process_is_reused_until_it_ends_or_times_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let function = function(folder.path(), 1);
    let invoke = |event: &'static str| function.invoke(Bytes::from_static(event.as_bytes()));
    let first = invoke("1").await.expect("it answers");
    assert!(first.ends_with(b"\"event\":1}"), "{first:?}");
    let failed = invoke("\"fail\"").await;
    assert!(matches!(failed, Err(Failed::Function(text)) if text.contains("no")));
    assert_eq!(pid(&first), pid(&invoke("2").await.expect("it answers")), "the same process");
    assert!(matches!(invoke("\"die\"").await, Err(Failed::Exited(_))));
    let second = invoke("3").await.expect("there is another process");
    assert_ne!(pid(&first), pid(&second));
    assert!(matches!(invoke("\"hang\"").await, Err(Failed::TimedOut(4_000))));
    let third = invoke("4").await.expect("there is another process");
    assert_ne!(pid(&second), pid(&third));
    let counts = function.invocations();
    assert_eq!((counts.invoked, counts.failed, counts.died, counts.killed), (7, 3, 2, 0));
}

#[tokio::test]
async fn a_planted_kill_loses_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let function = function(folder.path(), 1);
    let invoke = |event: &'static str| function.invoke(Bytes::from_static(event.as_bytes()));
    let first = invoke("1").await.expect("it answers");
    function.kill_next(2, Duration::ZERO);
    assert!(matches!(invoke("2").await, Err(Failed::Killed)));
    assert!(matches!(invoke("3").await, Err(Failed::Killed)));
    let second = invoke("4").await.expect("no more kills are planted");
    assert_ne!(pid(&first), pid(&second));
    let (slow, killed) = tokio::join!(invoke("\"hang\""), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        function.kill().await
    });
    assert!(matches!(slow, Err(Failed::Killed)));
    assert_eq!(killed, 0, "no process was idle");
    invoke("5").await.expect("there is another process");
    assert_eq!(function.kill().await, 1, "one process was idle");
    assert_eq!(function.invocations().killed, 3);
}

#[tokio::test]
async fn an_invocation_waits_for_a_free_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let function = function(folder.path(), 2);
    let invoke = || function.invoke(Bytes::from_static(b"\"slow\""));
    let (a, b, c) = tokio::join!(invoke(), invoke(), invoke());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(function.kill().await, 2);
}
