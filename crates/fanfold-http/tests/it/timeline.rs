//! Each action of an operator is recorded, before it is done and with its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::{Seq, Services, Time, Views};
use fanfold_embedded::testing::Ports;
use fanfold_embedded::{SystemEnv, TransitConfig};
use fanfold_http::operators_alone;
use fanfold_pipeline::calls::{CallCounter, ViewCalls};
use fanfold_pipeline::doctor::Doctor;
use fanfold_pipeline::operate::Operate;
use fanfold_pipeline::ports::{
    ActionId, HostChecked, HostChecks, OperatorParked, OperatorTimeline, ParkedItem, ParkedTable,
    TimelinePage, Unavailable,
};
use fanfold_pipeline::tenants::{Busiest, Busy};
use fanfold_pipeline::timeline::{Caller, Timeline};
use ledger::Ledger;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Answer, acme};

/// A timeline whose calls fail, before or after their effect.
struct Broken {
    inner: Arc<dyn OperatorTimeline>,
    begins_fail: AtomicBool,
    ends_fail: AtomicBool,
}

fn failed() -> Unavailable {
    Unavailable::TimedOut { hop: "timeline" }
}

#[async_trait]
impl OperatorTimeline for Broken {
    async fn begin(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        match self.begins_fail.load(Ordering::Relaxed) {
            true => Err(failed()),
            false => self.inner.begin(id, body).await,
        }
    }

    async fn end(&self, id: ActionId, body: &Bytes) -> Result<(), Unavailable> {
        match self.ends_fail.load(Ordering::Relaxed) {
            true => Err(failed()),
            false => self.inner.end(id, body).await,
        }
    }

    async fn list(
        &self,
        before: Option<ActionId>,
        limit: usize,
    ) -> Result<TimelinePage, Unavailable> {
        self.inner.list(before, limit).await
    }
}

/// Checks of which one finds something, and one cannot be made.
struct Checks;

#[async_trait]
impl HostChecks for Checks {
    async fn check(&self) -> HostChecked {
        let mut checked = HostChecked::default();
        checked.add("stream_order", Ok(Some("it ignores keys".to_owned())));
        checked.add("recovery", Ok(None));
        checked.add("recovery", Ok(None));
        checked.add("expiry", Err("no rights".to_owned()));
        checked
    }
}

struct Operated {
    memory: Ports,
    broken: Arc<Broken>,
    router: Router,
}

impl Operated {
    fn new() -> Self {
        let env = Arc::new(SystemEnv);
        let memory = Ports::in_memory(&TransitConfig::default(), [], env.clone()).expect("ports");
        let calls = ViewCalls::Counted(CallCounter::new(1));
        let (operated, services) =
            (memory.operated(calls, env.clone()), Services::new().with::<Ledger>());
        let doctor = Doctor::new(operated.clone(), services.clone(), Views::new());
        let operate = Operate::new(operated, memory.wiring(env.clone()).ingest(services));
        let broken = Arc::new(Broken {
            inner: memory.timeline.clone(),
            begins_fail: AtomicBool::new(false),
            ends_fail: AtomicBool::new(false),
        });
        let timeline = Timeline::new(broken.clone(), env);
        let router = operators_alone(operate, doctor, timeline, Arc::new(Checks));
        Self { memory, broken, router }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.expect("it always answers")).await
    }

    async fn post(&self, path: &str, by: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("fanfold-operator", by);
        self.send(request.body(body.to_string().into()).expect("it is a request")).await
    }

    async fn timeline(&self, query: &str) -> Value {
        let request = Request::get(format!("/ops/timeline{query}")).body(Body::empty());
        let answer = self.send(request.expect("it is a request")).await.expect(200);
        serde_json::from_str(&answer.text).expect("it is JSON")
    }

    /// Parks bytes that no build can read, at the log's seq 0, so that skipping removes them.
    async fn park(&self) {
        let content = Content::Bytes(b"?".to_vec());
        let detail = "it cannot be read".to_owned();
        let parked = Parked { reason: Reason::Undecodable, at: Time(1), detail, content };
        let item = ParkedItem::of(Seq(0), &parked).expect("it can be written");
        self.memory.parked.park(&acme(), &item).await.expect("it is in memory");
    }

    async fn parked(&self) -> usize {
        self.memory.parked.scan(None, 10).await.expect("it is in memory").items.len()
    }
}

