//! Mutations: small wrong changes of the sources, each with the checks that must find it. See
//! `mutations/README.md`.

mod copy;
mod patch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use copy::Copy;
use patch::{Check, Mutation};

/// How many mutations `--few` tries.
const FEW: usize = 2;
/// How long a check may take before it is ended: many times what the slowest one takes.
const CHECK_S_MAX: u64 = 900;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which mutations to try; all, if none is named.
    names: Vec<String>,
    /// Only checks that every mutation applies and names checks that exist.
    #[arg(long, conflicts_with = "names")]
    check: bool,
    /// Tries a few mutations, chosen by the commit, and only with tests.
    #[arg(long, conflicts_with_all = ["names", "check"])]
    few: bool,
}

impl Options {
    /// The options of CI.
    pub(crate) const IN_CI: Self = Self { names: Vec::new(), check: false, few: true };
}

/// The result of a check on a mutation.
enum Verdict {
    Found(String),
    Missed,
    /// The check failed for another reason than the mutation.
    Broken(String),
}

/// A line of the table.
struct Tried {
    mutation: String,
    check: String,
    verdict: Verdict,
    took: Duration,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = crate::root()?;
    let mutations = check(&root)?;
    if options.check {
        return Ok(());
    }
    if options.few {
        return few(&root, mutations);
    }
    let named = |name: &String| {
        let found = mutations.iter().find(|mutation| mutation.name == *name);
        found.with_context(|| format!("no mutation is named {name}"))
    };
    let selected: Vec<&Mutation> = match options.names.as_slice() {
        [] => mutations.iter().collect(),
        names => names.iter().map(named).collect::<Result<_>>()?,
    };
    let copy = Copy::of(&root, &crate::target()?)?;
    holds_without(&copy, &selected)?;
    try_all(&copy, &selected)
}

/// Tries a few mutations, which the commit's id chooses: each commit tries others, and a repeated run
/// the same. Only tests try them, since the seed that finds a mutation changes with the sources.
fn few(root: &Path, mutations: Vec<Mutation>) -> Result<()> {
    let is_test = |check: &Check| matches!(check, Check::Test { .. });
    let of_tests = |mut mutation: Mutation| {
        mutation.checks.retain(is_test);
        (!mutation.checks.is_empty()).then_some(mutation)
    };
    let mutations: Vec<Mutation> = mutations.into_iter().filter_map(of_tests).collect();
    let output = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root).output()?;
    let commit = String::from_utf8(output.stdout)?;
    let number = u64::from_str_radix(commit.get(..12).context("no commit")?, 16)? as usize;
    let from = mutations.iter().cycle().skip(number % mutations.len().max(1));
    try_all(&Copy::of(root, &crate::target()?)?, &from.take(FEW).collect::<Vec<_>>())
}

/// Checks that every mutation applies to the sources as they are, and that its checks exist.
fn check(root: &Path) -> Result<Vec<Mutation>> {
    println!("\n== mutations");
    let mutations = Mutation::all(&root.join("mutations"))?;
    let packages = copy::packages(root, root)?;
    let mut wrong = 0;
    for mutation in &mutations {
        let applied = mutation.apply(root).map(|_| ());
        let found = mutation.checks.iter().map(|check| exists(check, &packages));
        for error in [applied].into_iter().chain(found).filter_map(Result::err) {
            println!("{}: {error:#}", mutation.name);
            wrong += 1;
        }
    }
    ensure!(wrong == 0, "correct the mutations, or remove those whose code no longer exists");
    println!("{} mutations apply", mutations.len());
    Ok(mutations)
}

/// Whether a package's tests are integration tests; else they are in its library.
fn has_integration_tests(folder: &Path) -> bool {
    folder.join("tests/it").is_dir()
}

/// Checks that the package's tests have a function with the name and the modules of the test.
fn exists(check: &Check, packages: &[(String, PathBuf)]) -> Result<()> {
    let Check::Test { package, name } = check else { return Ok(()) };
    let folder = packages.iter().find(|(name, _)| name == package);
    let (_, folder) = folder.with_context(|| format!("no package {package}"))?;
    let mut files = Vec::new();
    let tests = folder.join(if has_integration_tests(folder) { "tests/it" } else { "src" });
    crate::texts(&tests, &mut files)?;
    let found = files.iter().any(|(path, text)| {
        let path = path.strip_prefix(&tests).unwrap_or(path);
        is_declared_in(name, path, text)
    });
    ensure!(found, "{package} has no test {name}");
    Ok(())
}

