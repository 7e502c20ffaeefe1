//! The template, deployed to an emulator of AWS with the Lambdas' own binaries, and driven by the
//! same scenarios and the same auditor as the engine in one process.

mod emulator;
mod mutations;
mod stack;
mod without;

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use self::emulator::Emulator;
pub(crate) use self::stack::Delivery;
use self::stack::{Aws, NAME};
pub(crate) use self::without::Without;
use crate::venv::Venv;

/// What the generator sends: 500 commands, and at a rate that an emulator keeps up with.
const COMMANDS: u64 = 500;
const SECONDS: u64 = 10;

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// How commits come to the views; both, one beside the other, if nothing is said.
    #[arg(long, value_enum)]
    delivery: Option<Delivery>,
    /// Takes `<resource>`, `<function>.<event>` or `<role>.<service:Action>` out of the template,
    /// and expects that this is noticed.
    #[arg(long, value_name = "WHAT")]
    without: Vec<Without>,
    /// The same for everything that must not be missing, one after the other.
    #[arg(long, conflicts_with_all = ["delivery", "without"])]
    mutations: bool,
}

/// What is built once, for all that is run.
struct Built {
    venv: Venv,
    template: PathBuf,
    suite: PathBuf,
    generator: PathBuf,
}

/// All of it.
pub(crate) fn run(options: Options) -> Result<()> {
    let built = Built::build()?;
    if options.mutations {
        return mutations::run(&built);
    }
    let deliveries = match options.delivery {
        Some(delivery) => vec![delivery],
        None => Delivery::ALL.to_vec(),
    };
    if !options.without.is_empty() {
        for delivery in deliveries {
            mutations::expect_red(&built, delivery, &options.without)?;
        }
        return Ok(());
    }
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let start = |delivery| {
            let built = &built;
            scope.spawn(move || full(built, delivery))
        };
        let runs: Vec<_> = deliveries.into_iter().map(start).collect();
        let panicked = |_| Err(anyhow::anyhow!("it panicked"));
        runs.into_iter().map(|run| run.join().unwrap_or_else(panicked)).collect()
    });
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    for failure in &failures {
        println!("\n{failure:#}");
    }
    ensure!(failures.is_empty(), "{} of the stacks failed", failures.len());
    Ok(())
}

impl Built {
    fn build() -> Result<Self> {
        let venv = Venv::ready()?;
        let template = crate::root()?.join("infra/template.yaml");
        println!("\n== lint of the template");
        let lint = venv.command("cfn-lint").arg(&template).status()?;
        ensure!(lint.success(), "cfn-lint has findings");
        crate::lambdas::fast()?;
        crate::cargo("load generator", &["build", "--package", "loadtest"])?;
        let suite = build_suite()?;
        let generator = crate::target()?.join("debug/loadtest");
        Ok(Self { venv, template, suite, generator })
    }
}

/// Builds the scenarios; the program that runs them.
fn build_suite() -> Result<PathBuf> {
    let arguments = ["test", "--package", "scenarios", "--no-run", "--message-format", "json"];
    println!("\n== scenarios: cargo {}", arguments.join(" "));
    let output = crate::cargo_command(&arguments)?.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the scenarios cannot be built");
    let messages = String::from_utf8(output.stdout)?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["kind"] == serde_json::json!(["test"]);
        let program = message["executable"].as_str().filter(|_| is_test)?;
        Some(PathBuf::from(program))
    });
    programs.next_back().context("cargo has built no scenarios")
}

/// A deployed stack. It ends when this is dropped.
struct Deployed<'a> {
    built: &'a Built,
    delivery: Delivery,
    folder: PathBuf,
    emulator: Emulator,
    url: String,
}

impl<'a> Deployed<'a> {
    fn deploy(built: &'a Built, delivery: Delivery, without: &[Without]) -> Result<Self> {
        let folder = emulator::folder()?;
        say(delivery, &format!("logs: {}", folder.display()));
        let emulator = Emulator::start(&built.venv, &folder)?;
        let aws = Aws::new(&built.venv, &emulator, &folder);
        let api = aws.deploy(&built.template, &folder, delivery, without)?;
        let url = emulator.api(&api);
        Ok(Self { built, delivery, folder, emulator, url })
    }

