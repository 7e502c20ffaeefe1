//! A workload file, read, checked and compiled.
//!
//! What can be wrong with a file is found here, before anything is sent, as far as rendering each command once shows it. An
//! expression that fails only for a later `n` ends the load with the same message.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::Environment;
use serde_saphyr::Spanned;

use super::file::{Data, Outcome, Partition, WorkloadFile};
use super::source::check;
use super::template::{Fault, Node, Place, Remembered, environment};
use auditor::receipts::{Digest, Expect};

/// Bytes of a file: far more than any that a person writes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Commands of a tenant's setup. A thread renders them again for each tenant that it meets.
const SETUP_MAX: u32 = 10_000;
/// Bytes of a name, by the API.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a command, by the API.
pub(super) const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// Why a workload file is refused. Each message is one line that begins with the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("cannot read the workload {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: the file has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: {what}", path.display())]
    Format { path: PathBuf, what: String },
    #[error("{}, line {line}: {what}", path.display())]
    Content { path: PathBuf, line: u64, what: String },
    #[error("{}, line {line}: the command `{command}`, field `{field}`: {what}", path.display())]
    Template { path: PathBuf, line: u64, command: String, field: String, what: String },
    #[error("{}, line {line}: the target refuses the command `{command}`: {why}", path.display())]
    Refused { path: PathBuf, line: u64, command: String, why: String },
}

/// A compiled workload.
pub(crate) struct Program {
    path: PathBuf,
    pub(crate) service: String,
    service_line: u64,
    pub(crate) partition: Partition,
    pub(crate) views: Vec<String>,
    pub(super) setup: Vec<Step>,
    pub(super) mix: Vec<Step>,
    pub(super) remembered: Arc<[Remembered]>,
    /// Bytes of the longest data that the check has rendered.
    longest: usize,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A command of the setup or the mix.
pub(super) struct Step {
    pub(super) line: u64,
    pub(super) command: Arc<str>,
    pub(super) expect: Arc<Expect>,
    pub(super) data: Node,
    /// The same as its author wrote it, with the lines.
    written: Spanned<Data>,
    /// In a setup: how many times it is sent.
    pub(super) each: u32,
    /// In a mix: how often it is drawn.
    pub(super) weight: f64,
    /// The remembered commands that its data need.
    pub(super) needs: Vec<usize>,
    /// Its number among the remembered commands, if it is one.
    pub(super) remembered: Option<usize>,
}

/// A rendered command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rendered {
    /// Its line in the file.
    pub(super) line: u64,
    pub(super) command: Arc<str>,
    pub(super) expect: Arc<Expect>,
    /// JSON.
    pub(super) data: Box<str>,
    pub(super) digest: Digest,
}

impl Program {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Arc<Self>, WorkloadError> {
        let failed = |source| WorkloadError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(WorkloadError::TooLarge { path: path.to_owned() });
        }
        Self::compile(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    /// Checks and compiles the text of a file.
    pub(crate) fn compile(path: &Path, text: &str) -> Result<Arc<Self>, WorkloadError> {
        let file: WorkloadFile = serde_saphyr::from_str(text).map_err(|error| {
            let what = error.without_snippet().to_string();
            WorkloadError::Format { path: path.to_owned(), what: one_line(&what) }
        })?;
        let mut compiler = Compiler::new(path);
        let program = Arc::new(compiler.compile(&file)?);
        let longest = check(&program)?;
        let mut program = Arc::into_inner(program).expect("the check kept none");
        program.longest = longest;
        Ok(Arc::new(program))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of commands of a tenant's setup.
    pub(crate) fn setup_len(&self) -> usize {
        self.setup.iter().map(|step| step.each as usize).sum()
    }

    /// Bytes of the longest data that the check has rendered. Others may be longer.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The error for a fault of a command's data.
    pub(super) fn fault(&self, step: &Step, fault: Fault) -> WorkloadError {
        let Fault { place: Place { line, field }, what } = fault;
        let (path, command) = (self.path.clone(), step.command.to_string());
        let what = one_line(&what);
        WorkloadError::Template { path, line, command, field, what }
    }

    /// The error for what is wrong with a command.
    pub(super) fn content(&self, step: &Step, what: String) -> WorkloadError {
        WorkloadError::Content { path: self.path.clone(), line: step.line, what }
    }

    /// The error for a service that the target does not have.
    pub(super) fn of_service(&self, what: String) -> WorkloadError {
        WorkloadError::Content { path: self.path.clone(), line: self.service_line, what }
    }
}

impl Step {
    /// The line of a part of the data, by the keys and positions that lead to it. If the author did
    /// not write it, that of the nearest part around it.
    pub(super) fn line_of<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> u64 {
        let (mut part, mut line) = (&self.written, self.line);
        let mut path = path.into_iter();
        loop {
            let own = part.referenced.line();
            line = if own == 0 { line } else { own };
            let Some(name) = path.next() else { return line };
            let below = match &part.value {
                Data::Map(members) => {
                    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
                }
                Data::List(items) => name.parse().ok().and_then(|at: usize| items.get(at)),
                Data::Plain(_) | Data::Text(_) => None,
            };
            let Some(below) = below else { return line };
            part = below;
        }
    }
}

/// The text on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Compiler<'a> {
    path: &'a Path,
    environment: &'static Environment<'static>,
    remembered: Vec<Remembered>,
}

impl<'a> Compiler<'a> {
    fn new(path: &'a Path) -> Self {
        // The workload lives as long as the process, and compiled expressions borrow from it.
        let environment = Box::leak(Box::new(environment()));
        Self { path, environment, remembered: Vec::new() }
    }

