//! Draws the commands of a workload file.
//!
//! Each command is a function of the seed, the thread, the tenant and its position among the
//! tenant's commands of this thread (and of the run's name, if a template uses `run`). So two runs
//! send the same commands, whatever the answers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use minijinja::value::{Serde, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::program::{COMMAND_BYTES_MAX, Program, Rendered, Step, WorkloadError};
use super::template::{Memory, with_draw};
use auditor::receipts::Digest;

/// Earlier commands of each name that a tenant's memory holds, at most.
const EARLIER_MAX: usize = 32;
/// Earlier commands that a thread holds for all tenants, about: 4 million of some 100 bytes.
const EARLIER_OF_ALL_MAX: usize = 4_000_000;
/// Attempts to draw a command that differs from another one.
const ANOTHER_MAX: usize = 8;
/// The number in place of a thread's in the seed of setups, which are not of a thread.
const OF_SETUP: u64 = u64::MAX;

/// The state of a tenant in one thread.
#[derive(Default)]
struct Tenant {
    /// The number of commands drawn for it.
    position: u64,
    memory: Memory,
}

/// Draws the commands of one thread.
pub(crate) struct FileSource {
    program: Arc<Program>,
    seed: u64,
    run: Value,
    thread: u64,
    threads: u64,
    earlier_max: usize,
    tenants: HashMap<u32, Tenant>,
}

/// What a draw is for.
pub(crate) struct Drawn<'a> {
    pub(crate) seed: u64,
    pub(crate) run: &'a str,
    pub(crate) thread: u16,
    pub(crate) threads: u16,
    /// The number of tenants, which share the memory.
    pub(crate) tenants: u32,
}

impl FileSource {
    pub(crate) fn new(program: Arc<Program>, drawn: &Drawn<'_>) -> Self {
        let shares = drawn.tenants as usize * program.remembered.len().max(1);
        Self {
            program,
            seed: drawn.seed,
            run: Value::from(drawn.run),
            thread: drawn.thread.into(),
            threads: drawn.threads.into(),
            earlier_max: (EARLIER_OF_ALL_MAX / shares).clamp(1, EARLIER_MAX),
            tenants: HashMap::new(),
        }
    }

    /// The commands of a tenant's setup.
    pub(crate) fn setup(&self, tenant: u32) -> Result<Vec<Arc<Rendered>>, WorkloadError> {
        self.set_up(tenant, &mut self.memory())
    }

    fn set_up(
        &self,
        tenant: u32,
        memory: &mut Memory,
    ) -> Result<Vec<Arc<Rendered>>, WorkloadError> {
        let mut rendered = Vec::with_capacity(self.program.setup_len());
        for step in &self.program.setup {
            for n in 0..u64::from(step.each) {
                let position = rendered.len() as u64;
                let seed = mixed([self.seed, OF_SETUP, tenant.into(), position]);
                let command = self.render(step, seed, tenant, n, memory)?;
                self.remember(step, &command, memory);
                rendered.push(Arc::new(command));
            }
        }
        Ok(rendered)
    }

    fn memory(&self) -> Memory {
        Memory(self.program.remembered.iter().map(|_| VecDeque::new()).collect())
    }

    /// The next command of a tenant. Commands whose data need an earlier command that was not sent
    /// yet are left out of the draw.
    pub(crate) fn next(&mut self, tenant: u32) -> Result<Arc<Rendered>, WorkloadError> {
        self.draw(tenant, true)
    }

