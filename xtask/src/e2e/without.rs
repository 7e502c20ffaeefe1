//! Removes one part from the template, so that a scenario must fail.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The part to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Without {
    /// `<resource>`: the whole resource.
    Resource(String),
    /// `<function>.<event>`: what invokes the function.
    Event(String, String),
    /// `<role>.<service:Action>`: the action, in every statement of the role.
    Action(String, String),
}

impl FromStr for Without {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (resource, part) = match text.split_once('.') {
            None => (text, None),
            Some((resource, part)) => (resource, Some(part.to_owned())),
        };
        ensure!(!resource.is_empty(), "it begins with no name of a resource");
        let resource = resource.to_owned();
        Ok(match part {
            None => Self::Resource(resource),
            Some(action) if action.contains(':') => Self::Action(resource, action),
            Some(event) => Self::Event(resource, event),
        })
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => f.write_str(resource),
            Self::Event(resource, part) | Self::Action(resource, part) => {
                write!(f, "{resource}.{part}")
            }
        }
    }
}

impl Without {
    /// Removes the part from a template in JSON. It is an error if the template does not have it.
    pub(crate) fn apply(&self, template: &mut Value) -> Result<()> {
        let resources = template.pointer_mut("/Resources").and_then(Value::as_object_mut);
        let resources = resources.context("the template has no resources")?;
        let taken = match self {
            Self::Resource(name) => resources.remove(name).is_some(),
            Self::Event(function, event) => resources
                .get_mut(function)
                .and_then(|function| function.pointer_mut("/Properties/Events"))
                .and_then(Value::as_object_mut)
                .is_some_and(|events| events.remove(event).is_some()),
            Self::Action(role, action) => {
                resources.get_mut(role).is_some_and(|role| take_action(role, action))
            }
        };
        ensure!(taken, "the template has no {self}");
        Ok(())
    }
}

/// An action that needs no permission. A statement must name at least one action.
const NOTHING: &str = "sts:GetCallerIdentity";

/// Replaces the action in all statements in `value`. Returns whether there was one.
fn take_action(value: &mut Value, action: &str) -> bool {
    match value {
        Value::String(text) if text == action => {
            NOTHING.clone_into(text);
            true
        }
        Value::Array(values) => {
            values.iter_mut().filter_map(|value| taken(value, action)).count() > 0
        }
        Value::Object(fields) => {
            fields.values_mut().filter_map(|value| taken(value, action)).count() > 0
        }
        _ => false,
    }
}

fn taken(value: &mut Value, action: &str) -> Option<()> {
    take_action(value, action).then_some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        let statement = |action: Value, of: &str| json!({"Action": action, "Resource": of});
        json!({"Resources": {
            "Mapping": {"Type": "AWS::Lambda::EventSourceMapping"},
            "Relay": {"Properties": {"Events": {"Changes": {}, "Other": {}}}},
            "Role": {"Properties": {"Policies": [{"PolicyDocument": {"Statement": [
                statement(json!(["dynamodb:PutItem", "dynamodb:Query"]), "a"),
                statement(json!("dynamodb:PutItem"), "b"),
                {"Fn::If": ["HasKey", statement(json!(["dynamodb:PutItem"]), "c"), {}]},
                statement(json!("sns:Publish"), "d"),
            ]}}]}},
        }})
    }

    #[test]
    fn only_the_named_part_is_removed() {
        let statements = "/Resources/Role/Properties/Policies/0/PolicyDocument/Statement";
        let cases: &[(&str, &str, Value)] = &[
            ("Mapping", "/Resources/Mapping", Value::Null),
            ("Relay.Changes", "/Resources/Relay/Properties/Events", json!({"Other": {}})),
            (
                "Role.dynamodb:PutItem",
                statements,
                json!([
                    {"Action": [NOTHING, "dynamodb:Query"], "Resource": "a"},
                    {"Action": NOTHING, "Resource": "b"},
                    {"Fn::If": ["HasKey", {"Action": [NOTHING], "Resource": "c"}, {}]},
                    {"Action": "sns:Publish", "Resource": "d"},
                ]),
            ),
        ];
        for (name, pointer, left) in cases {
            let without: Without = name.parse().expect("it is a name");
            assert_eq!(without.to_string(), *name);
            let mut template = template();
            without.apply(&mut template).expect("it is there");
            let is = template.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(is, *left, "{name}");
            without.apply(&mut template).expect_err("it is gone");
        }
    }

    #[test]
    fn removing_a_missing_part_is_an_error() {
        for name in ["Nothing", "Relay.Nothing", "Role.sns:Nothing", "Mapping.sns:Publish"] {
            let without: Without = name.parse().expect("it is a name");
            let before = template();
            let mut after = before.clone();
            without.apply(&mut after).expect_err(name);
            assert_eq!(after, before, "{name}");
        }
        assert!("".parse::<Without>().is_err());
    }
}
