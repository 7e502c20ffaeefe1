//! What the file of receipts says, log by log.
//!
//! It may hold more than memory does. One pass counts what there is of each log; then the logs are
//! taken in groups that fit, and each group is one more pass.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use crate::AuditError;
use crate::ledger::Asked;
use crate::receipts::{Command, Digest, FORMAT, Line, Receipt, Run, SeenEntry, SeenRows, Sent};

/// Bytes of a line: rows of many accounts are long.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a receipt takes in memory, about: what is longer counts for several.
const RECEIPT_BYTES: usize = 64;

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LineError {
    #[error("is no line of such a file: {0}")]
    NotALine(#[source] serde_json::Error),
    #[error("should say first whose file it is: `{{\"run\":…}}`")]
    NoRun,
    #[error("says a second time whose file it is")]
    SecondRun,
    #[error("is of format {0}, and only {FORMAT} is known")]
    Format(u32),
    #[error("names the log `{0}`, which is no log of a ledger")]
    BadLog(String),
    #[error("stands after the end of the file")]
    AfterEnd,
    #[error("has a seq or an id of zero")]
    Zero,
    #[error("is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
}

/// What the file says of which logs.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) run: Run,
    /// Names of logs in order, each with about how many receipts' memory it takes.
    pub(crate) logs: Vec<(String, usize)>,
    /// Whether its last line broke off.
    pub(crate) broke_off: bool,
    /// Whether it says that nothing more was sent than it holds.
    pub(crate) has_end: bool,
}

/// The parts of a line that say where it belongs.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Brief<'a> {
    Run(serde::de::IgnoredAny),
    End(serde::de::IgnoredAny),
    #[serde(borrow)]
    Receipt(OfLog<'a>),
    #[serde(borrow)]
    Unanswered(OfLog<'a>),
    #[serde(borrow)]
    Refused(OfLog<'a>),
    #[serde(borrow)]
    Entry(OfLog<'a>),
    #[serde(borrow)]
    Rows(OfLog<'a>),
}

#[derive(Deserialize)]
struct OfLog<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
}

/// Calls `each` with every whole line and its number; whether the last one broke off.
fn lines(
    path: &Path,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), LineError>,
) -> Result<bool, AuditError> {
    let failed = |source: io::Error| AuditError::Read { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = io::Read::take(&mut file, LINE_BYTES_MAX as u64);
        let bytes = limited.read_until(b'\n', &mut line).map_err(failed)?;
        let done = match line.pop() {
            None => return Ok(false),
            Some(b'\n') => each(number, &line),
            Some(_) if bytes == LINE_BYTES_MAX => Err(LineError::TooLong),
            Some(last) => {
                line.push(last);
                match each(number, &line) {
                    // Whoever wrote it was stopped, or is still at it.
                    Err(LineError::NotALine(_)) if number > 1 => return Ok(true),
                    other => other,
                }
            }
        };
        done.map_err(|error| AuditError::Line { number, error })?;
    }
    Ok(false)
}

fn is_log(log: &str) -> bool {
    let name = log.strip_prefix("ledger/").unwrap_or("");
    let is_good = |c: u8| c.is_ascii_alphanumeric() || b"._:@=+-".contains(&c);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(is_good)
}

/// The log that a line is of, if it is of one.
fn check(line: &Line) -> Result<Option<&str>, LineError> {
    let (log, numbers) = match line {
        Line::Run(_) => return Err(LineError::SecondRun),
        Line::End(_) => return Ok(None),
        Line::Receipt(receipt) => (&receipt.log, receipt.seq.min(receipt.id)),
        Line::Unanswered(sent) | Line::Refused(sent) => (&sent.log, sent.id),
        Line::Entry(seen) => (&seen.log, seen.seq),
        Line::Rows(seen) => (&seen.log, 1),
    };
    match numbers {
        0 => Err(LineError::Zero),
        _ if !is_log(log) => Err(LineError::BadLog(log.clone())),
        _ => Ok(Some(log)),
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, LineError> {
    serde_json::from_slice(line).map_err(LineError::NotALine)
}

impl Index {
    /// Reads and checks all of the file.
    pub(crate) fn read(path: &Path) -> Result<Self, AuditError> {
        let (mut run, mut has_end) = (None, false);
        let mut logs: HashMap<String, usize> = HashMap::new();
        let broke_off = lines(path, |number, bytes| {
            let line: Line = parse(bytes)?;
            if number == 1 {
                let Line::Run(found) = line else { return Err(LineError::NoRun) };
                if found.format != FORMAT {
                    return Err(LineError::Format(found.format));
                }
                run = Some(found);
                return Ok(());
            }
            if has_end {
                return Err(LineError::AfterEnd);
            }
            let Some(log) = check(&line)? else {
                has_end = true;
                return Ok(());
            };
            let weight = match line {
                Line::Entry(_) | Line::Rows(_) => 1 + bytes.len() / RECEIPT_BYTES,
                _ => 1,
            };
            match logs.get_mut(log) {
                Some(sum) => *sum += weight,
                None => drop(logs.insert(log.to_owned(), weight)),
            }
            Ok(())
        })?;
        let no_run = AuditError::Line { number: 1, error: LineError::NoRun };
        let mut logs: Vec<(String, usize)> = logs.into_iter().collect();
        logs.sort();
        Ok(Self { run: run.ok_or(no_run)?, logs, broke_off, has_end })
    }

    /// What is to be known of the file besides.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let broke_off = "the last line of the receipts broke off, and was left out";
        let no_end = "the receipts have no end: whoever wrote them was stopped, and an entry that \
                      they do not name was not held against the target";
        let notes = [(self.broke_off, broke_off), (!self.has_end, no_end)];
        notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note.to_owned())
    }

    /// Cuts the logs into groups, none heavier than `max` but one log alone.
    pub(crate) fn groups(&self, max: usize) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut weight = 0;
        for (at, (_, more)) in self.logs.iter().enumerate() {
            weight += more;
            match groups.last_mut() {
                Some(group) if weight <= max => group.end = at + 1,
                _ => {
                    groups.push(at..at + 1);
                    weight = *more;
                }
            }
        }
        groups
    }
}

/// Names, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
}

