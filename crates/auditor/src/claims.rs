//! Reads the file of receipts, log by log.
//!
//! The file may be larger than memory. One pass counts the lines of each log. Then the logs are
//! read in groups that fit into memory, with one pass for each group.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ledger::CommandRef;
use crate::receipts::{
    Command, Digest, Expect, FORMAT, Line, Receipt, Run, SeenCursor, SeenEntry, SeenRows, Sent,
};

/// Bytes of a line: rows of many accounts make a long one.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a receipt in memory, about. A longer line counts as several receipts.
const RECEIPT_BYTES: usize = 64;
/// Different expectations of a file. A workload has one for each of its commands, at most.
const EXPECTATIONS_MAX: usize = 10_000;

/// Why the file is unusable, so that there is no verdict. The [`crate::Verdict`] has the faults of
/// the target.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AuditError {
    #[error("cannot read the receipts in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("line {number} of the receipts cannot be used")]
    Line { number: u64, source: LineError },
    #[error(
        "the model `ledger` folds the service `ledger`, and the receipts are of `{service}`: use the \
         model `none`"
    )]
    Model { service: String },
}

/// Why a line of the file is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LineError {
    #[error("it is not a line of a receipts file")]
    NotALine(#[source] serde_json::Error),
    #[error("it must be the first line of a receipts file, `{{\"run\":…}}`")]
    NoRun,
    #[error("it is a second `{{\"run\":…}}`, and a file has one")]
    SecondRun,
    #[error("it has the format {0}, and this auditor reads only {FORMAT}")]
    Format(u32),
    #[error("it names `{log}`, which is not a log of the service `{service}`")]
    BadLog { log: String, service: String },
    #[error("it has one more expectation than the {EXPECTATIONS_MAX} different ones of a file")]
    Expectations,
    #[error("it comes after the line `{{\"end\":…}}`")]
    AfterEnd,
    #[error("it has a seq or an id that is zero")]
    Zero,
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
}

/// The logs that the file names.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) run: Run,
    /// The names of the logs in order, each with its weight: about as many receipts as its lines
    /// take in memory.
    pub(crate) logs: Vec<(String, usize)>,
    /// Whether the last line is cut off.
    pub(crate) is_cut_off: bool,
    /// Whether the file has an end, so that it names everything that was sent.
    pub(crate) has_end: bool,
    /// Whether it says of a command which outcome is expected.
    pub(crate) has_expectations: bool,
}

/// The parts of a line that say to which log it belongs.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineOfLog<'a> {
    Run(serde::de::IgnoredAny),
    End(serde::de::IgnoredAny),
    #[serde(borrow)]
    Receipt(LogName<'a>),
    #[serde(borrow)]
    Unanswered(LogName<'a>),
    #[serde(borrow)]
    Refused(LogName<'a>),
    #[serde(borrow)]
    Entry(LogName<'a>),
    #[serde(borrow)]
    Rows(LogName<'a>),
    #[serde(borrow)]
    Cursor(LogName<'a>),
}

#[derive(Deserialize)]
struct LogName<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
}

/// Calls `each` with every line and its number. Returns whether the last line is cut off.
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
                    // Its writer was stopped, or still writes.
                    Err(LineError::NotALine(_)) if number > 1 => return Ok(true),
                    other => other,
                }
            }
        };
        done.map_err(|error| AuditError::Line { number, source: error })?;
    }
    Ok(false)
}

fn is_log(log: &str, service: &str) -> bool {
    let name = log.strip_prefix(service).and_then(|name| name.strip_prefix('/')).unwrap_or("");
    let is_good = |c: u8| c.is_ascii_alphanumeric() || b"._:@=+-".contains(&c);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(is_good)
}

/// The log to which a line belongs, if it belongs to one.
fn check<'a>(line: &'a Line, service: &str) -> Result<Option<&'a str>, LineError> {
    let (log, numbers) = match line {
        Line::Run(_) => return Err(LineError::SecondRun),
        Line::End(_) => return Ok(None),
        Line::Receipt(receipt) => (&receipt.log, receipt.seq.min(receipt.id)),
        Line::Unanswered(sent) | Line::Refused(sent) => (&sent.log, sent.id),
        Line::Entry(seen) => (&seen.log, seen.seq),
        Line::Rows(seen) => (&seen.log, 1),
        Line::Cursor(seen) => (&seen.log, 1),
    };
    match numbers {
        0 => Err(LineError::Zero),
        _ if !is_log(log, service) => {
            Err(LineError::BadLog { log: log.clone(), service: service.to_owned() })
        }
        _ => Ok(Some(log)),
    }
}

