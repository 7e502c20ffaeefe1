use async_trait::async_trait;
use fanfold::Time;

/// Time and randomness. The stages have no other source of them, so that the simulator controls
/// both.
#[async_trait]
pub trait Env: Send + Sync {
    /// The current time. It MAY jump, also backwards.
    fn now(&self) -> Time;
    /// Milliseconds since some moment of this process. MUST NOT jump. The default is the time,
    /// which is right only for a clock that does not jump.
    fn uptime_ms(&self) -> u64 {
        self.now().0
    }
    /// 64 random bits. In production they MUST be unpredictable enough never to repeat by accident.
    fn random(&self) -> u64;
    /// The name of the program that runs, which differs from that of every other build; `None` if it is not known. By
    /// default it is not known.
    fn build(&self) -> Option<&str> {
        None
    }
    /// Returns after about `ms` milliseconds.
    async fn sleep(&self, ms: u64);
}
