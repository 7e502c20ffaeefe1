//! The file of a mutation: a header of a few lines, and a small diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A check that must find a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// The simulator of the stages, or of the engine, within so many seeds.
    Sim { engine: bool, seeds: u64 },
    /// A test of a package, by the path that `cargo test` prints.
    Test { package: String, name: String },
}

/// One wrong change of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mutation {
    /// The name of its file, without `.patch`.
    pub(super) name: String,
    /// Each of them must fail.
    pub(super) checks: Vec<Check>,
    changes: Vec<Change>,
}

/// One place in one file. The place is found by its text, so edits nearby do no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    file: PathBuf,
    before: String,
    after: String,
}

impl Mutation {
    /// The mutations of a folder, by name.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for file in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let text = fs::read_to_string(&path)?;
                all.push(Self::parse(&name, &text).with_context(|| format!("mutation {name}"))?);
            }
        }
        all.sort_by(|one: &Self, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let (header, diff) = text.split_once("\n\n").context("no blank line ends the header")?;
        let mut header = header.lines();
        let what = header.next().and_then(|line| line.strip_prefix("Mutation: "));
        ensure!(
            what.is_some_and(|what| what.len() > 20 && what.ends_with('.')),
            "the header does not begin with `Mutation: ` and one sentence"
        );
        let checks: Vec<Check> = header.map(Check::parse).collect::<Result<_>>()?;
        ensure!(!checks.is_empty(), "the header names no check that must find it");
        let changes = changes(diff)?;
        ensure!(!changes.is_empty(), "it changes nothing");
        Ok(Self { name: name.to_owned(), checks, changes })
    }

    /// The files that it changes, with their new text. Each place must be there exactly once.
    pub(super) fn apply(&self, root: &Path) -> Result<Vec<(PathBuf, String)>> {
        let files: BTreeSet<&PathBuf> = self.changes.iter().map(|change| &change.file).collect();
        let mut changed = Vec::new();
        for file in files {
            let path = root.join(file);
            let text = fs::read_to_string(&path);
            let mut text = text.with_context(|| format!("cannot read {}", path.display()))?;
            for change in self.changes.iter().filter(|change| change.file == *file) {
                text = change.apply(&text)?;
            }
            changed.push((file.clone(), text));
        }
        Ok(changed)
    }
}

impl Check {
    fn parse(line: &str) -> Result<Self> {
        let command = line.strip_prefix("Found by: ").context("expected `Found by: `")?;
        let words: Vec<&str> = command.split(' ').collect();
        Ok(match words.as_slice() {
            ["cargo", "xtask", "sim", "--seeds", seeds] => {
                Self::Sim { engine: false, seeds: seeds.parse()? }
            }
            ["cargo", "xtask", "sim", "--engine", "--seeds", seeds] => {
                Self::Sim { engine: true, seeds: seeds.parse()? }
            }
            ["cargo", "test", "-p", package, name] => {
                Self::Test { package: (*package).to_owned(), name: (*name).to_owned() }
            }
            _ => bail!(
                "expected `cargo xtask sim [--engine] --seeds N` or `cargo test -p PACKAGE NAME`, found `{command}`"
            ),
        })
    }
}

impl Change {
    fn apply(&self, text: &str) -> Result<String> {
        let found = text.match_indices(&self.before).filter(|(at, _)| {
            // Whole lines only.
            *at == 0 || text.as_bytes()[at - 1] == b'\n'
        });
        let places: Vec<usize> = found.map(|(at, _)| at).collect();
        let [at] = places[..] else {
            let (n, file) = (places.len(), self.file.display());
            bail!("these lines are in {file} {n} times and must be there once:\n{}", self.before);
        };
        Ok([&text[..at], &self.after, &text[at + self.before.len()..]].concat())
    }
}

