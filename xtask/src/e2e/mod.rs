//! Deploys the templates to emulators of AWS with the Lambdas' own binaries, and drives it with the
//! same scenarios and the same auditor as the engine in one process.

mod emulator;
mod missing_parts;
mod moto;
mod stack;
mod starts;
mod without;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

pub(crate) use self::emulator::Emulator;
pub(crate) use self::stack::Delivery;
use self::stack::{Aws, NAME};
pub(crate) use self::without::Without;
use crate::lambdas::{self, Arch, Packages};
use crate::venv::Venv;

/// The load on each of two stacks on ministack, at a rate that both sustain on two busy cores: a slow
/// machine was seen to answer 11 a second. (If they answer late, the generator sends late; it drops a
/// request that would be more than 10 s late.)
const COMMANDS: u64 = 500;
const SECONDS: u64 = 80;

/// The emulator of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// `ministack` deploys the templates whole, and checks roles. It ignores `batchItemFailures` of
    /// streams.
    Ministack,
    /// `moto` with our own `lambda-host` deploys the templates' tables, streams, topic and queues,
    /// and has no roles. Faults are planted in both.
    Moto,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// The emulator; by default both, one after the other.
    #[arg(long, value_enum, conflicts_with_all = ["delivery", "without", "without_each", "starts"])]
    on: Option<On>,
    /// How commits reach the views; by default both ways, in parallel.
    #[arg(long, value_enum)]
    delivery: Option<Delivery>,
    /// Remove `<resource>` or `<role>.<service:Action>` from the templates, and expect a scenario to
    /// fail. The names of a view's resources begin with the view's: `BalancesRole`.
    #[arg(long, value_name = "WHAT")]
    without: Vec<Without>,
    /// The same for every mapping, subscription and schedule, and for a permission of each role.
    #[arg(long, conflicts_with_all = ["delivery", "without"])]
    without_each: bool,
    /// Use the packages that are deployed to AWS, instead of ones that are built quickly.
    #[arg(long)]
    release: bool,
    /// Only measure how long the Lambdas take to start, and to answer.
    #[arg(long, conflicts_with_all = ["delivery", "without", "without_each"])]
    starts: bool,
    /// Plant only some of the faults on moto, as `ci` does.
    #[arg(long)]
    some_faults: bool,
}

impl Options {
    /// The options of CI.
    pub(crate) const IN_CI: Self = Self {
        some_faults: true,
        on: None,
        delivery: None,
        without: Vec::new(),
        without_each: false,
        release: false,
        starts: false,
    };
}

/// The template that nests the others, and all of them.
const ROOT: &str = "template.yaml";
const TEMPLATES: [&str; 3] = [ROOT, "core.yaml", "view.yaml"];

/// How long a cold stack on a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// Scenarios that need a host in the same process.
const LOCAL: [&str; 4] = [
    "bad_input::bad_input_is_answered_with_its_problem_without_a_gateway",
    "isolation::",
    "services::two_services_keep_separate_logs_for_one_org",
    "tour::the_host_counts_requests_and_commands",
];

/// What is built once for all runs.
struct Built {
    venv: Venv,
    /// The template that nests the others, which are beside it.
    template: PathBuf,
    packages: Packages,
    /// The folder of the program of another team's view.
    guest: PathBuf,
    suite: PathBuf,
    generator: PathBuf,
    /// The program `fanfold`.
    client: PathBuf,
}

/// Runs what the options select.
pub(crate) fn run(options: Options) -> Result<()> {
    let packages = if options.release { Packages::Release } else { Packages::Fast };
    let built = Built::build(packages)?;
    if options.without_each {
        return missing_parts::run(&built);
    }
    if options.starts {
        return starts::run(&built);
    }
    let deliveries = match options.delivery {
        Some(delivery) => vec![delivery],
        None => Delivery::ALL.to_vec(),
    };
    if !options.without.is_empty() {
        for delivery in deliveries {
            missing_parts::expect_red(&built, delivery, &options.without)?;
        }
        return Ok(());
    }
    if options.on != Some(On::Moto) {
        on_ministack(&built, deliveries)?;
    }
    // `--delivery` selects a stack of ministack.
    if options.on != Some(On::Ministack) && options.delivery.is_none() {
        moto::run(&built, !options.some_faults)?;
    }
    Ok(())
}

