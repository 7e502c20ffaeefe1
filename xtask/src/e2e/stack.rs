//! Deploys the templates as a user would, but to the emulator: nested, or as stacks of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use stack_template::{Stacks, as_text};

use super::emulator::Emulator;
use super::without::Without;
use crate::lambdas::Arch;
use crate::venv::Venv;

/// The name of the stack, and the prefix of its tables' names.
pub(super) const NAME: &str = "fanfold";
/// The bucket of the packages.
const BUCKET: &str = "s3://fanfold-packages";

/// The packaged template that nests the others, in the stack's folder.
const PACKAGED: &str = "packaged.json";
/// The stack of another team's view.
const GUEST: &str = "guest";
/// The nested stack that all others need.
const CORE: &str = "Core";

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

/// One of the nested templates, packaged, and the parameters of its stack.
struct Part {
    file: PathBuf,
    overrides: Vec<String>,
}

/// The name of the stack of a view that is not nested.
fn stack_of(view: &str) -> String {
    format!("{NAME}-{}", view.to_lowercase())
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

    /// Packages and deploys the templates, without some of their parts, and returns the id of the API.
    ///
    /// With direct delivery all are nested in one stack. With queues each is deployed as a stack of
    /// its own, one after another, with the parameters that the nested stacks have.
    pub(super) fn deploy(
        &self,
        template: &Path,
        delivery: Delivery,
        without: &[Without],
    ) -> Result<String> {
        self.run(&["s3", "mb", BUCKET])?;
        let mut given = vec![("Architecture", json!(Arch::here().name()))];
        given.push(("ApiAuthorization", json!("NONE")));
        match delivery {
            Delivery::Direct => self.deploy_nested(template, &given, without)?,
            Delivery::Queue => {
                // The other choices of the templates, all together.
                given.push(("ViewDelivery", json!(delivery.name())));
                self.run(&["kms", "create-key"])?;
                given.push(("KmsKeyArn", json!(self.key()?)));
                given.push(("StreamMode", json!("ON_DEMAND")));
                // A dead letter after 30 s.
                given.push(("ViewQueueReceives", json!(2)));
                self.deploy_each(template, &given, without)?;
            }
        }
        self.output("ApiId")
    }

    fn deploy_nested(
        &self,
        template: &Path,
        given: &[(&str, Value)],
        without: &[Without],
    ) -> Result<()> {
        let packaged = self.log.with_file_name(PACKAGED);
        self.package(template, &packaged)?;
        if !without.is_empty() {
            let mut root: Value = serde_json::from_reader(File::open(&packaged)?)?;
            for (id, part) in self.parts(template, given, without)? {
                root["Resources"][&id]["Properties"]["TemplateURL"] = json!(part.file);
            }
            fs::write(&packaged, serde_json::to_vec_pretty(&root)?)?;
            self.package(&packaged, &packaged)?;
        }
        let overrides = given.iter().map(|(name, value)| format!("{name}={}", as_text(value)));
        self.deploy_with(NAME, &packaged, &overrides.collect::<Vec<_>>())
    }

    fn deploy_each(
        &self,
        template: &Path,
        given: &[(&str, Value)],
        without: &[Without],
    ) -> Result<()> {
        let mut parts = self.parts(template, given, without)?;
        let core = parts.remove(CORE).context("the template nests no core")?;
        self.deploy_with(NAME, &core.file, &core.overrides)?;
        for (id, part) in parts {
            self.deploy_with(&stack_of(&id), &part.file, &part.overrides)?;
        }
        Ok(())
    }

    /// Deploys the view of another team beside the stack, by the template of one view.
    pub(super) fn deploy_guest(
        &self,
        template: &Path,
        program: &Path,
        delivery: Delivery,
    ) -> Result<()> {
        let file = self.log.with_file_name("guest.yaml");
        let text = fs::read_to_string(template.with_file_name("view.yaml"))?;
        let is_code = |line: &str| line.trim_start().starts_with("Code: ");
        ensure!(text.lines().filter(|line| is_code(line)).count() == 1, "a view has one function");
        let lines = text.lines().map(|line| match line.split_once("Code: ") {
            Some((indent, _)) if is_code(line) => format!("{indent}Code: {}\n", program.display()),
            _ => format!("{line}\n"),
        });
        fs::write(&file, lines.collect::<String>())?;
        let packaged = self.log.with_file_name("guest.json");
        self.package(&file, &packaged)?;
        let mut overrides = vec![
            format!("Core={NAME}"),
            "View=deposits".to_owned(),
            "ViewVersion=1".to_owned(),
            format!("Architecture={}", Arch::here().name()),
            format!("ViewDelivery={}", delivery.name()),
        ];
        if delivery == Delivery::Queue {
            overrides.push(format!("KmsKeyArn={}", self.key()?));
        }
        self.deploy_with(&stack_of(GUEST), &packaged, &overrides)
    }

    /// Packages each nested template for itself, without some of its parts.
    fn parts(
        &self,
        template: &Path,
        given: &[(&str, Value)],
        without: &[Without],
    ) -> Result<BTreeMap<String, Part>> {
        let stacks = Stacks::read(template, &[("AWS::StackName", json!(NAME))], given)?;
        let nested = stacks.root().of_type("AWS::CloudFormation::Stack")?;
        let mut parts = BTreeMap::new();
        for (id, of) in &nested {
            let file = self.log.with_file_name(format!("{id}.json"));
            self.package(&template.with_file_name(as_text(&of["TemplateURL"])), &file)?;
            let mut body: Value = serde_json::from_reader(File::open(&file)?)?;
            for without in without {
                // The names of core's resources have no prefix.
                let of_view = |id: &String| without.within(id).filter(|_| id != CORE);
                match (id.as_str(), nested.keys().find_map(of_view)) {
                    (CORE, None) => without.apply(&mut body)?,
                    (CORE, Some(_)) => {}
                    _ => of_view(id).map_or(Ok(()), |own| own.apply(&mut body))?,
                }
            }
            fs::write(&file, serde_json::to_vec_pretty(&body)?)?;
            let parameters = of["Parameters"].as_object().into_iter().flatten();
            let some = parameters.filter(|(_, value)| *value != "");
            let overrides = some.map(|(name, value)| format!("{name}={}", as_text(value)));
            parts.insert(id.clone(), Part { file, overrides: overrides.collect() });
        }
        Ok(parts)
    }

    fn package(&self, template: &Path, packaged: &Path) -> Result<()> {
        let [template, path] = [template, packaged].map(|path| path.to_string_lossy());
        let bucket = BUCKET.trim_start_matches("s3://");
        let package = ["cloudformation", "package", "--use-json", "--template-file", &template];
        let into = ["--s3-bucket", bucket, "--output-template-file", &path];
        self.run(&[&package[..], &into].concat())
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
    fn deploy_with(&self, stack: &str, packaged: &Path, overrides: &[String]) -> Result<()> {
        let (bucket, packaged) = (BUCKET.trim_start_matches("s3://"), packaged.to_string_lossy());
        let deploy = ["cloudformation", "deploy", "--template-file", &packaged];
        let into = ["--s3-bucket", bucket, "--stack-name", stack];
        let may = ["--capabilities", "CAPABILITY_IAM", "--parameter-overrides"];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let deployed = self.run(&[&deploy[..], &into, &may, &overrides].concat());
        if deployed.is_err() {
            // Only the stack's events say which resource failed, and why. There may be no stack.
            let _ = self.run(&["cloudformation", "describe-stack-events", "--stack-name", stack]);
        }
        deployed
    }

    /// Tears down as `infra/operate.md` says. Only the packages may be left.
    pub(super) fn tear_down(&self, delivery: Delivery) -> Result<()> {
        let journal = self.output("JournalTableName")?;
        let describe = ["dynamodb", "describe-table", "--table-name", &journal];
        let is_protected = || -> Result<bool> {
            Ok(self.read(&describe)?["Table"]["DeletionProtectionEnabled"] == true)
        };
        ensure!(is_protected()?, "the journal of a new stack is not protected");
        self.delete(&stack_of(GUEST))?;
        match delivery {
            // The emulator cannot update a nested stack: resources that do not change lose their
            // attributes.
            Delivery::Direct => {
                for table in ["commands", "journal", "parked", "timeline"] {
                    let table = format!("{NAME}-{table}");
                    let off = ["--no-deletion-protection-enabled"];
                    let update = ["dynamodb", "update-table", "--table-name", &table];
                    self.run(&[&update[..], &off].concat())?;
                }
            }
            Delivery::Queue => {
                let core = self.log.with_file_name(format!("{CORE}.json"));
                self.deploy_with(NAME, &core, &["DeletionProtection=false".to_owned()])?;
                for view in ["Balances", "Statement", "Totals"] {
                    self.delete(&stack_of(view))?;
                }
            }
        }
        ensure!(!is_protected()?, "the journal is still protected");
        self.delete(NAME)?;
        let tables = self.read(&["dynamodb", "list-tables"])?;
        ensure!(tables["TableNames"] == json!([]), "tables are left: {tables}");
        Ok(())
    }

    fn delete(&self, stack: &str) -> Result<()> {
        self.run(&["cloudformation", "delete-stack", "--stack-name", stack])?;
        self.run(&["cloudformation", "wait", "stack-delete-complete", "--stack-name", stack])
    }

    /// The ARN of the only key.
    fn key(&self) -> Result<String> {
        let keys = self.read(&["kms", "list-keys"])?;
        let arn = keys.pointer("/Keys/0/KeyArn").and_then(Value::as_str);
        Ok(arn.context("there is no key")?.to_owned())
    }
}
