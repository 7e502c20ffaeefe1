//! The clients of other languages: their tests, against `fanfold up` and a server that misbehaves, and
//! their type checkers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::npm::{self, is_at_least, output};
use crate::venv::{Venv, run};

/// The oldest Python that the client supports: `major.minor`. Source: what the rest of xtask needs.
const PYTHON: &str = "3.10";

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
    npm::ready(folder)?;
    println!("\n== TypeScript client: types and tests");
    let mut tests = Command::new("npm");
    run(tests.arg("test").env("FANFOLD_BIN", fanfold).current_dir(folder))
}
