//! The tasks of this repository. CI runs `cargo xtask ci` and nothing else.

mod clients;
mod console;
mod descriptions;
mod e2e;
mod lambdas;
mod load;
mod metrics;
mod mutate;
mod new_project;
mod npm;
mod package;
mod public_api;
mod tutorial;
mod venv;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Seeds that CI simulates.
const CI_SEEDS: u64 = 1_000;
/// Seeds of the embedded engine that CI simulates.
const CI_ENGINE_SEEDS: u64 = 500;
/// Selected in every build, so that all builds share their libraries with the tests. See its docs.
const SHARED: [&str; 2] = ["--package", "shared-build"];

#[derive(Parser)]
#[command(about = "The tasks of this repository")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check: format, lints, tests, docs, the public API, the packages, the simulation, a
    /// load with a kill, the clients, the descriptions of the API, the metrics, the console, a project of `fanfold new`,
    /// the tutorial, the stack on two emulators.
    Ci,
    /// Test the clients for Python and TypeScript against `fanfold up`, and check their types.
    Clients,
    /// Use the console of `fanfold up` in Chromium, and take pictures of its screens into `target/console`.
    Console,
    /// Crash, cut the power and inject errors at every system call of `fanfold up` that changes its
    /// folder.
    CrashPoints,
    /// Test `fanfold up` by its OpenAPI document, with schemathesis, and validate the AsyncAPI document.
    Descriptions,
    /// Deploy the template to emulators of AWS, and run the scenarios and the auditor there.
    E2e(e2e::Options),
    /// Build the Lambdas for Amazon Linux 2023: `target/lambda/ledger-lambda/bootstrap`.
    Lambdas {
        /// The processor: the template's parameter `Architecture`.
        #[arg(long, value_enum, default_value = "arm64")]
        arch: lambdas::Arch,
    },
    /// Run a small load on `fanfold up`, kill it in the middle, and audit it.
    Load,
    /// Check the metrics of `fanfold up` with `promtool check metrics`.
    Metrics,
    /// Make small wrong changes to a copy of the sources, which tests or the simulator must find.
    Mutate(mutate::Options),
    /// Make a project with `fanfold new`, and use it: its tests, `up`, its requests, a load, its Lambdas and
    /// templates, and schemathesis.
    New,
    /// Package all crates that are published.
    Package {
        /// Also build each package from what is in it alone.
        #[arg(long)]
        verify: bool,
    },
    /// Compare the public API of the crates that users name with `public-api.txt` beside each.
    PublicApi {
        /// Write the files instead.
        #[arg(long)]
        update: bool,
    },
    /// Simulate. A failing seed is printed with the end of its trace.
    Sim {
        /// How many seeds to run.
        #[arg(long, default_value_t = CI_SEEDS)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Run the embedded engine itself, with crashes, instead of the stages.
        #[arg(long)]
        engine: bool,
        /// Print every effect.
        #[arg(long)]
        trace: bool,
    },
    /// Follow docs/tutorial.md: its commands, its changes, and an emulator in the place of AWS.
    Tutorial,
}

fn main() -> Result<ExitCode> {
    match public_api::as_rustdoc() {
        Some(code) => Ok(code),
        None => run(Options::parse().task).map(|()| ExitCode::SUCCESS),
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Ci => ci(),
        Task::Clients => clients(),
        Task::Console => console(),
        Task::CrashPoints => crash_points(),
        Task::Descriptions => descriptions(),
        Task::E2e(options) => e2e::run(options),
        Task::Lambdas { arch } => lambdas::release(arch),
        Task::Load => load(),
        Task::Metrics => metrics(),
        Task::Mutate(options) => mutate::run(&options),
        Task::New => new_project(),
        Task::Tutorial => tutorial(),
        Task::Package { verify } => package::check(verify),
        Task::PublicApi { update } => public_api::check(update),
        Task::Sim { seeds, from, engine, trace } => {
            let (seeds, from) = (seeds.to_string(), from.to_string());
            let mut arguments = vec!["--seeds", &seeds, "--from", &from];
            if engine {
                arguments.push("--engine");
            }
            if trace {
                arguments.push("--trace");
            }
            sim(&arguments)
        }
    }
}

