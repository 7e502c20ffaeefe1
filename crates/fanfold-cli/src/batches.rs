//! Commands from a file or a pipe, in batches that one request takes.

use std::io::{BufRead, BufReader, Cursor, Read};

use anyhow::{Context, bail};
use fanfold::limits::{REQUEST_BYTES_MAX, REQUEST_COMMANDS_MAX};
use serde_json::value::RawValue;

/// One request's worth of commands, as NDJSON.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The lines, each with its end.
    pub body: Vec<u8>,
    /// How many.
    pub commands: usize,
}

/// Batches out of NDJSON or one JSON array. A batch is closed when it is full, and when nothing
/// more is there at the moment: commands from a pipe are sent as they come.
pub struct Batches {
    input: BufReader<Box<dyn Read>>,
    /// A line that did not fit into the last batch.
    left: Vec<u8>,
    line: u64,
}

impl Batches {
    /// Out of what `input` holds; looks at its beginning.
    pub fn new(input: Box<dyn Read>) -> anyhow::Result<Self> {
        let mut input = BufReader::with_capacity(REQUEST_BYTES_MAX, input);
        if is_array(&mut input)? {
            let mut json = Vec::new();
            input.read_to_end(&mut json)?;
            let lines: Box<dyn Read> = Box::new(Cursor::new(elements(&json)?));
            input = BufReader::with_capacity(REQUEST_BYTES_MAX, lines);
        }
        Ok(Self { input, left: Vec::new(), line: 0 })
    }

    /// The next batch; `None` at the end.
    pub fn next_batch(&mut self) -> anyhow::Result<Option<Batch>> {
        let mut batch = Batch::default();
        loop {
            if self.left.is_empty() {
                self.left = self.read_line()?;
            }
            let fits = batch.commands < REQUEST_COMMANDS_MAX
                && batch.body.len() + self.left.len() <= REQUEST_BYTES_MAX;
            if self.left.is_empty() || !fits {
                break;
            }
            batch.body.append(&mut self.left);
            batch.commands += 1;
            if !self.input.buffer().contains(&b'\n') {
                break;
            }
        }
        Ok((batch.commands > 0).then_some(batch))
    }

    /// The next line that is not blank, with its end; empty when there is none.
    fn read_line(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            let mut line = Vec::new();
            let most = REQUEST_BYTES_MAX as u64;
            self.input.by_ref().take(most).read_until(b'\n', &mut line)?;
            self.line += 1;
            if line.is_empty() {
                return Ok(line);
            }
            if !line.ends_with(b"\n") {
                if line.len() >= REQUEST_BYTES_MAX {
                    bail!("line {} is longer than {REQUEST_BYTES_MAX} bytes", self.line);
                }
                line.push(b'\n');
            }
            if !line.trim_ascii().is_empty() {
                return Ok(line);
            }
        }
    }
}

/// Whether the first byte that is not blank is a `[`. Takes the blank ones.
fn is_array(input: &mut impl BufRead) -> anyhow::Result<bool> {
    loop {
        let buffer = input.fill_buf()?;
        match buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => return Ok(buffer[at] == b'['),
            None if buffer.is_empty() => return Ok(false),
            None => {
                let blank = buffer.len();
                input.consume(blank);
            }
        }
    }
}

/// The elements of an array, a line each. A line's end inside of an element is white space: JSON
/// has none in strings.
fn elements(json: &[u8]) -> anyhow::Result<Vec<u8>> {
    let elements: Vec<&RawValue> =
        serde_json::from_slice(json).context("the input begins with `[`, but is no JSON array")?;
    let mut lines = Vec::with_capacity(json.len());
    for element in elements {
        let on_one_line = element.get().bytes().map(|b| if b == b'\n' { b' ' } else { b });
        lines.extend(on_one_line);
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &str) -> Vec<(String, usize)> {
        let input = Box::new(Cursor::new(input.as_bytes().to_vec()));
        let mut batches = Batches::new(input).expect("it can be read");
        let mut all = Vec::new();
        while let Some(batch) = batches.next_batch().expect("it can be read") {
            assert!(batch.body.len() <= REQUEST_BYTES_MAX);
            assert!(batch.commands <= REQUEST_COMMANDS_MAX);
            all.push((String::from_utf8(batch.body).expect("it is text"), batch.commands));
        }
        all
    }

    #[test]
    fn lines_and_arrays_are_the_same() {
        let expected = [("{\"a\":1}\nbad\n".to_owned(), 2)];
        assert_eq!(batches("\n{\"a\":1}\n \r\nbad\n"), expected);
        assert_eq!(batches(" [ {\"a\":1},\n3]"), [("{\"a\":1}\n3\n".to_owned(), 2)]);
        assert_eq!(batches("[{\"a\":\n1}]"), [("{\"a\": 1}\n".to_owned(), 1)]);
        for empty in ["", " \n", "[]"] {
            assert_eq!(batches(empty), [], "{empty:?}");
        }
    }

    #[test]
    fn what_stands_last_needs_no_line_end() {
        let sent: String = batches("1\n2").into_iter().map(|(body, _)| body).collect();
        assert_eq!(sent, "1\n2\n");
    }

    #[test]
    fn batches_keep_to_the_limits() {
        let counts = |input: &str| -> Vec<usize> {
            batches(input).into_iter().map(|(_, commands)| commands).collect()
        };
        assert_eq!(counts(&"{}\n".repeat(1_001)), [500, 500, 1]);
        let long = format!("{}\n", "x".repeat(300 * 1024 - 1));
        assert_eq!(counts(&long.repeat(4)).iter().sum::<usize>(), 4);
        let too_long = Box::new(Cursor::new(vec![b'x'; REQUEST_BYTES_MAX]));
        assert!(Batches::new(too_long).expect("it can be read").next_batch().is_err());
    }
}