impl Names {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("a group holds fewer names");
        self.numbers.insert(text.into(), number);
        self.texts.push(text.into());
        number
    }

    /// The number of a name that was seen.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The name.
    pub(crate) fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    fn deed(&mut self, command: &Command) -> Deed {
        match command {
            Command::Open { account } => Deed::Open(self.number(account)),
            Command::Deposit { account, amount } => Deed::Deposit(self.number(account), *amount),
            Command::Withdraw { account, amount } => Deed::Withdraw(self.number(account), *amount),
            Command::Transfer { from, to, amount } => {
                Deed::Transfer(self.number(from), self.number(to), *amount)
            }
            Command::Close { account } => Deed::Close(self.number(account)),
        }
    }

    /// The command.
    pub(crate) fn asked(&self, deed: Deed) -> Asked<'_> {
        match deed {
            Deed::Open(account) => Asked::Open(self.text(account)),
            Deed::Deposit(account, amount) => Asked::Deposit(self.text(account), amount),
            Deed::Withdraw(account, amount) => Asked::Withdraw(self.text(account), amount),
            Deed::Transfer(from, to, amount) => {
                Asked::Transfer(self.text(from), self.text(to), amount)
            }
            Deed::Close(account) => Asked::Close(self.text(account)),
        }
    }
}

/// A command, with the numbers of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Deed {
    Open(u32),
    Deposit(u32, i64),
    Withdraw(u32, i64),
    Transfer(u32, u32, i64),
    Close(u32),
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    pub(crate) deed: Deed,
    /// Of its memo; `None`: whatever it is, it is not compared.
    pub(crate) memo: Option<Digest>,
}

impl Content {
    /// Enough to see that another was not sent.
    pub(crate) fn digest(&self) -> NonZeroU64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
    }
}

/// Who numbered a command, as one text: names hold no slash.
pub(crate) fn origin<'a>(user: &'a str, client: Option<&str>) -> Cow<'a, str> {
    client.map_or(Cow::Borrowed(user), |client| Cow::Owned(format!("{user}/{client}")))
}

/// A command that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    /// The seq that was promised for it; zero: none was.
    pub(crate) seq: u64,
    /// Of the name of its [`origin`].
    pub(crate) user: u32,
    /// Whether every answer to it refused it: it can have no entry.
    pub(crate) refused: bool,
    pub(crate) id: u64,
    pub(crate) deed: Deed,
    pub(crate) memo: Option<Digest>,
}

