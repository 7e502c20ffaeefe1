//! Runs and ends the tasks of an engine.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::{AbortHandle, Abortable, BoxFuture};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::striped::lock;

/// Runs futures.
pub trait Spawner: Send + Sync + 'static {
    /// Runs a task concurrently with others.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs a task on a thread of its own, which it may block.
    fn spawn_thread(&self, name: &str, task: BoxFuture<'static, ()>) -> io::Result<()>;
}

/// Runs tasks on a tokio runtime.
#[derive(Debug, Clone)]
pub(crate) struct TokioSpawner(Handle);

impl TokioSpawner {
    /// Uses the current runtime.
    pub(crate) fn current() -> Self {
        Self(Handle::current())
    }
}

impl Spawner for TokioSpawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn spawn_thread(&self, name: &str, task: BoxFuture<'static, ()>) -> io::Result<()> {
        let (thread, runtime) = (std::thread::Builder::new().name(name.to_owned()), self.0.clone());
        thread.spawn(move || runtime.block_on(task)).map(drop)
    }
}

/// A set of running tasks. Clones share it.
#[derive(Clone)]
pub(crate) struct Tasks {
    spawner: Arc<dyn Spawner>,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    handles: Mutex<BTreeMap<u64, AbortHandle>>,
    next: AtomicU64,
    ended: Notify,
}

/// The registration of a running task, until it is dropped.
struct Entry {
    running: Arc<Running>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.running.handles).remove(&self.id);
        self.running.ended.notify_waiters();
    }
}

impl Tasks {
    /// An empty set.
    pub(crate) fn new(spawner: Arc<dyn Spawner>) -> Self {
        Self { spawner, running: Arc::default() }
    }

    fn entered(&self, task: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
        let (handle, registration) = AbortHandle::new_pair();
        let running = self.running.clone();
        let id = running.next.fetch_add(1, Ordering::Relaxed);
        lock(&running.handles).insert(id, handle);
        let entry = Entry { running, id };
        Box::pin(async move {
            // Dropped after the task.
            let _entry = entry;
            let _ = Abortable::new(task, registration).await;
        })
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawner.spawn(self.entered(task));
    }

    /// Starts a task on a thread of its own.
    pub(crate) fn spawn_thread(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.spawner.spawn_thread(name, self.entered(task))
    }

    /// Waits until no task runs.
    pub(crate) async fn ended(&self) {
        loop {
            let mut ended = pin!(self.running.ended.notified());
            // Registered before the check, so that a task that ends after the check is not missed.
            ended.as_mut().enable();
            if lock(&self.running.handles).is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Ends all tasks at their next await.
    pub(crate) fn abort(&self) {
        lock(&self.running.handles).values().for_each(AbortHandle::abort);
    }
}

/// Owns a set of tasks: dropping it ends them all.
pub(crate) struct TaskSet(pub(crate) Tasks);

impl Drop for TaskSet {
    fn drop(&mut self) {
        self.0.abort();
    }
}
