//! The template, deployed as a user would, but to the emulator.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::emulator::Emulator;
use super::without::Without;
use crate::lambdas::Arch;
use crate::venv::Venv;

/// The name of the stack, with which those of its tables begin.
pub(super) const NAME: &str = "fanfold";
/// Where the packages go.
const BUCKET: &str = "s3://fanfold-packages";

/// How commits come to a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Delivery {
    /// SNS invokes the view's Lambda.
    Direct,
    /// SNS puts them into the view's queue.
    Queue,
}

impl Delivery {
    pub(super) const ALL: [Self; 2] = [Self::Direct, Self::Queue];

    /// As the template calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Queue => "queue",
        }
    }
}

/// What calls `aws`, as the emulator's root.
pub(super) struct Aws<'a> {
    venv: &'a Venv,
    emulator: &'a Emulator,
    log: PathBuf,
}

impl<'a> Aws<'a> {
    /// Its output goes to a file in `folder`.
    pub(super) fn new(venv: &'a Venv, emulator: &'a Emulator, folder: &Path) -> Self {
        Self { venv, emulator, log: folder.join("aws.log") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.venv.command("aws");
        command.args(arguments).envs(self.emulator.environment()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command(arguments);
        let status = command.stdout(log.try_clone()?).stderr(log).status()?;
        let what = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        ensure!(status.success(), "`aws {what}` failed, see {}", self.log.display());
        Ok(())
    }

    fn read(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command(arguments).args(["--output", "json"]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`aws {}` failed: {error}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).context("aws prints no JSON")
    }

    /// Packages and deploys the template, without something perhaps. The id of its API.
    pub(super) fn deploy(
        &self,
        template: &Path,
        folder: &Path,
        delivery: Delivery,
        without: &[Without],
    ) -> Result<String> {
        let packaged = folder.join("packaged.json");
        let [template, path] = [template, &packaged].map(|path| path.to_string_lossy());
        self.run(&["s3", "mb", BUCKET])?;
        let bucket = BUCKET.trim_start_matches("s3://");
        self.run(
            &[
                &["cloudformation", "package", "--use-json", "--template-file", &template][..],
                &["--s3-bucket", bucket, "--output-template-file", &path],
            ]
            .concat(),
        )?;
        if !without.is_empty() {
            let mut template: Value = serde_json::from_reader(File::open(&packaged)?)?;
            for without in without {
                without.apply(&mut template)?;
            }
            fs::write(&packaged, serde_json::to_vec_pretty(&template)?)?;
        }
        let delivery = format!("ViewDelivery={}", delivery.name());
        let arch = format!("Architecture={}", Arch::here().name());
        let deployed = self.run(
            &[
                &["cloudformation", "deploy", "--template-file", &path, "--stack-name", NAME][..],
                &["--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                // In JSON it is longer than what may be sent itself.
                &[
                    "--s3-bucket",
                    bucket,
                    "--parameter-overrides",
                    &delivery,
                    &arch,
                    "DeletionProtection=false",
                ],
            ]
            .concat(),
        );
        if let Err(error) = deployed {
            // Which resource, and why, is only there; if it has come to a stack at all.
            let _ = self.run(&["cloudformation", "describe-stack-events", "--stack-name", NAME]);
            return Err(error);
        }
        let stacks = self.read(&["cloudformation", "describe-stacks", "--stack-name", NAME])?;
        let outputs = stacks.pointer("/Stacks/0/Outputs").and_then(Value::as_array);
        let outputs = outputs.context("the stack has no outputs")?;
        let id = outputs.iter().find(|output| output["OutputKey"] == "ApiId");
        let id = id.and_then(|output| output["OutputValue"].as_str());
        Ok(id.context("the stack has no output ApiId")?.to_owned())
    }
}