    /// A command of a tenant that differs from `first`; `None`: none was found. It is not
    /// remembered, since it is to be rejected.
    pub(crate) fn another(
        &mut self,
        tenant: u32,
        first: &Rendered,
    ) -> Result<Option<Arc<Rendered>>, WorkloadError> {
        for _ in 0..ANOTHER_MAX {
            let other = self.draw(tenant, false)?;
            if (&other.command, other.digest) != (&first.command, first.digest) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    fn draw(&mut self, tenant: u32, remembers: bool) -> Result<Arc<Rendered>, WorkloadError> {
        let mut state = match self.tenants.remove(&tenant) {
            Some(state) => state,
            None => {
                let mut memory = self.memory();
                // The setup was sent by another thread, perhaps: it is the same here.
                if !self.program.remembered.is_empty() {
                    self.set_up(tenant, &mut memory)?;
                }
                Tenant { position: 0, memory }
            }
        };
        let program = Arc::clone(&self.program);
        let seed = mixed([self.seed, self.thread, tenant.into(), state.position]);
        // Differs from those of other threads.
        let n = state.position * self.threads + self.thread;
        state.position += 1;
        let has = |step: &&Step| step.needs.iter().all(|at| !state.memory.0[*at].is_empty());
        let all: f64 = program.mix.iter().filter(has).map(|step| step.weight).sum();
        if all == 0.0 {
            let what = "every command of `mix` uses earlier values, and the setup sent none of them: \
                        let one command use none";
            return Err(program.content(&program.mix[0], what.to_owned()));
        }
        let mut left = SmallRng::seed_from_u64(!seed).random_range(0.0..all);
        let drawn = program.mix.iter().filter(has).find(|step| {
            left -= step.weight;
            left < 0.0
        });
        // Rounding may leave nothing of the last one.
        let last = || program.mix.iter().rfind(has);
        let step = drawn.or_else(last).expect("the check found one that needs nothing more");
        let rendered = self.render(step, seed, tenant, n, &mut state.memory)?;
        if remembers {
            self.remember(step, &rendered, &mut state.memory);
        }
        self.tenants.insert(tenant, state);
        Ok(Arc::new(rendered))
    }

    fn render(
        &self,
        step: &Step,
        seed: u64,
        tenant: u32,
        n: u64,
        memory: &mut Memory,
    ) -> Result<Rendered, WorkloadError> {
        let variables = Value::from_pairs([
            ("n", Value::from(n)),
            ("tenant", Value::from(tenant)),
            ("run", self.run.clone()),
        ]);
        let program = &*self.program;
        let mut data = String::with_capacity(128);
        with_draw(seed, &program.remembered, memory, || step.data.write(&variables, &mut data))
            .map_err(|fault| program.fault(step, fault))?;
        let wrong = |what: String| program.content(step, what);
        if !data.starts_with('{') {
            return Err(wrong(format!(
                "`data` of `{}` is rendered as {}, which is no object",
                step.command,
                cut(&data)
            )));
        }
        if data.len() > COMMAND_BYTES_MAX {
            return Err(wrong(format!(
                "`data` of `{}` is rendered as {} bytes, and a command has at most {COMMAND_BYTES_MAX}: \
                 shorten it",
                step.command,
                data.len()
            )));
        }
        let digest = Digest::of_json(&data).map_err(|error| wrong(error.to_string()))?;
        let (command, expect) = (Arc::clone(&step.command), Arc::clone(&step.expect));
        Ok(Rendered { line: step.line, command, expect, data: data.into(), digest })
    }

    /// Keeps the values of a command that later ones may use.
    fn remember(&self, step: &Step, rendered: &Rendered, memory: &mut Memory) {
        let Some(at) = step.remembered else { return };
        let data: serde_json::Value = serde_json::from_str(&rendered.data).expect("it is JSON");
        let fields = &self.program.remembered[at].fields;
        let values = fields.iter().map(|field| {
            let value = field.split('.').try_fold(&data, |value, part| value.get(part));
            value.map(|value| Value::from(Serde(value)))
        });
        // A command without one of the fields is no earlier command for a template.
        let Some(values) = values.collect::<Option<Box<[Value]>>>() else { return };
        let all = &mut memory.0[at];
        if all.len() == self.earlier_max {
            all.pop_front();
        }
        all.push_back(values);
    }
}

/// Renders each command of a program once. Returns the bytes of the longest data.
pub(super) fn check(program: &Arc<Program>) -> Result<usize, WorkloadError> {
    let mut longest = 0;
    render_all(program, 1, |_, rendered| {
        longest = longest.max(rendered.data.len());
        Ok(())
    })?;
    Ok(longest)
}

/// Renders the setup of a tenant, and each command of the mix `times` times. Passes them to `see`.
///
/// A command is rendered as soon as those that it needs are, so that what it needs is there.
pub(super) fn render_all(
    program: &Arc<Program>,
    times: u64,
    mut see: impl FnMut(&Step, &Rendered) -> Result<(), WorkloadError>,
) -> Result<(), WorkloadError> {
    let drawn = Drawn { seed: 1, run: "check", thread: 0, threads: 1, tenants: 1 };
    let source = FileSource::new(Arc::clone(program), &drawn);
    let mut memory = source.memory();
    let is_there = |step: &Step, memory: &Memory| {
        step.needs.iter().find(|at| memory.0[**at].is_empty()).copied()
    };
    for step in &program.setup {
        if let Some(missing) = is_there(step, &memory) {
            return Err(source.missing(step, missing, "before it in the setup"));
        }
        for n in 0..u64::from(step.each) {
            let rendered = source.render(step, n, 0, n, &mut memory)?;
            see(step, &rendered)?;
            source.remember(step, &rendered, &mut memory);
        }
    }
    let mut left: Vec<&Step> = program.mix.iter().collect();
    let mut is_first = true;
    while !left.is_empty() {
        let (ready, others): (Vec<&Step>, Vec<&Step>) =
            left.iter().partition(|step| is_there(step, &memory).is_none());
        if let Some((step, missing)) = others
            .first()
            .filter(|_| ready.is_empty())
            .and_then(|s| Some((s, is_there(s, &memory)?)))
        {
            let place = if is_first {
                "in the setup, or in the mix without needing others"
            } else {
                "in the setup or the mix"
            };
            return Err(source.missing(step, missing, place));
        }
        for (step, n) in ready.into_iter().flat_map(|step| (0..times).map(move |n| (step, n))) {
            let rendered = source.render(step, n, 0, n, &mut memory)?;
            see(step, &rendered)?;
            source.remember(step, &rendered, &mut memory);
        }
        (left, is_first) = (others, false);
    }
    Ok(())
}

impl FileSource {
    /// The error for a command that needs an earlier one which is not there.
    fn missing(&self, step: &Step, missing: usize, place: &str) -> WorkloadError {
        let needed = &self.program.remembered[missing];
        let what = format!(
            "`{}` uses earlier('{}', …), and no command `{}` with {} is {place}: send one there, or \
             correct the name",
            step.command,
            needed.command,
            needed.command,
            needed
                .fields
                .iter()
                .map(|field| format!("`{field}`"))
                .collect::<Vec<_>>()
                .join(" and ")
        );
        self.program.content(step, what)
    }
}

/// One number from several. Each changes all bits of it (the finalizer of SplitMix64).
fn mixed(parts: [u64; 4]) -> u64 {
    parts.into_iter().fold(0, |mixed, part| {
        let mut bits = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

/// A text that is short enough for an error.
pub(super) fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
