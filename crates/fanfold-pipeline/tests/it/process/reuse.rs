//! F4: a repeated command is a duplicate. Another command with the same id is rejected.

use fanfold::entry::Outcome;
use fanfold::{Command, Origin, Seq};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, command, done, run, unfinished};

/// Enough small entries to make a snapshot due.
const DUE: u64 = 300;

fn adds(id: u64, by: u64) -> Command {
    command("ann", id, "add", json!({"counter": "a", "by": by}))
}

fn with_data(id: u64, json: &str) -> Command {
    let data = serde_json::value::RawValue::from_string(json.to_owned()).expect("JSON");
    Command { data, ..adds(id, 1) }
}

fn of_client(client: &str, command: Command) -> Command {
    let name = |text: &str| text.parse().expect("a name");
    let origin = Origin::client(&name("ann"), &name(client)).expect("it is not reserved");
    Command { origin, ..command }
}

/// The last `n` outcomes: the seq of the first command, and the status or what differs from it.
async fn last(world: &World, n: usize) -> Vec<(Option<u64>, String)> {
    let entries = world.entries(&acme()).await;
    let outcome = |outcome: &Outcome| match outcome {
        Outcome::Duplicate { of } => (Some(of.0), "duplicate".to_owned()),
        Outcome::Rejected { code, message, of: Some(of) } => {
            assert_eq!(code, "id_reused");
            (Some(of.0), message.clone())
        }
        other => (None, other.status().to_owned()),
    };
    entries[entries.len() - n..].iter().map(|entry| outcome(&entry.outcome)).collect()
}

#[test]
fn a_reused_id_is_rejected_with_the_seq_of_the_first_command() {
    play(async || {
        for (is_cold, is_below_head) in [(false, false), (true, false), (false, true), (true, true)]
        {
            let world = World::new();
            let mut processor = world.processor();
            let first = if is_below_head { DUE } else { 9 };
            done(&processor, &[world.acme(1..=first)]).await;
            assert_eq!(world.head(&acme()).await, Seq(if is_below_head { first } else { 0 }));
            if is_cold {
                processor = world.processor();
            }
            world.faults.forget();
            let again = [
                // The same command, also in other JSON.
                run([3]).remove(0),
                with_data(6, r#"{ "by": 1.0, "c\u006funter": "a" }"#),
                // Other data, and another command.
                adds(6, 7),
                command("ann", 9, "nothing", json!({})),
                // Another client's command, its repeat, and other data.
                of_client("till", adds(3, 7)),
                of_client("till", adds(3, 7)),
                of_client("till", adds(3, 8)),
                // First and repeats in this batch.
                adds(9_000, 1),
                adds(9_000, 2),
                adds(9_000, 1),
            ];
            done(&processor, &[world.record(&acme(), first + 1, &again)]).await;
            let reused =
                |id, seq, what| format!("`id`: {id} was used at seq {seq} {what}: use a new one");
            let (till, this) = (first + 5, first + 8);
            let expected = [
                (Some(3), "duplicate".to_owned()),
                (Some(6), "duplicate".to_owned()),
                (Some(6), reused(6, 6, "with other `data`")),
                (Some(9), reused(9, 9, "for the command `add`")),
                (None, "accepted".to_owned()),
                (Some(till), "duplicate".to_owned()),
                (Some(till), reused(3, till, "with other `data`")),
                (None, "accepted".to_owned()),
                (Some(this), reused(9_000, this, "with other `data`")),
                (Some(this), "duplicate".to_owned()),
            ];
            assert_eq!(last(&world, 10).await, expected, "cold {is_cold}, below {is_below_head}");
            if !is_cold {
                let reads = usize::from(is_below_head);
                assert_eq!(world.faults.counts([Op::JournalRead]), [reads], "only for repeats");
            }
            world.audit(&acme()).await;
        }
    });
}

/// When the journal cannot be read, the batch is retried, and the repeats are compared then.
#[test]
fn repeats_wait_for_the_journal() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        done(&processor, &[world.acme(1..=DUE)]).await;
        let again = [world.record(&acme(), DUE + 1, &[adds(3, 1), adds(6, 7)])];
        world.faults.fail(Op::JournalRead, "", 1..=1, Broken::Before);
        assert_eq!(unfinished(&processor, &again).await, 0);
        done(&processor, &again).await;
        let outcomes = last(&world, 2).await;
        assert_eq!(outcomes[0], (Some(3), "duplicate".to_owned()));
        assert_eq!(outcomes[1].0, Some(6));
        world.audit(&acme()).await;
    });
}
