//! The programs from PyPI, in `.venv`: the emulators, AWS's command line, the template's linter,
//! the linker of the Lambdas, the type checker of the Python client. The versions are pinned, and installed once.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The packages, and the exact versions of all their dependencies.
const REQUIREMENTS: &str = include_str!("../requirements.txt");
const CONSTRAINTS: &str = include_str!("../constraints.txt");
/// Holds what is installed. It is written last, so an interrupted installation has none.
const STAMP: &str = "installed";

/// The virtual environment.
pub(crate) struct Venv(PathBuf);

impl Venv {
    /// The installed environment; installs it if it is missing or outdated.
    pub(crate) fn ready() -> Result<Self> {
        let folder = folder()?;
        let stamp = folder.join(STAMP);
        let wanted = format!("{REQUIREMENTS}\n{CONSTRAINTS}");
        if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            install(&folder)?;
            fs::write(stamp, wanted)?;
        }
        Ok(Self(folder))
    }

    /// One of its programs, without the AWS variables of this process.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The path of one of its programs.
    pub(crate) fn program(&self, program: &str) -> PathBuf {
        self.0.join("bin").join(program)
    }

    /// A `PATH` with its programs first.
    pub(crate) fn path(&self) -> Result<OsString> {
        let before = env::var_os("PATH").unwrap_or_default();
        let folders = [self.0.join("bin")].into_iter().chain(env::split_paths(&before));
        Ok(env::join_paths(folders)?)
    }
}

/// In the clone. CI starts from a fresh clone, so there it is beside CI's target folder.
fn folder() -> Result<PathBuf> {
    Ok(match crate::target_outside_the_clone() {
        Some(target) => target.with_file_name("venv"),
        None => crate::root()?.join(".venv"),
    })
}

fn install(folder: &Path) -> Result<()> {
    println!("\n== tools from PyPI, into {}", folder.display());
    let began = Instant::now();
    let requirements = crate::root()?.join("xtask/requirements.txt");
    let mut make = Command::new("python3");
    run(make.args(["-m", "venv", "--clear"]).arg(folder))
        .context("install python3 with its module venv (Debian: `apt install python3-venv`)")?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(&requirements).arg("--constraint").arg(requirements.with_file_name("constraints.txt"));
    run(&mut pip)?;
    println!("== tools from PyPI: {} s", began.elapsed().as_secs());
    Ok(())
}

/// Runs a command. Fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