    fn error(&self, line: u64, what: impl Into<String>) -> WorkloadError {
        WorkloadError::Content { path: self.path.to_owned(), line, what: what.into() }
    }

    fn compile(&mut self, file: &WorkloadFile) -> Result<Program, WorkloadError> {
        let service_line = file.service.referenced.line();
        self.check_name(service_line, "the service", &file.service.value)?;
        let mut views = HashSet::new();
        for view in &file.views {
            self.check_name(view.referenced.line(), "the view", &view.value)?;
            if !views.insert(&view.value) {
                let what = format!("the view `{}` is there twice: name it once", view.value);
                return Err(self.error(view.referenced.line(), what));
            }
        }
        if file.mix.is_empty() {
            return Err(self.error(1, "`mix` is empty: give it at least one command"));
        }
        let mut setup = Vec::new();
        let mut total = 0_u32;
        for step in &file.setup {
            let (line, step) = (step.referenced.line(), &step.value);
            total = total.saturating_add(step.each);
            if step.each == 0 || total > SETUP_MAX {
                let what = format!(
                    "`each` of `{}` is {}: a setup has at most {SETUP_MAX} commands, and each at \
                     least one",
                    step.command, step.each
                );
                return Err(self.error(line, what));
            }
            let mut compiled = self.step(line, &step.command, &step.data, &step.expect)?;
            compiled.each = step.each;
            setup.push(compiled);
        }
        let mut mix = Vec::new();
        for step in &file.mix {
            let (line, step) = (step.referenced.line(), &step.value);
            if !(step.weight.is_finite() && step.weight > 0.0) {
                let what = format!(
                    "`weight` of `{}` is {}, and must be a number above zero: leave the command out \
                     to send none",
                    step.command, step.weight
                );
                return Err(self.error(line, what));
            }
            let mut compiled = self.step(line, &step.command, &step.data, &step.expect)?;
            compiled.weight = step.weight;
            mix.push(compiled);
        }
        for step in setup.iter_mut().chain(&mut mix) {
            let same = |one: &Remembered| *one.command == *step.command;
            step.remembered = self.remembered.iter().position(same);
        }
        Ok(Program {
            path: self.path.to_owned(),
            service: file.service.value.clone(),
            service_line,
            partition: file.partition,
            views: file.views.iter().map(|view| view.value.clone()).collect(),
            setup,
            mix,
            remembered: std::mem::take(&mut self.remembered).into(),
            longest: 0,
        })
    }

    fn step(
        &mut self,
        line: u64,
        command: &str,
        data: &Spanned<Data>,
        expect: &Outcome,
    ) -> Result<Step, WorkloadError> {
        if command.is_empty() || command.len() > NAME_BYTES_MAX {
            let what = format!("the command `{command}` must have 1 to {NAME_BYTES_MAX} bytes");
            return Err(self.error(line, what));
        }
        let expect = expect.expected();
        if matches!(&expect, Expect::Rejected(codes) if codes.is_empty()) {
            let what = format!(
                "`expect` of `{command}` has no code: write `expect: {{ rejected: code }}`, or \
                 `either` if any outcome is fine"
            );
            return Err(self.error(line, what));
        }
        let data_line = if data.referenced.line() == 0 { line } else { data.referenced.line() };
        let is_object = match &data.value {
            Data::Map(_) => true,
            Data::Text(text) => text.trim_start().starts_with("{{"),
            Data::Plain(_) | Data::List(_) => false,
        };
        if !is_object {
            let what = format!(
                "`data` of `{command}` is no object: write fields and values, such as `data: {{ room: a }}`"
            );
            return Err(self.error(data_line, what));
        }
        let place = Place { line: data_line, field: "data".to_owned() };
        let written = data.clone();
        let (mut needs, remembered) = (Vec::new(), &mut self.remembered);
        let data = Node::compile(self.environment, &data.value, &place, &mut |_, of, field| {
            let at = match remembered.iter().position(|one| one.command == of) {
                Some(at) => at,
                None => {
                    remembered.push(Remembered { command: of.to_owned(), fields: Vec::new() });
                    remembered.len() - 1
                }
            };
            if !remembered[at].fields.iter().any(|one| one == field) {
                remembered[at].fields.push(field.to_owned());
            }
            if !needs.contains(&at) {
                needs.push(at);
            }
        });
        let data = data.map_err(|Fault { place: Place { line, field }, what }| {
            let (path, command) = (self.path.to_owned(), command.to_owned());
            WorkloadError::Template { path, line, command, field, what: one_line(&what) }
        })?;
        Ok(Step {
            line,
            command: command.into(),
            expect: Arc::new(expect),
            data,
            written,
            each: 1,
            weight: 0.0,
            needs,
            remembered: None,
        })
    }

    /// Checks a name that is in paths. The receipts hold no other characters.
    fn check_name(&self, line: u64, of: &str, name: &str) -> Result<(), WorkloadError> {
        let is_good = |c: u8| c.is_ascii_alphanumeric() || b"._:@=+-".contains(&c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_good) {
            let what = format!(
                "{of} `{name}` must have 1 to {NAME_BYTES_MAX} characters, only letters, digits and ._:@=+-"
            );
            return Err(self.error(line, what));
        }
        Ok(())
    }
}
