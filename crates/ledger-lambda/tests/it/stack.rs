//! The template as CloudFormation makes it of parameters: conditions decided, references replaced.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::for_each::expand;

/// The stack's name.
pub(crate) const STACK: &str = "shop";

/// A template with its parameters' values.
pub(crate) struct Template {
    body: Value,
    parameters: BTreeMap<String, Value>,
}

impl Template {
    /// The template with its defaults, but for these parameters.
    pub(crate) fn with(given: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
        let text = std::fs::read_to_string(&path).expect("the template is there");
        let mut yaml: Yaml = serde_yaml_ng::from_str(&text).expect("the template is YAML");
        yaml.apply_merge().expect("merge keys name mappings");
        let mut body = plain(&yaml);
        expand(&mut body);
        let declared = body["Parameters"].as_object().expect("it has parameters");
        let default = |(name, of): (&String, &Value)| (name.clone(), of["Default"].clone());
        let mut parameters: BTreeMap<_, _> = declared.iter().map(default).collect();
        for (name, value) in given {
            let of = &declared[*name];
            if let Some(allowed) = of["AllowedValues"].as_array() {
                assert!(allowed.contains(&json!(value)), "{name} may not be {value}");
            }
            parameters.insert((*name).to_owned(), json!(value));
        }
        Self { body, parameters }
    }

    /// The values that a parameter may have.
    pub(crate) fn allowed(&self, parameter: &str) -> Vec<String> {
        let allowed = self.body["Parameters"][parameter]["AllowedValues"].as_array();
        let allowed = allowed.expect("the parameter has a list of them").iter();
        allowed.map(|value| value.as_str().expect("they are strings").to_owned()).collect()
    }

    /// A parameter, as it is declared.
    pub(crate) fn parameter(&self, name: &str) -> Value {
        self.body["Parameters"][name].clone()
    }

    /// The resources that this stack has, by their logical ids.
    pub(crate) fn resources(&self) -> BTreeMap<String, Value> {
        let all = self.body["Resources"].as_object().expect("it has resources");
        let there = all.iter().filter(|(_, of)| {
            of["Condition"].as_str().is_none_or(|condition| self.holds(condition))
        });
        there.map(|(id, of)| (id.clone(), self.value(of).unwrap_or_default())).collect()
    }

    /// The resources of a type, by their logical ids, with their properties.
    pub(crate) fn of_type(&self, kind: &str) -> BTreeMap<String, Value> {
        let all = self.resources().into_iter().filter(|(_, of)| of["Type"] == kind);
        all.map(|(id, of)| (id, of["Properties"].clone())).collect()
    }

    /// The functions by their logical ids, with what is the same for all.
    pub(crate) fn functions(&self) -> BTreeMap<String, Value> {
        let global = self.value(&self.body["Globals"]["Function"]).unwrap_or_default();
        let mut functions = self.of_type("AWS::Serverless::Function");
        for properties in functions.values_mut() {
            let own = std::mem::replace(properties, global.clone());
            merge(properties, own);
        }
        functions
    }

    fn holds(&self, condition: &str) -> bool {
        let body = &self.body["Conditions"][condition];
        assert!(body.is_object(), "there is no condition {condition}");
        self.value(body) == Some(json!(true))
    }

    /// `None`: the property is not there.
    fn value(&self, of: &Value) -> Option<Value> {
        match of {
            Value::Array(items) => Some(items.iter().filter_map(|item| self.value(item)).collect()),
            Value::Object(fields) => match fields.iter().next() {
                Some((name, with)) if name == "Ref" || name.starts_with("Fn::") => {
                    self.function(name, with)
                }
                _ => {
                    let kept = fields.iter().filter_map(|(k, v)| Some((k.clone(), self.value(v)?)));
                    Some(Value::Object(kept.collect()))
                }
            },
            other => Some(other.clone()),
        }
    }

    fn function(&self, name: &str, with: &Value) -> Option<Value> {
        match name {
            "Ref" => self.reference(with.as_str().expect("Ref has a name")),
            "Fn::GetAtt" => Some(with.clone()),
            "Fn::Sub" => Some(json!(self.substitute(with.as_str().expect("Sub has a text")))),
            "Fn::If" => {
                let holds = self.holds(with[0].as_str().expect("If has a condition"));
                self.value(&with[if holds { 1 } else { 2 }])
            }
            // CloudFormation compares texts: a parameter's value is one, of whatever type.
            "Fn::Equals" => {
                let text = |of| self.value(of).map(|value| as_text(&value));
                Some(json!(text(&with[0]) == text(&with[1])))
            }
            "Fn::Not" => Some(json!(self.value(&with[0]) != Some(json!(true)))),
            "Fn::FindInMap" => {
                let keys: Vec<String> =
                    (0..3).map(|at| as_text(&self.value(&with[at]).unwrap_or_default())).collect();
                let found = &self.body["Mappings"][&keys[0]][&keys[1]][&keys[2]];
                assert!(!found.is_null(), "there is nothing at {keys:?}");
                Some(found.clone())
            }
            _ => panic!("this test does not know {name}"),
        }
    }

    fn reference(&self, name: &str) -> Option<Value> {
        match name {
            "AWS::NoValue" => None,
            "AWS::StackName" => Some(json!(STACK)),
            _ => Some(self.parameters.get(name).cloned().unwrap_or_else(|| json!(name))),
        }
    }

    /// What is not a parameter or the stack's name stays as it is, without the braces.
    fn substitute(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("the brace is closed");
            out.push_str(before);
            out.push_str(&as_text(&self.reference(name).unwrap_or_default()));
            rest = after;
        }
        out + rest
    }
}

/// A value as CloudFormation writes it into a text.
pub(crate) fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The short forms (`!Ref`) as the long ones (`{"Ref": …}`).
fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Tagged(tagged) => {
            let name = tagged.tag.to_string();
            let name = name.trim_start_matches('!');
            let name = if name == "Ref" { name.to_owned() } else { format!("Fn::{name}") };
            json!({ name: plain(&tagged.value) })
        }
        Yaml::Mapping(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                let key = key.as_str().expect("keys are strings").to_owned();
                out.insert(key, plain(value));
            }
            Value::Object(out)
        }
        Yaml::Sequence(items) => items.iter().map(plain).collect(),
        other => serde_json::to_value(other).expect("scalars are the same in JSON"),
    }
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
