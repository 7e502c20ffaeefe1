//! The stack on another AWS: moto for its tables, streams, topic and queues, and `lambda-host`,
//! which honours `batchItemFailures`, for its Lambdas. Faults can be planted in both.

mod faults;
mod http;
mod plan;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use self::plan::Plan;
use super::emulator::{self, Guarded};
use super::{Built, Clock, Target, say};
use crate::lambdas;

/// Its name in messages.
const NAME: &str = "moto";
/// The load: half of that on ministack, because moto is slower by then.
const COMMANDS: u64 = super::COMMANDS / 2;
/// The script that serves moto. Its docs say what it adds.
const SERVER: &str = "xtask/src/e2e/moto/server.py";

/// The ports, on loopback.
#[derive(Debug, Clone, Copy)]
struct Ports {
    moto: u16,
    front: u16,
    control: u16,
}

/// A running stack. Dropping it ends the host, then moto.
struct Moto<'a> {
    target: Target<'a>,
    ports: Ports,
    _host: Guarded,
    _server: Guarded,
}

/// Runs everything on one stack of moto.
pub(super) fn run(built: &Built, all_faults: bool) -> Result<()> {
    let mut clock = Clock::start(NAME);
    let stack = Moto::start(built)?;
    clock.lap("deployed");
    // Faults first: the sweeps repair sooner while there are few logs.
    faults::run(&stack, all_faults)?;
    clock.lap("the audits passed under faults");
    super::all_scenarios(&stack.target)?;
    clock.lap("the scenarios passed");
    super::operators(&stack.target)?;
    clock.lap("what waited was mended");
    super::audited_load(&stack.target, COMMANDS)?;
    clock.lap(&format!("{COMMANDS} commands were audited"));
    // Breaks something that the others need.
    let alone = ["hosted::", "--ignored", "--test-threads", "1"];
    let held = stack.target.scenarios("hosted", &alone, super::PATIENCE)?;
    stack.target.must("hosted", held)?;
    clock.lap("a change that was lost was repaired");
    let folder = stack.target.folder.clone();
    drop(stack);
    fs::remove_dir_all(folder)?;
    Ok(())
}

impl<'a> Moto<'a> {
    fn start(built: &'a Built) -> Result<Self> {
        let folder = emulator::folder()?;
        say(NAME, &format!("logs: {}", folder.display()));
        let free = emulator::free_port;
        let ports = Ports { moto: free()?, front: free()?, control: free()? };
        let packages = lambdas::folder(built.packages)?;
        let plan = plan::plan(&built.template, &packages, ports, &folder.join("functions"))?;
        let server = serve(built, &folder, ports)?;
        let mut target = Target {
            built,
            name: NAME.to_owned(),
            folder: folder.clone(),
            url: emulator::url(ports.front),
            environment: emulator::environment(ports.moto),
        };
        make(&target, &plan)?;
        target.environment.extend(built.environment());
        target.environment.push(("FANFOLD_CONTROL", emulator::url(ports.control)));
        let config = folder.join("host.json");
        fs::write(&config, serde_json::to_vec_pretty(&plan.host)?)?;
        let (program, log) = (crate::target()?.join("debug/lambda-host"), folder.join("host.log"));
        let host = Guarded::start("lambda-host", &program, ports.control, &log, |command| {
            command.arg(&config);
        })?;
        Ok(Self { target, ports, _host: host, _server: server })
    }

    /// The host's counters.
    fn counts(&self) -> Result<Value> {
        http::ask(self.ports.control, "GET", "/counts", &Value::Null)
    }

    /// Sends a request to the host's control port.
    fn control(&self, path: &str) -> Result<()> {
        http::ask(self.ports.control, "PUT", path, &Value::Null).map(|_| ())
    }

    /// Plants a fault in moto's calls, or removes it. Returns how many calls the last fault met.
    fn fault(&self, fault: Option<&Value>) -> Result<u64> {
        let method = if fault.is_some() { "PUT" } else { "DELETE" };
        let fault = fault.cloned().unwrap_or_default();
        let answer = http::ask(self.ports.moto, method, "/_fault", &fault)?;
        Ok(answer["met"].as_u64().unwrap_or_default())
    }
}

fn serve(built: &Built, folder: &std::path::Path, ports: Ports) -> Result<Guarded> {
    let (program, log) = (built.venv.program("python"), folder.join("moto.log"));
    let script: PathBuf = crate::root()?.join(SERVER);
    Guarded::start("moto", &program, ports.moto, &log, |command| {
        command.arg(script).arg(ports.moto.to_string()).arg(folder.join("refused.log"));
        command.env("TMPDIR", folder).env("PYTHONDONTWRITEBYTECODE", "1");
    })
}

/// Creates the plan's resources and subscriptions.
fn make(target: &Target<'_>, plan: &Plan) -> Result<()> {
    let template = target.folder.join("resources.json");
    fs::write(&template, serde_json::to_vec_pretty(&plan.resources)?)?;
    let body = format!("file://{}", template.display());
    let create = ["cloudformation", "create-stack", "--stack-name", super::NAME];
    aws(target, &[&create[..], &["--template-body", &body]].concat())?;
    for of in &plan.subscriptions {
        let subscribe = ["sns", "subscribe", "--topic-arn", &of.topic, "--protocol", "sqs"];
        let raw = format!("RawMessageDelivery={}", of.is_raw);
        let how = ["--notification-endpoint", &of.queue, "--attributes", &raw];
        aws(target, &[&subscribe[..], &how].concat())?;
    }
    Ok(())
}

fn aws(target: &Target<'_>, arguments: &[&str]) -> Result<()> {
    let mut command = target.built.venv.command("aws");
    let held = target.run("aws", command.args(arguments))?;
    target.must("aws", held)
}
