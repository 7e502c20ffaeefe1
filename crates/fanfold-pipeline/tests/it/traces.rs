//! A command's trace on its way, and what the stages report of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fanfold::TraceParent;
use fanfold::host::body::slot;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::telemetry::Telemetry;
use fanfold_pipeline::traces::{Hop, RequestSpan, TracedBatch, Traces};
use fanfold_pipeline::wiring::Wiring;
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, services, views};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Keeps what is reported, as `decide 1 accepted, 2 duplicate`.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no test panics within"))
    }
}

impl Traces for Recorder {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(7)
    }

    fn request(&self, _: Option<TraceParent>, _: &str, _: &'static str) -> Box<dyn RequestSpan> {
        unreachable!("no stage is asked over HTTP")
    }

    fn batch(&self, batch: &TracedBatch<'_>) {
        assert_eq!(batch.began, self.now());
        assert!(!batch.commands.is_empty());
        let commands = batch.commands.iter().map(|of| {
            assert_eq!(of.trace.to_string(), TRACE);
            assert_eq!(*of.log, acme());
            let name = of.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let outcome = of.outcome.map(|outcome| format!(" {outcome}")).unwrap_or_default();
            format!("{}{name}{outcome}", of.seq)
        });
        let commands: Vec<String> = commands.collect();
        let hop = match batch.hop {
            Hop::Relay => "relay".to_owned(),
            Hop::Decide => "decide".to_owned(),
            Hop::Publish => "publish".to_owned(),
            Hop::Apply(view) => format!("apply {view}"),
        };
        let line = format!("{hop}: {}", commands.join(", "));
        self.0.lock().expect("no test panics within").push(line);
    }
}

fn request(id: u64) -> String {
    let data = json!({"counter": "a", "by": 1});
    json!({"type": "tally", "command": "add", "id": id, "user": "ann", "org": "acme", "data": data})
        .to_string()
}

#[test]
fn a_trace_travels_through_all_hops_and_other_commands_report_nothing() {
    play(async || {
        let world = World::new();
        let recorder = Arc::new(Recorder::default());
        let telemetry = Telemetry::new().with_traces(Some(recorder.clone()));
        let wiring = Wiring { telemetry: Some(Arc::new(telemetry)), ..world.wiring() };
        let ingest = wiring.ingest(services());
        let trace: TraceParent = TRACE.parse().expect("a trace");
        for (id, trace) in [(1, Some(trace)), (2, None), (1, Some(trace))] {
            let answers = ingest.ingest_traced(&[request(id).as_bytes()], trace).await;
            assert!(answers[0].is_ok());
        }
        assert_eq!(recorder.take(), [""; 0]);
        assert_eq!(wiring.relay().relay(&world.changes(), NEVER).await, BatchOutcome::DONE);
        assert_eq!(recorder.take(), ["relay: 1 add, 3 add"]);
        let processor = wiring.processor(services());
        assert_eq!(processor.process(&world.records(), NEVER).await, BatchOutcome::DONE);
        let done =
            ["decide", "publish"].map(|hop| format!("{hop}: 1 add accepted, 3 add duplicate"));
        assert_eq!(recorder.take(), done);
        let view = views().get("sums").expect("a view").clone();
        let projector = wiring.projector(&view);
        assert!(projector.project(&world.messages(), NEVER).await.is_empty());
        assert_eq!(recorder.take(), ["apply sums: 1"], "a duplicate changes no row");
        assert!(projector.project(&world.messages(), NEVER).await.is_empty());
        assert_eq!(recorder.take(), [""; 0], "a repeat has no effect");
    });
}

#[test]
fn what_its_caller_does_not_record_is_not_stored() {
    play(async || {
        let world = World::new();
        let ingest = world.wiring().ingest(services());
        let not_sampled = format!("{}00", &TRACE[..53]).parse().expect("a trace");
        ingest.ingest_traced(&[request(1).as_bytes()], Some(not_sampled)).await;
        let plain = ingest.ingest(&[request(2).as_bytes()]).await;
        assert!(plain[0].is_ok());
        for change in world.changes() {
            let commands = slot::decode(&change.body).expect("commands");
            assert_eq!(commands[0].trace, None);
        }
    });
}
