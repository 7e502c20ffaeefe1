//! The console of `fanfold up` in a browser: `tests/console`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::npm;
use crate::venv::run;

/// Where Debian's package has the browser, and the package.
const CHROMIUM: &str = "/usr/bin/chromium";
const PACKAGE: &str = "chromium";

/// Uses the console of the `fanfold` in the folder `built`, and takes pictures of it into `target/console`.
pub(crate) fn check(root: &Path, built: &Path) -> Result<()> {
    let folder = root.join("tests/console");
    npm::ready(&folder)?;
    let chromium = chromium()?;
    let shots = crate::target()?.join("console");
    fs::create_dir_all(&shots)?;
    println!("\n== console: pictures in {}", shots.display());
    let mut tests = Command::new("node");
    tests.args(["--test", "--test-reporter=spec", "metrics.test.mjs", "console.test.mjs"]);
    tests.env("FANFOLD_BIN", built.join("fanfold"));
    tests.env("FAULTY_BIN", built.join("examples/faulty_app"));
    run(tests.env("CHROMIUM", chromium).env("SHOTS", shots).current_dir(folder))
}

/// The browser: the one that the variable `CHROMIUM` names, else that of Debian's package, which is installed once.
fn chromium() -> Result<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM") {
        return Ok(named.into());
    }
    if !Path::new(CHROMIUM).is_file() {
        println!("\n== {PACKAGE} of Debian, into {CHROMIUM}");
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            run(apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let install = ["install", "--yes", "--no-install-recommends", PACKAGE];
        // The lists of packages may be missing, or older than the packages.
        let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
        installed
            .context("install Chromium (Debian: `apt install chromium`), or name it in CHROMIUM")?;
    }
    Ok(CHROMIUM.into())
}
