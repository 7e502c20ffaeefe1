//! The crates that are published: each can be packaged, and says what it is.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, cargo_command};

/// The most keywords of a crate. Source: the registry's rule.
const KEYWORDS_MAX: usize = 5;
/// The beginning of each published crate's name. The registry has crates of others under plain names: a packaged
/// `fanfold-cli` that asked for `ledger` got another one.
const PREFIX: &str = "fanfold";
/// The texts of both licences, beside each published manifest.
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

/// Packages all published crates together, since they depend on each other. With `verify` each package is also built,
/// from what is in it alone.
pub(crate) fn check(verify: bool) -> Result<()> {
    let published = published()?;
    let packages = published.iter().flat_map(|name| ["--package", name]);
    // A developer checks before a commit. What is published is tagged, so `cargo publish` will not take this flag.
    let task: &[&str] = match verify {
        true => &["package", "--locked", "--allow-dirty"],
        false => &["package", "--locked", "--allow-dirty", "--no-verify"],
    };
    cargo("packages", &task.iter().copied().chain(packages).collect::<Vec<_>>())
}

/// The names of the crates that may be published.
fn published() -> Result<Vec<String>> {
    let mut command =
        cargo_command(&["metadata", "--locked", "--no-deps", "--format-version", "1"])?;
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "`cargo metadata` failed: {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("the metadata has no packages")?;
    // An empty list of registries means `publish = false`.
    let is_published = |package: &&Value| package["publish"] != Value::Array(vec![]);
    let mut names = Vec::new();
    for package in packages.iter().filter(is_published) {
        let name = package["name"].as_str().context("a package has no name")?;
        ensure!(
            name.starts_with(PREFIX),
            "the published crate `{name}` must begin with `{PREFIX}`"
        );
        let manifest = package["manifest_path"].as_str().context("a package has no manifest")?;
        let mut lacking = lacking(package);
        // Both licences ask that their texts go along.
        let folder = Path::new(manifest).with_file_name("");
        lacking.extend(LICENCES.into_iter().filter(|file| !folder.join(file).is_file()));
        ensure!(lacking.is_empty(), "{name}/Cargo.toml lacks {}", lacking.join(", "));
        names.push(name.to_owned());
    }
    ensure!(!names.is_empty(), "no crate is published");
    Ok(names)
}

/// The fields that a reader of the registry needs, and the package lacks.
fn lacking(package: &Value) -> Vec<&'static str> {
    let words = |field: &str| package[field].as_array().map_or(0, Vec::len);
    let fields = ["description", "license", "readme"];
    let mut lacking: Vec<_> = fields.into_iter().filter(|field| package[field].is_null()).collect();
    if !(1..=KEYWORDS_MAX).contains(&words("keywords")) {
        lacking.push("one to five keywords");
    }
    if words("categories") == 0 {
        lacking.push("categories");
    }
    lacking
}
