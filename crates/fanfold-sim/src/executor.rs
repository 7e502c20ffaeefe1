//! A deterministic executor: one thread, a virtual clock that jumps from timer to timer, and one
//! random generator. The same seed gives the same run.
//!
//! The generator picks the next of the ready tasks, so that seeds cover different interleavings of
//! port calls.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// The start of every simulation: 2026-01-01T00:00:00Z.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// Identifies a task.
pub type TaskId = u64;
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The virtual clock and the random generator: the stages' [`Env`].
#[derive(Clone)]
pub struct World(Arc<Mutex<Shared>>);

struct Shared {
    now: Time,
    chance: SmallRng,
    timers: BinaryHeap<Reverse<(Time, u64)>>,
    wakers: BTreeMap<u64, Waker>,
    next_timer: u64,
    ready: Vec<TaskId>,
    /// The task that runs now, or ran last.
    task: TaskId,
    detached: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    stopped: bool,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random number in `range`.
    pub fn pick(&self, range: std::ops::Range<u64>) -> u64 {
        self.lock().chance.random_range(range)
    }

    /// Starts a task without a handle.
    pub fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().detached.push(Box::pin(task));
    }

    /// The task that calls this.
    pub fn task(&self) -> TaskId {
        self.lock().task
    }

    /// Undoes [`World::stop`].
    pub fn resume(&self) {
        self.lock().stopped = false;
    }

    /// Ends the run after the current step.
    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    /// True with a probability of `per_mille` thousandths.
    pub fn happens(&self, per_mille: u64) -> bool {
        self.pick(0..1_000) < per_mille
    }
}

#[async_trait]
impl Env for World {
    fn now(&self) -> Time {
        self.lock().now
    }

    fn random(&self) -> u64 {
        self.lock().chance.next_u64()
    }

    async fn sleep(&self, ms: u64) {
        let at = self.now().plus_ms(ms);
        Timer { world: self.clone(), at, id: None }.await;
    }
}

struct Timer {
    world: World,
    at: Time,
    id: Option<u64>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut shared = world.lock();
        if shared.now >= self.at && self.id.is_some() {
            return Poll::Ready(());
        }
        let id = match self.id {
            Some(id) => id,
            None => {
                let id = shared.next_timer;
                shared.next_timer += 1;
                shared.timers.push(Reverse((self.at, id)));
                self.id = Some(id);
                id
            }
        };
        shared.wakers.insert(id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.world.lock().wakers.remove(&id);
        }
    }
}

struct TaskWaker {
    id: TaskId,
    world: World,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut shared = self.world.lock();
        if !shared.ready.contains(&self.id) {
            shared.ready.push(self.id);
        }
    }
}

/// The executor.
#[derive(Clone)]
pub struct Executor {
    world: World,
    tasks: Rc<RefCell<BTreeMap<TaskId, Task>>>,
    next_task: Rc<RefCell<TaskId>>,
}

impl Executor {
    /// Creates an executor from a seed.
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            now: Time(EPOCH_MS),
            chance: SmallRng::seed_from_u64(seed),
            timers: BinaryHeap::new(),
            wakers: BTreeMap::new(),
            next_timer: 0,
            ready: Vec::new(),
            task: 0,
            detached: Vec::new(),
            stopped: false,
        };
        Self {
            world: World(Arc::new(Mutex::new(shared))),
            tasks: Rc::default(),
            next_task: Rc::default(),
        }
    }

    /// The executor's clock and random generator.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Starts a task.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Join<T> {
        let id = {
            let mut next = self.next_task.borrow_mut();
            *next += 1;
            *next
        };
        let slot: Rc<RefCell<Slot<T>>> = Rc::new(RefCell::new(Slot { value: None, waker: None }));
        let result = slot.clone();
        let task = async move {
            let value = future.await;
            let mut slot = result.borrow_mut();
            slot.value = Some(value);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        };
        self.tasks.borrow_mut().insert(id, Box::pin(task));
        self.world.lock().ready.push(id);
        Join { id, slot, executor: self.clone() }
    }

    /// Runs tasks until `done` has a result. Returns `false` if no task can run, the run was
    /// stopped, or the clock passes `until`.
    pub fn run_until<T>(&self, done: &Join<T>, until: Time) -> bool {
        loop {
            if done.slot.borrow().value.is_some() {
                return true;
            }
            let detached = std::mem::take(&mut self.world.lock().detached);
            for task in detached {
                self.spawn(task);
            }
            {
                let mut shared = self.world.lock();
                if shared.stopped {
                    return false;
                }
                if shared.ready.is_empty() {
                    match shared.timers.pop() {
                        Some(Reverse((at, id))) => {
                            shared.now = shared.now.max(at);
                            let waker = shared.wakers.remove(&id);
                            let now = shared.now;
                            drop(shared);
                            if now > until {
                                return false;
                            }
                            if let Some(waker) = waker {
                                waker.wake();
                            }
                            continue;
                        }
                        None => return false,
                    }
                }
            }
            self.step(None);
        }
    }

    /// Polls one of the ready tasks beside `running`. Returns whether there was any.
    fn step(&self, running: Option<TaskId>) -> bool {
        let next = {
            let mut shared = self.world.lock();
            // The running task may be woken meanwhile. It must stay ready.
            let running = running.and_then(|id| shared.ready.iter().position(|ready| *ready == id));
            let n = shared.ready.len() - usize::from(running.is_some());
            if n == 0 {
                return false;
            }
            let at = shared.chance.random_range(0..n);
            let at = at + usize::from(running.is_some_and(|running| at >= running));
            shared.ready.swap_remove(at)
        };
        // Removed from the table while it runs, since it may start and kill other tasks.
        // A task that was killed may still be listed as ready.
        let Some(mut task) = self.tasks.borrow_mut().remove(&next) else { return false };
        self.world.lock().task = next;
        let waker = Waker::from(Arc::new(TaskWaker { id: next, world: self.world.clone() }));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(next, task);
        }
        true
    }

    /// Polls another ready task in the middle of the one that runs, as a second thread would run it.
    /// Returns whether there was one. Does nothing if the run was stopped.
    pub fn step_beside(&self) -> bool {
        let running = {
            let shared = self.world.lock();
            if shared.stopped {
                return false;
            }
            shared.task
        };
        let has_polled = self.step(Some(running));
        self.world.lock().task = running;
        has_polled
    }

    /// Drops all tasks.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
    }
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// A handle to a task. The task runs on when the handle is dropped.
pub struct Join<T> {
    id: TaskId,
    slot: Rc<RefCell<Slot<T>>>,
    executor: Executor,
}

impl<T> Join<T> {
    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Drops the task. Returns `false` if it has finished already. Must not be called for a
    /// task that is being polled, as in [`Executor::step_beside`]: it would run on.
    pub fn kill(&self) -> bool {
        let task = self.executor.tasks.borrow_mut().remove(&self.id);
        task.is_some()
    }

    /// Takes the task's result, if it has finished.
    pub fn take(&self) -> Option<T> {
        self.slot.borrow_mut().value.take()
    }
}

impl<T> Future for &Join<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.borrow_mut();
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