impl Claim {
    /// What was asked.
    pub(crate) fn content(&self) -> Content {
        Content { deed: self.deed, memo: self.memo }
    }
}

/// What the file says of one log.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Once [`Claims::sort`]ed, in order; what has no receipt comes first.
    all: Vec<Claim>,
    /// Places in `all`, in the order of user and id.
    by_id: Vec<u32>,
    pub(crate) entries: Vec<SeenEntry>,
    pub(crate) rows: Vec<SeenRows>,
}

impl Claims {
    fn sort(&mut self) {
        self.all.sort_unstable();
        let count = u32::try_from(self.all.len()).expect("a group holds fewer");
        let mut by_id: Vec<u32> = (0..count).collect();
        by_id.sort_unstable_by_key(|at| self.key(*at));
        self.by_id = by_id;
        self.entries.sort_by_key(|seen| seen.seq);
    }

    fn key(&self, at: u32) -> (u32, u64) {
        let claim = &self.all[at as usize];
        (claim.user, claim.id)
    }

    /// The receipts, in the order of their seqs.
    pub(crate) fn receipts(&self) -> &[Claim] {
        &self.all[self.all.partition_point(|claim| claim.seq == 0)..]
    }

    /// What is known of an id; `None`: no command with it was sent.
    pub(crate) fn sent(&self, user: u32, id: u64) -> Option<Told> {
        let first = self.by_id.partition_point(|at| self.key(*at) < (user, id));
        let same = self.by_id[first..].iter().take_while(|at| self.key(**at) == (user, id));
        let mut claims = same.map(|at| &self.all[*at as usize]);
        let first = claims.next()?;
        let (mut refused, mut is_one) = (first.refused, true);
        for other in claims {
            refused &= other.refused;
            is_one &= other.content() == first.content();
        }
        Some(match (refused, is_one) {
            (true, _) => Told::Refused,
            (false, true) => Told::Command(first.content()),
            (false, false) => Told::Several,
        })
    }
}

/// What the file says of an id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Told {
    /// It is this command's.
    Command(Content),
    /// It is of a command that was refused whenever it was sent.
    Refused,
    /// It was used for different commands.
    Several,
}

/// What the file says of some logs.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) names: Names,
    pub(crate) logs: BTreeMap<String, Claims>,
}

