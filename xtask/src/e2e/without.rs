//! Removes one part from the templates, so that a scenario must fail.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The part to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Without {
    /// `<resource>`: the whole resource, and those that refer to it.
    Resource(String),
    /// `<role>.<service:Action>`: the action, in every statement of the role.
    Action(String, String),
}

impl FromStr for Without {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (resource, action) = match text.split_once('.') {
            None => (text, None),
            Some((resource, action)) => (resource, Some(action.to_owned())),
        };
        ensure!(!resource.is_empty(), "it begins with no name of a resource");
        let resource = resource.to_owned();
        Ok(match action {
            None => Self::Resource(resource),
            Some(action) => {
                ensure!(action.contains(':'), "`{action}` is no `service:Action`");
                Self::Action(resource, action)
            }
        })
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => f.write_str(resource),
            Self::Action(resource, action) => write!(f, "{resource}.{action}"),
        }
    }
}

impl Without {
    /// The same part within the stack that is nested under this id, whose resources have names that
    /// begin with the id. `None`: the part is not of that stack.
    pub(crate) fn within(&self, stack: &str) -> Option<Self> {
        let own = |name: &str| name.strip_prefix(stack).map(str::to_owned);
        Some(match self {
            Self::Resource(name) => Self::Resource(own(name)?),
            Self::Action(role, action) => Self::Action(own(role)?, action.clone()),
        })
    }

    /// Removes the part from a template in JSON. It is an error if the template does not have it.
    pub(crate) fn apply(&self, template: &mut Value) -> Result<()> {
        let resources = template.pointer_mut("/Resources").and_then(Value::as_object_mut);
        let resources = resources.context("the template has no resources")?;
        let taken = match self {
            Self::Resource(name) => {
                let taken = resources.remove(name).is_some();
                resources.retain(|_, of| !refers(of, name));
                taken
            }
            Self::Action(role, action) => {
                resources.get_mut(role).is_some_and(|role| take_action(role, action))
            }
        };
        ensure!(taken, "the template has no {self}");
        Ok(())
    }
}

/// Whether a value has a `Ref` or a `Fn::GetAtt` of this resource.
fn refers(value: &Value, resource: &str) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| refers(value, resource)),
        Value::Object(fields) => {
            fields.get("Ref").is_some_and(|of| of == resource)
                || fields.get("Fn::GetAtt").is_some_and(|of| of[0] == resource)
                || fields.values().any(|value| refers(value, resource))
        }
        _ => false,
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
            "Alarm": {"Properties": {"Value": {"Ref": "Mapping"}}},
            "Permission": {"Properties": {"Arns": [{"Fn::GetAtt": ["Mapping", "Arn"]}]}},
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
            ("Mapping", "/Resources/Alarm", Value::Null),
            ("Mapping", "/Resources/Permission", Value::Null),
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
        for name in ["Nothing", "Role.sns:Nothing", "Mapping.sns:Publish"] {
            let without: Without = name.parse().expect("it is a name");
            let before = template();
            let mut after = before.clone();
            without.apply(&mut after).expect_err(name);
            assert_eq!(after, before, "{name}");
        }
        for name in ["", ".sns:Publish", "Role.Nothing"] {
            assert!(name.parse::<Without>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_part_of_a_nested_stack_loses_the_name_of_the_stack() {
        for (name, within) in [
            ("BalancesRole.sns:Publish", Some("Role.sns:Publish")),
            ("BalancesMapping", Some("Mapping")),
            ("RelayRole.sns:Publish", None),
        ] {
            let without: Without = name.parse().expect("it is a name");
            assert_eq!(without.within("Balances").map(|of| of.to_string()).as_deref(), within);
        }
    }
}
