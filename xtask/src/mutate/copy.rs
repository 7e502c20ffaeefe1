//! A copy of the sources with a target folder of its own, which mutations may break.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A copy of the sources. Cargo rebuilds by the time of a file's last change, so a file is written
/// only if its text differs. The next build then rebuilds only what was mutated or restored.
pub(super) struct Copy {
    root: PathBuf,
    /// The root of the copied sources.
    tree: PathBuf,
    target: PathBuf,
    /// The packages of the workspace, with their folders in the copy.
    packages: Vec<(String, PathBuf)>,
}

impl Copy {
    /// Brings the copy up to date with all files that git tracks or would track.
    pub(super) fn of(root: &Path, target: &Path) -> Result<Self> {
        let tree = target.join("mutate/tree");
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("cannot run git")?;
        ensure!(listing.status.success(), "git cannot list the sources");
        let names = String::from_utf8(listing.stdout)?;
        let files: BTreeSet<&Path> = names
            .split_terminator('\0')
            .map(Path::new)
            .filter(|f| root.join(f).is_file())
            .collect();
        for file in &files {
            write(&tree.join(file), &fs::read(root.join(file))?)?;
        }
        remove_others(&tree, &tree, &files)?;
        let packages = packages(root, &tree)?;
        let copy =
            Self { root: root.to_owned(), tree, target: target.join("mutate/target"), packages };
        copy.take_libraries(&target.join("debug"))?;
        Ok(copy)
    }

    /// A cargo command in the copy.
    pub(super) fn cargo(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = crate::cargo_command(arguments)?;
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // The same few crates are built again and again, which takes longer than the checks.
        command.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
        Ok(command)
    }

    /// The folder of a package in the copy.
    pub(super) fn folder(&self, package: &str) -> Result<&Path> {
        let found = self.packages.iter().find(|(name, _)| name == package);
        Ok(&found.with_context(|| format!("no package {package}"))?.1)
    }

    /// The file for the output of checks.
    pub(super) fn output(&self) -> PathBuf {
        self.target.join("output")
    }

    /// Replaces the text of files in the copy.
    pub(super) fn write(&self, files: &[(PathBuf, String)]) -> Result<()> {
        files.iter().try_for_each(|(file, text)| write(&self.tree.join(file), text.as_bytes()))
    }

    /// Restores files of the copy from the sources.
    pub(super) fn restore(&self, files: &[(PathBuf, String)]) -> Result<()> {
        files.iter().try_for_each(|(file, _)| {
            write(&self.tree.join(file), &fs::read(self.root.join(file))?)
        })
    }

    /// Links the third-party libraries that are built already.
    fn take_libraries(&self, built: &Path) -> Result<()> {
        let own: Vec<String> =
            self.packages.iter().map(|(name, _)| name.replace('-', "_")).collect();
        let is_own = |file: &str| {
            let file = file.strip_prefix("lib").unwrap_or(file).replace('-', "_");
            own.iter().any(|name| file.starts_with(&format!("{name}_")))
        };
        let target = self.target.join("debug");
        for folder in ["deps", "build", ".fingerprint"] {
            fs::create_dir_all(target.join(folder))?;
            for entry in fs::read_dir(built.join(folder)).into_iter().flatten() {
                let entry = entry?;
                let (from, to) = (entry.path(), target.join(folder).join(entry.file_name()));
                if !is_own(&entry.file_name().to_string_lossy()) && !to.exists() {
                    // Cargo writes fingerprints in place, so these are copied.
                    take(&from, &to, folder != ".fingerprint")?;
                }
            }
        }
        Ok(())
    }
}

/// The packages of the workspace, with their folders below `tree`.
pub(super) fn packages(root: &Path, tree: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut command =
        crate::cargo_command(&["metadata", "--no-deps", "--locked", "--format-version", "1"])?;
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo cannot list the packages");
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let folder = |package: &Value| {
        let name = package["name"].as_str()?;
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let folder = manifest.parent()?.strip_prefix(root).ok()?;
        Some((name.to_owned(), tree.join(folder)))
    };
    packages.iter().map(|package| folder(package).context("a package without a folder")).collect()
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn remove_others(tree: &Path, folder: &Path, files: &BTreeSet<&Path>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(tree, &path, files)?;
        } else if !files.contains(path.strip_prefix(tree)?) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Links or copies a folder or a file, and keeps the times of files, which cargo compares.
fn take(from: &Path, to: &Path, link: bool) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            take(&entry.path(), &to.join(entry.file_name()), link)?;
        }
    } else if !(link && fs::hard_link(from, to).is_ok()) {
        fs::copy(from, to)?;
        File::options().append(true).open(to)?.set_modified(fs::metadata(from)?.modified()?)?;
    }
    Ok(())
}
