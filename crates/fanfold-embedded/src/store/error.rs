use std::io;
use std::path::PathBuf;

use fanfold::with_causes;
use fanfold_pipeline::ports::Unavailable;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the quota, is full.
    #[error("the disk is full")]
    Full,
    /// Every other error of the operating system.
    #[error("the disk failed")]
    Io(#[source] io::Error),
    /// Every other error of `fjall`.
    #[error("the tables failed")]
    Tables(#[source] fjall::Error),
    /// The folder's path does not lead to it any more.
    #[error(
        "the folder {} was removed, moved or replaced while it was in use: nothing more is accepted; \
         start again on the folder where it is now", .0.display()
    )]
    Gone(PathBuf),
    /// The tables could not be opened again after an error. The next checkpoint tries again.
    #[error("the tables are closed after an error")]
    Closed,
    /// A snapshot of tables that were closed since.
    #[error("the tables were opened again after an error, which ends a snapshot of them")]
    Reopened,
    /// `fjall` panicked.
    #[error("the tables panicked: {0}")]
    Panicked(String),
}

impl StoreError {
    /// Converts it into the ports' error for a call of `hop`.
    pub(crate) fn unavailable(&self, hop: &'static str) -> Unavailable {
        match self {
            Self::Full => Unavailable::Full { hop },
            error => Unavailable::Failed { hop, message: with_causes(error) },
        }
    }

    /// Stored data cannot be read.
    pub(crate) fn damaged(message: String) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) => error.into(),
            fjall::Error::Storage(fjall::LsmError::Io(error)) => error.into(),
            error => Self::Tables(error),
        }
    }
}
