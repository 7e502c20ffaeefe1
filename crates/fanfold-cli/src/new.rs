//! `fanfold new`: a project of one's own. Its files are in `template/`, where it is called `my-app`.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;

use crate::console;

/// Texts of the template that each project has in its own way. The dependencies are `@<crate>@`.
const NAME: &str = "my-app";
const CRATE: &str = "my_app";
const SOURCE: &str = "@source@";
const LOADTEST: &str = "@loadtest@";
/// The folder of the ledger's program in `core.yaml` and `view.yaml`, which are those of the ledger.
const PACKAGE: &str = "/target/lambda/ledger-lambda/";
/// Lines of `operate.md`, which is that of the ledger, too.
const STACK: &str = "NAME=ledger ";
const VIEWS: [&str; 2] = ["VIEWS='balances statement totals'", "VIEWS='rooms agenda'"];
/// The beginning of its links to other pages of Fanfold.
const LINK: &str = "](../";

/// The crates of Fanfold that a project depends on.
const CRATES: [&str; 4] = ["fanfold", "fanfold-cli", "fanfold-lambda", "fanfold-embedded"];

/// Cargo would take the manifest of the template for that of a package, and leave it out of ours.
const MANIFEST: &str = "Cargo.toml.template";

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../template/", $path)))),*]
    };
}

const FILES: [(&str, &str); 16] = files![
    ".github/workflows/ci.yml",
    ".gitignore",
    "Cargo.toml.template",
    "README.md",
    "infra/core.yaml",
    "infra/operate.md",
    "infra/samconfig.toml",
    "infra/template.yaml",
    "infra/view.yaml",
    "loadtest.yaml",
    "src/bin/lambda.rs",
    "src/lib.rs",
    "src/main.rs",
    "src/views.rs",
    "tests/decisions.rs",
    "tests/hosted.rs",
];

/// The arguments.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The name of the project, its package, its app and its stack on AWS: `[a-z][a-z0-9-]{0,30}`.
    name: ProjectName,
    /// Where Fanfold is: the folder of a checkout, or the URL of a git repository.
    #[arg(long, value_name = "FOLDER|URL")]
    fanfold: Option<Source>,
    /// The commit of that repository; by default the newest.
    #[arg(long, value_name = "REV", requires = "fanfold")]
    rev: Option<String>,
    /// The folder of the project, new or empty; by default the name, in this folder.
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
}

impl New {
    /// Makes the project.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(mut source) = self.fanfold else {
            let what = "no version of Fanfold is published yet: add `--fanfold <FOLDER>` with the \
                        folder of a checkout, or `--fanfold <URL>` with that of its git repository";
            console::print(format_args!("error: {what}"));
            return Ok(ExitCode::from(2));
        };
        match (&mut source, self.rev) {
            (_, None) => {}
            (Source::Git { rev, .. }, given) => *rev = given,
            (Source::Folder(_), Some(_)) => {
                let what = "`--rev` is for a git URL: check the commit out in the folder yourself";
                console::print(format_args!("error: {what}"));
                return Ok(ExitCode::from(2));
            }
        }
        let name = self.name.0.as_str();
        let folder = self.path.unwrap_or_else(|| PathBuf::from(name));
        must_be_empty(&folder)?;
        for (path, text) in FILES {
            let path = folder.join(if path == MANIFEST { "Cargo.toml" } else { path });
            let written = path.parent().map_or(Ok(()), fs::create_dir_all);
            let written = written.and_then(|()| fs::write(&path, filled(text, name, &source)));
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        // The project is made, even if no one reads this.
        let _ = show_next(name, &folder);
        Ok(ExitCode::SUCCESS)
    }
}

fn must_be_empty(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    match fs::read_dir(folder).map(|mut files| files.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => bail!(
            "the folder {shown} is not empty: empty it, or choose another one with `--path FOLDER`"
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            bail!("{shown} is not a folder: choose a new or empty one with `--path FOLDER`")
        }
        Err(error) => Err(error).with_context(|| format!("cannot read the folder {shown}")),
    }
}

/// A file of the project.
fn filled(text: &str, name: &str, source: &Source) -> String {
    let package = format!("/target/lambda/{name}-lambda/");
    // The names come first, since a source may contain any text.
    let text = text.replace(NAME, name).replace(CRATE, &name.replace('-', "_"));
    let text = text.replace(PACKAGE, &package).replace(STACK, &format!("NAME={name} "));
    let text = text.replace(VIEWS[0], VIEWS[1]).replace(LINK, &format!("]({}/", source.pages()));
    let text = CRATES.iter().fold(text, |text, package| {
        text.replace(&format!("@{package}@"), &source.dependency(package))
    });
    text.replace(LOADTEST, &source.loadtest()).replace(SOURCE, source.text())
}

fn show_next(name: &str, folder: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let folder = quoted(&folder.display().to_string());
    writeln!(stdout, "The project `{name}` is in {folder}. Next:\n")?;
    writeln!(stdout, "  cd {folder}\n  cargo test\n  cargo run -- up\n")?;
    writeln!(stdout, "and then, in another terminal:\n\n{FIRST_REQUESTS}\n")?;
    stdout.flush()
}