/// Whether a file, by its path below the root of the crate, declares a test of this name. A test may
/// be in the module of its file or in `tests` within that.
fn is_declared_in(name: &str, path: &Path, text: &str) -> bool {
    let (modules, function) = name.rsplit_once("::").unwrap_or(("", name));
    let path = path.with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy());
    let parts: Vec<_> = parts.filter(|part| !matches!(&**part, "mod" | "lib" | "main")).collect();
    let module = parts.join("::");
    let within = format!("{module}::tests");
    let is_module = modules == module || modules == within.trim_start_matches("::");
    is_module && text.contains(&format!("fn {function}("))
}

/// Checks that all tests pass without a mutation: one that fails anyway cannot find a mutation.
fn holds_without(copy: &Copy, mutations: &[&Mutation]) -> Result<()> {
    let checks: Vec<&Check> = mutations.iter().flat_map(|mutation| &mutation.checks).collect();
    println!("\n== the tests without a mutation");
    for (package, names) in tests_of(&checks) {
        for (name, verdict) in test(copy, package, &names)? {
            match verdict {
                Verdict::Missed => {}
                Verdict::Found(_) => bail!("{package}: {name} fails without a mutation"),
                Verdict::Broken(why) => bail!("{package}: {name}: {why}"),
            }
        }
    }
    Ok(())
}

fn try_all(copy: &Copy, mutations: &[&Mutation]) -> Result<()> {
    let began = Instant::now();
    let mut tried = Vec::new();
    for mutation in mutations {
        println!("\n== {}", mutation.name);
        let from = tried.len();
        try_one(copy, mutation, &mut tried)?;
        for Tried { check, verdict, .. } in &tried[from..] {
            println!("{check}: {}", verdict.said());
        }
    }
    print(&tried);
    let missed = tried.iter().filter(|tried| !matches!(tried.verdict, Verdict::Found(_))).count();
    println!("{} mutations in {} s", mutations.len(), began.elapsed().as_secs());
    ensure!(missed == 0, "{missed} checks did not find their mutation");
    Ok(())
}

fn try_one(copy: &Copy, mutation: &Mutation, tried: &mut Vec<Tried>) -> Result<()> {
    let changed = mutation.apply(&crate::root()?)?;
    copy.write(&changed)?;
    let checks: Vec<&Check> = mutation.checks.iter().collect();
    let result = try_checks(copy, &mutation.name, &checks, tried);
    copy.restore(&changed)?;
    result
}

fn try_checks(copy: &Copy, name: &str, checks: &[&Check], tried: &mut Vec<Tried>) -> Result<()> {
    let mut add = |check: String, verdict, took| {
        tried.push(Tried { mutation: name.to_owned(), check, verdict, took });
    };
    for (package, names) in tests_of(checks) {
        let began = Instant::now();
        for (test, verdict) in test(copy, package, &names)? {
            add(format!("{package} {test}"), verdict, began.elapsed());
        }
    }
    for check in checks {
        if let Check::Sim { engine, seeds } = check {
            let began = Instant::now();
            let verdict = simulate(copy, *engine, *seeds)?;
            let kind = if *engine { " --engine" } else { "" };
            add(format!("sim{kind} --seeds {seeds}"), verdict, began.elapsed());
        }
    }
    Ok(())
}

/// The tests among the checks, by package.
fn tests_of<'a>(checks: &[&'a Check]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut tests: Vec<(&str, Vec<&str>)> = Vec::new();
    for check in checks {
        let Check::Test { package, name } = check else { continue };
        match tests.iter_mut().find(|(other, _)| other == package) {
            Some((_, names)) if names.contains(&name.as_str()) => {}
            Some((_, names)) => names.push(name),
            None => tests.push((package, vec![name])),
        }
    }
    tests
}

/// Runs tests of a package, and returns for each whether it failed.
fn test<'a>(copy: &Copy, package: &str, names: &[&'a str]) -> Result<Vec<(&'a str, Verdict)>> {
    let all = |verdict: fn(String) -> Verdict, why: &str| {
        Ok(names.iter().map(|name| (*name, verdict(why.to_owned()))).collect())
    };
    let folder = copy.folder(package)?;
    let library = package.replace('-', "_");
    let (target, name) = match has_integration_tests(folder) {
        true => (&["--test", "it"][..], "it"),
        false => (&["--lib"][..], &*library),
    };
    let arguments = [&["test", "--no-run", "--package", package], target].concat();
    let Some(program) = build(copy, &arguments, name)? else {
        return all(Verdict::Broken, "it does not compile");
    };
    let mut command = Command::new(program);
    command.args(["--exact"]).args(names).current_dir(folder);
    let Some((_, output)) = finish(copy, command)? else {
        return all(Verdict::Broken, "the tests do not end");
    };
    let verdict = |name: &&'a str| {
        let said = |end: &str| output.lines().any(|line| line == format!("test {name} ... {end}"));
        let verdict = match (said("FAILED"), said("ok")) {
            (true, false) => Verdict::Found("it fails".to_owned()),
            (false, true) => Verdict::Missed,
            _ => Verdict::Broken("it did not run to its end".to_owned()),
        };
        (*name, verdict)
    };
    Ok(names.iter().map(verdict).collect())
}

