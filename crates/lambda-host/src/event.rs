//! Events in Lambda's formats.

use aws_sdk_dynamodbstreams::types::{AttributeValue, Record};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// The event of a mapping: several records.
pub fn of_records(records: &[Value]) -> Value {
    json!({ "Records": records })
}

/// A change of a table.
pub fn of_change(record: &Record, stream_arn: &str, region: &str) -> Value {
    let change = record.dynamodb();
    let image = |of: Option<&std::collections::HashMap<String, AttributeValue>>| of.map(item);
    let mut fields = Map::new();
    if let Some(at) = change.and_then(|c| c.approximate_creation_date_time()) {
        fields.insert("ApproximateCreationDateTime".to_owned(), json!(at.secs()));
    }
    for (name, of) in [
        ("Keys", image(change.and_then(|c| c.keys()))),
        ("NewImage", image(change.and_then(|c| c.new_image()))),
        ("OldImage", image(change.and_then(|c| c.old_image()))),
    ] {
        if let Some(of) = of {
            fields.insert(name.to_owned(), of);
        }
    }
    let more = json!({
        "SequenceNumber": change.and_then(|c| c.sequence_number()),
        "SizeBytes": change.and_then(|c| c.size_bytes()),
        "StreamViewType": change.and_then(|c| c.stream_view_type()).map(|of| of.as_str()),
    });
    fields.extend(more.as_object().cloned().unwrap_or_default());
    json!({
        "eventID": record.event_id(),
        "eventName": record.event_name().map(|name| name.as_str()),
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "dynamodb": fields,
        "eventSourceARN": stream_arn,
    })
}

/// An item in DynamoDB's own JSON.
pub fn item(item: &std::collections::HashMap<String, AttributeValue>) -> Value {
    // Sorted, so that equal keys have equal text.
    let mut fields: Vec<_> = item.iter().map(|(name, of)| (name.clone(), attribute(of))).collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Object(fields.into_iter().collect())
}

fn attribute(of: &AttributeValue) -> Value {
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    match of {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(bytes) => json!({ "B": base64(bytes.as_ref()) }),
        AttributeValue::Bool(is) => json!({ "BOOL": is }),
        AttributeValue::Null(is) => json!({ "NULL": is }),
        AttributeValue::M(fields) => json!({ "M": item(fields) }),
        AttributeValue::L(items) => json!({ "L": items.iter().map(attribute).collect::<Vec<_>>() }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(all) => {
            json!({ "BS": all.iter().map(|bytes| base64(bytes.as_ref())).collect::<Vec<_>>() })
        }
        _ => Value::Null,
    }
}

/// A record of a Kinesis stream, which was read from this shard.
pub fn of_kinesis(
    record: &aws_sdk_kinesis::types::Record,
    shard: &str,
    stream_arn: &str,
    region: &str,
) -> Value {
    let arrived = record.approximate_arrival_timestamp().map(|at| at.as_secs_f64());
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record.partition_key(),
            "sequenceNumber": record.sequence_number(),
            "data": BASE64_STANDARD.encode(record.data().as_ref()),
            "approximateArrivalTimestamp": arrived,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": format!("{shard}:{}", record.sequence_number()),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/host",
        "awsRegion": region,
        "eventSourceARN": stream_arn,
    })
}

/// A message of a queue.
pub fn of_message(message: &aws_sdk_sqs::types::Message, queue_arn: &str, region: &str) -> Value {
    let attributes = message.attributes().into_iter().flatten();
    let attributes: Map<_, _> =
        attributes.map(|(name, of)| (name.as_str().to_owned(), json!(of))).collect();
    json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "md5OfBody": message.md5_of_body(),
        "attributes": attributes,
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": region,
    })
}

/// The event of a notification, from the envelope that SNS puts into a queue without raw delivery.
/// `None`: the text is not such an envelope.
pub fn of_notification(envelope: &str) -> Option<Value> {
    let mut envelope: Map<String, Value> = serde_json::from_str(envelope).ok()?;
    if !envelope.get("Message")?.is_string() {
        return None;
    }
    // Lambda spells these differently.
    for (queue, lambda) in
        [("SigningCertURL", "SigningCertUrl"), ("UnsubscribeURL", "UnsubscribeUrl")]
    {
        if let Some(value) = envelope.remove(queue) {
            envelope.insert(lambda.to_owned(), value);
        }
    }
    envelope.entry("Subject").or_insert(Value::Null);
    envelope.entry("MessageAttributes").or_insert_with(|| json!({}));
    let topic = envelope.get("TopicArn").and_then(Value::as_str).unwrap_or_default();
    let subscription = format!("{topic}:00000000-0000-4000-8000-000000000000");
    Some(json!({ "Records": [{
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription,
        "Sns": envelope,
    }] }))
}

/// The event of a schedule.
pub fn of_schedule(function: &str, region: &str, account: &str, now: jiff::Timestamp) -> Value {
    json!({
        "version": "0",
        "id": "00000000-0000-4000-8000-000000000000",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": region,
        "resources": [format!("arn:aws:events:{region}:{account}:rule/{function}")],
        "detail": {},
    })
}
