//! Writes the file of receipts during the load.
//!
//! A thread of its own writes, so that a busy disk does not delay requests.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::exchange::FinalState;
use crate::workload::{ClientCommand, Spec};
use auditor::receipts::{End, Line, Run};

/// Bytes that a thread of the load hands over at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the disk. If more come, the load waits, since no line may be lost.
const CHUNKS_MAX: usize = 256;

/// The open file.
pub(crate) struct Writer {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

/// The lines of one thread of the load.
pub(crate) struct ReceiptLines {
    chunks: SyncSender<Vec<u8>>,
    lines: Vec<u8>,
}

impl Writer {
    /// Begins the file, and replaces one that exists.
    pub(crate) fn create(path: &Path, run: Run) -> io::Result<Self> {
        let mut file = File::create(path)?;
        writeln!(file, "{}", serde_json::to_string(&Line::Run(run))?)?;
        let (chunks, received) = sync_channel(CHUNKS_MAX);
        let thread = thread::Builder::new()
            .name("receipts".into())
            .spawn(move || write_all(&mut file, &received))?;
        Ok(Self { chunks, thread })
    }

    pub(crate) fn lines(&self) -> ReceiptLines {
        ReceiptLines { chunks: self.chunks.clone(), lines: Vec::with_capacity(2 * CHUNK_BYTES) }
    }

    /// Waits until all lines are written, after every [`ReceiptLines`] was dropped. The file gets
    /// its end if it `is_complete`: if it names everything that was sent.
    pub(crate) fn finish(self, is_complete: bool) -> io::Result<()> {
        if is_complete {
            let end = serde_json::to_string(&Line::End(End {}))? + "\n";
            // If this fails, the thread has ended, and returns the reason.
            let _ = self.chunks.send(end.into_bytes());
        }
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

fn write_all(file: &mut File, chunks: &Receiver<Vec<u8>>) -> io::Result<()> {
    for chunk in chunks {
        file.write_all(&chunk)?;
    }
    Ok(())
}

impl ReceiptLines {
    /// Adds the final state of a command.
    pub(crate) fn sent(
        &mut self,
        spec: &Spec,
        command: &ClientCommand,
        state: FinalState,
    ) -> io::Result<()> {
        let sent = command.sent(spec);
        self.line(&match state {
            FinalState::Accepted(seq) => Line::Receipt(sent.promised(seq)),
            FinalState::Refused => Line::Refused(sent),
            FinalState::Unknown => Line::Unanswered(sent),
        })
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, line)?;
        self.lines.push(b'\n');
        if self.lines.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands the lines over to the writer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let lines = std::mem::replace(&mut self.lines, Vec::with_capacity(2 * CHUNK_BYTES));
        let gone = |_| io::Error::other("the receipts cannot be written");
        self.chunks.send(lines).map_err(gone)
    }
}
