//! A lane, compared with a plain list of the batches that must come.

use lambda_host::answer::BatchAnswer;
use lambda_host::lane::{Lane, Rules};
use proptest::prelude::*;

/// The pieces that are left of the batch under way, the records in no batch yet, and the finished
/// ones.
#[derive(Debug, Default)]
struct Model {
    pieces: Vec<Vec<u32>>,
    waiting: Vec<u32>,
    done: Vec<u32>,
}

impl Model {
    /// The batch that must come next.
    fn next(&mut self, size: usize) -> Vec<u32> {
        if self.pieces.is_empty() {
            let rest = self.waiting.split_off(size.min(self.waiting.len()));
            self.pieces.push(std::mem::replace(&mut self.waiting, rest));
        }
        self.pieces[0].clone()
    }

    fn end(&mut self, outcome: BatchAnswer, bisect: bool) {
        let mut piece = self.pieces.remove(0);
        let rest = match outcome {
            BatchAnswer::Done => vec![],
            BatchAnswer::From(index) => vec![piece.split_off(index)],
            BatchAnswer::Failed if bisect && piece.len() > 1 => {
                let behind = piece.split_off(piece.len() / 2);
                vec![std::mem::take(&mut piece), behind]
            }
            BatchAnswer::Failed => vec![std::mem::take(&mut piece)],
        };
        self.done.extend(piece);
        self.pieces.splice(0..0, rest);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u32),
    Pass(u64),
    /// Takes a batch if one is due, and ends it: the batch fails from this thousandth on, or, with
    /// `None`, as a whole if the flag is set.
    Invoke(Option<u32>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..8_u32).prop_map(Step::Push),
        (0..300_u64).prop_map(Step::Pass),
        (proptest::option::of(0..1_000_u32), any::<bool>())
            .prop_map(|(from, fails)| Step::Invoke(from, fails)),
    ]
}

fn outcome(batch: &[u32], from: Option<u32>, fails: bool) -> BatchAnswer {
    match from {
        Some(from) => BatchAnswer::From(from as usize * batch.len() / 1_000),
        None if fails => BatchAnswer::Failed,
        None => BatchAnswer::Done,
    }
}

proptest! {
    #[test]
    fn batches_are_those_of_the_model(
        steps in proptest::collection::vec(step(), 1..200),
        size in 1..6_usize,
        window_ms in prop_oneof![Just(0), 1..500_u64],
        bisect in any::<bool>(),
    ) {
        let rules = Rules { size, window_ms, bisect, retry_ms: 100, retry_ms_max: 1_000 };
        let (mut lane, mut model) = (Lane::new(rules), Model::default());
        let (mut now_ms, mut pushed) = (0, 0);
        for step in steps {
            match step {
                Step::Push(count) => for _ in 0..count {
                    lane.push(pushed, now_ms);
                    model.waiting.push(pushed);
                    pushed += 1;
                },
                Step::Pass(ms) => now_ms += ms,
                Step::Invoke(from, fails) => {
                    let Some(batch) = lane.take(now_ms) else {
                        // The lane waits for the window or for its pause, never for both.
                        let later = now_ms + 1..=now_ms + window_ms.max(1_000);
                        let is_later = lane.due_ms().is_none_or(|due_ms| later.contains(&due_ms));
                        prop_assert!(is_later, "due at {:?} of {}", lane.due_ms(), now_ms);
                        prop_assert_eq!(lane.due_ms().is_none(), lane.is_empty());
                        continue;
                    };
                    prop_assert_eq!(&batch, &model.next(size));
                    prop_assert!(lane.take(now_ms + 10_000).is_none(), "one at a time");
                    let outcome = outcome(&batch, from, fails);
                    let before = model.done.len();
                    model.end(outcome, bisect);
                    let finished = lane.finish(outcome, now_ms);
                    prop_assert_eq!(finished.done, model.done.len() - before);
                }
            }
            prop_assert_eq!(lane.len() + model.done.len(), pushed as usize);
        }
        // Records finish in order, and in the end all of them have.
        while !lane.is_empty() {
            now_ms += 10_000;
            let batch = lane.take(now_ms).expect("something is due");
            prop_assert_eq!(batch, model.next(size));
            lane.finish(BatchAnswer::Done, now_ms);
            model.end(BatchAnswer::Done, bisect);
        }
        prop_assert_eq!(model.done, (0..pushed).collect::<Vec<_>>());
    }
}

#[test]
fn pauses_double_until_a_record_is_done() {
    let rules = Rules { size: 4, window_ms: 0, bisect: false, retry_ms: 100, retry_ms_max: 500 };
    let mut lane = Lane::new(rules);
    (0..4).for_each(|record| lane.push(record, 0));
    let mut pauses = Vec::new();
    let failed = BatchAnswer::Failed;
    for outcome in [failed, failed, failed, failed, BatchAnswer::From(1), failed, BatchAnswer::Done]
    {
        let now_ms = lane.due_ms().expect("something is due");
        lane.take(now_ms).expect("it is due");
        lane.finish(outcome, now_ms);
        pauses.push(lane.due_ms().map(|due_ms| due_ms - now_ms));
    }
    let expected = [Some(100), Some(200), Some(400), Some(500), Some(100), Some(100), None];
    assert_eq!(pauses, expected);
}