fn ci() -> Result<()> {
    let began = Instant::now();
    cargo("format", &["fmt", "--all", "--check"])?;
    let everything = ["--workspace", "--all-targets", "--all-features"];
    let deny = ["--", "--deny", "warnings"];
    cargo("lints", &[&["clippy", "--locked"], &everything[..], &deny].concat())?;
    // The binary as it ships, without features.
    cargo(
        "lints of the binary",
        &[&["clippy", "--locked", "--package", "fanfold-cli"], &SHARED[..], &deny].concat(),
    )?;
    // Tests run the examples. With `--all-targets` only their test harnesses are built.
    let programs = ["build", "--locked", "--package", "fanfold-cli", "--bins", "--examples"];
    cargo("examples", &[&programs[..], &SHARED].concat())?;
    cargo("tests", &["test", "--workspace", "--all-features", "--all-targets"])?;
    cargo("doc tests", &["test", "--workspace", "--all-features", "--doc"])?;
    cargo("docs", &["doc", "--workspace", "--all-features", "--no-deps"])?;
    public_api::check(false)?;
    package::check(false)?;
    sim(&["--seeds", &CI_SEEDS.to_string()])?;
    sim(&["--engine", "--seeds", &CI_ENGINE_SEEDS.to_string()])?;
    mutate::run(&mutate::Options::IN_CI)?;
    load()?;
    clients()?;
    descriptions()?;
    metrics()?;
    console()?;
    new_project()?;
    tutorial()?;
    e2e::run(e2e::Options::IN_CI)?;
    println!("\nevery check passed, in {} s", began.elapsed().as_secs());
    Ok(())
}

fn load() -> Result<()> {
    let programs = ["build", "--package", "fanfold-cli", "--package", "fanfold-loadtest"];
    cargo("programs", &[&programs[..], &SHARED].concat())?;
    println!("\n== load");
    load::load(&target()?.join("debug"))
}

fn clients() -> Result<()> {
    with_fanfold("clients", clients::check)
}

fn descriptions() -> Result<()> {
    with_fanfold("descriptions", descriptions::check)
}

fn metrics() -> Result<()> {
    with_fanfold("metrics", metrics::check)
}

/// Also builds the example app that has mistakes.
fn console() -> Result<()> {
    let programs = ["build", "--package", "fanfold-cli", "--bins", "--example", "faulty_app"];
    cargo("programs", &[&programs[..], &SHARED].concat())?;
    let began = Instant::now();
    console::check(&root()?, &target()?.join("debug"))?;
    println!("== console: {} s", began.elapsed().as_secs());
    Ok(())
}

fn tutorial() -> Result<()> {
    build_programs()?;
    let began = Instant::now();
    tutorial::follow(&root()?, &target()?.join("debug"))?;
    println!("== tutorial: {} s", began.elapsed().as_secs());
    Ok(())
}

fn new_project() -> Result<()> {
    build_programs()?;
    let began = Instant::now();
    new_project::check(&root()?, &target()?.join("debug"))?;
    println!("== new: {} s", began.elapsed().as_secs());
    Ok(())
}

/// Builds `fanfold` and `loadtest`.
fn build_programs() -> Result<()> {
    let programs = ["build", "--package", "fanfold-cli", "--package", "fanfold-loadtest"];
    cargo("programs", &[&programs[..], &SHARED].concat())
}

/// Builds `fanfold`, and runs a check that takes the root and the folder of the program.
fn with_fanfold(what: &str, check: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    let programs = ["build", "--package", "fanfold-cli"];
    cargo("programs", &[&programs[..], &SHARED].concat())?;
    let began = Instant::now();
    check(&root()?, &target()?.join("debug"))?;
    println!("== {what}: {} s", began.elapsed().as_secs());
    Ok(())
}

/// Tries every crash point; the tests try a sample.
fn crash_points() -> Result<()> {
    let package = ["test", "--package", "fanfold-cli", "--features", "fanfold-cli/fault-points"];
    let test = ["--test", "it", "crash_points"];
    let alone = ["--", "--nocapture", "--test-threads", "1"];
    let all = [("FANFOLD_POINTS", OsStr::new("all"))];
    cargo_with("crash points", &[&package[..], &SHARED, &test, &alone].concat(), &all)
}

fn sim(arguments: &[&str]) -> Result<()> {
    cargo("simulator", &[&["build", "--package", "fanfold-sim"], &SHARED[..]].concat())?;
    let began = Instant::now();
    println!("\n== simulation");
    let status = Command::new(target()?.join("debug/fanfold-sim")).args(arguments).status();
    if !status.context("cannot run the simulator")?.success() {
        bail!("an invariant does not hold");
    }
    println!("== simulation: {} s", began.elapsed().as_secs());
    Ok(())
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    cargo_with(what, arguments, &[])
}

fn cargo_with(what: &str, arguments: &[&str], environment: &[(&str, &OsStr)]) -> Result<()> {
    println!("\n== {what}: cargo {}", arguments.join(" "));
    let began = Instant::now();
    let mut command = cargo_command(arguments)?;
    command.envs(environment.iter().copied());
    let status = command.status().with_context(|| format!("cannot run cargo for {what}"))?;
    if !status.success() {
        bail!("{what} failed; run `cargo {}` to see it alone", arguments.join(" "));
    }
    println!("== {what}: {} s", began.elapsed().as_secs());
    Ok(())
}

