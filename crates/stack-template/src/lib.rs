//! Evaluates templates of CloudFormation: parameters, conditions, references, nested stacks.
//!
//! It supports the intrinsic functions that the templates of `infra` use, and refuses others. It
//! makes no resources: [`Stacks::define`] gives the value of a reference, and a reference without
//! one evaluates to its own text (`Topic`, `Stream.Arn`).

mod stacks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

pub use crate::stacks::Stacks;

/// Why a template cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// It is not YAML.
    #[error("the template is not YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// A value that JSON cannot represent.
    #[error("the template has a value that JSON cannot represent")]
    Scalar(#[from] serde_json::Error),
    /// A required part is missing.
    #[error("the template has no {0}")]
    Missing(String),
    /// A value that the parameter does not allow.
    #[error("the parameter {parameter} does not allow `{value}`")]
    NotAllowed {
        /// The parameter.
        parameter: String,
        /// The value.
        value: String,
    },
    /// A function of CloudFormation, or a form of it, that this crate does not support.
    #[error("cannot evaluate {0}")]
    Function(String),
}

/// A template with its parameters' values.
#[derive(Debug, Clone)]
pub struct Template {
    body: Value,
    /// Stands before the logical ids of its resources.
    prefix: String,
    /// The values of references.
    known: BTreeMap<String, Value>,
}

