//! Waiting pages, server-sent events, and the list of logs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::body::Body;
use fanfold::entry::Outcome;
use fanfold::{LogId, Seq, Time};
use fanfold_http::Streams;
use fanfold_http::limits::WAIT_MS_MAX;
use fanfold_pipeline::ports::{ParkedView, ViewTable};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{Answer, Edge, acme};

/// Longer than anything takes here, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOG: &str = "/logs/ledger/org:acme";
const VIEW: &str = "/views/balances/ledger/org:acme";
const EVENTS: (&str, &str) = ("accept", "text/event-stream");

#[derive(Debug, PartialEq)]
struct Event {
    id: Option<u64>,
    kind: String,
    data: Value,
}

/// An answer that goes on.
struct Events {
    body: Body,
    read: String,
    /// `retry` and comments, which are no events.
    others: VecDeque<String>,
}

impl Edge {
    async fn events(&self, path: &str, last: &str) -> Events {
        let headers = [EVENTS, ("last-event-id", last)];
        let headers = if last.is_empty() { &headers[..1] } else { &headers };
        let response = self.response("GET", path, headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut events =
            Events { body: response.into_body(), read: String::new(), others: VecDeque::new() };
        assert_eq!(events.block().await.as_deref(), Some("retry: 1000"));
        events
    }

    async fn refused(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        Answer::of(self.response("GET", path, &[&[EVENTS], headers].concat()).await).await
    }
}

impl Events {
    /// The lines up to the next empty one; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let block = block.to_owned();
                self.read = rest.to_owned();
                return Some(block);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("there is an event");
            let Some(frame) = frame else {
                assert_eq!(self.read, "", "it ends within an event");
                return None;
            };
            let data = frame.expect("it does not fail").into_data().expect("it has no trailers");
            self.read.push_str(std::str::from_utf8(&data).expect("events are text"));
        }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                self.others.push_back(block);
                continue;
            }
            let field = |name: &str| {
                let lines = block.lines().filter_map(|line| line.strip_prefix(name));
                lines.collect::<Vec<_>>().join("\n")
            };
            return Some(Event {
                id: field("id: ").parse().ok(),
                kind: field("event: "),
                data: serde_json::from_str(&field("data: ")).expect("data are JSON"),
            });
        }
    }

    async fn ids(mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(event) = self.next().await {
            ids.extend(event.id);
        }
        ids
    }
}

async fn json_of(edge: &Edge, path: &str) -> Value {
    serde_json::from_str(&edge.get(path).await.expect(200).text).expect("it is JSON")
}

fn whole(wait_ms_max: u64) -> Edge {
    Edge::with(wait_ms_max, Streams::Whole)
}

