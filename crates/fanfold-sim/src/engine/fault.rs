//! The faults of an engine's lives.

/// A fault, or another event that runs must cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process was killed. What was written stays.
    Killed,
    /// The power failed. What was not synced is lost, wholly or in part.
    PowerCut,
    /// The machine stopped in the middle of a call of the disk.
    StoppedInCall,
    /// A call of the disk failed, before or after its effect.
    DiskError,
    /// Only a part of a write took effect.
    TornWrite,
    /// The disk was full for a while.
    DiskFull,
    /// The clock jumped.
    ClockJumped,
    /// A shard was split.
    Split,
    /// Two shards were merged.
    Merged,
    /// The engine could not be opened.
    NotOpened,
    /// The engine was shut down properly.
    ShutDown,
    /// Commands were replayed.
    Replayed,
    /// The engine started after two unclean starts at one checkpoint, and was suspicious.
    Suspicious,
    /// A new version of a service, and of its views, was deployed.
    Deployed,
    /// Other tasks ran between two steps of a call.
    Interleaved,
    /// A reader read between two steps of a checkpoint.
    ReadInCheckpoint,
    /// A backup was complete.
    BackedUp,
    /// A backup failed.
    BackupFailed,
    /// One log of a view was rebuilt.
    Rebuilt,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Killed,
        Self::PowerCut,
        Self::StoppedInCall,
        Self::DiskError,
        Self::TornWrite,
        Self::DiskFull,
        Self::ClockJumped,
        Self::Split,
        Self::Merged,
        Self::NotOpened,
        Self::ShutDown,
        Self::Replayed,
        Self::Suspicious,
        Self::Deployed,
        Self::Interleaved,
        Self::ReadInCheckpoint,
        Self::BackedUp,
        Self::BackupFailed,
        Self::Rebuilt,
    ];
}