#[tokio::test]
async fn actions_are_listed_newest_first() {
    let host = Operated::new();
    host.park().await;
    let skip = json!({ "log": acme(), "seq": 0, "reason": "sent in error", "identity": null });
    host.post("/ops/skip", "Zo%C3%AB", &skip).await.expect(200);
    host.post("/ops/skip", "", &skip).await.expect_problem(404, "nothing-waits");
    let wrong = json!({ "log": acme(), "wrong": [1], "reason": 7 });
    host.post("/ops/raise", "ann", &wrong).await.expect_problem(400, "unknown-field");

    let page = host.timeline("").await;
    assert_eq!(page["next"], Value::Null);
    let mut items = page["items"].as_array().expect("a list").clone();
    for item in &mut items {
        let item = item.as_object_mut().expect("an object");
        assert!(item.remove("at").is_some_and(|at| at.is_u64()), "{item:?}");
        assert!(item.remove("id").is_some_and(|id| id.is_string()), "{item:?}");
    }
    let [raise, again, skip] = &items[..] else { panic!("{items:?}") };
    assert_eq!(
        *skip,
        json!({
            "by": "Zoë", "is_claimed": true, "action": "skip", "log": "ledger/org:acme", "seq": 0,
            "reason": "sent in error", "state": "done", "result": "removed",
        })
    );
    assert_eq!((&again["by"], &again["is_claimed"]), (&Value::Null, &json!(false)));
    assert_eq!(again["state"], "refused");
    assert!(again["result"].as_str().is_some_and(|why| why.contains("nothing waits")), "{again}");
    assert_eq!((&raise["target"], &raise["state"]), (&json!("wrong=[1]"), &json!("refused")));

    let first = host.timeline("?limit=2").await;
    let next = first["next"].as_str().expect("there is more");
    let second = host.timeline(&format!("?limit=2&before={next}")).await;
    assert_eq!(second["items"].as_array().map(Vec::len), Some(1), "{second}");
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn a_caller_that_the_host_has_verified_is_believed_before_the_header() {
    let host = Operated::new();
    let request = Request::post("/ops/raise").header("fanfold-operator", "eve");
    let request = request.extension(Caller("arn:aws:iam::1:user/ann".to_owned()));
    let body = json!({ "log": acme() }).to_string();
    host.send(request.body(body.into()).expect("it is a request")).await.expect(200);
    let page = host.timeline("").await;
    let item = &page["items"][0];
    assert_eq!(
        (&item["by"], &item["is_claimed"]),
        (&json!("arn:aws:iam::1:user/ann"), &json!(false))
    );
    assert_eq!((&item["state"], &item["result"]), (&json!("done"), &json!("fits")));
}

#[tokio::test]
async fn an_action_that_cannot_be_recorded_is_not_done() {
    let host = Operated::new();
    host.park().await;
    host.broken.begins_fail.store(true, Ordering::Relaxed);
    let skip = json!({ "log": acme(), "seq": 0, "reason": "no" });
    let refused = host.post("/ops/skip", "ann", &skip).await.expect_problem(503, "unavailable");
    assert!(refused.text.contains("it was not done"), "{}", refused.text);
    assert_eq!(host.parked().await, 1, "it still waits");
    for by in ["%FF", "a%0Ab", &"a".repeat(129)] {
        let refused = host.post("/ops/skip", by, &skip).await;
        refused.expect_problem(400, "bad-parameter");
    }
    assert_eq!(host.timeline("").await["items"], json!([]));
}

#[tokio::test]
async fn an_action_whose_outcome_cannot_be_recorded_is_answered_as_it_came_out() {
    let host = Operated::new();
    host.park().await;
    host.broken.ends_fail.store(true, Ordering::Relaxed);
    let skip = json!({ "log": acme(), "seq": 0, "reason": "no" });
    host.post("/ops/skip", "ann", &skip).await.expect(200);
    assert_eq!(host.parked().await, 0, "it was done");
    let page = host.timeline("").await;
    assert_eq!(page["items"][0]["state"], "begun", "{page}");
    assert_eq!(page["items"][0]["result"], Value::Null, "{page}");
}

#[tokio::test]
async fn the_settings_of_the_host_are_compared() {
    let request = Request::get("/ops/doctor/host").body(Body::empty()).expect("it is a request");
    let answer = Operated::new().send(request).await.expect(200);
    assert_eq!(
        serde_json::from_str::<Value>(&answer.text).expect("it is JSON"),
        json!({
            "findings": [{ "what": "stream_order", "detail": "it ignores keys" }],
            "checked": ["stream_order", "recovery"],
            "unchecked": [{ "what": "expiry", "detail": "no rights" }],
        })
    );
}

#[tokio::test]
async fn the_busiest_tenants_are_listed_with_the_error_of_the_estimate() {
    let busy = |reason, count| Busy { tenant: "org:acme".to_owned(), reason, count, over: 2 };
    let busiest = move |limit: usize| Busiest {
        from: Time(5),
        to: Time(65),
        accepted: vec![busy("", 9); limit],
        bytes: vec![],
        refused: vec![busy("closed", 4)],
        entries: vec![],
        slowest: vec![busy("", 870)],
    };
    let router: Router = fanfold_http::tenants(busiest);
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("it is a request");
        Answer::of(router.clone().oneshot(request).await.expect("it always answers")).await
    };
    let answer = get("/ops/tenants?limit=1").await.expect(200);
    assert_eq!(
        serde_json::from_str::<Value>(&answer.text).expect("it is JSON"),
        json!({
            "from": 5, "to": 65, "tracked": 256,
            "accepted": [{ "tenant": "org:acme", "count": 9, "over": 2 }],
            "bytes": [],
            "refused": [{ "tenant": "org:acme", "reason": "closed", "count": 4, "over": 2 }],
            "entries": [],
            "slowest": [{ "tenant": "org:acme", "ms": 870 }],
        })
    );
    get("/ops/tenants?limit=257").await.expect_problem(400, "bad-parameter");
}

#[tokio::test]
async fn reading_is_not_recorded() {
    let host = Operated::new();
    for path in ["/ops/parked", "/ops/doctor", "/ops/timeline"] {
        let request = Request::get(path).body(Body::empty()).expect("it is a request");
        host.send(request).await.expect(200);
    }
    assert_eq!(host.timeline("").await["items"], json!([]));
    let request = Request::get("/ops/timeline?before=x").body(Body::empty());
    let answer = host.send(request.expect("it is a request")).await;
    answer.expect_problem(400, "bad-parameter");
}
