//! The clock and the chance of a Lambda's environment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;

/// The system's clock, tokio's timer, and a generator of the cryptographic kind, seeded by the
/// operating system in each environment anew: two environments never draw the same numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

#[async_trait]
impl Env for SystemEnv {
    fn now(&self) -> Time {
        // A clock before 1970 is as wrong as one at 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