#[tokio::test]
async fn a_page_waits_for_its_first_entry_also_if_the_log_does_not_exist_yet() {
    let edge = Edge::new();
    let empty = r#"{"log":"ledger/org:acme","accepted":0,"tail":0,"entries":[],"next":null}"#;
    assert_eq!(edge.get(&format!("{LOG}?wait=30")).await.expect(200).text, empty);
    let path = format!("{LOG}?from=1&wait=25000");
    let (page, ()) = tokio::join!(edge.get(&path), async {
        sleep(Duration::from_millis(20)).await;
        edge.open(1).await.expect(202);
        edge.commit(1, vec![Outcome::Stale]).await;
    });
    let page = page.expect(200).text;
    assert!(page.contains(r#""tail":1"#) && page.contains(r#""seq":1"#), "{page}");
    // There is an entry, so it does not wait.
    assert_eq!(edge.get(&path).await.expect(200).text, page);
    let refused = edge.get(&format!("{LOG}?wait=25001")).await.expect_problem(400, "bad-parameter");
    assert!(refused.text.contains("integer from 0 to 25000"), "{}", refused.text);
    edge.get("/logs/lodger/org:a?wait=25000").await.expect_problem(404, "unknown-service");
}

#[tokio::test]
async fn each_entry_of_a_log_is_an_event() {
    let edge = Edge::new();
    let mut events = edge.events(LOG, "").await;
    for first in [1, 3] {
        edge.open(first).await.expect(202);
        edge.open(first + 1).await.expect(202);
        edge.commit(first, vec![Outcome::Accepted(vec![]), Outcome::Stale]).await;
        for seq in [first, first + 1] {
            let event = events.next().await.expect("it goes on");
            assert_eq!((event.id, event.kind.as_str()), (Some(seq), "entry"));
            assert_eq!(event.data, json_of(&edge, &format!("{LOG}/{seq}")).await);
        }
    }
    let next = async |path: &str, last: &str| edge.events(path, last).await.next().await;
    assert_eq!(next(&format!("{LOG}?from=3"), "").await.and_then(|event| event.id), Some(3));
    assert_eq!(next(&format!("{LOG}?from=1"), "3").await.and_then(|event| event.id), Some(4));
    assert_eq!(next(&format!("{LOG}?wait=0&raw"), "0").await.and_then(|event| event.id), Some(1));
}

/// A stream that is silent has comments, so that no proxy takes it for dead.
#[tokio::test]
async fn a_stream_without_events_has_comments_and_ends() {
    let edge = Edge::with(WAIT_MS_MAX, Streams::Live { ms_max: 40 });
    let began = Instant::now();
    let mut events = edge.events(LOG, "").await;
    assert_eq!(events.next().await, None);
    assert!(!events.others.is_empty() && events.others.iter().all(|line| line == ":"));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_host_that_sends_whole_answers_ends_them_behind_the_first_events() {
    let edge = whole(40);
    assert_eq!(edge.events(LOG, "").await.ids().await, [0; 0]);
    let edge = whole(WAIT_MS_MAX);
    let (events, ()) = tokio::join!(edge.events(LOG, ""), async {
        sleep(Duration::from_millis(20)).await;
        edge.open(1).await.expect(202);
        edge.open(2).await.expect(202);
        edge.commit(1, vec![Outcome::Stale, Outcome::Stale]).await;
    });
    assert_eq!(events.ids().await, [1, 2]);
    assert_eq!(edge.events(LOG, "1").await.ids().await, [2]);
    assert_eq!(edge.events(&format!("{LOG}?wait=20"), "2").await.ids().await, [0; 0]);
    // The answer to HEAD does not wait.
    let head =
        Answer::of(edge.response("HEAD", LOG, &[EVENTS, ("last-event-id", "2")]).await).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), "text/event-stream");

    edge.put_row("cash", 1, "1").await;
    assert_eq!(edge.events(VIEW, "").await.ids().await, [1]);
    let (events, ()) = tokio::join!(edge.events(VIEW, "1"), async {
        sleep(Duration::from_millis(20)).await;
        edge.put_row("bank", 2, "1").await;
    });
    assert_eq!(events.ids().await, [2]);
}

#[tokio::test]
async fn a_view_sends_its_answer_whenever_that_changes() {
    let edge = Edge::new();
    for id in 1..=40 {
        edge.open(id).await.expect(202);
    }
    let cash = format!("{VIEW}/cash");
    let mut rows = edge.events(&format!("{VIEW}?order=desc&limit=1"), "").await;
    let mut row = edge.events(&cash, "").await;
    let first = rows.next().await.expect("it goes on");
    assert_eq!((first.id, first.kind.as_str()), (Some(0), "rows"));
    assert_eq!(first.data["rows"], json!([]));
    let first = row.next().await.expect("it goes on");
    assert_eq!((first.id, first.kind.as_str()), (Some(0), "no-row"));
    assert_eq!(first.data["type"], "urn:fanfold:problem:unknown-row");

    edge.put_row("cash", 1, "{\n\"balance\": 1}").await;
    let event = rows.next().await.expect("it goes on");
    assert_eq!((event.id, event.kind.as_str()), (Some(1), "rows"));
    assert_eq!(event.data, json_of(&edge, &format!("{VIEW}?order=desc&limit=1")).await);
    let event = row.next().await.expect("it goes on");
    assert_eq!((event.id, event.kind.as_str()), (Some(1), "row"));
    assert_eq!(event.data, json_of(&edge, &cash).await);

    // Many changes are few events, and the last event has the last change.
    for seq in 2..=40 {
        edge.put_row(&format!("a{seq}"), seq, "0").await;
    }
    let (mut seen, mut events) = (1, 0);
    while seen < 40 {
        let id = row.next().await.expect("it goes on").id.expect("it has an id");
        assert!(id > seen, "{id} behind {seen}");
        (seen, events) = (id, events + 1);
    }
    assert!(events <= 4, "{events} events");
    // The view is parked: another answer at the same seq.
    let parked = ParkedView {
        seq: Seq(41),
        reason: "no".to_owned(),
        at: Time(7),
        build: None,
        rebuild: None,
    };
    edge.memory.views["balances"].park(&acme(), Seq(40), &parked).await.expect("memory");
    let event = row.next().await.expect("it goes on");
    assert_eq!((event.id, &event.data["parked"]["seq"]), (Some(40), &json!(41)));
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_ends_with_the_problem() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    edge.commit(1, vec![Outcome::Stale]).await;
    for (path, headers, status, kind) in [
        (LOG, &[("last-event-id", "x")][..], 400, "bad-parameter"),
        (LOG, &[("last-event-id", "-1")], 400, "bad-parameter"),
        (LOG, &[("last-event-id", "")], 400, "bad-parameter"),
        (LOG, &[("last-event-id", "99999999999999999999")], 400, "bad-parameter"),
        (LOG, &[("last-event-id", "1"), ("last-event-id", "1")], 400, "repeated-parameter"),
        (LOG, &[("last-event-id", "2")], 404, "unknown-seq"),
        (VIEW, &[("last-event-id", "one")], 400, "bad-parameter"),
        (&format!("{LOG}?limit=1"), &[], 400, "unknown-parameter"),
        (&format!("{LOG}?wait=25001"), &[], 400, "bad-parameter"),
        (&format!("{VIEW}?seq=1"), &[], 400, "unknown-parameter"),
        (&format!("{VIEW}/cash?prefix=a"), &[], 400, "unknown-parameter"),
        ("/logs/lodger/org:a", &[], 404, "unknown-service"),
        ("/views/fly/ledger/org:acme", &[], 404, "unknown-view"),
        ("/views/balances/lodger/org:acme", &[], 404, "unknown-view"),
    ] {
        edge.refused(path, headers).await.expect_problem(status, kind);
    }
    edge.put_row("cash", 1, "no JSON").await;
    edge.refused(VIEW, &[]).await.expect_problem(500, "internal");
    let mut events = edge.events(VIEW, "1").await;
    edge.put_row("bank", 2, "0").await;
    let event = events.next().await.expect("there is an event");
    assert_eq!((event.id, event.kind.as_str()), (None, "problem"));
    assert_eq!(event.data["type"], "urn:fanfold:problem:internal");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn requests_that_do_not_prefer_events_get_json() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    edge.commit(1, vec![Outcome::Stale]).await;
    for accept in ["*/*", "text/event-stream;q=0", "application/json, text/event-stream", "text/*"]
    {
        for path in [LOG, VIEW] {
            let response = edge.response("GET", path, &[("accept", accept)]).await;
            let answer = Answer::of(response).await.expect(200);
            assert_eq!(answer.header("content-type"), "application/json", "{accept}");
        }
    }
    // One entry has no stream.
    for path in [&format!("{LOG}/1"), &format!("{LOG}?user=ann&id=1")] {
        let answer = Answer::of(edge.response("GET", path, &[EVENTS]).await).await;
        assert_ne!(answer.header("content-type"), "text/event-stream", "{path}");
    }
}

#[tokio::test]
async fn logs_are_listed_in_pages() {
    let edge = Edge::new();
    let nothing = edge.get("/logs").await.expect(200).text;
    assert_eq!(nothing, r#"{"logs":[],"next":null}"#);
    let mut all: Vec<LogId> = Vec::new();
    for org in ["a/b", "a+é", "acme", "b", "c"] {
        let org = org.replace('/', "-");
        let request = json!({"type": "ledger", "command": "open", "id": 1, "user": "ann", "org": org, "data": {"account": "a"}});
        edge.call("POST", "/command", request.to_string()).await.expect(202);
        all.push(format!("ledger/org:{org}").parse().expect("a log"));
    }
    all.sort();
    let listed = async |query: &str, limit: usize| {
        let (mut logs, mut after): (Vec<LogId>, _) = (Vec::new(), String::new());
        loop {
            let path = format!("/logs?limit={limit}&after={after}{query}");
            let page = json_of(&edge, &path).await;
            let of_page = page["logs"].as_array().expect("logs").iter();
            logs.extend(
                of_page
                    .map(|log| log["log"].as_str().expect("text").parse::<LogId>().expect("a log")),
            );
            let Some(next) = page["next"].as_str() else { break };
            let unreserved = percent_encoding::NON_ALPHANUMERIC;
            after = percent_encoding::utf8_percent_encode(next, unreserved).to_string();
        }
        logs.sort();
        logs
    };
    for limit in [1, 2, 5, 1_000] {
        assert_eq!(listed("", limit).await, all);
        assert_eq!(listed("&prefix=ledger/org:a", limit).await, all[..3]);
        assert_eq!(listed("&prefix=x", limit).await, []);
    }
    for (query, status, kind) in [
        ("after=x", 400, "bad-parameter"),
        ("after=300", 400, "bad-parameter"),
        ("after=3:ledger", 400, "bad-parameter"),
        ("limit=0", 400, "bad-parameter"),
        ("from=1", 400, "unknown-parameter"),
        ("prefix=lodger/org:a", 404, "unknown-service"),
    ] {
        edge.get(&format!("/logs?{query}")).await.expect_problem(status, kind);
    }
}
