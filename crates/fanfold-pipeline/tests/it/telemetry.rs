//! What the stages measure on a command's path.

use std::sync::Arc;

use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::telemetry::{Figures, Latencies, Telemetry};
use fanfold_pipeline::tenants::Busy;
use fanfold_pipeline::wiring::Wiring;
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, add, command, services, views};

/// The number of latencies, and their sum in milliseconds.
fn of(latencies: &Latencies) -> (u64, u64) {
    (latencies.count(), latencies.sum_ms)
}

#[test]
fn each_hop_measures_from_the_acceptance_to_its_own_effect() {
    play(async || {
        let world = World::new();
        let telemetry = Arc::new(Telemetry::new());
        let wiring = Wiring { telemetry: Some(telemetry.clone()), ..world.wiring() };
        let request = |id: u64| {
            let data = json!({"counter": "a", "by": 1});
            json!({"type": "tally", "command": "add", "id": id, "user": "ann", "org": "acme", "data": data})
            .to_string()
        };
        let requests = [request(1), request(2), request(1), "nonsense".to_owned()];
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        wiring.ingest(services()).ingest(&requests).await;
        world.env.pass(3);
        let relayed = wiring.relay().relay(&world.changes(), NEVER).await;
        assert_eq!(relayed, BatchOutcome::DONE);
        world.env.pass(4);
        let processor = wiring.processor(services());
        assert_eq!(processor.process(&world.records(), NEVER).await, BatchOutcome::DONE);
        world.env.pass(5);
        let view = views().get("sums").expect("a view").clone();
        assert!(wiring.projector(&view).project(&world.messages(), NEVER).await.is_empty());

        let figures = telemetry.figures();
        assert_eq!(of(&figures.accept), (3, 0), "a refused request is not accepted");
        assert_eq!(of(&figures.relay), (3, 9));
        assert_eq!(of(&figures.decide), (3, 21));
        assert_eq!(of(&figures.publish), (3, 21));
        // The view reads nothing of a duplicate.
        assert_eq!(of(&figures.apply["sums"]), (2, 24));
        assert_eq!(figures.outcomes, [2, 0, 1, 0, 0, 0]);
        assert_eq!((figures.cache_hits, figures.cache_misses), (0, 1));
        // Another batch finds the log in the cache.
        let more = world.record(&acme(), 4, &[add(3)]);
        assert_eq!(processor.process(&[more], NEVER).await, BatchOutcome::DONE);
        assert_eq!((telemetry.figures().cache_hits, telemetry.figures().cache_misses), (1, 1));
    });
}

#[test]
fn tenants_are_counted_from_the_request_to_the_entry() {
    play(async || {
        let world = World::new();
        let telemetry = Arc::new(Telemetry::new().with_tenants());
        let wiring = Wiring { telemetry: Some(telemetry.clone()), ..world.wiring() };
        let request = |id: u64, org: &str| {
            let data = json!({"counter": "a", "by": 1});
            json!({"type": "tally", "command": "add", "id": id, "user": "ann", "org": org, "data": data})
            .to_string()
        };
        let requests = [request(1, "acme"), request(2, "acme"), request(1, "other")];
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        wiring.ingest(services()).ingest(&requests).await;
        world.memory.admission.close();
        wiring.ingest(services()).ingest(&requests).await;
        world.env.pass(7);
        assert_eq!(wiring.relay().relay(&world.changes(), NEVER).await, BatchOutcome::DONE);
        let processor = wiring.processor(services());
        assert_eq!(processor.process(&world.records(), NEVER).await, BatchOutcome::DONE);

        let tenants = telemetry.tenants().expect("they are counted");
        let found = tenants.busiest(world.env.now(), 10);
        let shown = |list: &[Busy]| -> Vec<(String, u64)> {
            list.iter().map(|busy| (busy.tenant.clone(), busy.count)).collect()
        };
        let expected = [("org:acme".to_owned(), 2), ("org:other".to_owned(), 1)];
        assert_eq!(shown(&found.accepted), expected);
        assert_eq!(shown(&found.entries), expected);
        assert_eq!(shown(&found.refused), expected);
        assert_eq!(found.refused[0].reason, "not_admitted");
        let [acme, other] = &found.bytes[..] else { panic!("{found:?}") };
        assert!(acme.count > other.count && other.count > 50, "{found:?}");
        assert_eq!(shown(&found.slowest).iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), [7, 7]);
    });
}

#[test]
fn entries_that_are_there_already_are_not_counted_again() {
    play(async || {
        let world = World::new();
        let telemetry = Arc::new(Telemetry::new());
        let wiring = Wiring { telemetry: Some(telemetry.clone()), ..world.wiring() };
        let fails = json!({"counter": "a", "how": "panic_in_decide"});
        let record = world.record(&acme(), 1, &[add(1), command("ann", 2, "fail", fails)]);
        for _ in 0..2 {
            let processor = wiring.processor(services());
            let outcome = processor.process(std::slice::from_ref(&record), NEVER).await;
            assert_eq!(outcome, BatchOutcome::DONE);
        }
        assert_eq!(telemetry.take().outcomes, [1, 0, 0, 0, 1, 0]);
        let view = views().get("sums").expect("a view").clone();
        for _ in 0..2 {
            assert!(wiring.projector(&view).project(&world.messages(), NEVER).await.is_empty());
        }
        let applied = telemetry.take().apply["sums"].count();
        assert!(applied <= 2, "{applied} entries were applied again");
        let nothing = Figures {
            apply: [("sums".to_owned(), Latencies::default())].into(),
            ..Figures::default()
        };
        assert_eq!(telemetry.figures(), nothing);
    });
}
