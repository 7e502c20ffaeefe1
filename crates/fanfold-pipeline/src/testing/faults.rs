//! The fault layer in front of every port. It records the calls, and breaks those that a test
//! names: before or after they take effect, or so late that other calls come between. It can also
//! run something during a call.
//!
//! Every call yields before and after its effect, so that calls that may overlap do.

use std::future::{Future, poll_fn};
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::ports::Unavailable;
use futures::future::BoxFuture;

use super::crash::hang_if_crashed;

/// A call of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are named as the ports' calls")]
pub enum Op {
    SlotAppend,
    SlotGet,
    SlotRaise,
    Catalogue,
    Admit,
    PutRecords,
    JournalAppend,
    JournalRead,
    JournalTail,
    JournalLogs,
    StateGet,
    StatePut,
    Park,
    ParkedList,
    ParkedRemove,
    Publish,
    Cursor,
    /// A wrong answer of `Cursor`: six entries further on than the cursor is.
    CursorAhead,
    Rows,
    PutRow,
    MoveCursor,
    MarkBehind,
    ParkView,
    ReleaseView,
    ParkedViews,
    ReplaceParked,
    ClearView,
    ReplaceLease,
    Scan,
    LetterList,
    LetterRemove,
    Sleep,
}

/// How a call is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It has no effect.
    Before,
    /// It has no effect, and its error says so.
    Throttled,
    /// The provider refuses the call for good.
    Refused,
    /// It finds damaged data.
    Damaged,
    /// It takes effect, but returns an error.
    After,
    /// It takes effect when [`Faults::land`] is called, long after its caller has given up.
    Late,
}

type Hook = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
enum Action {
    Break(Broken),
    Before(Hook),
    After(Hook),
    LeaveOut(String),
    Refuse(Refuses),
}

/// Whether a message with this description is refused for good.
type Refuses = Arc<dyn Fn(&str) -> bool + Send + Sync>;

struct Rule {
    op: Op,
    /// Only calls whose description has this in it.
    about: String,
    calls: (Bound<usize>, Bound<usize>),
    seen: usize,
    action: Action,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<(Op, String)>,
    under_way: Vec<Op>,
    overlap: Vec<(Op, usize)>,
    late: Vec<BoxFuture<'static, ()>>,
}

/// The script of one world, shared by all of its ports.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Script>>);

