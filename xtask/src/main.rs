//! What one does with this repository. `cargo xtask ci` is all that CI runs.

mod e2e;
mod lambdas;
mod load;
mod mutate;
mod venv;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Seeds that CI simulates.
const CI_SEEDS: u64 = 1_000;
/// Built beside whatever else is, so that every build shares its libraries with the tests. See there.
const SHARED: [&str; 2] = ["--package", "shared-build"];

#[derive(Parser)]
#[command(about = "What one does with this repository")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold: format, lints, tests, docs, the simulation, a load with a kill, the
    /// stack on an emulator.
    Ci,
    /// Crashes, power cuts and errors at every system call by which `fanfold up` changes its folder.
    CrashPoints,
    /// Deploys the template to an emulator of AWS, and runs the scenarios and the auditor there.
    E2e(e2e::Options),
    /// Builds the Lambdas for Amazon Linux 2023: `target/lambda/<name>/bootstrap`.
    Lambdas {
        /// What they run on: the template's parameter `Architecture`.
        #[arg(long, value_enum, default_value = "arm64")]
        arch: lambdas::Arch,
    },
    /// A small load on `fanfold up`, killed in the middle, and audited.
    Load,
    /// Makes small wrong changes to a copy of the sources; the tests and the simulator must find each.
    Mutate(mutate::Options),
    /// Simulates; a failing seed is printed with the end of its trace.
    Sim {
        /// How many seeds to run.
        #[arg(long, default_value_t = CI_SEEDS)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Prints every effect.
        #[arg(long)]
        trace: bool,
    },
}

fn main() -> Result<()> {
    match Options::parse().task {
        Task::Ci => ci(),
        Task::CrashPoints => crash_points(),
        Task::E2e(options) => e2e::run(options),
        Task::Lambdas { arch } => lambdas::release(arch),
        Task::Load => load(),
        Task::Mutate(options) => mutate::run(&options),
        Task::Sim { seeds, from, trace } => {
            let (seeds, from) = (seeds.to_string(), from.to_string());
            let mut arguments = vec!["--seeds", &seeds, "--from", &from];
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
    // As it ships: without features.
    cargo(
        "lints of the binary",
        &[&["clippy", "--locked", "--package", "fanfold-cli"], &SHARED[..], &deny].concat(),
    )?;
    cargo("tests", &["test", "--workspace", "--all-features", "--all-targets"])?;
    cargo("doc tests", &["test", "--workspace", "--all-features", "--doc"])?;
    cargo("docs", &["doc", "--workspace", "--all-features", "--no-deps"])?;
    sim(&["--seeds", &CI_SEEDS.to_string()])?;
    mutate::run_in_ci()?;
    load()?;
    e2e::run(e2e::Options::IN_CI)?;
    println!("\nall of it held, in {} s", began.elapsed().as_secs());
    Ok(())
}

fn load() -> Result<()> {
    let programs = ["build", "--package", "fanfold-cli", "--package", "loadtest"];
    cargo("the programs", &[&programs[..], &SHARED].concat())?;
    println!("\n== load");
    load::load(&target()?.join("debug"))
}

/// All of what the tests try a sample of.
fn crash_points() -> Result<()> {
    let package = ["test", "--package", "fanfold-cli", "--features", "fanfold-cli/fault-points"];
    let test = ["--test", "it", "crash_points"];
    let alone = ["--", "--nocapture", "--test-threads", "1"];
    let all = [("FANFOLD_POINTS", OsStr::new("all"))];
    cargo_with("crash points", &[&package[..], &SHARED, &test, &alone].concat(), &all)
}

fn sim(arguments: &[&str]) -> Result<()> {
    cargo("the simulator", &[&["build", "--package", "fanfold-sim"], &SHARED[..]].concat())?;
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
    // What `cargo run` has told this program of itself. Build scripts would run again for it.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).current_dir(root()?).env("RUSTDOCFLAGS", "--deny warnings");
    if let Some(target) = target_outside_the_clone() {
        command.env("CARGO_TARGET_DIR", target);
    }
    if env::var_os("CI").is_some() {
        // A clone is built once: what would speed up its next build only fills the disk.
        command.env("CARGO_INCREMENTAL", "0");
    }
    Ok(command)
}

/// Where cargo puts what it builds.
fn target() -> Result<PathBuf> {
    if let Some(target) = target_outside_the_clone() {
        return Ok(target);
    }
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root()?.join(target),
        None => root()?.join("target"),
    })
}

/// CI starts from a fresh clone, and would build everything anew each time.
fn target_outside_the_clone() -> Option<PathBuf> {
    env::var_os("CI").filter(|_| env::var_os("CARGO_TARGET_DIR").is_none())?;
    Some(PathBuf::from(env::var_os("HOME")?).join(".cache/fanfold/target"))
}

fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask lies in the workspace")?;
    Ok(root.to_owned())
}

/// The sources and documents below a folder.
fn texts(folder: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                texts(&path, found)?;
            }
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

    /// Libraries of others with their features, as cargo builds them for this selection.
    fn libraries(selection: &[&str]) -> BTreeSet<String> {
        let tree = ["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}"];
        let output = cargo_command(&[&tree[..], selection].concat())
            .and_then(|mut command| Ok(command.stderr(std::process::Stdio::inherit()).output()?));
        let output = output.expect("there is cargo");
        assert!(output.status.success(), "{selection:?}");
        let text = String::from_utf8(output.stdout).expect("it is text");
        let own = root().expect("it is known").display().to_string();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.contains(&own));
        lines.map(|line| line.replace(" (*)", "").replace(" (proc-macro)", "")).collect()
    }

    #[test]
    fn every_build_shares_its_libraries_with_the_tests() {
        let tests = libraries(&["--workspace", "--all-features", "--edges", "normal,build,dev"]);
        assert!(tests.len() > 100, "{tests:?}");
        let (programs, with_tests) = ("normal,build", "normal,build,dev");
        for (packages, edges) in [
            (&["fanfold-cli", "loadtest"][..], programs),
            (&["fanfold-lambda", "ledger-lambda"], programs),
            (&["loadtest", "lambda-host"], programs),
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

    #[test]
    fn every_section_of_the_design_that_is_cited_is_there() {
        let root = root().expect("it is known");
        let design = std::fs::read_to_string(root.join("docs/design.md")).expect("it is there");
        let headings = design.lines().filter_map(|line| line.strip_prefix("## "));
        let anchors: BTreeSet<String> =
            headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect();
        let mut files = Vec::new();
        texts(&root, &mut files).expect("the sources can be read");
        let mut cited = 0;
        for (path, text) in files {
            // Not to find this line.
            for rest in text.split(concat!("design.md", "#")).skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
                let anchor = &rest[..end.unwrap_or(rest.len())];
                assert!(anchors.contains(anchor), "{}: `{anchor}`", path.display());
                cited += 1;
            }
        }
        assert!(cited > 10, "only {cited} citations were found");
    }
}
