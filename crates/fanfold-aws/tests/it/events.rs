//! Events of Lambda, as AWS documents them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fanfold::{Seq, Time};
use fanfold_aws::events::{
    BatchResponse, ViewEvent, changes, http_request, http_response, messages_of_dead_letter,
    records, view_event,
};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Token;
use fanfold_pipeline::timeline::Caller;
use http::Response;
use serde_json::{Value, json};

/// A record of a table's stream, as Lambda passes it on (developer guide, "Using Lambda with
/// DynamoDB", example event), with a slot for its image.
fn slot_record(event_name: &str, sequence_number: &str, image: Value) -> Value {
    json!({
        "eventID": "c4ca4238a0b923820dcc509a6f75849b",
        "eventName": event_name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_795_401_660.0,
            "Keys": { "pk": { "S": "ledger/org:acme" } },
            "NewImage": image,
            "SequenceNumber": sequence_number,
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE",
        },
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/s-commands/stream/2026",
    })
}

fn slot() -> Value {
    json!({
        "pk": { "S": "ledger/org:acme" },
        "seq": { "N": "17" },
        "n": { "N": "2" },
        "at": { "N": "1795401660123" },
        "tok": { "B": "AAECAwQFBgcICQoLDA0ODw==" },
        "h": { "N": "42" },
        "b": { "B": "AQBbXQ==" },
    })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn without(mut object: Value, key: &str) -> Value {
    object.as_object_mut().unwrap().remove(key);
    object
}

fn event(records: &[Value]) -> String {
    json!({ "Records": records }).to_string()
}

#[test]
fn a_record_of_a_slot_is_a_change() {
    for name in ["INSERT", "MODIFY"] {
        let batch = changes(&event(&[slot_record(name, "111", slot())])).unwrap();
        assert_eq!((batch.ids, batch.unreadable), (vec!["111".to_owned()], 0));
        let [change] = &batch.items[..] else { panic!("{:?}", batch.items) };
        assert_eq!(change.log.as_str(), "ledger/org:acme");
        assert_eq!((change.last, change.n, change.at), (Seq(17), 2, Time(1_795_401_660_123)));
        assert_eq!(change.token, Token(0x0001_0203_0405_0607_0809_0A0B_0C0D_0E0F));
        assert_eq!(&change.body[..], [1, 0, b'[', b']']);
    }
}

#[test]
fn a_record_that_is_not_of_a_slot_is_skipped() {
    let good = || slot_record("MODIFY", "222", slot());
    // Records, each with the number of unreadable ones among them.
    let cases = [
        (without(slot_record("REMOVE", "1", json!({})), "NewImage"), 0),
        (slot_record("REMOVE", "1", slot()), 0),
        (slot_record("INSERT", "1", Value::Null), 1),
        (slot_record("INSERT", "1", json!({})), 1),
        (slot_record("INSERT", "1", without(slot(), "b")), 1),
        (slot_record("INSERT", "1", with(slot(), "pk", json!({ "S": "no log" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "pk", json!({ "N": "1" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "seq", json!({ "N": "1.5" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "seq", json!({ "N": "1" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "n", json!({ "N": "0" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "tok", json!({ "B": "AAEC" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "b", json!({ "B": "not base64" }))), 1),
        (slot_record("INSERT", "1", with(slot(), "b", json!({ "M": {} }))), 1),
        (json!({ "eventName": "INSERT" }), 1),
        (json!("what is this"), 1),
        // Other attributes are ignored.
        (slot_record("MODIFY", "1", with(slot(), "x", json!({ "L": [{ "NULL": true }] }))), 0),
    ];
    for (record, unreadable) in cases {
        let batch = changes(&event(&[record.clone(), good()])).unwrap();
        assert_eq!(batch.unreadable, unreadable, "{record}");
        assert_eq!(batch.ids.last().unwrap(), "222", "the record behind {record} is read");
        assert_eq!(batch.ids.len(), batch.items.len());
    }
}

/// An operator has raised the slot: there is nothing to send.
#[test]
fn a_record_of_a_raised_slot_has_no_commands() {
    let raised = with(with(slot(), "n", json!({ "N": "0" })), "b", json!({ "B": "" }));
    let batch = changes(&event(&[slot_record("MODIFY", "111", raised)])).unwrap();
    assert_eq!((batch.ids, batch.unreadable), (vec!["111".to_owned()], 0));
    let [change] = &batch.items[..] else { panic!("{:?}", batch.items) };
    assert_eq!((change.last, change.n, change.body.len()), (Seq(17), 0, 0));
}

/// A record of a stream, as Lambda passes it on (developer guide, "Using Lambda with Kinesis").
fn kinesis_record(key: &str, data: &str, sequence_number: &str, arrived: Value) -> Value {
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": sequence_number,
            "data": data,
            "approximateArrivalTimestamp": arrived,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": format!("shardId-000000000006:{sequence_number}"),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-2",
        "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
    })
}

#[test]
fn a_record_has_its_log_data_and_arrival_time() {
    for (arrived, ms) in [
        (json!(1_545_084_650.987), 1_545_084_650_987),
        (json!(1_545_084_650), 1_545_084_650_000),
        (json!(1_545_084_650.987_654), 1_545_084_650_987),
    ] {
        let record = kinesis_record("ledger/org:acme", "SGVsbG8=", "4959", arrived);
        let batch = records(&event(&[record])).unwrap();
        assert_eq!((batch.ids, batch.unreadable), (vec!["4959".to_owned()], 0));
        let [record] = &batch.items[..] else { panic!("{:?}", batch.items) };
        assert_eq!((record.key.as_str(), &record.data[..]), ("ledger/org:acme", &b"Hello"[..]));
        assert_eq!(record.arrived, Time(ms));
    }
}

#[test]
fn a_foreign_record_is_skipped() {
    let good = kinesis_record("ledger/org:acme", "", "2", json!(1.0));
    for bad in [
        kinesis_record("1", "SGVsbG8=", "1", json!(1.0)),
        kinesis_record("ledger/org:", "SGVsbG8=", "1", json!(1.0)),
        kinesis_record("ledger/org:acme", "*", "1", json!(1.0)),
        json!({ "kinesis": {} }),
    ] {
        let batch = records(&event(&[bad.clone(), good.clone()])).unwrap();
        assert_eq!((batch.ids, batch.unreadable), (vec!["2".to_owned()], 1), "{bad}");
    }
}

#[test]
fn an_event_of_another_kind_is_described_in_the_error() {
    let no_records =
        json!({ "detail-type": "Scheduled Event", "source": "aws.events" }).to_string();
    for (event, expected) in [
        (no_records.as_str(), "the fields [detail-type, source]"),
        ("[1]", "is no JSON object"),
        ("{\"Records\":", "is no JSON object"),
        ("{\"Records\":5}", "the fields [Records]"),
    ] {
        for error in [changes(event).unwrap_err(), records(event).unwrap_err()] {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
    let error = view_event(r#"{"Records":[{"eventSource":"aws:s3"}]}"#).unwrap_err();
    assert!(error.to_string().starts_with("expected messages of SNS or SQS"), "{error}");
    for event in [r#"{"Records":[]}"#, r#"{"hello":"world"}"#] {
        assert!(view_event(event).is_err(), "{event}");
    }
}

/// A record of SNS (developer guide, "Invoking Lambda functions with Amazon SNS").
fn sns_record(message: &str) -> Value {
    json!({
        "EventVersion": "1.0",
        "EventSubscriptionArn": "arn:aws:sns:us-east-1:123456789012:sns-lambda:21be56ed",
        "EventSource": "aws:sns",
        "Sns": {
            "SignatureVersion": "1",
            "Timestamp": "2019-01-02T12:45:07.000Z",
            "Signature": "tcc6faL2yUC6dgZdmrwh1Y4cGa/ebXEkAi6RibDsvpi+tE/1+82j...65r==",
            "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService.pem",
            "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
            "Message": message,
            "MessageAttributes": { "kinds": { "Type": "String.Array", "Value": "[\"a.b\"]" } },
            "Type": "Notification",
            "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:sns-lambda",
            "Subject": null,
        },
    })
}

/// A message of SQS (developer guide, "Using Lambda with Amazon SQS").
fn sqs_record(id: &str, body: &str, receives: u32) -> Value {
    json!({
        "messageId": id,
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": receives.to_string(),
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
        "awsRegion": "us-east-2",
    })
}

#[test]
fn a_view_event_is_of_a_topic_a_queue_or_a_schedule() {
    let topic = view_event(&event(&[sns_record("[\"\\n\"]")])).unwrap();
    assert_eq!(topic, ViewEvent::Topic(vec!["[\"\\n\"]".into()]));

    let envelope = json!({ "Type": "Notification", "MessageId": "m", "Message": "[2]" });
    for receives in [1, 2] {
        let queue = view_event(&event(&[
            sqs_record("a", "[1]", 1),
            sqs_record("b", &envelope.to_string(), receives),
        ]));
        let ViewEvent::Queue { batch, deliveries } = queue.unwrap() else { panic!() };
        assert_eq!(batch.items, ["[1]", "[2]"]);
        assert_eq!(batch.ids, ["a", "b"]);
        let times: Vec<u32> = deliveries.iter().map(|delivery| delivery.times).collect();
        assert_eq!(times, [1, receives]);
        assert_eq!(deliveries[0].receipt_handle, "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...");
    }

    // EventBridge, "Scheduled Event".
    let schedule = json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2015-10-08T16:53:06Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/my-scheduled-rule"],
        "detail": {},
    });
    let due = Some(Time(1_444_323_186_000));
    assert_eq!(view_event(&schedule.to_string()).unwrap(), ViewEvent::Schedule { due });
    let by_hand = json!({ "detail-type": "Scheduled Event" });
    assert_eq!(view_event(&by_hand.to_string()).unwrap(), ViewEvent::Schedule { due: None });
    assert!(view_event(&event(&[sns_record("[]"), sqs_record("a", "[]", 1)])).is_err());
}

/// Only API Gateway says who called: a header of the request does not.
#[test]
fn the_caller_is_the_one_that_api_gateway_has_verified() {
    let mut event = request("POST", "/ops/resume", "", Some(("{}", false)));
    event["headers"]["fanfold-operator"] = json!("eve");
    let caller = |event: &Value| {
        let request = http_request(&event.to_string()).expect("a request");
        request.extensions().get::<Caller>().map(|Caller(arn)| arn.clone())
    };
    assert_eq!(caller(&event), None);
    let arn = "arn:aws:sts::123456789012:assumed-role/operators/ann";
    // Developer guide, "Working with AWS Lambda authorizers": the context of a route with `AWS_IAM`.
    event["requestContext"]["authorizer"]["iam"] = json!({
        "accessKey": "ASIA",
        "accountId": "123456789012",
        "callerId": "AROA:ann",
        "cognitoIdentity": null,
        "principalOrgId": null,
        "userArn": arn,
        "userId": "AROA:ann",
    });
    assert_eq!(caller(&event).as_deref(), Some(arn));
}

#[test]
fn all_kinds_of_dead_letters_give_their_messages() {
    let by_topic = event(&[sns_record("[1]")]);
    // Developer guide, "Retaining records of asynchronous invocations".
    let destination = json!({
        "version": "1.0",
        "timestamp": "2019-11-14T18:16:05.568Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-xmpl-8880-a18cdf61200e",
            "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:s-balances:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": serde_json::from_str::<Value>(&by_topic).unwrap(),
        "responseContext": { "statusCode": 200, "functionError": "Unhandled" },
        "responsePayload": { "errorMessage": "1 of 1 messages were not applied" },
    });
    let schedule = json!({ "requestPayload": { "detail-type": "Scheduled Event" } });
    for (body, messages) in [
        (by_topic, &["[1]"][..]),
        (destination.to_string(), &["[1]"]),
        ("[1]".to_owned(), &["[1]"]),
        (json!({ "Type": "Notification", "Message": "[1]" }).to_string(), &["[1]"]),
        (schedule.to_string(), &[]),
        ("what is this".to_owned(), &["what is this"]),
    ] {
        assert_eq!(messages_of_dead_letter(&body), messages, "{body}");
    }
}

#[test]
fn the_answer_to_a_stream_names_the_first_and_to_a_queue_all_failures() {
    let ids = ["1", "2", "3"].map(str::to_owned);
    let stream = |unfinished| {
        serde_json::to_value(BatchResponse::of_stream(BatchOutcome { unfinished }, &ids)).unwrap()
    };
    assert_eq!(stream(None), json!({ "batchItemFailures": [] }));
    assert_eq!(stream(Some(1)), json!({ "batchItemFailures": [{ "itemIdentifier": "2" }] }));
    let queue = serde_json::to_value(BatchResponse::of_queue([0, 2], &ids)).unwrap();
    let expected =
        json!({ "batchItemFailures": [{ "itemIdentifier": "1" }, { "itemIdentifier": "3" }] });
    assert_eq!(queue, expected);
}

/// A request of an HTTP API (developer guide, "Lambda integrations for HTTP APIs", format 2.0).
fn request(method: &str, path: &str, query: &str, body: Option<(&str, bool)>) -> Value {
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": ["cookie1", "cookie2"],
        "headers": { "Header1": "value1", "accept": "*/*", "header2": "value1,value2" },
        "queryStringParameters": { "parameter1": "value1,value2" },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api-id",
            "domainName": "id.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "id",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1_583_348_638_390_u64,
        },
        "isBase64Encoded": body.is_some_and(|(_, is_base64)| is_base64),
    });
    if let Some((body, _)) = body {
        event["body"] = json!(body);
    }
    event
}

#[test]
fn a_request_is_decoded_as_it_was_sent() {
    // Paths as API Gateway passes them on, and as they must be decoded.
    for (path, query, uri) in [
        ("/command", "", "/command"),
        ("/logs/ledger/org:acme/17", "wait=5000", "/logs/ledger/org:acme/17?wait=5000"),
        ("/views/v/s/org:a/a b/ü", "", "/views/v/s/org:a/a%20b/%C3%BC"),
        ("/views/v/s/org:a/50%25", "", "/views/v/s/org:a/50%25"),
        ("/views/v/s/org:a/50%/a%2Fb", "", "/views/v/s/org:a/50%25/a%2Fb"),
        ("/views/v/s/org:a/what?#", "x=1", "/views/v/s/org:a/what%3F%23?x=1"),
        ("/logs/s/org:\"q\" <b>&{1}|+;~/1", "", "/logs/s/org:%22q%22%20%3Cb%3E&%7B1%7D%7C+;~/1"),
        ("/logs/s/org:山田 太郎/1", "", "/logs/s/org:%E5%B1%B1%E7%94%B0%20%E5%A4%AA%E9%83%8E/1"),
        ("/x", "prefix=a%20b&after=ü #", "/x?prefix=a%20b&after=%C3%BC%20%23"),
        ("", "", "/"),
    ] {
        let read = http_request(&request("GET", path, query, None).to_string()).unwrap();
        assert_eq!(read.uri(), uri, "{path}");
        assert_eq!((read.method().as_str(), &read.body()[..]), ("GET", &b""[..]));
        assert_eq!(read.headers()["header1"], "value1");
    }
    for (stage, path, uri) in [
        ("prod", "/prod/command", "/command"),
        ("prod", "/command", "/command"),
        ("prod", "/production", "/production"),
        ("prod", "/prod", "/"),
        ("$default", "/command", "/command"),
    ] {
        let mut event = request("POST", path, "", None);
        event["requestContext"]["stage"] = json!(stage);
        assert_eq!(http_request(&event.to_string()).unwrap().uri(), uri, "{path} of {stage}");
    }
}

#[test]
fn bodies_are_decoded_from_text_and_base64() {
    for (body, expected) in [
        (Some(("{\"a\":\"ü\"}", false)), "{\"a\":\"ü\"}".as_bytes()),
        (Some(("eyJhIjoxfQ==", true)), b"{\"a\":1}"),
        (Some(("", true)), b""),
        (None, b""),
    ] {
        let event = request("POST", "/command", "", body).to_string();
        assert_eq!(&http_request(&event).unwrap().body()[..], expected);
    }
    let event = request("POST", "/command", "", Some(("not base64", true))).to_string();
    assert!(http_request(&event).unwrap_err().to_string().contains("no base64"));
    assert!(http_request("{\"Records\":[]}").is_err());
}

#[test]
fn an_answer_is_text_or_base64_whichever_is_shorter() {
    let answer = |body: &[u8]| {
        let response = Response::builder().status(202).header("content-type", "application/json");
        let response = response.body(Bytes::copy_from_slice(body)).unwrap();
        serde_json::to_value(http_response(response)).unwrap()
    };
    let expected = |body: &str, is_base64: bool| {
        json!({
            "statusCode": 202, "headers": { "content-type": "application/json" },
            "multiValueHeaders": {}, "cookies": [], "body": body, "isBase64Encoded": is_base64,
        })
    };
    assert_eq!(answer(b"{}"), expected("{}", false));
    assert_eq!(answer(&[0xFF]), expected("/w==", true));
    assert_eq!(answer(b""), expected("", false));
    let of_quotes = "\"".repeat(1_000);
    assert_eq!(answer(of_quotes.as_bytes()), expected(&BASE64_STANDARD.encode(of_quotes), true));
    let with_quotes = "\"key\":".repeat(1_000);
    assert_eq!(answer(with_quotes.as_bytes()), expected(&with_quotes, false));
}

/// Events that the types of the crate `aws_lambda_events` encode, which follow what AWS really sends.
#[test]
fn events_that_aws_lambda_events_encodes_are_decoded() {
    use aws_lambda_events::dynamodb::EventRecord;
    use aws_lambda_events::sns::SnsRecord;
    use aws_lambda_events::sqs::SqsMessage;

    fn event_of(record: &impl serde::Serialize) -> String {
        event(&[serde_json::to_value(record).unwrap()])
    }
    let mut changed: EventRecord =
        serde_json::from_value(slot_record("MODIFY", "111", slot())).unwrap();
    changed.change.size_bytes = 1_234;
    let batch = changes(&event_of(&changed)).unwrap();
    assert_eq!((batch.items.len(), batch.ids), (1, vec!["111".to_owned()]));
    assert_eq!(batch.items[0].last, Seq(17));

    let mut published = SnsRecord::default();
    published.sns.message = "[1]".to_owned();
    assert_eq!(view_event(&event_of(&published)).unwrap(), ViewEvent::Topic(vec!["[1]".into()]));

    let mut queued = SqsMessage::default();
    (queued.message_id, queued.body) = (Some("m".to_owned()), Some("[2]".to_owned()));
    queued.attributes.insert("ApproximateReceiveCount".to_owned(), "1".to_owned());
    let ViewEvent::Queue { batch, .. } = view_event(&event_of(&queued)).unwrap() else { panic!() };
    assert_eq!((batch.items, batch.ids), (vec!["[2]".into()], vec!["m".to_owned()]));
}
