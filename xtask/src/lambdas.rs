//! Builds the Lambdas for deployment. All functions are one program:
//! `target/lambda/ledger-lambda/bootstrap`.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::venv::Venv;

/// The program, and its package. The template names the same folder.
const PROGRAM: &str = "ledger-lambda";
/// The program of another team's view, for the emulators: an example of the same package.
const GUEST: &str = "guest";
/// The variable that says which function a process is: `fanfold_aws::names::ROLE`.
pub(crate) const ROLE: &str = "FANFOLD_ROLE";
/// The functions of the template, by the end of their names.
pub(crate) const FUNCTIONS: [&str; 8] =
    ["api", "balances", "operate", "processor", "relay", "statement", "sweep", "totals"];
/// The C library of Amazon Linux 2023, which the runtime `provided.al2023` uses.
const GLIBC: (u32, u32) = (2, 34);
/// The largest program that we accept: a Lambda loads it at each cold start. Source: the ledger's has
/// 15.3 MB (of 15.7) for x86-64; more would need a reason.
const BYTES_MAX: u64 = 15 * 1024 * 1024;

/// The processor of the Lambdas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// Graviton, the template's default.
    #[value(name = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86,
}

impl Arch {
    /// This machine's.
    pub(crate) fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86 }
    }

    /// CloudFormation's name for it.
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

/// Builds all Lambdas, small, for Amazon Linux 2023.
pub(crate) fn release(arch: Arch) -> Result<()> {
    must_be_installed(arch.target())?;
    let venv = Venv::ready()?;
    let target = format!("{}.{}.{}", arch.target(), GLIBC.0, GLIBC.1);
    let zigbuild = ["zigbuild", "--locked", "--profile", "lambda", "--target", &target, "--bins"];
    // Cargo finds `cargo zigbuild` on the path.
    let path = venv.path()?;
    let arguments = [&zigbuild[..], &["--package", PROGRAM]].concat();
    crate::cargo_with("lambdas", &arguments, &[("PATH", &path)])?;
    let built = crate::target()?.join(arch.target()).join("lambda");
    let folder = folder(Packages::Release)?;
    println!("\n{:<14} {:>12} {:>14}", "program", "bytes", "needs glibc");
    let bootstrap = lay_out(&built, &folder, PROGRAM)?;
    let (bytes, glibc) = (fs::metadata(&bootstrap)?.len(), newest_glibc(&bootstrap)?);
    println!("{PROGRAM:<14} {bytes:>12} {:>14}", format!("{}.{}", glibc.0, glibc.1));
    ensure!(
        glibc <= GLIBC,
        "{PROGRAM} needs a newer glibc than {GLIBC:?}, that of Amazon Linux 2023"
    );
    ensure!(bytes <= BYTES_MAX, "{PROGRAM} is larger than {BYTES_MAX} bytes");
    println!("built into {}", folder.display());
    Ok(())
}

/// Builds all Lambdas quickly, for an emulator on this machine. They are in another folder than
/// those that the template deploys.
pub(crate) fn fast() -> Result<()> {
    build_fast("lambdas", &["--bins"], &crate::target()?.join("debug"), PROGRAM)?;
    Ok(())
}

/// Builds the program of another team's view quickly, and returns its folder.
pub(crate) fn guest() -> Result<PathBuf> {
    build_fast("guest", &["--example", GUEST], &crate::target()?.join("debug/examples"), GUEST)
}

/// Builds a program in the profile of the tests, which share most of the build. Returns its folder.
fn build_fast(what: &str, targets: &[&str], built: &Path, program: &str) -> Result<PathBuf> {
    let build = [&["build", "--package", PROGRAM], targets, &crate::SHARED].concat();
    crate::cargo(what, &build)?;
    let folder = folder(Packages::Fast)?;
    pack(built, program, &folder)?;
    Ok(folder.join(program))
}

/// Copies a program of an emulator's Lambdas to `<folder>/<program>/bootstrap`.
pub(crate) fn pack(built: &Path, program: &str, folder: &Path) -> Result<()> {
    let bootstrap = lay_out(built, folder, program)?;
    // It is packed, sent and unpacked for each function, and debug information would make that slow.
    let status = Command::new("strip").arg(&bootstrap).status();
    ensure!(binutils(status, "strip")?.success(), "cannot strip {}", bootstrap.display());
    Ok(())
}

/// Which build of the Lambdas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packages {
    /// By [`release`]: the template names them.
    Release,
    /// By [`fast`]: for the emulators.
    Fast,
}

/// Copies the program to `<folder>/<program>/bootstrap`.
fn lay_out(built: &Path, folder: &Path, program: &str) -> Result<PathBuf> {
    let folder = folder.join(program);
    fs::create_dir_all(&folder)?;
    let (from, bootstrap) = (built.join(program), folder.join("bootstrap"));
    // A running program cannot be overwritten, only removed.
    if let Err(error) = fs::remove_file(&bootstrap) {
        ensure!(error.kind() == ErrorKind::NotFound, "cannot remove {bootstrap:?}: {error}");
    }
    fs::copy(&from, &bootstrap).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(bootstrap)
}

/// The folder of the Lambdas, in the clone even if cargo's target folder is elsewhere.
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

/// The newest version among the glibc symbols that a program needs.
fn newest_glibc(program: &Path) -> Result<(u32, u32)> {
    let output = Command::new("objdump").args([OsStr::new("-T"), program.as_os_str()]).output();
    let output = binutils(output, "objdump")?;
    ensure!(output.status.success(), "objdump cannot read {}", program.display());
    let symbols = String::from_utf8(output.stdout)?;
    glibc_versions(&symbols)
        .max()
        .with_context(|| format!("{} has no symbol of glibc: is it static?", program.display()))
}

/// Every glibc version in the output of `objdump -T`.
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
            bail!("`{program}` is missing: install the package binutils")
        }
        result => result.with_context(|| format!("cannot run `{program}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_versions_are_read_from_objdump() {
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