impl Template {
    /// Parses a template in YAML. Parameters have their defaults.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut yaml: Yaml = serde_yaml_ng::from_str(text)?;
        // What is merged may have merges of its own, which stay.
        loop {
            let before = yaml.clone();
            yaml.apply_merge()?;
            if yaml == before {
                break;
            }
        }
        let body = plain(&yaml)?;
        let declared = body["Parameters"].as_object().into_iter().flatten();
        let known = declared.map(|(name, of)| (name.clone(), of["Default"].clone())).collect();
        Ok(Self { body, prefix: String::new(), known })
    }

    /// Reads a template from a file in YAML.
    pub fn read(path: &Path) -> Result<Self, TemplateError> {
        let file = |error| TemplateError::File { path: path.to_owned(), error };
        Self::parse(&std::fs::read_to_string(path).map_err(file)?)
    }

    /// Sets a parameter, if it allows the value.
    pub fn set(&mut self, parameter: &str, value: Value) -> Result<(), TemplateError> {
        let of = &self.body["Parameters"][parameter];
        if of.is_null() {
            return Err(TemplateError::Missing(format!("parameter {parameter}")));
        }
        let is = |allowed: &Value| as_text(allowed) == as_text(&value);
        if of["AllowedValues"].as_array().is_some_and(|allowed| !allowed.iter().any(is)) {
            let (parameter, value) = (parameter.to_owned(), as_text(&value));
            return Err(TemplateError::NotAllowed { parameter, value });
        }
        self.define(parameter, value);
        Ok(())
    }

    /// Sets the value of a reference: `AWS::StackName`, `Topic` (of a `Ref`), `Topic.Arn` (of a
    /// `GetAtt`).
    pub fn define(&mut self, reference: &str, value: Value) {
        self.known.insert(reference.to_owned(), value);
    }

    /// The declarations of its parameters, by their names.
    pub fn parameters(&self) -> BTreeMap<String, Value> {
        let declared = self.body["Parameters"].as_object().into_iter().flatten();
        declared.map(|(name, of)| (name.clone(), of.clone())).collect()
    }

    /// The values of its outputs, by their names.
    pub fn outputs(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let outputs = self.body["Outputs"].as_object().into_iter().flatten();
        let value = |(name, of): (&String, &Value)| {
            Ok((name.clone(), self.value(&of["Value"])?.unwrap_or_default()))
        };
        outputs.map(value).collect()
    }

    /// The resources of the stack whose conditions hold, evaluated, by their logical ids.
    pub fn resources(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let mut resources = BTreeMap::new();
        for (id, of) in self.body["Resources"].as_object().into_iter().flatten() {
            let is_there = of["Condition"].as_str().map_or(Ok(true), |name| self.holds(name));
            if is_there? {
                let id = format!("{}{id}", self.prefix);
                resources.insert(id, self.value(of)?.unwrap_or_default());
            }
        }
        Ok(resources)
    }

    /// The properties of the resources of a type, by their logical ids.
    pub fn of_type(&self, kind: &str) -> Result<BTreeMap<String, Value>, TemplateError> {
        Ok(of_type(self.resources()?, kind))
    }

    fn holds(&self, condition: &str) -> Result<bool, TemplateError> {
        let body = &self.body["Conditions"][condition];
        if !body.is_object() {
            return Err(TemplateError::Missing(format!("condition {condition}")));
        }
        Ok(self.value(body)? == Some(json!(true)))
    }

    /// Evaluates a value. `None`: the property is absent (`AWS::NoValue`).
    fn value(&self, of: &Value) -> Result<Option<Value>, TemplateError> {
        match of {
            Value::Array(items) => {
                let values = items.iter().map(|item| self.value(item));
                let values: Result<Vec<_>, _> = values.filter_map(Result::transpose).collect();
                Ok(Some(Value::Array(values?)))
            }
            Value::Object(fields) => match fields.iter().next() {
                Some((name, with)) if name == "Ref" || name.starts_with("Fn::") => {
                    self.function(name, with)
                }
                _ => {
                    let mut kept = Map::new();
                    for (key, of) in fields {
                        if let Some(value) = self.value(of)? {
                            kept.insert(key.clone(), value);
                        }
                    }
                    Ok(Some(Value::Object(kept)))
                }
            },
            other => Ok(Some(other.clone())),
        }
    }

    fn function(&self, name: &str, with: &Value) -> Result<Option<Value>, TemplateError> {
        let not_known = || TemplateError::Function(format!("{name} {with}"));
        let text = |of: &Value| of.as_str().map(str::to_owned).ok_or_else(not_known);
        Ok(match name {
            "Ref" | "Fn::GetAtt" => self.reference(&text(with)?),
            "Fn::Sub" => Some(json!(self.substitute(&text(with)?).ok_or_else(not_known)?)),
            "Fn::If" => {
                let holds = self.holds(&text(&with[0])?)?;
                self.value(&with[if holds { 1 } else { 2 }])?
            }
            // CloudFormation compares strings: a parameter's value is one, whatever its type.
            "Fn::Equals" => {
                let text = |of: &Value| -> Result<Option<String>, TemplateError> {
                    Ok(self.value(of)?.map(|value| as_text(&value)))
                };
                Some(json!(text(&with[0])? == text(&with[1])?))
            }
            "Fn::Not" => Some(json!(self.value(&with[0])? != Some(json!(true)))),
            "Fn::FindInMap" => {
                let mut found = &self.body["Mappings"];
                for place in 0..3 {
                    found = &found[as_text(&self.value(&with[place])?.unwrap_or_default())];
                }
                if found.is_null() {
                    return Err(TemplateError::Missing(format!("entry of a mapping for {with}")));
                }
                Some(found.clone())
            }
            _ => return Err(not_known()),
        })
    }

    fn reference(&self, name: &str) -> Option<Value> {
        match name {
            "AWS::NoValue" => None,
            _ => {
                let resource = name.split_once('.').map_or(name, |(resource, _)| resource);
                let is_own = !self.body["Resources"][resource].is_null();
                let name = if is_own { self.prefix.clone() + name } else { name.to_owned() };
                Some(self.known.get(&name).cloned().unwrap_or_else(|| json!(name)))
            }
        }
    }

    /// Evaluates the text of a `Fn::Sub`. `None`: a brace is not closed.
    fn substitute(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}')?;
            out.push_str(before);
            out.push_str(&as_text(&self.reference(name).unwrap_or_default()));
            rest = after;
        }
        Some(out + rest)
    }
}

fn of_type(resources: BTreeMap<String, Value>, kind: &str) -> BTreeMap<String, Value> {
    let all = resources.into_iter().filter(|(_, of)| of["Type"] == kind);
    all.map(|(id, of)| (id, of["Properties"].clone())).collect()
}

/// A value as CloudFormation writes it into a string.
pub fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Converts YAML to JSON, and the short forms (`!Ref`) to the long ones (`{"Ref": …}`).
fn plain(yaml: &Yaml) -> Result<Value, TemplateError> {
    Ok(match yaml {
        Yaml::Tagged(tagged) => {
            let name = tagged.tag.to_string();
            let name = name.trim_start_matches('!');
            let name = if name == "Ref" { name.to_owned() } else { format!("Fn::{name}") };
            json!({ name: plain(&tagged.value)? })
        }
        Yaml::Mapping(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                let key =
                    key.as_str().ok_or_else(|| TemplateError::Function(format!("{key:?}")))?;
                out.insert(key.to_owned(), plain(value)?);
            }
            Value::Object(out)
        }
        Yaml::Sequence(items) => Value::Array(items.iter().map(plain).collect::<Result<_, _>>()?),
        other => serde_json::to_value(other)?,
    })
}
