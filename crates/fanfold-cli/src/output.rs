//! Standard output: most often one JSON document a line.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use serde_json::value::RawValue;

/// Standard output. Its reader may stop reading: see [`ignore_closed_output`].
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Default for Output {
    fn default() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }
}

impl Output {
    /// Writes a document unchanged, as one line.
    pub(crate) fn line(&mut self, json: &RawValue) -> anyhow::Result<()> {
        self.bytes(json.get().as_bytes())
    }

    /// Writes the bytes of a document or of a text, as one line.
    pub(crate) fn bytes(&mut self, json: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(json)?;
        Ok(self.0.write_all(b"\n")?)
    }

    /// Passes everything written so far to the reader.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// Prints documents unchanged, each as one line.
pub(crate) fn print(documents: &[&RawValue]) -> anyhow::Result<ExitCode> {
    let mut output = Output::default();
    documents.iter().try_for_each(|document| output.line(document))?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `result`, but success if it failed only because the reader (`| head`) has closed the pipe.
pub(crate) fn ignore_closed_output(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match result {
        Err(error) if is_closed(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

/// Whether the error says that the reader of the output has closed the pipe.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
