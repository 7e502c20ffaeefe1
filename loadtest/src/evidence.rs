//! Writes the file of receipts while the load runs.
//!
//! A thread writes what the others have put into lines: a disk that is busy (the target's own, say)
//! must not hold up what is due.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::exchange::Fate;
use crate::workload::{Order, Spec};
use auditor::receipts::{End, FORMAT, Line, Run};

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the disk; then the load waits too, for nothing may be missing.
const CHUNKS_MAX: usize = 256;

/// The open file.
pub(crate) struct Writer {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

/// What one thread of the load has to say.
pub(crate) struct Evidence {
    chunks: SyncSender<Vec<u8>>,
    lines: Vec<u8>,
}

impl Writer {
    /// Begins the file, anew if there is one.
    pub(crate) fn create(path: &Path, users: &str) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let run = Line::Run(Run { format: FORMAT, users: users.to_owned() });
        writeln!(file, "{}", serde_json::to_string(&run)?)?;
        let (chunks, received) = sync_channel(CHUNKS_MAX);
        let thread = thread::Builder::new()
            .name("receipts".into())
            .spawn(move || write_all(&mut file, &received))?;
        Ok(Self { chunks, thread })
    }

    pub(crate) fn evidence(&self) -> Evidence {
        Evidence { chunks: self.chunks.clone(), lines: Vec::with_capacity(2 * CHUNK_BYTES) }
    }

    /// Waits until all is written: once every [`Evidence`] is dropped. The file has its end if it
    /// `is_whole`: if everything that was sent is in it.
    pub(crate) fn finish(self, is_whole: bool) -> io::Result<()> {
        if is_whole {
            let end = serde_json::to_string(&Line::End(End {}))? + "\n";
            // If nobody takes it, the thread says why.
            let _ = self.chunks.send(end.into_bytes());
        }
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer has panicked")))
    }
}

fn write_all(file: &mut File, chunks: &Receiver<Vec<u8>>) -> io::Result<()> {
    for chunk in chunks {
        file.write_all(&chunk)?;
    }
    Ok(())
}

impl Evidence {
    /// What became of a command.
    pub(crate) fn sent(&mut self, spec: &Spec, order: &Order, fate: Fate) -> io::Result<()> {
        let sent = order.sent(spec);
        self.line(&match fate {
            Fate::Accepted(seq) => Line::Receipt(sent.promised(seq)),
            Fate::Refused => Line::Refused(sent),
            Fate::Unknown => Line::Unanswered(sent),
        })
    }

    /// A line.
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, line)?;
        self.lines.push(b'\n');
        if self.lines.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let lines = std::mem::replace(&mut self.lines, Vec::with_capacity(2 * CHUNK_BYTES));
        let gone = |_| io::Error::other("the receipts cannot be written");
        self.chunks.send(lines).map_err(gone)
    }
}