impl Faults {
    fn script(&self) -> MutexGuard<'_, Script> {
        // A scenario that fails may panic while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rule(&self, op: Op, about: &str, calls: impl RangeBounds<usize>, action: Action) {
        let calls = (calls.start_bound().cloned(), calls.end_bound().cloned());
        let about = about.to_owned();
        self.script().rules.push(Rule { op, about, calls, seen: 0, action });
    }

    /// Breaks the calls of `op` with `about` in their description. From now on they are counted
    /// from 1.
    pub fn fail(&self, op: Op, about: &str, calls: impl RangeBounds<usize>, how: Broken) {
        self.rule(op, about, calls, Action::Break(how));
    }

    /// Makes such calls fail for the records or messages with `about` in their description, and
    /// take the others.
    pub fn leave_out(&self, op: Op, about: &str, calls: impl RangeBounds<usize>) {
        self.rule(op, about, calls, Action::LeaveOut(about.to_owned()));
    }

    /// From now on the topic refuses for good the messages for which `refuses` returns `true`.
    pub fn refuse_messages(&self, refuses: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.rule(Op::Publish, "", .., Action::Refuse(Arc::new(refuses)));
    }

    /// Whether a message with this description is refused for good.
    pub(super) fn refuses(&self, message: &str) -> bool {
        let script = self.script();
        let refuses = |rule: &Rule| matches!(&rule.action, Action::Refuse(is) if is(message));
        script.rules.iter().any(refuses)
    }

    /// Runs something while the first such call is under way: before its effect.
    pub fn before<F>(&self, op: Op, about: &str, hook: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.rule(op, about, 1..=1, Action::Before(Arc::new(move || Box::pin(hook()))));
    }

    /// Runs something while the first such call is under way: after its effect.
    pub fn after<F>(&self, op: Op, about: &str, hook: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.rule(op, about, 1..=1, Action::After(Arc::new(move || Box::pin(hook()))));
    }

    /// Runs something in every call of `op`, before its effect.
    pub fn before_every<F>(&self, op: Op, hook: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.rule(op, "", .., Action::Before(Arc::new(move || Box::pin(hook()))));
    }

    /// Runs something in every call of `op`, after its effect.
    pub fn after_every<F>(&self, op: Op, hook: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.rule(op, "", .., Action::After(Arc::new(move || Box::pin(hook()))));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.script().rules.clear();
    }

    /// Lets the calls broken with [`Broken::Late`] take effect now.
    pub async fn land(&self) {
        let late = std::mem::take(&mut self.script().late);
        for effect in late {
            effect.await;
        }
    }

    /// The calls of `op` since the last [`Faults::forget`], as they were described.
    pub fn calls(&self, op: Op) -> Vec<String> {
        let script = self.script();
        let of_op = script.calls.iter().filter(|(called, _)| *called == op);
        of_op.map(|(_, about)| about.clone()).collect()
    }

    /// How many calls of each of these there were since the last [`Faults::forget`].
    pub fn counts<const N: usize>(&self, ops: [Op; N]) -> [usize; N] {
        ops.map(|op| self.calls(op).len())
    }

    /// The most calls of `op` that were under way at the same time.
    pub fn overlap(&self, op: Op) -> usize {
        self.script().overlap.iter().find(|(of, _)| *of == op).map_or(0, |(_, most)| *most)
    }

    /// Forgets what was called so far.
    pub fn forget(&self) {
        let mut script = self.script();
        script.calls.clear();
        script.overlap.clear();
    }

    /// Records a call that does not wait. Returns whether it is to be refused.
    pub(super) fn refuse(&self, op: Op, about: &str) -> bool {
        let mut script = self.script();
        let actions = script.begin(op, about);
        script.end(op);
        actions.iter().any(|action| matches!(action, Action::Break(_)))
    }

    /// Makes a call with this effect.
    pub(super) async fn call<T, E>(
        &self,
        op: Op,
        about: String,
        effect: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
    {
        self.call_in_parts(op, &[about], |_| effect).await
    }

    /// As [`Faults::call`]. The effect gets the parts that it must leave out.
    pub(super) async fn call_in_parts<T, E, F>(
        &self,
        op: Op,
        parts: &[String],
        effect: impl FnOnce(Vec<usize>) -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
    {
        let actions = self.script().begin(op, &parts.join(", "));
        let is_left_out = |part: &String| {
            actions
                .iter()
                .any(|action| matches!(action, Action::LeaveOut(what) if part.contains(what)))
        };
        let left_out = (0..parts.len()).filter(|at| is_left_out(&parts[*at])).collect();
        let effect = effect(left_out);
        yield_once().await;
        hang_if_crashed().await;
        for action in &actions {
            if let Action::Before(hook) = action {
                hook().await;
            }
        }
        let broken = actions.iter().find_map(|action| match action {
            Action::Break(how) => Some(*how),
            _ => None,
        });
        let result = match broken {
            None => effect.await,
            Some(Broken::Before) => Err(unanswered(op).into()),
            Some(Broken::Throttled) => Err(Unavailable::Throttled { hop: "port" }.into()),
            Some(Broken::Refused) => Err(refused().into()),
            Some(Broken::Damaged) => {
                Err(Unavailable::Damaged { hop: "port", message: "a part is missing".to_owned() }
                    .into())
            }
            Some(Broken::After) => {
                // The result is lost.
                let (Ok(_) | Err(_)) = effect.await;
                Err(unanswered(op).into())
            }
            Some(Broken::Late) => {
                let effect = async move {
                    let (Ok(_) | Err(_)) = effect.await;
                };
                self.script().late.push(Box::pin(effect));
                Err(unanswered(op).into())
            }
        };
        for action in &actions {
            if let Action::After(hook) = action {
                hook().await;
            }
        }
        yield_once().await;
        self.script().end(op);
        result
    }
}

impl Script {
    fn begin(&mut self, op: Op, about: &str) -> Vec<Action> {
        self.calls.push((op, about.to_owned()));
        self.under_way.push(op);
        let now = self.under_way.iter().filter(|other| **other == op).count();
        match self.overlap.iter_mut().find(|(of, _)| *of == op) {
            Some((_, most)) => *most = now.max(*most),
            None => self.overlap.push((op, now)),
        }
        let mut actions = Vec::new();
        for rule in self.rules.iter_mut().filter(|r| r.op == op && about.contains(&r.about)) {
            rule.seen += 1;
            if rule.calls.contains(&rule.seen) {
                actions.push(rule.action.clone());
            }
        }
        actions
    }

    fn end(&mut self, op: Op) {
        if let Some(at) = self.under_way.iter().position(|other| *other == op) {
            self.under_way.swap_remove(at);
        }
    }
}

fn refused() -> Unavailable {
    Unavailable::Refused { hop: "port", message: "the test does not allow it".to_owned() }
}

fn unanswered(op: Op) -> Unavailable {
    Unavailable::Failed { hop: "port", message: format!("{op:?} is broken by the test") }
}

/// Yields, so that everything else that is ready runs first.
pub async fn yield_once() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