/// Runs a stack for each delivery, in parallel.
fn on_ministack(built: &Built, deliveries: Vec<Delivery>) -> Result<()> {
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let start = |delivery| scope.spawn(move || full(built, delivery));
        let runs: Vec<_> = deliveries.into_iter().map(start).collect();
        let panicked = |_| Err(anyhow::anyhow!("a run panicked"));
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
    /// The variables by which scenarios find the stack's name and the programs of its operators.
    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("FANFOLD_STACK", NAME.to_owned()),
            ("FANFOLD_AWS", self.venv.program("aws").display().to_string()),
            ("FANFOLD_PROGRAM", self.client.display().to_string()),
        ]
    }

    fn build(packages: Packages) -> Result<Self> {
        let venv = Venv::ready()?;
        let mut template = crate::root()?.join("infra").join(ROOT);
        println!("\n== lint of the templates");
        let files = TEMPLATES.map(|name| template.with_file_name(name));
        let lint = venv.command("cfn-lint").args(files).status()?;
        ensure!(lint.success(), "cfn-lint has findings");
        match packages {
            Packages::Release => lambdas::release(Arch::here())?,
            Packages::Fast => {
                lambdas::fast()?;
                template = with_fast_packages(&template)?;
            }
        }
        let guest = lambdas::guest()?;
        let packages_of = ["fanfold-loadtest", "lambda-host", "fanfold-cli"];
        let selected = packages_of.iter().flat_map(|package| ["--package", package]);
        let programs: Vec<&str> = ["build", "--bins"].into_iter().chain(selected).collect();
        crate::cargo("generator, host and client", &[&programs[..], &crate::SHARED].concat())?;
        let suite = build_suite()?;
        let [generator, client] = ["loadtest", "fanfold"].map(|name| Path::new("debug").join(name));
        let (generator, client) = (crate::target()?.join(generator), crate::target()?.join(client));
        Ok(Self { venv, template, packages, guest, suite, generator, client })
    }
}

/// Writes copies of the templates that name the quickly built packages, beside them. Returns the one
/// that nests the others.
fn with_fast_packages(template: &Path) -> Result<PathBuf> {
    let folder = lambdas::folder(Packages::Fast)?;
    for name in TEMPLATES {
        let text = fs::read_to_string(template.with_file_name(name))?;
        let (from, to) = ("Code: ../target/lambda/", "Code: ./");
        ensure!(
            name == ROOT || text.contains(from),
            "{name} does not name the package of its functions"
        );
        fs::write(folder.join(name), text.replace(from, to))?;
    }
    Ok(folder.join(ROOT))
}

/// Builds the scenarios, and returns their program.
fn build_suite() -> Result<PathBuf> {
    let suite = ["test", "--package", "scenarios", "--no-run", "--message-format", "json"];
    let arguments = [&suite[..], &crate::SHARED].concat();
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
    programs.next_back().context("cargo named no program of the scenarios")
}

/// A running API, and what runs against it.
struct Target<'a> {
    built: &'a Built,
    /// Its name in messages.
    name: String,
    folder: PathBuf,
    url: String,
    /// The variables by which programs find its AWS, and no other.
    environment: Vec<(&'static str, String)>,
}

/// A deployed stack. Dropping it ends the emulator.
struct Deployed<'a> {
    target: Target<'a>,
    emulator: Emulator,
}

impl<'a> Deref for Deployed<'a> {
    type Target = Target<'a>;

    fn deref(&self) -> &Target<'a> {
        &self.target
    }
}

impl<'a> Deployed<'a> {
    fn deploy(built: &'a Built, delivery: Delivery, without: &[Without]) -> Result<Self> {
        let folder = emulator::folder()?;
        let name = format!("delivery {}", delivery.name());
        say(&name, &format!("logs: {}", folder.display()));
        let emulator = Emulator::start(&built.venv, &folder)?;
        let aws = Aws::new(&built.venv, &emulator, &folder);
        let api = aws.deploy(&built.template, delivery, without)?;
        let url = emulator.api(&api);
        let mut environment = emulator.environment();
        environment.push(("FANFOLD_DELIVERY", delivery.name().to_owned()));
        environment.extend(built.environment());
        let target = Target { built, name, folder, url, environment };
        Ok(Self { target, emulator })
    }
}

impl Target<'_> {
    /// Runs scenarios against it, and returns whether they passed. `name` is that of their log.
    fn scenarios(&self, name: &str, arguments: &[&str], patience: Duration) -> Result<bool> {
        let mut suite = Command::new(&self.built.suite);
        suite.args(arguments).env("SCENARIO_PATIENCE", patience.as_secs().to_string());
        self.run(name, suite.env("FANFOLD_URL", &self.url))
    }

    /// Runs a command that finds this AWS and no other, and returns whether it succeeded. Its
    /// output goes to the log `name`.
    fn run(&self, name: &str, command: &mut Command) -> Result<bool> {
        let output = File::create(self.log(name))?;
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        let status = command.stdout(output.try_clone()?).stderr(output).status()?;
        Ok(status.success())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("log")
    }

    /// Turns a failed [`Target::run`] into an error with the end of its log.
    fn must(&self, name: &str, held: bool) -> Result<()> {
        if held {
            return Ok(());
        }
        let log = self.log(name);
        let text = fs::read_to_string(&log)?;
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(60)..].join("\n");
        bail!("{}: {name} failed; {} ends:\n{end}", self.name, log.display())
    }
}

