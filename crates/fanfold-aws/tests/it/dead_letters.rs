//! The dead letters of a view, in a queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use fanfold_aws::SqsDeadLetters;
use fanfold_pipeline::conformance;
use fanfold_pipeline::ports::{DeadLetter, DeadLetters};
use serde_json::{Value, json};

use crate::answers::aws;

const URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/balances-dead";

/// A queue that hides received messages, and deletes them by their handles.
#[derive(Default)]
struct Queue {
    visible: VecDeque<Value>,
    hidden: Vec<Value>,
    receives: usize,
    /// How often hidden messages became visible again.
    shown: usize,
}

impl Queue {
    fn of(bodies: &[String]) -> Self {
        let mut queue = Self::default();
        bodies.iter().for_each(|body| queue.push(body));
        queue
    }

    fn push(&mut self, body: &str) {
        let at = self.visible.len();
        self.visible.push_back(json!({ "MessageId": format!("id-{at}"), "ReceiptHandle": format!("h-{at}"), "Body": body }));
    }

    fn handle(&mut self, body: &str) -> String {
        let request: Value = serde_json::from_str(body).unwrap();
        assert_eq!(request["QueueUrl"], URL);
        if let Some(handle) = request["ReceiptHandle"].as_str() {
            self.hidden.retain(|message| message["ReceiptHandle"] != handle);
            return "{}".to_owned();
        }
        self.receives += 1;
        let most = request["MaxNumberOfMessages"].as_u64().unwrap() as usize;
        let received: Vec<Value> = self.visible.drain(..most.min(self.visible.len())).collect();
        self.hidden.extend(received.clone());
        json!({ "Messages": received }).to_string()
    }

    /// Makes received messages visible again, in their order, with new handles.
    fn show_again(&mut self) {
        self.shown += 1;
        for mut message in std::mem::take(&mut self.hidden).into_iter().rev() {
            let id = message["MessageId"].as_str().unwrap();
            message["ReceiptHandle"] = json!(format!("{id}-{}", self.shown));
            self.visible.push_front(message);
        }
    }

    fn left(&self) -> Vec<&str> {
        let all = self.visible.iter().chain(&self.hidden);
        all.map(|message| message["MessageId"].as_str().unwrap()).collect()
    }
}

fn letters(bodies: &[String]) -> (SqsDeadLetters, Arc<Mutex<Queue>>) {
    let queue = Arc::new(Mutex::new(Queue::of(bodies)));
    let handling = queue.clone();
    let aws = aws(move |body| Some((200, handling.lock().unwrap().handle(body))));
    (SqsDeadLetters::new(&aws, URL), queue)
}

fn bodies(letters: &[DeadLetter]) -> Vec<String> {
    letters.iter().map(|letter| String::from_utf8(letter.body.to_vec()).unwrap()).collect()
}

/// The letter that Lambda writes if it cannot deliver an event of SNS.
fn event(messages: &[&str]) -> String {
    let record = |message: &&str| {
        json!({
            "EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": "arn:aws:sns:x",
            "Sns": { "Type": "Notification", "MessageId": "m", "Message": message },
        })
    };
    json!({ "Records": messages.iter().map(record).collect::<Vec<_>>() }).to_string()
}

#[tokio::test]
async fn the_messages_of_a_letter_of_any_origin_are_listed() {
    let envelope = json!({ "Type": "Notification", "MessageId": "m", "Message": "[3]" });
    let schedule =
        json!({ "detail-type": "Scheduled Event", "source": "aws.events", "detail": {} });
    let (letters, queue) = letters(&[
        event(&["[1]"]),
        "[2]".to_owned(),
        envelope.to_string(),
        schedule.to_string(),
        "a foreign text".to_owned(),
        event(&["[4]", "[5]"]),
    ]);
    let listed = letters.list("balances", None, 100).await.unwrap();
    assert_eq!(bodies(&listed), ["[1]", "[2]", "[3]", "a foreign text", "[4]", "[5]"]);
    assert_eq!(queue.lock().unwrap().left().len(), 5, "the scheduled event is deleted");

    letters.remove("balances", listed[1].id).await.unwrap();
    letters.remove("balances", listed[1].id).await.unwrap();
    letters.remove("balances", 12_345).await.unwrap();
    letters.remove("balances", listed[4].id).await.unwrap();
    let left = |queue: &Arc<Mutex<Queue>>| -> Vec<String> {
        queue.lock().unwrap().left().into_iter().map(str::to_owned).collect()
    };
    assert_eq!(left(&queue), ["id-0", "id-2", "id-4", "id-5"], "one message of the last is left");
    letters.remove("balances", listed[5].id).await.unwrap();
    assert_eq!(left(&queue), ["id-0", "id-2", "id-4"]);
}

#[tokio::test]
async fn dead_letters_pass_the_conformance_suite() {
    let (letters, queue) = letters(&[]);
    let kill = async |bodies: Vec<bytes::Bytes>| {
        let mut queue = queue.lock().unwrap();
        bodies.iter().for_each(|body| queue.push(std::str::from_utf8(body).unwrap()));
    };
    let show_again = async || queue.lock().unwrap().show_again();
    conformance::dead_letters(&letters, "balances", kill, show_again).await;
}

#[tokio::test]
async fn listing_receives_no_more_than_it_needs() {
    let many: Vec<String> = (0..35).map(|n| format!("[{n}]")).collect();
    for (limit, receives) in [(1, 1), (10, 1), (25, 3), (100, 5)] {
        let (letters, queue) = letters(&many);
        let listed = letters.list("balances", None, limit).await.unwrap();
        assert_eq!(bodies(&listed), many[..limit.min(35)]);
        assert_eq!(queue.lock().unwrap().receives, receives, "of {limit}");
    }
}
