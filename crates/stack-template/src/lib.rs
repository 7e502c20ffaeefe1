//! Evaluates a template of CloudFormation (with SAM's functions and globals): parameters,
//! conditions, references, loops.
//!
//! It supports the intrinsic functions that `infra/template.yaml` uses, and refuses others. It
//! makes no resources: [`Template::define`] gives the value of a reference, and a reference without
//! one evaluates to its own text (`Topic`, `Stream.Arn`).

mod for_each;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::for_each::expand;

/// Why a template cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
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
    /// The values of references.
    known: BTreeMap<String, Value>,
}

impl Template {
    /// Parses a template in YAML. Parameters have their defaults.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut yaml: Yaml = serde_yaml_ng::from_str(text)?;
        yaml.apply_merge()?;
        let mut body = plain(&yaml)?;
        expand(&mut body);
        let declared = body["Parameters"].as_object().into_iter().flatten();
        let known = declared.map(|(name, of)| (name.clone(), of["Default"].clone())).collect();
        Ok(Self { body, known })
    }

    /// Sets a parameter, if it allows the value.
    pub fn set(&mut self, parameter: &str, value: &str) -> Result<(), TemplateError> {
        let of = &self.body["Parameters"][parameter];
        if of.is_null() {
            return Err(TemplateError::Missing(format!("parameter {parameter}")));
        }
        if of["AllowedValues"].as_array().is_some_and(|allowed| !allowed.contains(&json!(value))) {
            let (parameter, value) = (parameter.to_owned(), value.to_owned());
            return Err(TemplateError::NotAllowed { parameter, value });
        }
        self.define(parameter, json!(value));
        Ok(())
    }

    /// Sets the value of a reference: `AWS::StackName`, `Topic` (of a `Ref`), `Topic.Arn` (of a
    /// `GetAtt`).
    pub fn define(&mut self, reference: &str, value: Value) {
        self.known.insert(reference.to_owned(), value);
    }

    /// A parameter's declaration.
    pub fn parameter(&self, name: &str) -> &Value {
        &self.body["Parameters"][name]
    }

    /// The values that a parameter allows.
    pub fn allowed(&self, parameter: &str) -> Result<Vec<String>, TemplateError> {
        let allowed = self.body["Parameters"][parameter]["AllowedValues"].as_array();
        let missing = || TemplateError::Missing(format!("list of values for {parameter}"));
        Ok(allowed.ok_or_else(missing)?.iter().map(as_text).collect())
    }

    /// The resources of the stack whose conditions hold, evaluated, by their logical ids.
    pub fn resources(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let mut resources = BTreeMap::new();
        for (id, of) in self.body["Resources"].as_object().into_iter().flatten() {
            let is_there = of["Condition"].as_str().map_or(Ok(true), |name| self.holds(name));
            if is_there? {
                resources.insert(id.clone(), self.value(of)?.unwrap_or_default());
            }
        }
        Ok(resources)
    }

    /// The properties of the resources of a type, by their logical ids.
    pub fn of_type(&self, kind: &str) -> Result<BTreeMap<String, Value>, TemplateError> {
        let all = self.resources()?.into_iter().filter(|(_, of)| of["Type"] == kind);
        Ok(all.map(|(id, of)| (id, of["Properties"].clone())).collect())
    }

    /// The properties of the functions, with the globals merged in, by their logical ids.
    pub fn functions(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let global = self.value(&self.body["Globals"]["Function"])?.unwrap_or_default();
        let mut functions = self.of_type("AWS::Serverless::Function")?;
        for properties in functions.values_mut() {
            let own = std::mem::replace(properties, global.clone());
            merge(properties, own);
        }
        Ok(functions)
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
            _ => Some(self.known.get(name).cloned().unwrap_or_else(|| json!(name))),
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

fn merge(into: &mut Value, own: Value) {
    match (into, own) {
        (Value::Object(into), Value::Object(own)) => {
            for (key, value) in own {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, own) => *into = own,
    }
}
