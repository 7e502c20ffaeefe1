//! Waits for a moment with a precision of about ten microseconds.
//!
//! The timers of the runtime tick in milliseconds, which is as long as a command takes. A sleeping
//! thread is more precise, so one thread sleeps for all waits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use tokio::sync::Notify;

/// The sleeping thread. It ends when this is dropped.
pub(crate) struct Pacer {
    moments: Sender<Instant>,
    woken: Arc<Notify>,
    asked: Option<Instant>,
}

impl Pacer {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (moments, asked) = channel();
        let woken = Arc::new(Notify::new());
        let notify = Arc::clone(&woken);
        thread::Builder::new().name("pacer".into()).spawn(move || sleep(&asked, &notify))?;
        Ok(Self { moments, woken, asked: None })
    }

    /// Returns at `moment`. Cancel-safe; the moments of later calls must not be earlier.
    pub(crate) async fn until(&mut self, moment: Instant) {
        while Instant::now() < moment {
            if self.asked != Some(moment) {
                self.asked = Some(moment);
                // The thread ends only when this is dropped.
                let _ = self.moments.send(moment);
            }
            self.woken.notified().await;
        }
    }
}

fn sleep(asked: &Receiver<Instant>, woken: &Notify) {
    while let Ok(moment) = asked.recv() {
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_at_its_moment_and_not_before() {
        let mut pacer = Pacer::start().expect("a thread starts");
        let began = Instant::now();
        for ms in [1, 1, 2, 5, 5, 9] {
            let moment = began + Duration::from_millis(ms);
            pacer.until(moment).await;
            assert!(Instant::now() >= moment);
        }
    }

    #[tokio::test]
    async fn a_cancelled_wait_does_not_disturb_the_next_one() {
        let mut pacer = Pacer::start().expect("a thread starts");
        let began = Instant::now();
        let moment = began + Duration::from_millis(20);
        let given_up = tokio::time::timeout(Duration::from_millis(1), pacer.until(moment)).await;
        assert!(given_up.is_err());
        pacer.until(moment).await;
        assert!(Instant::now() >= moment);
        pacer.until(moment + Duration::from_millis(2)).await;
        assert!(Instant::now() >= moment + Duration::from_millis(2));
    }
}
