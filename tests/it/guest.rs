//! A view of another team is deployed beside a running stack, which does not know it. `cargo xtask
//! e2e` runs the first scenario, deploys the view, and runs the second.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// The organisation whose log is there before the view.
const ORG: &str = "before-the-guest";
/// The view's sweep runs each minute, and reaches all logs in one run or two.
const PATIENCE: Duration = Duration::from_secs(240);

fn served(world: &World, view: &str) -> Option<Value> {
    let views = world.get("/views").expect(200).json;
    let views = views["views"].as_array().expect("a list").clone();
    views.into_iter().find(|served| served["view"] == view)
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn the_log_is_there_before_the_view() {
    let world = World::new();
    world.send("ledger", "open", 1, ORG, json!({"account": "cash"})).expect(202);
    for (id, amount) in [(2, 40), (3, 2)] {
        let deposit = json!({"account": "cash", "amount": amount});
        world.send("ledger", "deposit", id, ORG, deposit).expect(202);
    }
    world.reach(&format!("/logs/ledger/org:{ORG}/3"));
    assert_eq!(served(&world, "deposits"), None);
    world.get(&format!("/views/deposits/ledger/org:{ORG}")).expect(404);
    let own = served(&world, "balances").expect("a view of the stack");
    assert!(own["since"].is_u64(), "it is announced: {own}");
}

#[test]
#[ignore = "needs a deployed stack: cargo xtask e2e"]
fn the_view_has_the_log_that_was_there_before() {
    let (world, began) = (World::new(), Instant::now());
    let row = format!("/views/deposits/ledger/org:{ORG}/ann");
    let found = loop {
        let answer = world.get(&row);
        if answer.status == 200 {
            break answer.json;
        }
        assert!(began.elapsed() < PATIENCE, "no row after {PATIENCE:?}: {}", answer.json);
        thread::sleep(Duration::from_secs(1));
    };
    assert_eq!(found["row"], json!({"amount": 42, "times": 2}), "{found}");
    let view = served(&world, "deposits").expect("it is listed");
    assert_eq!((&view["version"], &view["awaitable"]), (&json!(1), &json!(true)), "{view}");

    // From now on it receives notifications as the others do.
    let deposit = json!({"account": "cash", "amount": 8});
    world.send("ledger", "deposit", 4, ORG, deposit).expect(202);
    let found = world.reach(&format!("{row}?seq=4")).json;
    assert_eq!(found["row"], json!({"amount": 50, "times": 3}), "{found}");
}
