//! The public API of the crates that users name, compared with `public-api.txt` beside each.
//!
//! rustdoc describes a crate as JSON only behind an unstable flag. A stable rustdoc takes the flag if `RUSTC_BOOTSTRAP` is
//! set. Set for all of cargo, the variable would make build scripts run again, and with them most libraries. So cargo
//! calls this program as its rustdoc, which sets the variable for rustdoc alone.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use public_api::Builder;
use serde::Deserialize;

use crate::{SHARED, cargo_with, root, target};

/// The crates that users name, each with its folder below the root.
const WATCHED: [&str; 4] = ["fanfold", "fanfold-cli", "fanfold-embedded", "fanfold-lambda"];
/// The version of rustdoc's JSON that `public-api` reads. Source: its dependency `rustdoc-types`.
const FORMAT: u64 = 57;
/// Tells this program that cargo calls it as rustdoc. The value is the real one.
const RUSTDOC: &str = "FANFOLD_XTASK_RUSTDOC";

/// Runs rustdoc with its arguments, if cargo called this program as that.
pub(crate) fn as_rustdoc() -> Option<ExitCode> {
    let rustdoc = env::var_os(RUSTDOC)?;
    let status =
        Command::new(rustdoc).args(env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").status();
    let code = status.ok().and_then(|status| u8::try_from(status.code()?).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Compares, or with `update` writes the files.
pub(crate) fn check(update: bool) -> Result<()> {
    let (own, rustdoc) = (env::current_exe()?, env::var_os("RUSTDOC"));
    let rustdoc = rustdoc.as_deref().unwrap_or(OsStr::new("rustdoc"));
    let flags = "-Z unstable-options --output-format json --cap-lints allow";
    let environment =
        [("RUSTDOC", own.as_os_str()), (RUSTDOC, rustdoc), ("RUSTDOCFLAGS", OsStr::new(flags))];
    let packages = WATCHED.iter().flat_map(|name| ["--package", name]);
    let doc: Vec<&str> =
        ["doc", "--no-deps", "--lib"].into_iter().chain(packages).chain(SHARED).collect();
    cargo_with("public API", &doc, &environment)?;

    let mut differing = Vec::new();
    for name in WATCHED {
        let json = target()?.join("doc").join(format!("{}.json", name.replace('-', "_")));
        let now = public_api(&json)?;
        let file = root()?.join("crates").join(name).join("public-api.txt");
        if update {
            std::fs::write(&file, now)?;
            continue;
        }
        let golden = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let lines = differences(&golden, &now);
        if !lines.is_empty() {
            println!("{name}:\n{}", lines.join("\n"));
            differing.push(name);
        }
    }
    ensure!(
        differing.is_empty(),
        "the public API of {} has changed; if that is intended, run `cargo xtask public-api --update`, and say in the \
         changelog what users have to change",
        differing.join(", ")
    );
    Ok(())
}

/// The public items of a crate, a line each, without what is derived or comes from the compiler.
fn public_api(json: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u64,
    }

    let text =
        std::fs::read(json).with_context(|| format!("rustdoc wrote no {}", json.display()))?;
    let Versioned { format_version } = serde_json::from_slice(&text)?;
    if format_version != FORMAT {
        bail!(
            "this rustdoc writes JSON of the format {format_version}, and `public-api` reads {FORMAT} (that of Rust 1.95): \
             use that toolchain, or set another version of `public-api` in Cargo.toml, and its format in {}",
            file!()
        );
    }
    let builder = Builder::from_rustdoc_json(json).omit_blanket_impls(true);
    let api = builder.omit_auto_trait_impls(true).omit_auto_derived_impls(true).build()?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

/// The lines that only one side has: `- ` is gone, `+ ` is new.
fn differences(golden: &str, now: &str) -> Vec<String> {
    let [golden, now] = [golden, now].map(|text| text.lines().collect::<BTreeSet<_>>());
    let gone = golden.difference(&now).map(|line| format!("- {line}"));
    gone.chain(now.difference(&golden).map(|line| format!("+ {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_are_gone_or_new_are_shown() {
        let (golden, now) = ("pub fn a::b()\npub fn a::c()\n", "pub fn a::c()\npub fn a::d()\n");
        assert_eq!(differences(golden, now), ["- pub fn a::b()", "+ pub fn a::d()"]);
        assert!(differences(golden, golden).is_empty());
    }
}