/// The example of the app, as `up` prints it.
const FIRST_REQUESTS: &str = r#"  curl -XPOST localhost:8080/command -d '{"type":"booking","command":"add_room","id":1,"user":"ann","org":"acme","data":{"room":"blue","seats":8}}'
  curl 'localhost:8080/views/rooms/booking/org:acme?seq=1&wait=5000'"#;

/// A word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The name of a project. It names a package of cargo, its library and its programs, an [`App`](fanfold::App), and a
/// stack on AWS.
#[derive(Debug, Clone)]
struct ProjectName(String);

/// Bytes of a name. Source: the parameter `Name` of `core.yaml`.
const NAME_BYTES_MAX: usize = 31;

/// Names that cargo refuses for a program or a library, and the libraries that a project uses by their names.
const TAKEN: &[&str] = &[
    // Libraries.
    "alloc",
    "core",
    "fanfold",
    "fanfold-cli",
    "fanfold-embedded",
    "fanfold-lambda",
    "proc-macro",
    "schemars",
    "serde",
    "serde-json",
    "std",
    "test",
    "thiserror",
    "tokio",
    // Folders of cargo.
    "build",
    "deps",
    "examples",
    "incremental",
    // Keywords of Rust.
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

impl FromStr for ProjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.chars().all(is_allowed) {
            return Err(
                "must be of small letters, digits and hyphens, the first a letter, since it \
                        also names the package and the app"
                    .to_owned(),
            );
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(format!(
                "must have at most {NAME_BYTES_MAX} characters, since it also names the stack on AWS"
            ));
        }
        if text.contains("-view-") {
            return Err(
                "must not contain `-view-`, since it also names the stack on AWS".to_owned()
            );
        }
        if TAKEN.contains(&text) {
            return Err(
                "is taken by Rust, by cargo, or by a library that the project uses: choose \
                        another name"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// Where cargo finds the crates of Fanfold.
#[derive(Debug, Clone)]
enum Source {
    /// The absolute path of a checkout.
    Folder(String),
    /// A git repository.
    Git {
        /// Its URL.
        url: String,
        /// A commit.
        rev: Option<String>,
    },
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let has_parts = !scheme.is_empty() && rest.trim_start_matches('/').contains('/');
            let git = Self::Git { url: text.to_owned(), rev: None };
            return has_parts.then_some(git).ok_or_else(|| "is not the URL of a repository".into());
        }
        // As `git clone` takes it, and cargo does not.
        let short = text.split_once(':').filter(|(host, path)| {
            host.contains('@') && !host.contains('/') && !path.is_empty() && !path.starts_with('/')
        });
        if let Some((host, path)) = short {
            return Ok(Self::Git { url: format!("ssh://{host}/{path}"), rev: None });
        }
        let folder = fs::canonicalize(text)
            .map_err(|error| format!("is neither a folder nor a URL as `https://…`: {error}"))?;
        let mut manifests = CRATES.iter().map(|package| format!("crates/{package}/Cargo.toml"));
        if let Some(missing) = manifests.find(|manifest| !folder.join(manifest).is_file()) {
            return Err(format!("is not a checkout of Fanfold: it has no `{missing}`"));
        }
        let folder = folder.into_os_string().into_string();
        folder.map(Self::Folder).map_err(|_| "is a path that is not Unicode".to_owned())
    }
}

impl Source {
    fn text(&self) -> &str {
        match self {
            Self::Folder(text) | Self::Git { url: text, .. } => text,
        }
    }

    /// Where its files can be read.
    fn pages(&self) -> String {
        match self {
            Self::Folder(folder) => folder.clone(),
            // As the hosts of git repositories that are common have it.
            Self::Git { url, rev } => {
                let rev = rev.as_deref().unwrap_or("HEAD");
                let by_ssh = url.strip_prefix("ssh://").map(|rest| {
                    format!("https://{}", rest.split_once('@').map_or(rest, |(_, host)| host))
                });
                let url = by_ssh.as_deref().unwrap_or(url).trim_end_matches(".git");
                format!("{url}/blob/{rev}")
            }
        }
    }

    /// The value of a dependency in a manifest.
    fn dependency(&self, package: &str) -> String {
        // TOML has the escapes of JSON.
        let text = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Folder(folder) => {
                format!("{{ path = {} }}", text(&format!("{folder}/crates/{package}")))
            }
            Self::Git { url, rev: None } => format!("{{ git = {} }}", text(url)),
            Self::Git { url, rev: Some(rev) } => {
                format!("{{ git = {}, rev = {} }}", text(url), text(rev))
            }
        }
    }

    /// The arguments of `cargo install` for the load generator.
    fn loadtest(&self) -> String {
        match self {
            Self::Folder(folder) => format!("--path {}", quoted(&format!("{folder}/loadtest"))),
            Self::Git { url, rev } => {
                let rev = rev.as_ref().map(|rev| format!(" --rev {}", quoted(rev)));
                format!("--git {}{} fanfold-loadtest", quoted(url), rev.unwrap_or_default())
            }
        }
    }
}
