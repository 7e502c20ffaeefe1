//! Standard output: one JSON document a line.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use serde_json::value::RawValue;

/// Standard output. Nobody has to read all of it.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Default for Output {
    fn default() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }
}

impl Output {
    /// Writes a document, as it stands.
    pub fn line(&mut self, json: &RawValue) -> anyhow::Result<()> {
        self.bytes(json.get().as_bytes())
    }

    /// Writes a document that was put together.
    pub fn bytes(&mut self, json: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(json)?;
        Ok(self.0.write_all(b"\n")?)
    }

    /// Lets the reader have what was written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// `result`, but no error if somebody (`| head`) has just stopped reading.
pub fn unless_closed(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match result {
        Err(error) if is_closed(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

/// Whether the reader of the output has gone.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
