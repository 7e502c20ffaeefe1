//! What `fanfold doctor` says of the host's settings.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Target};
use crate::console;
use crate::output::Output;

#[derive(Deserialize)]
struct Checked {
    findings: Vec<Finding>,
    unchecked: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    what: String,
    detail: String,
}

/// Prints what is wrong with the host's settings; returns how much that is. A host that has no such checks has nothing to
/// say.
pub(crate) fn show(client: &Client, json: bool, output: &mut Output) -> anyhow::Result<u64> {
    let answer = client.get(&Target::path(&["ops", "doctor", "host"]))?;
    if answer.status == 404 {
        return Ok(0);
    }
    let text: &RawValue = answer.read()?;
    let Checked { findings, unchecked } = serde_json::from_str(text.get())?;
    if json {
        output.bytes(format!("{{\"host\":{text}}}").as_bytes())?;
    }
    for Finding { what, detail } in findings.iter().filter(|_| !json) {
        output.bytes(format!("host {what}: {detail}").as_bytes())?;
    }
    for Finding { what, detail } in unchecked {
        console::print(format_args!("host {what} could not be checked: {detail}"));
    }
    output.flush()?;
    Ok(findings.len() as u64)
}
