//! Follows `docs/tutorial.md` as a reader would: runs its commands in one shell, in order, makes its changes to files,
//! and looks for the answers that it shows. An emulator stands for AWS.
//!
//! A comment before a block says what a reader does in another way:
//!
//! | comment | the block |
//! |---|---|
//! | `<!-- tutorial: skip -->` | is not run: the programs are built already |
//! | `<!-- tutorial: background -->`, `restart` | hosts the app until it is started again, or until the end |
//! | `<!-- tutorial: patient -->` | is run again until it shows what the next block has |
//! | `<!-- tutorial: lambda -->` | is a build of the Lambdas, which is made here in the profile of the tests |
//! | `<!-- tutorial: append FILE -->` | is added to a file |
//! | `<!-- tutorial: replace FILE: TEXT -->` | takes the place of this text, which the file has once |
//!
//! A block of `text` or `json` shows lines of what the block before it printed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::e2e::Emulator;
use crate::lambdas::Arch;
use crate::load::{free_port, until_it_is_ready};
use crate::new_project;
use crate::venv::Venv;

/// The page.
const PAGE: &str = "docs/tutorial.md";
/// The project that it makes.
const PROJECT: &str = "bookings";
/// Where the page's host listens.
const ADDRESS: &str = "localhost:8080";
/// How long a `patient` block may take: a view's sweep runs each minute, and ignores what is younger than 10 s.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long the host may take to answer.
const READY: Duration = Duration::from_secs(600);

/// A block of the page.
#[derive(Debug, PartialEq)]
struct Block {
    /// Its line in the page.
    line: usize,
    /// What the comment before it says.
    how: String,
    language: String,
    text: String,
}

/// Follows the page in a new folder, with the programs in the folder `built`.
pub(crate) fn follow(root: &Path, built: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE))?;
    let blocks = blocks(&page)?;
    let venv = Venv::ready()?;
    let folder = tempfile::Builder::new().prefix("fanfold-tutorial-").tempdir()?.keep();
    println!("the tutorial is followed in {}", folder.display());
    symlink(root, folder.join("fanfold"))?;
    let emulator = Emulator::start(&venv, &folder)?;
    let port = free_port()?;
    let mut reader = Reader {
        root,
        built,
        shell: Shell::start(&venv, &emulator, &folder, built, port)?,
        folder: folder.clone(),
        port,
        host: None,
    };
    let mut shown = String::new();
    for (at, block) in blocks.iter().enumerate() {
        let expected = blocks.get(at + 1).filter(|next| next.is_answer());
        let begun = Instant::now();
        reader
            .read(block, expected, &mut shown)
            .with_context(|| format!("{PAGE}, line {}; logs: {}", block.line, folder.display()))?;
        if block.language == "sh" {
            let first = block.text.lines().next().unwrap_or_default();
            println!("{PAGE}:{}: {first} ({:.1} s)", block.line, begun.elapsed().as_secs_f64());
        }
    }
    drop(reader);
    drop(emulator);
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// All blocks of a page, in order.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let (mut blocks, mut how) = (Vec::new(), String::new());
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(said) = line.strip_prefix("<!-- tutorial: ") {
            said.trim_end_matches(" -->").clone_into(&mut how);
        } else if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            blocks.push(Block {
                line: at + 1,
                how: std::mem::take(&mut how),
                language: language.to_owned(),
                text: inside.join("\n") + "\n",
            });
        } else if !line.is_empty() && !how.is_empty() {
            bail!("{PAGE}, line {}: no block follows the comment `{how}`", at + 1);
        }
    }
    Ok(blocks)
}

impl Block {
    fn is_answer(&self) -> bool {
        matches!(&*self.language, "text" | "json")
    }

    /// Whether what was printed has all lines of this block.
    fn is_in(&self, printed: &str) -> bool {
        self.text.lines().all(|line| printed.contains(line))
    }
}

/// A reader of the page.
struct Reader<'a> {
    root: &'a Path,
    built: &'a Path,
    shell: Shell,
    folder: PathBuf,
    port: u16,
    host: Option<Host>,
}

