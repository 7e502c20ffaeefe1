//! `fanfold backup` and `fanfold restore`.

use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use fanfold::App;
use fanfold_embedded::restore;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, Server, Target};
use crate::console;
use crate::output::{ignore_closed_output, print};
use crate::retry::Backoff;

/// The pause between two questions how far the backup is. Source: our choice; a person waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// The pause between two lines about the progress. Source: our choice.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long the host may not answer. Source: our choice, the time of some questions.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "The host goes on meanwhile. The backup is a data folder: every command that was \
accepted before the request is in it. `restore` makes a folder for `up` from it, and `up --data` opens it, \
too. Prints one line of JSON at the end, and how far it is to standard error. If this command is ended, the \
backup goes on in the host."
)]
pub(crate) struct Backup {
    #[command(flatten)]
    server: Server,
    /// The new folder, on the machine of the host. A relative path begins at the working folder of this
    /// command.
    folder: PathBuf,
    /// Copy no more than so many megabytes in a second.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Commands that were accepted after the backup are lost. Prints one line of JSON. Then \
start `up --data` with the new folder, and run `doctor`."
)]
pub(crate) struct Restore {
    /// The folder that `backup` has made. Nothing is written into it.
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The new data folder.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
}

#[derive(Deserialize)]
struct Shown {
    folder: Option<String>,
    state: String,
    bytes: u64,
    error: Option<String>,
}

impl Backup {
    /// Requests the backup, waits for its end, and prints it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let folder = resolved(&self.folder)?;
        let Some(folder) = folder.to_str() else {
            bail!("the folder {} is not UTF-8: choose another one", folder.display());
        };
        let client = Client::new(&self.server)?;
        let target = Target::path(&["ops", "backup"]);
        let request = json!({ "folder": folder, "mb_per_s": self.rate }).to_string();
        client.post(&target, request.as_bytes())?.read::<Shown>()?;
        let mut said = Instant::now();
        loop {
            let mut backoff = Backoff::within(GIVE_UP);
            let answer = client.get_with_retries(&target, &mut backoff, |_| ())?;
            let shown: Shown = answer.read()?;
            if shown.folder.as_deref().is_some_and(|shown| shown != folder) {
                bail!(
                    "another backup has begun meanwhile: {folder} is complete if it has the file FORMAT"
                );
            }
            if shown.folder.is_none() {
                bail!(
                    "the host was started again before the backup was complete: remove {folder}, and make it again"
                );
            }
            match (shown.state.as_str(), shown.error) {
                ("running", _) => {}
                ("complete", _) => return ignore_closed_output(print(&[answer.read()?])),
                (_, error) => bail!("the backup failed: {}", error.unwrap_or_default()),
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                console::print(format_args!("{} bytes are written", shown.bytes));
            }
            sleep(LOOK);
        }
    }
}

impl Restore {
    /// Restores a backup, and prints what was restored.
    pub(crate) fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let folder = resolved(&self.data)?;
        let began = Instant::now();
        let restored = restore(&self.backup, &folder, app.name())?;
        let seconds = (began.elapsed().as_millis() as f64) / 1e3;
        let line = json!({
            "folder": folder.display().to_string(),
            "bytes": restored.bytes,
            "seconds": seconds,
            "position": restored.position,
        });
        let line = RawValue::from_string(line.to_string())?;
        ignore_closed_output(print(&[&line]))
    }
}

fn resolved(folder: &Path) -> anyhow::Result<PathBuf> {
    absolute(folder).with_context(|| format!("the folder {} is no path", folder.display()))
}