fn cargo_command(arguments: &[&str]) -> Result<Command> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    without_our_package(&mut command);
    command.args(arguments).current_dir(root()?).env("RUSTDOCFLAGS", "--deny warnings");
    if let Some(target) = target_outside_the_clone() {
        command.env("CARGO_TARGET_DIR", target);
    }
    if env::var_os("CI").is_some() {
        // CI builds a clone once, so incremental data only fills the disk.
        command.env("CARGO_INCREMENTAL", "0");
    }
    Ok(command)
}

/// Removes what `cargo run` has set for xtask. It would make build scripts run again.
fn without_our_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Cargo's target folder.
fn target() -> Result<PathBuf> {
    if let Some(target) = target_outside_the_clone() {
        return Ok(target);
    }
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root()?.join(target),
        None => root()?.join("target"),
    })
}

/// The target folder of CI, which starts from a fresh clone and would otherwise build everything
/// anew.
fn target_outside_the_clone() -> Option<PathBuf> {
    env::var_os("CI").filter(|_| env::var_os("CARGO_TARGET_DIR").is_none())?;
    Some(PathBuf::from(env::var_os("HOME")?).join(".cache/fanfold/target"))
}

fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask is not in a workspace")?;
    Ok(root.to_owned())
}

/// The sources and documents below a folder.
fn texts(folder: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                texts(&path, found)?;
            }
        } else if path.is_symlink() {
            // The file itself is read at its own place, where its links lead somewhere.
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            let text = std::fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The third-party libraries, with their features, that cargo builds for this selection.
    fn libraries(selection: &[&str]) -> BTreeSet<String> {
        let tree = ["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}"];
        let output = cargo_command(&[&tree[..], selection].concat())
            .and_then(|mut command| Ok(command.stderr(std::process::Stdio::inherit()).output()?));
        let output = output.expect("cargo runs");
        assert!(output.status.success(), "{selection:?}");
        let text = String::from_utf8(output.stdout).expect("it is text");
        let own = root().expect("the root is known").display().to_string();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.contains(&own));
        lines.map(|line| line.replace(" (*)", "").replace(" (proc-macro)", "")).collect()
    }

    #[test]
    fn every_build_shares_its_libraries_with_the_tests() {
        let tests = libraries(&["--workspace", "--all-features", "--edges", "normal,build,dev"]);
        assert!(tests.len() > 100, "{tests:?}");
        let (programs, with_tests) = ("normal,build", "normal,build,dev");
        for (packages, edges) in [
            (&["fanfold-cli", "fanfold-loadtest"][..], programs),
            (&["fanfold-lambda", "ledger-lambda"], programs),
            (&["fanfold-loadtest", "lambda-host"], programs),
            (&["fanfold-cli"], programs),
            (&["fanfold-sim"], programs),
            (&["scenarios"], with_tests),
        ] {
            let packages = packages.iter().flat_map(|name| ["--package", name]);
            let selection: Vec<&str> = packages.chain(SHARED).chain(["--edges", edges]).collect();
            let others: Vec<_> = libraries(&selection).difference(&tests).cloned().collect();
            assert!(
                others.is_empty(),
                "shared-build lacks something for {selection:?}: {others:?}"
            );
        }
    }

    /// The anchors of a document's headings, as GitHub makes them.
    fn anchors(text: &str) -> BTreeSet<String> {
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let is_kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        let anchor = |heading: &str| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            heading.chars().filter(is_kept).collect::<String>().replace(' ', "-")
        };
        headings.map(anchor).collect()
    }

    #[test]
    fn every_link_of_a_document_and_every_cited_section_exists() {
        let root = root().expect("the root is known");
        let mut files = Vec::new();
        texts(&root, &mut files).expect("the sources can be read");
        let mut cited = 0;
        for (path, text) in &files {
            let is_document = path.extension().is_some_and(|name| name == "md");
            // In two parts, so that this line is not a citation.
            let link = if is_document { "](" } else { concat!("docs/design.md", "#") };
            for rest in text.split(link).skip(1) {
                let (file, anchor) = if is_document {
                    let target = rest.split(')').next().unwrap_or_default();
                    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                    let folder = path.parent().expect("it is in a folder");
                    (if file.is_empty() { path.clone() } else { folder.join(file) }, anchor)
                } else {
                    let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
                    (root.join("docs/design.md"), &rest[..end.unwrap_or(rest.len())])
                };
                if file.to_string_lossy().contains("://") {
                    continue;
                }
                let is_there = match anchor {
                    "" => file.exists(),
                    _ => std::fs::read_to_string(&file)
                        .is_ok_and(|text| anchors(&text).contains(anchor)),
                };
                assert!(is_there, "{}: {}#{anchor}", path.display(), file.display());
                cited += 1;
            }
        }
        assert!(cited > 100, "only {cited} links were found");
    }
}
