//! Packages from npm, in a folder with a `package.json` and its lock file. They are installed once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::venv::run;

/// The oldest Node that the packages support. Source: their `package.json`.
const NODE: u32 = 20;

/// Installs the packages of the folder if they are missing or outdated.
pub(crate) fn ready(folder: &Path) -> Result<()> {
    let install = || format!("install Node {NODE} or newer with npm (Debian: `apt install npm`)");
    let found = output(Command::new("node").arg("--version")).with_context(install)?;
    ensure!(is_at_least(&found, NODE, 0), "`node` is {found}: version {NODE} or newer is needed");
    output(Command::new("npm").arg("--version")).with_context(install)?;
    // npm removes the folder before it installs, and the stamp is written last, so an interrupted
    // installation has none.
    let stamp = folder.join("node_modules/installed");
    let wanted = fs::read_to_string(folder.join("package-lock.json"))?;
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("\n== tools from npm, into {}/node_modules", folder.display());
        run(Command::new("npm").arg("ci").current_dir(folder))?;
        fs::write(stamp, wanted)?;
    }
    Ok(())
}

/// What the program prints, such as `Python 3.11.7` or `v20.20.2`.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether the version in a program's output is this one or newer.
pub(crate) fn is_at_least(output: &str, major: u32, minor: u32) -> bool {
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

    /// A registry that one machine uses must not get into a lock file.
    #[test]
    fn lock_files_name_no_registry() {
        let root = crate::root().expect("the root is known");
        for folder in ["clients/typescript", "tests/console", "xtask/npm"] {
            let lock = root.join(folder).join("package-lock.json");
            let lock = fs::read_to_string(lock).expect("it can be read");
            assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""), "{folder}");
        }
    }
}