impl Group {
    /// Reads the lines of these logs.
    pub(crate) fn read<'a>(
        path: &Path,
        logs: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AuditError> {
        let mut group = Self::default();
        let mut of_log: HashMap<&str, Claims> =
            logs.into_iter().map(|log| (log, Claims::default())).collect();
        lines(path, |_, bytes| {
            let (Brief::Receipt(OfLog { log })
            | Brief::Unanswered(OfLog { log })
            | Brief::Refused(OfLog { log })
            | Brief::Entry(OfLog { log })
            | Brief::Rows(OfLog { log })) = parse(bytes)?
            else {
                return Ok(());
            };
            let Some(claims) = of_log.get_mut(log.as_ref()) else { return Ok(()) };
            let names = &mut group.names;
            let mut claim = |(seq, refused), sent: Sent| {
                let origin = origin(&sent.user, sent.client.as_deref());
                let (user, deed) = (names.number(&origin), names.deed(&sent.command));
                let Sent { id, memo, .. } = sent;
                claims.all.push(Claim { seq, user, refused, id, deed, memo });
            };
            match parse(bytes)? {
                Line::Run(_) | Line::End(_) => {}
                Line::Receipt(Receipt { log, seq, user, client, id, command, memo }) => {
                    claim((seq, false), Sent { log, user, client, id, command, memo });
                }
                Line::Unanswered(sent) => claim((0, false), sent),
                Line::Refused(sent) => claim((0, true), sent),
                Line::Entry(seen) => claims.entries.push(seen),
                Line::Rows(seen) => claims.rows.push(seen),
            }
            Ok(())
        })?;
        for (log, mut claims) in of_log {
            claims.sort();
            group.logs.insert(log.to_owned(), claims);
        }
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const RUN: &str = r#"{"run":{"format":1,"users":"r-"}}"#;

    fn receipt(log: &str, seq: u64, id: u64) -> String {
        format!(
            r#"{{"receipt":{{"log":"{log}","seq":{seq},"user":"r-0","id":{id},"command":{{"open":{{"account":"a"}}}}}}}}"#
        )
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
        file
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let good = receipt("ledger/org:a", 1, 1);
        for (text, number, says) in [
            (String::new(), 1, "whose file"),
            (good.clone(), 1, "whose file"),
            (r#"{"run":{"format":2,"users":"r-"}}"#.to_owned(), 1, "format 2"),
            (r#"{"run":"#.to_owned(), 1, "no line"),
            (format!("{RUN}\n{good}\n{RUN}\n"), 3, "second time"),
            (format!("{RUN}\n{good}\nnonsense\n{good}\n"), 3, "no line"),
            (format!("{RUN}\n{good}\n{{\"receipt\":{{}}}}\n"), 3, "no line"),
            (format!("{RUN}\n{}\n", receipt("canary/org:a", 1, 1)), 2, "no log"),
            (format!("{RUN}\n{}\n", receipt("ledger/org:a/../b", 1, 1)), 2, "no log"),
            (format!("{RUN}\n{}\n", receipt("ledger/org:a", 0, 1)), 2, "zero"),
            (format!("{RUN}\n{}\n", receipt("ledger/org:a", 1, 0)), 2, "zero"),
            (format!("{RUN}\n{{\"end\":{{}}}}\n{good}\n"), 3, "after the end"),
        ] {
            match Index::read(file(&text).path()) {
                Err(AuditError::Line { number: found, error }) => {
                    assert_eq!(found, number, "{text}");
                    assert!(error.to_string().contains(says), "{text}: {error}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let missing = Index::read(Path::new("/nowhere/at/all"));
        assert!(matches!(missing, Err(AuditError::Read { .. })));
    }

    #[test]
    fn a_last_line_may_break_off() {
        let good = receipt("ledger/org:a", 1, 1);
        for (text, broke_off) in [
            (format!("{RUN}\n{good}\n"), false),
            (format!("{RUN}\n{good}"), false),
            (format!("{RUN}\n{good}\n{}", &good[..40]), true),
        ] {
            let index = Index::read(file(&text).path()).expect(&text);
            assert_eq!(index.broke_off, broke_off, "{text}");
            assert_eq!(index.logs, [("ledger/org:a".to_owned(), 1)]);
        }
    }

    #[test]
    fn groups_hold_as_much_as_they_may() {
        let logs = [3, 3, 9, 1, 1, 1].iter().map(|weight| ("ledger/org:a".to_owned(), *weight));
        let run = Run { format: FORMAT, users: String::new() };
        let index = Index { run, logs: logs.collect(), broke_off: false, has_end: true };
        for (max, expected) in
            [(6, vec![2, 1, 3]), (7, vec![2, 1, 3]), (100, vec![6]), (1, vec![1; 6])]
        {
            let groups = index.groups(max);
            assert_eq!(groups.iter().map(Range::len).collect::<Vec<_>>(), expected, "{max}");
            assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start), "{groups:?}");
        }
    }

    #[test]
    fn a_group_holds_what_is_said_of_its_logs() {
        let text = [
            RUN.to_owned(),
            receipt("ledger/org:a", 2, 2),
            receipt("ledger/org:b", 1, 1),
            r#"{"unanswered":{"log":"ledger/org:a","user":"r-0","id":3,"command":{"close":{"account":"b"}}}}"#.to_owned(),
            receipt("ledger/org:a", 1, 3),
        ];
        let group = Group::read(file(&text.join("\n")).path(), ["ledger/org:a"]).expect("it is");
        let claims = &group.logs["ledger/org:a"];
        assert_eq!(group.logs.len(), 1);
        assert_eq!(claims.receipts().iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2]);
        let user = group.names.find("r-0").expect("it is named");
        let Some(Told::Command(Content { deed, memo: None })) = claims.sent(user, 2) else {
            panic!("it was sent")
        };
        assert_eq!(group.names.asked(deed), Asked::Open("a"));
        assert_eq!(claims.sent(user, 3), Some(Told::Several));
        assert_eq!(claims.sent(user, 4), None);
    }
}
