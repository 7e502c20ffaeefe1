//! The clients of other languages: their tests, against `fanfold up` and a server that misbehaves, and
//! their type checkers.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::venv::{Venv, run};

/// The oldest Python that the client supports: `major.minor`. Source: what the rest of xtask needs.
const PYTHON: &str = "3.10";
/// The oldest Node that the client supports. Source: its `package.json`.
const NODE: u32 = 20;

/// Runs all checks of the clients with the programs in the folder `built`.
pub(crate) fn check(root: &Path, built: &Path) -> Result<()> {
    let fanfold = built.join("fanfold");
    python(&root.join("clients/python"), &fanfold)?;
    typescript(&root.join("clients/typescript"), &fanfold)
}

fn python(folder: &Path, fanfold: &Path) -> Result<()> {
    let found = output(Command::new("python3").arg("--version"))
        .with_context(|| format!("install Python {PYTHON} or newer as `python3`"))?;
    ensure!(
        is_at_least(&found, 3, 10),
        "`python3` is {found}: the Python client needs {PYTHON} or newer"
    );
    let venv = Venv::ready()?;
    println!("\n== Python client: types");
    let mut mypy = venv.command("mypy");
    mypy.args(["--strict", "--python-version", PYTHON, "--cache-dir"]);
    mypy.arg(crate::target()?.join("mypy")).args(["fanfold.py", "tests"]).current_dir(folder);
    run(&mut mypy)?;
    println!("\n== Python client: tests");
    let mut tests = venv.command("python");
    tests.args(["-W", "error::ResourceWarning", "-m", "unittest", "discover", "-s", "tests"]);
    tests.env("PYTHONDONTWRITEBYTECODE", "1").env("FANFOLD_BIN", fanfold).current_dir(folder);
    run(&mut tests)
}

fn typescript(folder: &Path, fanfold: &Path) -> Result<()> {
    let install = || format!("install Node {NODE} or newer with npm (Debian: `apt install npm`)");
    let found = output(Command::new("node").arg("--version")).with_context(install)?;
    ensure!(
        is_at_least(&found, NODE, 0),
        "`node` is {found}: the TypeScript client needs {NODE} or newer"
    );
    output(Command::new("npm").arg("--version")).with_context(install)?;
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.args(arguments).env("FANFOLD_BIN", fanfold).current_dir(folder);
        run(&mut npm)
    };
    // npm removes the folder before it installs, and the stamp is written last, so an interrupted
    // installation has none.
    let stamp = folder.join("node_modules/installed");
    let wanted = fs::read_to_string(folder.join("package-lock.json"))?;
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("\n== tools from npm, into {}/node_modules", folder.display());
        npm(&["ci"])?;
        fs::write(stamp, wanted)?;
    }
    println!("\n== TypeScript client: types and tests");
    npm(&["test"])
}

/// What the program prints, such as `Python 3.11.7` or `v20.20.2`.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether the version in a program's output is this one or newer.
fn is_at_least(output: &str, major: u32, minor: u32) -> bool {
    let version = output.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (output, is_enough) in [
            ("Python 3.10.0", true),
            ("Python 3.9.18", false),
            ("Python 4.0", true),
            ("Python 2.7.18", false),
            ("Python 3.13.0rc1", true),
            ("", false),
        ] {
            assert_eq!(is_at_least(output, 3, 10), is_enough, "{output}");
        }
        assert!(is_at_least("v20.0.0", 20, 0) && is_at_least("v100.1.0", 20, 0));
        assert!(!is_at_least("v18.20.1", 20, 0) && !is_at_least("v8.0.0", 20, 0));
    }

    /// A registry that one machine uses must not get into the lock file.
    #[test]
    fn the_lock_file_of_npm_names_no_registry() {
        let lock =
            crate::root().expect("the root is known").join("clients/typescript/package-lock.json");
        let lock = fs::read_to_string(lock).expect("it can be read");
        assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""));
    }
}