/// The changes of a diff. The line numbers of its hunks are not read.
fn changes(diff: &str) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let mut file = None;
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = Some(PathBuf::from(path));
        } else if line.starts_with("@@") {
            let file = file.clone().context("a hunk before `--- a/`")?;
            changes.push(Change { file, before: String::new(), after: String::new() });
        } else if !line.starts_with("+++ b/") {
            let change = changes.last_mut().context("a line before the first hunk")?;
            let (kind, text) = line.split_at_checked(1).unwrap_or((" ", ""));
            let (before, after) = match kind {
                " " => (true, true),
                "-" => (true, false),
                "+" => (false, true),
                _ => bail!("expected a line of a hunk, found `{line}`"),
            };
            let text = format!("{text}\n");
            if before {
                change.before.push_str(&text);
            }
            if after {
                change.after.push_str(&text);
            }
        }
    }
    for Change { file, before, after } in &changes {
        let file = file.display();
        ensure!(!before.is_empty(), "a hunk of {file} has no line that gives its place");
        ensure!(before != after, "a hunk of {file} changes nothing");
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Mutation: The relay forgets what it could not send.\n\
                          Found by: cargo xtask sim --seeds 1000\n\
                          Found by: cargo xtask sim --engine --seeds 500\n\
                          Found by: cargo test -p fanfold-pipeline relay::nothing_is_lost\n";
    const DIFF: &str = "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,2 +1,2 @@\n b\n-c\n+d\n";

    #[test]
    fn a_mutation_is_its_header_and_its_diff() {
        let mutation = Mutation::parse("relay", &format!("{HEADER}\n{DIFF}")).expect("it is one");
        assert_eq!(mutation.name, "relay");
        let test = Check::Test {
            package: "fanfold-pipeline".to_owned(),
            name: "relay::nothing_is_lost".to_owned(),
        };
        let sim = |engine, seeds| Check::Sim { engine, seeds };
        assert_eq!(mutation.checks, [sim(false, 1000), sim(true, 500), test]);
        let expected = Change {
            file: PathBuf::from("src/a.rs"),
            before: "b\nc\n".to_owned(),
            after: "b\nd\n".to_owned(),
        };
        assert_eq!(mutation.changes, [expected]);
    }

    #[test]
    fn an_incomplete_file_is_refused() {
        let (mutation, checks) = HEADER.split_once('\n').expect("it has lines");
        for (text, expected) in [
            (format!("{HEADER}{DIFF}"), "blank line"),
            (format!("{checks}\n{DIFF}"), "one sentence"),
            (format!("Mutation: \n{checks}\n{DIFF}"), "one sentence"),
            (format!("{mutation}\n\n{DIFF}"), "no check"),
            (format!("{mutation}\nFound by: luck\n\n{DIFF}"), "found `luck`"),
            (format!("{mutation}\nFound by: cargo xtask sim --seeds many\n\n{DIFF}"), "invalid"),
            (format!("{HEADER}\n"), "changes nothing"),
            (format!("{HEADER}\n{}", DIFF.replace("-c\n+d\n", "")), "changes nothing"),
            (format!("{HEADER}\n{}", DIFF.replace(" b\n-c\n", "")), "gives its place"),
            (format!("{HEADER}\n{}", DIFF.replace("--- a/src/a.rs\n", "")), "before `--- a/`"),
            (format!("{HEADER}\n{}", DIFF.replace("-c", "c")), "found `c`"),
        ] {
            let error = Mutation::parse("relay", &text).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_change_is_applied_where_its_lines_are_and_only_if_they_are_there_once() {
        let mutation = Mutation::parse("relay", &format!("{HEADER}\n{DIFF}")).expect("it is one");
        let change = &mutation.changes[0];
        assert_eq!(change.apply("a\nb\nc\n").expect("it applies"), "a\nb\nd\n");
        assert_eq!(change.apply("ab\nc\nb\nc\n").expect("it applies"), "ab\nc\nb\nd\n");
        for text in ["", "b\n", "ab\nc\n", "b\nc\nb\nc\n"] {
            assert!(change.apply(text).is_err(), "{text}");
        }
    }
}
