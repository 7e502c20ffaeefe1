//! The ledger's stacks with a name, for tests. Errors panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stack_template::Stacks;
pub(crate) use stack_template::as_text;

/// The stack's name.
pub(crate) const STACK: &str = "shop";

/// The templates with their parameters' values. The logical ids of core's resources are as they are;
/// those of a view begin with the nested stack's: `BalancesTable`.
pub(crate) struct Template(Stacks);

/// A file of the folder `infra`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra").join(name)
}

/// The ARN of a resource of core, as views name it.
pub(crate) fn core_arn(service: &str, resource: &str) -> String {
    format!("arn:AWS::Partition:{service}:AWS::Region:AWS::AccountId:{resource}")
}

/// The ARN of the topic of commits, as views name it.
pub(crate) fn topic_arn() -> String {
    core_arn("sns", &format!("{STACK}-commits"))
}

impl Template {
    /// The templates with these parameters, and the defaults of all others. The authorization of the
    /// API, which has no default, is `NONE`.
    pub(crate) fn with(given: &[(&str, &str)]) -> Self {
        let given = [("ApiAuthorization", "NONE")].iter().chain(given);
        let given: Vec<_> = given.map(|(name, value)| (*name, json!(value))).collect();
        let known = [("AWS::StackName", json!(STACK))];
        Self(Stacks::read(&file("template.yaml"), &known, &given).expect("they can be read"))
    }

    /// The stack and the stacks that it nests.
    pub(crate) fn stacks(&self) -> &Stacks {
        &self.0
    }

    /// The resources of all nested stacks, by their logical ids.
    pub(crate) fn resources(&self) -> BTreeMap<String, Value> {
        self.0.resources().expect("they can be evaluated")
    }

    /// The properties of the resources of a type, by their logical ids.
    pub(crate) fn of_type(&self, kind: &str) -> BTreeMap<String, Value> {
        self.0.of_type(kind).expect("they can be evaluated")
    }

    /// The properties of the functions, by their logical ids.
    pub(crate) fn functions(&self) -> BTreeMap<String, Value> {
        self.of_type("AWS::Lambda::Function")
    }
}