/// The outcome that a line expects, if its command has one.
fn expectation(line: &Line) -> Option<&Expect> {
    let command = match line {
        Line::Receipt(receipt) => &receipt.command,
        Line::Unanswered(sent) | Line::Refused(sent) => &sent.command,
        _ => return None,
    };
    match command {
        Command::Named { expect, .. } => Some(expect),
        _ => None,
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, LineError> {
    serde_json::from_slice(line).map_err(LineError::NotALine)
}

impl Index {
    /// Reads and checks the whole file.
    pub(crate) fn read(path: &Path) -> Result<Self, AuditError> {
        let (mut run, mut has_end) = (None::<Run>, false);
        let mut expectations: HashSet<Expect> = HashSet::new();
        let mut logs: HashMap<String, usize> = HashMap::new();
        let is_cut_off = lines(path, |number, bytes| {
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
            let service = run.as_ref().map_or("", |run| run.service.as_str());
            if let Some(expect) = expectation(&line).filter(|one| !expectations.contains(one)) {
                if expectations.len() == EXPECTATIONS_MAX {
                    return Err(LineError::Expectations);
                }
                expectations.insert(expect.clone());
            }
            let Some(log) = check(&line, service)? else {
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
        let has_expectations = expectations.iter().any(|expect| *expect != Expect::Either);
        let no_run = AuditError::Line { number: 1, source: LineError::NoRun };
        let mut logs: Vec<(String, usize)> = logs.into_iter().collect();
        logs.sort();
        Ok(Self { run: run.ok_or(no_run)?, logs, is_cut_off, has_end, has_expectations })
    }

    /// Notes on the file.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let cut_off = "the last line of the receipts is cut off, and was ignored";
        let no_end = "the receipts have no end: their writer was stopped, so an entry that they \
                      do not name is no breach";
        let notes = [(self.is_cut_off, cut_off), (!self.has_end, no_end)];
        notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note.to_owned())
    }

    /// Cuts the logs into groups of at most the weight `max`. A heavier log is a group of its own.
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

/// Names and expectations, each stored once and known by its number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
    expectations: HashMap<Expect, u16>,
    expected: Vec<Expect>,
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

    /// The number of a name, if the name is stored.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    fn intern(&mut self, command: &Command) -> InternedCommand {
        match command {
            Command::Open { account } => InternedCommand::Open(self.number(account)),
            Command::Deposit { account, amount } => {
                InternedCommand::Deposit(self.number(account), *amount)
            }
            Command::Withdraw { account, amount } => {
                InternedCommand::Withdraw(self.number(account), *amount)
            }
            Command::Transfer { from, to, amount } => {
                InternedCommand::Transfer(self.number(from), self.number(to), *amount)
            }
            Command::Close { account } => InternedCommand::Close(self.number(account)),
            Command::Named { name, data, .. } => InternedCommand::Named(self.number(name), *data),
        }
    }

    fn intern_expectation(&mut self, command: &Command) -> Option<u16> {
        let Command::Named { expect, .. } = command else { return None };
        if let Some(number) = self.expectations.get(expect) {
            return Some(*number);
        }
        let number = u16::try_from(self.expected.len()).expect("the file was checked");
        self.expectations.insert(expect.clone(), number);
        self.expected.push(expect.clone());
        Some(number)
    }

    /// The outcome that is expected for this command.
    pub(crate) fn expected(&self, claim: &Claim) -> &Expect {
        claim.expect.map_or(&Expect::Either, |number| &self.expected[usize::from(number)])
    }

    /// The name of a command.
    pub(crate) fn name(&self, command: InternedCommand) -> &str {
        match command {
            InternedCommand::Named(name, _) => self.text(name),
            other => self.command(other).map_or("", |command| command.name()),
        }
    }

    /// The command, if it is one of the ledger's whose data is known.
    pub(crate) fn command(&self, command: InternedCommand) -> Option<CommandRef<'_>> {
        Some(match command {
            InternedCommand::Open(account) => CommandRef::Open(self.text(account)),
            InternedCommand::Deposit(account, amount) => {
                CommandRef::Deposit(self.text(account), amount)
            }
            InternedCommand::Withdraw(account, amount) => {
                CommandRef::Withdraw(self.text(account), amount)
            }
            InternedCommand::Transfer(from, to, amount) => {
                CommandRef::Transfer(self.text(from), self.text(to), amount)
            }
            InternedCommand::Close(account) => CommandRef::Close(self.text(account)),
            InternedCommand::Named(..) => return None,
        })
    }
}

/// A command with the numbers of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum InternedCommand {
    Open(u32),
    Deposit(u32, i64),
    Withdraw(u32, i64),
    Transfer(u32, u32, i64),
    Close(u32),
    /// Its name, and the digest of its data.
    Named(u32, Digest),
}

