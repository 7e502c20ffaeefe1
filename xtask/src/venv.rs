//! The programs that come from PyPI, in `.venv`: the emulator, AWS's command line, the template's
//! linter, the linker of the Lambdas. Always the same versions, installed once.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// What is installed, and all that this needs, as pip has to find it.
const REQUIREMENTS: &str = include_str!("../requirements.txt");
const CONSTRAINTS: &str = include_str!("../constraints.txt");
/// Holds what is installed. Written last: without it, an installation has not come to its end.
const STAMP: &str = "installed";

/// The folder with all of it.
pub(crate) struct Venv(PathBuf);

impl Venv {
    /// As it is, or made first.
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

    /// One of its programs, without what this process knows of AWS accounts.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Where one of its programs is.
    pub(crate) fn program(&self, program: &str) -> PathBuf {
        self.0.join("bin").join(program)
    }

    /// A `PATH` on which its programs come first.
    pub(crate) fn path(&self) -> Result<OsString> {
        let before = env::var_os("PATH").unwrap_or_default();
        let folders = [self.0.join("bin")].into_iter().chain(env::split_paths(&before));
        Ok(env::join_paths(folders)?)
    }
}

/// In the clone; but CI's clone is a fresh one each time, so beside what it keeps there.
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
        .context("python3 with its module venv (Debian: `apt install python3-venv`) is needed")?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(&requirements).arg("--constraint").arg(requirements.with_file_name("constraints.txt"));
    run(&mut pip)?;
    println!("== tools from PyPI: {} s", began.elapsed().as_secs());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
