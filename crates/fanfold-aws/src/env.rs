//! The clock and the random numbers of a Lambda's environment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_pipeline::ports::Env;

/// The system's clock, tokio's timer, and a cryptographic random generator. The operating system seeds
/// the generator in each environment, so two environments do not draw the same numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

#[async_trait]
impl Env for SystemEnv {
    fn now(&self) -> Time {
        // A clock before 1970 is wrong anyway: it counts as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn build(&self) -> Option<&str> {
        fanfold_pipeline::build::of_program()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
