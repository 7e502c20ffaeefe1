//! The template of a stack with a name, for tests. Errors panic.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
pub(crate) use stack_template::as_text;

/// The stack's name.
pub(crate) const STACK: &str = "shop";

/// A template with its parameters' values.
pub(crate) struct Template(stack_template::Template);

impl Template {
    /// The template with these parameters, and the defaults of all others.
    pub(crate) fn with(given: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
        let text = std::fs::read_to_string(&path).expect("the template is there");
        let mut template = stack_template::Template::parse(&text).expect("it can be read");
        template.define("AWS::StackName", json!(STACK));
        for (parameter, value) in given {
            template.set(parameter, value).expect("the parameter may have this value");
        }
        Self(template)
    }

    /// The values that a parameter may have.
    pub(crate) fn allowed(&self, parameter: &str) -> Vec<String> {
        self.0.allowed(parameter).expect("the parameter has a list of them")
    }

    /// The declaration of a parameter.
    pub(crate) fn parameter(&self, name: &str) -> Value {
        self.0.parameter(name).clone()
    }

    /// The resources of this stack, by their logical ids.
    pub(crate) fn resources(&self) -> BTreeMap<String, Value> {
        self.0.resources().expect("it can be evaluated")
    }

    /// The properties of the resources of a type, by their logical ids.
    pub(crate) fn of_type(&self, kind: &str) -> BTreeMap<String, Value> {
        self.0.of_type(kind).expect("it can be evaluated")
    }

    /// The properties of the functions, by their logical ids, with the global ones.
    pub(crate) fn functions(&self) -> BTreeMap<String, Value> {
        self.0.functions().expect("it can be evaluated")
    }
}
