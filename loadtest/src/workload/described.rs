//! Compares a workload file with the description of its target, before anything is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use super::program::{Program, Rendered, Step, WorkloadError};
use super::source::{cut, render_all};
use crate::description::Description;

/// How often each command of the mix is rendered: often enough that a field which is wrong in one of
/// four cases is found with 99 %. It takes less than a millisecond.
const SAMPLES: u64 = 16;

/// Compares the service, the commands and samples of their data. Returns notes on what cannot be
/// compared.
pub(crate) fn check(
    program: &Arc<Program>,
    description: &Description<'_>,
) -> Result<Vec<String>, WorkloadError> {
    let service = &program.service;
    if !description.services.contains(&service.as_str()) {
        let services = listed(description.services.iter());
        let what = format!("the target has no service `{service}`; it has {services}");
        return Err(program.of_service(what));
    }
    let commands = description.commands(service);
    for step in program.setup.iter().chain(&program.mix) {
        if !commands.contains_key(&*step.command) {
            let (command, all) = (&step.command, listed(commands.keys()));
            let what = format!("the service `{service}` has no command `{command}`; it has {all}");
            return Err(program.content(step, what));
        }
    }
    let (mut schemas, mut notes) = (BTreeMap::new(), Vec::new());
    for step in program.setup.iter().chain(&program.mix) {
        let command = &*step.command;
        if schemas.contains_key(command) {
            continue;
        }
        match Schema::of(description, commands[command]) {
            Ok(schema) => drop(schemas.insert(command, schema)),
            Err(error) => notes.push(format!(
                "the data of the command `{command}` are not compared with its schema, which \
                 cannot be read: {error}"
            )),
        }
    }
    render_all(program, SAMPLES, |step, rendered| match schemas.get(&*step.command) {
        Some(schema) => schema.check(program, step, rendered),
        None => Ok(()),
    })?;
    notes.dedup();
    Ok(notes)
}

/// The schema of a command's data.
struct Schema {
    validator: Validator,
    /// The fields, in alphabetical order.
    fields: Vec<String>,
}

impl Schema {
    fn of(description: &Description<'_>, data: &Value) -> Result<Self, String> {
        let data = description.object(data);
        // Formats are left to the target: it may read more than they allow, such as a time without
        // seconds.
        let options = jsonschema::options().with_draft(Draft::Draft202012);
        let validator = options.should_validate_formats(false).build(&description.whole(data));
        let members = data.get("properties").and_then(Value::as_object);
        let mut fields: Vec<String> =
            members.into_iter().flat_map(|all| all.keys().cloned()).collect();
        fields.sort_unstable();
        Ok(Self { validator: validator.map_err(|error| error.to_string())?, fields })
    }

    fn check(
        &self,
        program: &Program,
        step: &Step,
        rendered: &Rendered,
    ) -> Result<(), WorkloadError> {
        let data: Value = serde_json::from_str(&rendered.data).expect("it is JSON");
        match self.validator.validate(&data) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.error(program, step, &error)),
        }
    }

    fn error(&self, program: &Program, step: &Step, error: &ValidationError<'_>) -> WorkloadError {
        let pointer = error.instance_path().as_str();
        let mut path: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
        let is_top = path.is_empty();
        let what = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                path.extend(unexpected.first().cloned());
                let known = match (is_top, self.fields.is_empty()) {
                    (true, true) => "; the command has no fields".to_owned(),
                    (true, false) => format!("; the command has {}", listed(self.fields.iter())),
                    (false, _) => String::new(),
                };
                format!("there is no such field{known}")
            }
            ValidationErrorKind::Required { property } => {
                path.push(property.as_str().unwrap_or_default().to_owned());
                "it is missing, and must be given".to_owned()
            }
            _ => {
                let value = cut(&error.instance().to_string());
                format!("it is rendered as {value}, and {}", error.masked_with("it"))
            }
        };
        let field = path.iter().fold("data".to_owned(), |field, part| format!("{field}.{part}"));
        WorkloadError::Template {
            path: program.path().to_owned(),
            line: step.line_of(path.iter().map(String::as_str)),
            command: step.command.to_string(),
            field,
            what,
        }
    }
}

/// A part of a JSON pointer.
fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Names for a message.
fn listed<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{}`", name.as_ref())).collect();
    names.join(", ")
}