fn simulate(copy: &Copy, engine: bool, seeds: u64) -> Result<Verdict> {
    let Some(program) = build(copy, &["build", "--package", "fanfold-sim"], "fanfold-sim")? else {
        return Ok(Verdict::Broken("it does not compile".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(["--fail-fast", "--seeds", &seeds.to_string()]);
    command.args(engine.then_some("--engine"));
    let Some((succeeded, output)) = finish(copy, command)? else {
        return Ok(Verdict::Broken("the simulation does not end".to_owned()));
    };
    Ok(match (succeeded, first_breach(&output)) {
        (true, None) => Verdict::Missed,
        (false, Some((seed, breach))) => Verdict::Found(format!("seed {seed}: {breach}")),
        _ => Verdict::Broken("it ended without a breach of an invariant".to_owned()),
    })
}

/// The lowest seed that failed, and the invariant.
fn first_breach(output: &str) -> Option<(u64, String)> {
    let mut lines = output.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let seed = line.strip_prefix("seed ").and_then(|rest| rest.strip_suffix(" failed"));
        if let (Some(seed), Some(breach)) = (seed.and_then(|seed| seed.parse().ok()), lines.peek())
        {
            let invariant = breach.trim().split(':').next().unwrap_or_default();
            found.push((seed, invariant.to_owned()));
        }
    }
    found.into_iter().min()
}

/// Builds in the copy, and returns the path of the program. `None`: the copy does not compile.
fn build(copy: &Copy, arguments: &[&str], name: &str) -> Result<Option<PathBuf>> {
    let format = ["--message-format", "json-render-diagnostics"];
    let arguments = [arguments, &crate::SHARED, &format].concat();
    let mut command = copy.cargo(&arguments)?;
    // A mutation leaves unused variables behind.
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout)?;
    let program = text.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    program.with_context(|| format!("cargo {} built no {name}", arguments.join(" "))).map(Some)
}

/// Runs a check, and returns whether it succeeded and what it printed. `None`: it took too long.
fn finish(copy: &Copy, mut command: Command) -> Result<Option<(bool, String)>> {
    let path = copy.output();
    let file = File::create(&path)?;
    let mut child = command.stdout(file).stderr(Stdio::null()).spawn()?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let output = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            return Ok(Some((status.success(), output)));
        }
        if began.elapsed().as_secs() > CHECK_S_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Verdict {
    fn said(&self) -> &str {
        match self {
            Self::Found(how) => how,
            Self::Missed => "NOT FOUND",
            Self::Broken(why) => why,
        }
    }
}

fn print(tried: &[Tried]) {
    let width = |text: fn(&Tried) -> &str| tried.iter().map(|t| text(t).len()).max().unwrap_or(0);
    let (mutation, check) = (width(|tried| &tried.mutation), width(|tried| &tried.check));
    println!();
    let mut last = "";
    for Tried { mutation: name, check: by, verdict, took } in tried {
        let shown = if name == last { "" } else { name };
        let (said, seconds) = (verdict.said(), took.as_secs());
        println!("{shown:mutation$}  {by:check$}  {seconds:>4} s  {said}");
        last = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_seed_that_failed_is_reported_with_its_invariant() {
        let output = "seed 9 failed\n  F3: a\n    1 x\nseed 4 failed\n  F5: b\n  F1: c\n";
        assert_eq!(first_breach(output), Some((4, "F5".to_owned())));
        assert_eq!(first_breach("10 seeds from 1\nall invariants held\n"), None);
    }

    #[test]
    fn a_test_is_found_by_its_modules_and_its_name() {
        let text = "#[test]\nfn it_holds() {}\n";
        let declared = |name: &str, path: &str| is_declared_in(name, Path::new(path), text);
        assert!(declared("tests::backup::it_holds", "tests/backup.rs"));
        assert!(!declared("backup::it_holds", "tests/backup.rs"), "`--exact` runs no such test");
        assert!(declared("gaps::it_holds", "gaps/mod.rs"));
        assert!(declared("gaps::tests::it_holds", "gaps.rs"));
        assert!(declared("it_holds", "main.rs"));
        assert!(declared("tests::it_holds", "lib.rs"));
        assert!(!declared("gaps::it_hold", "gaps.rs"));
    }
}