/// Runs all scenarios that need only the API.
fn all_scenarios(target: &Target<'_>) -> Result<()> {
    // They wait most of the time.
    let mut arguments = vec!["--test-threads", "4"];
    arguments.extend(LOCAL.iter().flat_map(|name| ["--skip", name]));
    let held = target.scenarios("scenarios", &arguments, PATIENCE)?;
    target.must("scenarios", held)
}

/// Runs the scenarios in which something waits for an operator.
fn operators(target: &Target<'_>) -> Result<()> {
    let held = target.scenarios("operators", &["operators::", "--ignored"], PATIENCE)?;
    target.must("operators", held)
}

/// Runs everything on one stack of ministack.
fn full(built: &Built, delivery: Delivery) -> Result<()> {
    let mut clock = Clock::start(&format!("delivery {}", delivery.name()));
    let stack = Deployed::deploy(built, delivery, &[])?;
    clock.lap("deployed");
    all_scenarios(&stack)?;
    clock.lap("the scenarios passed");
    operators(&stack)?;
    clock.lap("what waited was mended");
    audited_load(&stack, COMMANDS)?;
    clock.lap(&format!("{COMMANDS} commands were audited"));
    // Each of these breaks something that the others need.
    let held = stack.scenarios(
        "failures",
        &["deployed::", "--ignored", "--test-threads", "1"],
        PATIENCE,
    )?;
    stack.must("failures", held)?;
    clock.lap("the stack recovered from failures");
    let aws = Aws::new(&built.venv, &stack.emulator, &stack.folder);
    with_guest(&stack, || aws.deploy_guest(&built.template, &built.guest, delivery))?;
    clock.lap("another team's view has caught up");
    aws.tear_down(delivery)?;
    clock.lap("torn down");
    let folder = stack.folder.clone();
    drop(stack);
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// Deploys the view of another team by `deploy`. It must have what happened before.
fn with_guest(stack: &Target<'_>, deploy: impl FnOnce() -> Result<()>) -> Result<()> {
    let scenario = |name: &str, test: &str| {
        let held = stack.scenarios(name, &[test, "--ignored", "--exact"], PATIENCE)?;
        stack.must(name, held)
    };
    scenario("before-guest", "guest::the_log_is_there_before_the_view")?;
    deploy()?;
    scenario("guest", "guest::the_view_has_the_log_that_was_there_before")
}

/// Loads the stack with commands of many organisations. All must be accepted, and pass the audit.
fn audited_load(stack: &Target<'_>, commands: u64) -> Result<()> {
    let rate = (commands as f64 / SECONDS as f64).to_string();
    let seconds = format!("{SECONDS}s");
    let much = ["--rate", &rate, "--duration", &seconds, "--tenants", "50", "--users", "3"];
    let what = ["--zipf", "0", "--duplicates", "0.05", "--out-of-order", "0.05"];
    let how = ["--rejected", "0.05", "--connections", "16", "--samples", "10"];
    let report = load(stack, &[&much[..], &what, &how].concat())?;
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    ensure!(
        count("/counts/accepted") >= Some(commands)
            && count("/counts/accepted") == count("/counts/due"),
        "not all commands were accepted: {}",
        report["counts"]
    );
    ensure!(count("/audit/receipts") >= count("/counts/accepted"), "not all receipts were audited");
    Ok(())
}

/// Runs the generator and its auditor, and returns the report.
fn load(stack: &Target<'_>, arguments: &[&str]) -> Result<Value> {
    let report = stack.folder.join("report.json");
    let mut generator = Command::new(&stack.built.generator);
    generator.args(["run", "--target", &stack.url]).args(arguments);
    generator.args([OsStr::new("--json"), report.as_os_str()]);
    let held = stack.run("load", &mut generator)?;
    stack.must("load", held)?;
    Ok(serde_json::from_reader(File::open(&report)?)?)
}

/// Prints each step with the time that it took.
struct Clock {
    name: String,
    began: Instant,
}

impl Clock {
    fn start(name: &str) -> Self {
        Self { name: name.to_owned(), began: Instant::now() }
    }

    fn lap(&mut self, what: &str) {
        say(&self.name, &format!("{what}: {} s", self.began.elapsed().as_secs()));
        self.began = Instant::now();
    }
}

fn say(name: &str, what: &str) {
    println!("== e2e, {name}: {what}");
}