    /// Runs scenarios against it; whether they held. `name`: of their log.
    fn scenarios(&self, name: &str, arguments: &[&str], patience: Duration) -> Result<bool> {
        let mut suite = Command::new(&self.built.suite);
        suite.args(arguments).env("SCENARIO_PATIENCE", patience.as_secs().to_string());
        suite.env("FANFOLD_STACK", NAME).env("FANFOLD_DELIVERY", self.delivery.name());
        suite.env("FANFOLD_AWS", self.built.venv.program("aws"));
        self.run(name, suite.env("FANFOLD_URL", &self.url))
    }

    /// Runs something that finds this AWS and no other, and keeps what it prints.
    fn run(&self, name: &str, command: &mut Command) -> Result<bool> {
        let output = File::create(self.log(name))?;
        command.envs(self.emulator.environment()).stdin(Stdio::null());
        let status = command.stdout(output.try_clone()?).stderr(output).status()?;
        Ok(status.success())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("log")
    }

    /// As [`Deployed::run`]'s answer, with what the log ends with if it is no.
    fn must(&self, name: &str, held: bool) -> Result<()> {
        if held {
            return Ok(());
        }
        let log = self.log(name);
        let text = std::fs::read_to_string(&log)?;
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(60)..].join("\n");
        bail!("{} ({}): {name} failed; {} ends:\n{end}", NAME, self.delivery.name(), log.display())
    }
}

/// Everything on one stack.
fn full(built: &Built, delivery: Delivery) -> Result<()> {
    /// What a cold stack on a busy machine may take.
    const PATIENCE: Duration = Duration::from_secs(100);
    let mut clock = Clock { delivery, began: Instant::now() };
    let stack = Deployed::deploy(built, delivery, &[])?;
    clock.lap("deployed");
    // Some only wait, most of the time.
    let held = stack.scenarios("scenarios", &["--test-threads", "4"], PATIENCE)?;
    stack.must("scenarios", held)?;
    clock.lap("the scenarios held");
    audited_load(&stack)?;
    clock.lap("500 commands were audited");
    // Each of these takes something away from all others.
    let held = stack.scenarios("failures", &["--ignored", "--test-threads", "1"], PATIENCE)?;
    stack.must("failures", held)?;
    clock.lap("what had failed caught up");
    let folder = stack.folder.clone();
    drop(stack);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn audited_load(stack: &Deployed<'_>) -> Result<()> {
    let report = stack.folder.join("report.json");
    let rate = (COMMANDS / SECONDS).to_string();
    let mut generator = Command::new(&stack.built.generator);
    generator.args(["run", "--target", &stack.url, "--rate", &rate]);
    generator.args(["--duration", &format!("{SECONDS}s"), "--tenants", "50", "--users", "3"]);
    generator.args(["--zipf", "0", "--duplicates", "0.05", "--out-of-order", "0.05"]);
    generator.args(["--rejected", "0.05", "--connections", "16", "--samples", "10"]);
    generator.args([OsStr::new("--json"), report.as_os_str()]);
    let held = stack.run("load", &mut generator)?;
    stack.must("load", held)?;
    let report: Value = serde_json::from_reader(File::open(&report)?)?;
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    ensure!(
        count("/counts/accepted") >= Some(COMMANDS)
            && count("/counts/accepted") == count("/counts/due"),
        "not all got in: {}",
        report["counts"]
    );
    ensure!(count("/audit/receipts") >= count("/counts/accepted"), "not all were audited");
    Ok(())
}

/// Says what has been done, and how long that took.
struct Clock {
    delivery: Delivery,
    began: Instant,
}

impl Clock {
    fn lap(&mut self, what: &str) {
        say(self.delivery, &format!("{what}: {} s", self.began.elapsed().as_secs()));
        self.began = Instant::now();
    }
}

fn say(delivery: Delivery, what: &str) {
    println!("== e2e, delivery {}: {what}", delivery.name());
}