/// What a command asks for: enough to decide whether two commands are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    pub(crate) command: InternedCommand,
    /// The digest of its memo; `None`: it is unknown and not compared.
    pub(crate) memo: Option<Digest>,
}

impl Content {
    /// A digest that differs for different contents.
    pub(crate) fn digest(&self) -> NonZeroU64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
    }
}

/// The origin of a command as one text. It is unique, since names hold no slash.
pub(crate) fn origin<'a>(user: &'a str, client: Option<&str>) -> Cow<'a, str> {
    client.map_or(Cow::Borrowed(user), |client| Cow::Owned(format!("{user}/{client}")))
}

/// A line of the file about one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    /// The seq of its receipt; zero: it has none.
    pub(crate) seq: u64,
    /// The number of its [`origin`]'s name.
    pub(crate) user: u32,
    /// Whether every answer refused it: then it can have no entry.
    pub(crate) refused: bool,
    /// The number of its expectation.
    pub(crate) expect: Option<u16>,
    pub(crate) id: u64,
    pub(crate) command: InternedCommand,
    pub(crate) memo: Option<Digest>,
}

impl Claim {
    pub(crate) fn content(&self) -> Content {
        Content { command: self.command, memo: self.memo }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// In order after [`Claims::sort`]: commands without a receipt first, then by seq.
    all: Vec<Claim>,
    /// Indexes into `all`, ordered by origin and id.
    by_id: Vec<u32>,
    pub(crate) entries: Vec<SeenEntry>,
    pub(crate) rows: Vec<SeenRows>,
    pub(crate) cursors: Vec<SeenCursor>,
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

    /// The receipts, ordered by seq.
    pub(crate) fn receipts(&self) -> &[Claim] {
        &self.all[self.all.partition_point(|claim| claim.seq == 0)..]
    }

    /// How an id was used; `None`: no command with it was sent.
    pub(crate) fn sent(&self, user: u32, id: u64) -> Option<IdUse> {
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
            (true, _) => IdUse::Refused,
            (false, true) => IdUse::One(*first),
            (false, false) => IdUse::Several,
        })
    }
}

/// How an origin used an id, by the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum IdUse {
    One(Claim),
    /// For commands that were refused whenever they were sent.
    Refused,
    Several,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) names: Names,
    pub(crate) logs: BTreeMap<String, Claims>,
}

impl Group {
    pub(crate) fn read<'a>(
        path: &Path,
        logs: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AuditError> {
        let mut group = Self::default();
        let mut of_log: HashMap<&str, Claims> =
            logs.into_iter().map(|log| (log, Claims::default())).collect();
        lines(path, |_, bytes| {
            let (LineOfLog::Receipt(LogName { log })
            | LineOfLog::Unanswered(LogName { log })
            | LineOfLog::Refused(LogName { log })
            | LineOfLog::Entry(LogName { log })
            | LineOfLog::Rows(LogName { log })
            | LineOfLog::Cursor(LogName { log })) = parse(bytes)?
            else {
                return Ok(());
            };
            let Some(claims) = of_log.get_mut(log.as_ref()) else { return Ok(()) };
            let names = &mut group.names;
            let mut claim = |(seq, refused), sent: Sent| {
                let origin = origin(&sent.user, sent.client.as_deref());
                let (user, command) = (names.number(&origin), names.intern(&sent.command));
                let expect = names.intern_expectation(&sent.command);
                let Sent { id, memo, .. } = sent;
                claims.all.push(Claim { seq, user, refused, expect, id, command, memo });
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
                Line::Cursor(seen) => claims.cursors.push(seen),
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
mod tests;