impl Reader<'_> {
    fn project(&self) -> PathBuf {
        self.folder.join(PROJECT)
    }

    /// Does what a block says. `shown` is what the last block that was run has printed.
    fn read(&mut self, block: &Block, expected: Option<&Block>, shown: &mut String) -> Result<()> {
        let (how, rest) = block.how.split_once(' ').unwrap_or((&block.how, ""));
        match (&*block.language, how) {
            (_, "skip") => {}
            ("text" | "json", "") => {
                ensure!(block.is_in(shown), "it was not printed, but:\n{shown}");
            }
            ("sh", "background" | "restart") => {
                // The one before is ended first: the folder takes one process at a time.
                self.host = None;
                self.host = Some(Host::start(&self.project(), self.port)?);
            }
            ("sh", "lambda") => new_project::pack(&self.project(), self.built, PROJECT)?,
            ("sh", "patient") => *shown = self.until(block, expected)?,
            ("sh", "") => {
                *shown = self.shell.run(&here(&block.text, self.port))?;
                if block.text.starts_with("fanfold new ") {
                    new_project::use_our_libraries(self.root, &self.project())?;
                }
            }
            ("rust", "append") => {
                let mut file =
                    File::options().append(true).create(true).open(self.project().join(rest))?;
                write!(file, "\n{}", block.text)?;
            }
            ("rust", "replace") => {
                let (file, text) = rest.split_once(": ").context("it names no text")?;
                let path = self.project().join(file);
                let before = fs::read_to_string(&path)?;
                let times = before.matches(text).count();
                ensure!(times == 1, "{file} has `{text}` {times} times");
                fs::write(path, before.replacen(text, block.text.trim_end(), 1))?;
            }
            (language, how) => bail!("nothing is known of a block of `{language}` with `{how}`"),
        }
        Ok(())
    }

    /// Runs a block until it prints what is expected.
    fn until(&mut self, block: &Block, expected: Option<&Block>) -> Result<String> {
        let expected = expected.context("nothing is expected of the block")?;
        let began = Instant::now();
        loop {
            let printed = self.shell.run(&here(&block.text, self.port))?;
            if expected.is_in(&printed) {
                return Ok(printed);
            }
            ensure!(began.elapsed() < PATIENCE, "it prints, after {PATIENCE:?}:\n{printed}");
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A command of the page for this machine.
fn here(text: &str, port: u16) -> String {
    let text = text.replace(ADDRESS, &format!("127.0.0.1:{port}"));
    let arch = format!("--parameter-overrides Architecture={} ", Arch::here().name());
    text.replace("--parameter-overrides ", &arch)
}

/// A shell that runs one block after another, and keeps variables and the folder between them.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Shell {
    fn start(
        venv: &Venv,
        emulator: &Emulator,
        folder: &Path,
        built: &Path,
        port: u16,
    ) -> Result<Self> {
        let bin = folder.join("bin");
        fs::create_dir(&bin)?;
        // The API's own address does not resolve on this machine.
        let aws = format!(
            "#!/bin/bash\nset -o pipefail\n'{}' \"$@\" | sed -E 's#https?://([a-z0-9]+)\\.execute-api\\.[^/\"]*#{}#'\n",
            venv.program("aws").display(),
            emulator.api("\\1"),
        );
        fs::write(bin.join("aws"), aws)?;
        let made = Command::new("chmod").arg("+x").arg(bin.join("aws")).status()?;
        ensure!(made.success(), "chmod failed");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        crate::without_our_package(&mut shell);
        shell.args(["--norc", "--noprofile"]).current_dir(folder);
        shell.env("PATH", format!("{}:{}:{path}", bin.display(), built.display()));
        shell.env("CARGO_TARGET_DIR", crate::target()?).envs(emulator.environment());
        shell.env("FANFOLD_URL", format!("http://127.0.0.1:{port}"));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = shell.spawn().context("cannot start bash")?;
        let stdin = child.stdin.take().context("the shell has no input")?;
        let stdout = BufReader::new(child.stdout.take().context("the shell has no output")?);
        Ok(Self { child, stdin, stdout, folder: folder.to_owned() })
    }

    /// Runs a block, and returns what it has printed. Fails if a command of it fails.
    fn run(&mut self, block: &str) -> Result<String> {
        let [script, log] = ["block.sh", "block.log"].map(|name| self.folder.join(name));
        fs::write(&script, format!("set -euo pipefail\n{block}\n"))?;
        let (script, shown) = (script.display(), log.display());
        writeln!(self.stdin, "source '{script}' >'{shown}' 2>&1; echo done")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        let printed = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        ensure!(answer == "done\n", "a command failed:\n{printed}");
        Ok(printed)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cargo run -- up` of the project, which dropping this ends as Ctrl-C does.
struct Host(Child);

impl Host {
    /// Builds and starts it, and waits until it answers.
    fn start(project: &Path, port: u16) -> Result<Self> {
        new_project::cargo(project, &["build", "--bins"], &[])?;
        let program = crate::target()?.join("debug").join(PROJECT);
        let log = File::options().create(true).append(true).open(project.join("up.log"))?;
        let child = Command::new(program)
            .args(["up", "--listen", &format!("127.0.0.1:{port}")])
            .current_dir(project)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut host = Self(child);
        until_it_is_ready(&mut host.0, port, READY)?;
        Ok(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_comments() {
        let page = "# A\n\n<!-- tutorial: append a.rs -->\n```rust\nfn a() {}\n```\n\nThen:\n\n```sh\ntrue\n```\n";
        let block = |line, how: &str, language: &str, text: &str| Block {
            line,
            how: how.to_owned(),
            language: language.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(
            blocks(page).expect("a page"),
            [block(4, "append a.rs", "rust", "fn a() {}\n"), block(10, "", "sh", "true\n")]
        );
        let lost = "<!-- tutorial: skip -->\nText.\n```sh\ntrue\n```\n";
        let error = blocks(lost).expect_err("the comment has no block").to_string();
        assert_eq!(error, "docs/tutorial.md, line 2: no block follows the comment `skip`");
    }
}
