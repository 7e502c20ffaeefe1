//! Reads commands from a file or a pipe, in batches that fit into one request.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::vec;

use anyhow::{Context, bail};
use fanfold::host::limits::{REQUEST_BYTES_MAX, REQUEST_COMMANDS_MAX};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The byte-order mark that some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One command of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The line in which the command begins, counted from 1.
    pub(crate) line: u64,
    /// The command as one line, without the line's end.
    pub(crate) json: Vec<u8>,
}

/// The batches of NDJSON or of one JSON array. A batch ends when it is full, or when no further
/// command is buffered, so that commands from a pipe are sent as they come.
pub(crate) struct Batches {
    source: Source,
    /// The command that was read but did not fit into the last batch.
    pending: Option<Item>,
    commands_max: usize,
}

enum Source {
    Lines { input: BufReader<Box<dyn Read>>, line: u64, commands: u64 },
    Array(vec::IntoIter<Item>),
}

impl Batches {
    /// Batches of at most `commands_max` commands. Reads the beginning of `input` to find out how
    /// it is written.
    pub(crate) fn new(mut input: Box<dyn Read>, commands_max: usize) -> anyhow::Result<Self> {
        let head = read_head(&mut input)?;
        let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&head).to_vec();
        let input: Box<dyn Read> = Box::new(Cursor::new(head).chain(input));
        let mut input = BufReader::with_capacity(REQUEST_BYTES_MAX, input);
        let (is_array, lines) = begins_array(&mut input)?;
        let source = if is_array {
            // Keeps the blank lines, so that errors name the right line.
            let mut json = vec![b'\n'; lines];
            input.read_to_end(&mut json)?;
            Source::Array(elements(&json)?.into_iter())
        } else {
            Source::Lines { input, line: lines as u64, commands: 0 }
        };
        Ok(Self { source, pending: None, commands_max: commands_max.min(REQUEST_COMMANDS_MAX) })
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> anyhow::Result<Option<Vec<Item>>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            if self.pending.is_none() {
                self.pending = self.source.read()?;
            }
            let more = |item: &mut Item| bytes + item.json.len() < REQUEST_BYTES_MAX;
            if batch.len() == self.commands_max {
                break;
            }
            let Some(item) = self.pending.take_if(more) else { break };
            bytes += item.json.len() + 1;
            batch.push(item);
            if !self.source.is_buffered() {
                break;
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Source {
    /// The next command; `None` at the end.
    fn read(&mut self) -> anyhow::Result<Option<Item>> {
        match self {
            Self::Array(items) => Ok(items.next()),
            Self::Lines { input, line: number, commands } => loop {
                let mut line = Vec::new();
                input.by_ref().take(REQUEST_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
                *number += 1;
                if line.len() >= REQUEST_BYTES_MAX {
                    bail!(
                        "line {number}: it is longer than {REQUEST_BYTES_MAX} bytes, so no request can hold it"
                    );
                }
                if line.is_empty() {
                    return Ok(None);
                }
                let json = line.trim_ascii();
                if json.is_empty() {
                    continue;
                }
                *commands += 1;
                if *commands == 1 && is_unfinished(json) {
                    bail!(
                        "line {number}: the command goes on in the next line; write each command on \
                         one line (`jq -c .` does that), or all of them as one JSON array"
                    );
                }
                return Ok(Some(Item { line: *number, json: json.to_vec() }));
            },
        }
    }

    /// Whether the next command is buffered, so that reading it does not wait.
    fn is_buffered(&self) -> bool {
        match self {
            Self::Lines { input, .. } => input.buffer().contains(&b'\n'),
            Self::Array(_) => true,
        }
    }
}

/// Reads what is available now, but at least as many bytes as a byte-order mark has.
fn read_head(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let (mut head, mut length) = (vec![0; REQUEST_BYTES_MAX], 0);
    while length < BYTE_ORDER_MARK.len() {
        match input.read(&mut head[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(length);
    Ok(head)
}

/// Whether the line is the beginning of a longer JSON value.
fn is_unfinished(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

/// Reads white space; returns whether the next byte is a `[`, and how many lines end before it.
fn begins_array(input: &mut impl BufRead) -> anyhow::Result<(bool, usize)> {
    let mut lines = 0;
    loop {
        let buffer = input.fill_buf()?;
        let blank = buffer.iter().position(|byte| !byte.is_ascii_whitespace());
        let (is_array, is_end) = (blank.is_some_and(|at| buffer[at] == b'['), buffer.is_empty());
        let blanks = blank.unwrap_or(buffer.len());
        lines += buffer[..blanks].iter().filter(|byte| **byte == b'\n').count();
        input.consume(blanks);
        if blank.is_some() || is_end {
            return Ok((is_array, lines));
        }
    }
}

/// The elements of a JSON array, each as one line. A line's end within an element is white space,
/// since strings in JSON cannot have one.
fn elements(json: &[u8]) -> anyhow::Result<Vec<Item>> {
    let elements: Vec<&RawValue> =
        serde_json::from_slice(json).context("it begins with `[`, but is not a JSON array")?;
    let (mut line, mut counted) = (1, 0);
    let items = elements.into_iter().map(|element| {
        let element = element.get();
        // Each element borrows from `json`, so its address gives its position.
        let begins = element.as_ptr() as usize - json.as_ptr() as usize;
        line += json[counted..begins].iter().filter(|byte| **byte == b'\n').count() as u64;
        counted = begins;
        let on_one_line = |byte: u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
        Item { line, json: element.bytes().map(on_one_line).collect() }
    });
    Ok(items.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(input: &[u8]) -> anyhow::Result<Batches> {
        Batches::new(Box::new(Cursor::new(input.to_vec())), REQUEST_COMMANDS_MAX)
    }

    fn read(input: &[u8]) -> anyhow::Result<Vec<Vec<Item>>> {
        let mut batches = opened(input)?;
        let mut all = Vec::new();
        while let Some(batch) = batches.next_batch()? {
            assert!(
                batch.iter().map(|item| item.json.len() + 1).sum::<usize>() <= REQUEST_BYTES_MAX
            );
            assert!(batch.len() <= REQUEST_COMMANDS_MAX);
            all.push(batch);
        }
        Ok(all)
    }

    #[track_caller]
    fn check(input: &str, expected: &[(u64, &str)]) {
        for mark in [&b""[..], BYTE_ORDER_MARK] {
            let batches = read(&[mark, input.as_bytes()].concat()).expect("it can be read");
            let items = batches.iter().flatten();
            let found: Vec<_> =
                items.map(|item| (item.line, str::from_utf8(&item.json).expect("text"))).collect();
            assert_eq!(found, expected, "{input:?}");
        }
    }

    #[test]
    fn each_command_has_the_number_of_its_first_line() {
        check("{}", &[(1, "{}")]);
        check("\n{\"a\":1}\n \r\nbad\r\n", &[(2, "{\"a\":1}"), (4, "bad")]);
        check("1\n2", &[(1, "1"), (2, "2")]);
        check(" [ {\"a\":1},\n3]", &[(1, "{\"a\":1}"), (2, "3")]);
        check("\r\n\n[{\"a\":\r\n1},\n\n2,3]\n", &[(3, "{\"a\":  1}"), (6, "2"), (6, "3")]);
        for empty in ["", " \n", "[]", "\n\n[\n]"] {
            check(empty, &[]);
        }
    }

    #[test]
    fn an_error_names_the_line() {
        let long = [&b"\n"[..], &vec![b'x'; REQUEST_BYTES_MAX]].concat();
        for (input, says) in [
            (&b"\n\n{\n  \"type\": \"ledger\"\n}\n"[..], "line 3: the command goes on"),
            (b"\n[1,\n2", "line 3"),
            (b"[1] 2", "line 1"),
            (&long, "line 2: it is longer"),
        ] {
            let error = format!("{:#}", read(input).expect_err(says));
            assert!(error.contains(says), "{error}");
        }
        // Only the first command shows how the file is written; the server refuses the others.
        check("{}\n{\n}\n", &[(1, "{}"), (2, "{"), (3, "}")]);
    }

    #[test]
    fn batches_keep_the_limits_of_a_request() {
        let counts = |input: &str| -> Vec<usize> {
            read(input.as_bytes()).expect("it can be read").iter().map(Vec::len).collect()
        };
        assert_eq!(counts(&"{}\n".repeat(1_001)), [500, 500, 1]);
        assert_eq!(counts(&format!("[{}0]", "0,".repeat(1_000))), [500, 500, 1]);
        let long = format!("{}\n", "x".repeat(300 * 1024 - 1));
        assert_eq!(counts(&long.repeat(4)).iter().sum::<usize>(), 4);
        let mut one_by_one =
            Batches::new(Box::new(Cursor::new(b"1\n2\n".to_vec())), 1).expect("it can be read");
        let next = one_by_one.next_batch().expect("it can be read").map(|batch| batch.len());
        assert_eq!(next, Some(1));
    }
}
