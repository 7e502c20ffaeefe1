//! The Lambdas, as they are deployed: `target/lambda/<name>/bootstrap`.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::venv::Venv;

/// Every Lambda, and the package it is of. The template names the same folders.
pub(crate) const LAMBDAS: [(&str, &str); 7] = [
    ("api", "ledger-lambda"),
    ("balances", "ledger-lambda"),
    ("processor", "ledger-lambda"),
    ("relay", "fanfold-lambda"),
    ("statement", "ledger-lambda"),
    ("sweep", "fanfold-lambda"),
    ("totals", "ledger-lambda"),
];
/// The packages with Lambdas.
const PACKAGES: [&str; 4] = ["--package", "fanfold-lambda", "--package", "ledger-lambda"];
/// The C library of Amazon Linux 2023, on which `provided.al2023` runs.
const GLIBC: (u32, u32) = (2, 34);
/// A Lambda loads its program at each cold start.
const BYTES_MAX: u64 = 12 * 1024 * 1024;

/// What the Lambdas run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// Graviton: what the template takes if nothing is said.
    #[value(name = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86,
}

impl Arch {
    /// Of this machine.
    pub(crate) fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86 }
    }

    /// As CloudFormation calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "x86_64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::X86 => "x86_64-unknown-linux-gnu",
        }
    }
}

/// Builds all of them, small, and for Amazon Linux 2023 wherever this is run.
pub(crate) fn release(arch: Arch) -> Result<()> {
    must_be_installed(arch.target())?;
    let venv = Venv::ready()?;
    let target = format!("{}.{}.{}", arch.target(), GLIBC.0, GLIBC.1);
    let zigbuild = ["zigbuild", "--locked", "--profile", "lambda", "--target", &target, "--bins"];
    // `cargo zigbuild` is a program that cargo has to find.
    let path = venv.path()?;
    crate::cargo_with("lambdas", &[&zigbuild[..], &PACKAGES].concat(), &[("PATH", &path)])?;
    let built = crate::target()?.join(arch.target()).join("lambda");
    let mut too_large = Vec::new();
    let folder = folder(Packages::Release)?;
    println!("\n{:<12} {:>12} {:>14}", "lambda", "bytes", "needs glibc");
    for (name, _) in LAMBDAS {
        let bootstrap = lay_out(name, &built, &folder)?;
        let (bytes, glibc) = (fs::metadata(&bootstrap)?.len(), newest_glibc(&bootstrap)?);
        println!("{name:<12} {bytes:>12} {:>14}", format!("{}.{}", glibc.0, glibc.1));
        ensure!(glibc <= GLIBC, "{name} needs a newer glibc than Amazon Linux 2023 has: {GLIBC:?}");
        if bytes > BYTES_MAX {
            too_large.push(name);
        }
    }
    ensure!(too_large.is_empty(), "larger than {BYTES_MAX} bytes: {too_large:?}");
    println!("in {}", folder.display());
    Ok(())
}

/// Builds all of them for this machine alone, quickly: for the emulator, which runs them here. They
/// are never where the template looks for what is to be deployed.
pub(crate) fn fast() -> Result<()> {
    // In the profile of the tests, which have built most of it already.
    crate::cargo("lambdas", &[&["build", "--bins"], &PACKAGES[..], &crate::SHARED].concat())?;
    let built = crate::target()?.join("debug");
    let folder = folder(Packages::Fast)?;
    for (name, _) in LAMBDAS {
        let bootstrap = lay_out(name, &built, &folder)?;
        // Each is packed, sent and unpacked: what only a debugger reads makes that slow.
        let status = Command::new("strip").arg(&bootstrap).status();
        ensure!(binutils(status, "strip")?.success(), "cannot strip {}", bootstrap.display());
    }
    Ok(())
}

/// Which packages: those that the template names, or those of the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packages {
    /// Of [`release`].
    Release,
    /// Of [`fast`].
    Fast,
}

/// Puts what was built into a folder of its own.
fn lay_out(name: &str, built: &Path, folder: &Path) -> Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    let (from, bootstrap) = (built.join(name), folder.join("bootstrap"));
    // One that runs cannot be written over, but removed.
    if let Err(error) = fs::remove_file(&bootstrap) {
        ensure!(error.kind() == ErrorKind::NotFound, "cannot remove {bootstrap:?}: {error}");
    }
    fs::copy(&from, &bootstrap).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(bootstrap)
}

/// Where packages are: in the clone, wherever cargo builds.
pub(crate) fn folder(packages: Packages) -> Result<PathBuf> {
    let name = match packages {
        Packages::Release => "target/lambda",
        Packages::Fast => "target/lambda-fast",
    };
    Ok(crate::root()?.join(name))
}

fn must_be_installed(target: &str) -> Result<()> {
    let found =
        Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let folder = String::from_utf8(found.context("cannot run rustc")?.stdout)?;
    ensure!(
        Path::new(folder.trim()).is_dir(),
        "the standard library for {target} is not installed: run `rustup target add {target}`"
    );
    Ok(())
}

/// The newest version of glibc's symbols that a program asks for.
fn newest_glibc(program: &Path) -> Result<(u32, u32)> {
    let output = Command::new("objdump").args([OsStr::new("-T"), program.as_os_str()]).output();
    let output = binutils(output, "objdump")?;
    ensure!(output.status.success(), "objdump cannot read {}", program.display());
    let symbols = String::from_utf8(output.stdout)?;
    glibc_versions(&symbols)
        .max()
        .with_context(|| format!("{} has no symbol of glibc: is it static?", program.display()))
}

/// Every version in what `objdump -T` has printed.
fn glibc_versions(symbols: &str) -> impl Iterator<Item = (u32, u32)> {
    symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

fn binutils<T>(result: std::io::Result<T>, program: &str) -> Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("`{program}` is missing: it is of the package binutils")
        }
        result => result.with_context(|| format!("cannot run `{program}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_glibc() {
        let symbols = "
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.2.5) memcpy
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.34) __libc_start_main
0000000000000000  w   DF *UND*  0000000000000000  Base        __gmon_start__
0000000000000000      DF *UND*  0000000000000000 (GCC_3.0)    _Unwind_Resume
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.9) pipe2
";
        let versions: Vec<_> = glibc_versions(symbols).collect();
        assert_eq!(versions, [(2, 2), (2, 34), (2, 9)]);
        assert_eq!(glibc_versions("(GLIBC_PRIVATE) x (GLIBC_2.39) y").max(), Some((2, 39)));
        assert_eq!(glibc_versions("no such symbol").max(), None);
    }
}
