//! Deploys the template as a user would, but to the emulator.

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

/// The name of the stack, and the prefix of its tables' names.
pub(super) const NAME: &str = "fanfold";
/// The bucket of the packages.
const BUCKET: &str = "s3://fanfold-packages";

/// The packaged template, in the stack's folder.
const PACKAGED: &str = "packaged.json";

/// How commits reach a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Delivery {
    /// SNS invokes the view's Lambda.
    Direct,
    /// SNS puts them into the view's queue.
    Queue,
}

impl Delivery {
    pub(super) const ALL: [Self; 2] = [Self::Direct, Self::Queue];

    /// The template's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Queue => "queue",
        }
    }
}

/// Calls `aws` as the emulator's root.
pub(super) struct Aws<'a> {
    venv: &'a Venv,
    emulator: &'a Emulator,
    log: PathBuf,
}

impl<'a> Aws<'a> {
    /// The output goes to a file in `folder`.
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

    pub(super) fn read(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command(arguments).args(["--output", "json"]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`aws {}` failed: {error}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).context("`aws` printed something else than JSON")
    }

    /// Packages and deploys the template, without some of its parts, and returns the id of its API.
    pub(super) fn deploy(
        &self,
        template: &Path,
        folder: &Path,
        delivery: Delivery,
        without: &[Without],
    ) -> Result<String> {
        let packaged = folder.join(PACKAGED);
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
        let mut overrides = vec![format!("Architecture={}", Arch::here().name())];
        overrides.push("ApiAuthorization=NONE".to_owned());
        if delivery == Delivery::Queue {
            // The other choices of the template, all in one stack.
            overrides.push(format!("ViewDelivery={}", delivery.name()));
            overrides.push(format!("KmsKeyArn={}", self.make_key()?));
            overrides.push("StreamMode=ON_DEMAND".to_owned());
            // A dead letter after 30 s.
            overrides.push("ViewQueueReceives=2".to_owned());
        }
        if let Err(error) = self.deploy_with(&path, &overrides) {
            // Only the stack's events say which resource failed, and why. There may be no stack.
            let _ = self.run(&["cloudformation", "describe-stack-events", "--stack-name", NAME]);
            return Err(error);
        }
        self.output("ApiId")
    }

    fn output(&self, key: &str) -> Result<String> {
        let stacks = self.read(&["cloudformation", "describe-stacks", "--stack-name", NAME])?;
        let outputs = stacks.pointer("/Stacks/0/Outputs").and_then(Value::as_array);
        let outputs = outputs.context("the stack has no outputs")?;
        let output = outputs.iter().find(|output| output["OutputKey"] == key);
        let value = output.and_then(|output| output["OutputValue"].as_str());
        Ok(value.with_context(|| format!("the stack has no output {key}"))?.to_owned())
    }

    /// Deploys as `infra/README.md` says. Parameters that are not named keep their values.
    fn deploy_with(&self, packaged: &str, overrides: &[String]) -> Result<()> {
        let bucket = BUCKET.trim_start_matches("s3://");
        let deploy = ["cloudformation", "deploy", "--template-file", packaged];
        let into = ["--s3-bucket", bucket, "--stack-name", NAME, "--capabilities"];
        let may = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--parameter-overrides"];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        self.run(&[&deploy[..], &into, &may, &overrides].concat())
    }

    /// Tears down as `infra/README.md` says. Only the packages may be left.
    pub(super) fn tear_down(&self) -> Result<()> {
        let journal = self.output("JournalTableName")?;
        let describe = ["dynamodb", "describe-table", "--table-name", &journal];
        let is_protected = || -> Result<bool> {
            Ok(self.read(&describe)?["Table"]["DeletionProtectionEnabled"] == true)
        };
        ensure!(is_protected()?, "the journal of a new stack is not protected");
        let packaged = self.log.with_file_name(PACKAGED);
        self.deploy_with(&packaged.to_string_lossy(), &["DeletionProtection=false".to_owned()])?;
        ensure!(!is_protected()?, "the journal is still protected");
        self.run(&["cloudformation", "delete-stack", "--stack-name", NAME])?;
        self.run(&["cloudformation", "wait", "stack-delete-complete", "--stack-name", NAME])?;
        let tables = self.read(&["dynamodb", "list-tables"])?;
        ensure!(tables["TableNames"] == serde_json::json!([]), "tables are left: {tables}");
        Ok(())
    }

    fn make_key(&self) -> Result<String> {
        let made = self.read(&["kms", "create-key"])?;
        let arn = made.pointer("/KeyMetadata/Arn").and_then(Value::as_str);
        Ok(arn.context("the new key has no ARN")?.to_owned())
    }
}
