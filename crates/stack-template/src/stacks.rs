//! A stack and the stacks that are nested in it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{Template, TemplateError};

/// The nested stack whose logical ids are used as they are. Those of other nested stacks begin with
/// the nested stack's own: the resource `Table` of the view `Balances` is `BalancesTable`.
const CORE: &str = "Core";

/// The type of a nested stack.
const KIND: &str = "AWS::CloudFormation::Stack";

/// A stack and its nested stacks, as if all were one.
#[derive(Debug, Clone)]
pub struct Stacks {
    root: Template,
    nested: BTreeMap<String, Template>,
}

impl Stacks {
    /// Reads a template and the templates that it nests, which are files beside it. `known` are the
    /// values of references to nothing in a template (`AWS::Region`), `given` those of its
    /// parameters.
    ///
    /// It is an error if a nested stack is given a parameter that it does not have, or is not given
    /// one that has no default.
    pub fn read(
        path: &Path,
        known: &[(&str, Value)],
        given: &[(&str, Value)],
    ) -> Result<Self, TemplateError> {
        let mut root = Template::read(path)?;
        for (name, value) in known {
            root.define(name, value.clone());
        }
        for (name, value) in given {
            root.set(name, value.clone())?;
        }
        let mut nested = BTreeMap::new();
        // CORE first: the others are given its outputs.
        let mut ids: Vec<String> = root.of_type(KIND)?.into_keys().collect();
        ids.sort_by_key(|id| id != CORE);
        for id in ids {
            let of = root.of_type(KIND)?.remove(&id).unwrap_or_default();
            let file = of["TemplateURL"].as_str().unwrap_or_default();
            let mut template = Template::read(&path.with_file_name(file))?;
            for (name, value) in known {
                template.define(name, value.clone());
            }
            if id != CORE {
                template.prefix.clone_from(&id);
            }
            let given = of["Parameters"].as_object().cloned().unwrap_or_default();
            for (name, declared) in template.parameters() {
                if declared["Default"].is_null() && !given.contains_key(&name) {
                    return Err(TemplateError::Missing(format!(
                        "value of {name} for the stack {id}"
                    )));
                }
            }
            for (name, value) in given {
                template.set(&name, value)?;
            }
            for (name, value) in template.outputs()? {
                root.define(&format!("{id}.Outputs.{name}"), value);
            }
            nested.insert(id, template);
        }
        Ok(Self { root, nested })
    }

    /// The template that nests the others.
    pub fn root(&self) -> &Template {
        &self.root
    }

    /// The nested stacks' templates, by their logical ids.
    pub fn nested(&self) -> &BTreeMap<String, Template> {
        &self.nested
    }

    /// Sets the value of a reference to a resource, in all stacks: `Topic` (of a `Ref`),
    /// `BalancesTable.Arn` (of a `GetAtt`).
    pub fn define(&mut self, reference: &str, value: &Value) {
        for template in self.nested.values_mut() {
            template.define(reference, value.clone());
        }
    }

    /// The resources of all nested stacks whose conditions hold, evaluated, by their logical ids.
    pub fn resources(&self) -> Result<BTreeMap<String, Value>, TemplateError> {
        let mut all = BTreeMap::new();
        for template in self.nested.values() {
            all.extend(template.resources()?);
        }
        Ok(all)
    }

    /// The properties of the resources of a type, by their logical ids.
    pub fn of_type(&self, kind: &str) -> Result<BTreeMap<String, Value>, TemplateError> {
        Ok(crate::of_type(self.resources()?, kind))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    const CORE_YAML: &str = "
Parameters: {Name: {Type: String}}
Resources:
  Topic: {Type: T, Properties: &topic {Name: !Sub '${Name}-commits'}}
  Other: {Type: T, Properties: &other {<<: *topic, Of: !GetAtt Topic.Arn}}
  Third: {Type: T, Properties: {<<: *other, More: 1}}
Outputs: {Name: {Value: !Ref Name}}
";
    const VIEW_YAML: &str = "
Parameters: {Core: {Type: String}, Size: {Type: Number, Default: 3}}
Resources:
  Table: {Type: T, Properties: {Name: !Sub '${Core}-view', Size: !Ref Size}}
  Role: {Type: T, Properties: {Of: !GetAtt Table.Arn, By: !Ref Table, In: !Ref AWS::Region}}
";

    /// Reads a root that gives these parameters to core and to a view.
    fn read(core: &str, view: &str) -> Result<Stacks, TemplateError> {
        let folder = std::env::temp_dir().join(format!("stack-template-{}", std::process::id()));
        let folder = folder.join(format!("{}-{}", core.len(), view.len()));
        fs::create_dir_all(&folder).expect("a folder");
        let nested = |file: &str, given: &str| {
            format!(
                "{{Type: {KIND}, Properties: {{TemplateURL: {file}, Parameters: {{{given}}}}}}}"
            )
        };
        let (core, view) = (nested("core.yaml", core), nested("view.yaml", view));
        // The view stands before core, which it needs.
        let root = format!("Resources:\n  Balances: {view}\n  Core: {core}\n");
        for (name, text) in
            [("core.yaml", CORE_YAML), ("view.yaml", VIEW_YAML), ("root.yaml", &root)]
        {
            fs::write(folder.join(name), text).expect("a file");
        }
        let known = [("AWS::Region", json!("here"))];
        let stacks = Stacks::read(&folder.join("root.yaml"), &known, &[]);
        fs::remove_dir_all(folder).expect("the folder is there");
        stacks
    }

    #[test]
    fn nested_stacks_are_read_as_one() {
        let mut stacks = read("Name: shop", "Core: !GetAtt Core.Outputs.Name").expect("templates");
        stacks.define("BalancesTable", &json!("a table"));
        let topic = json!({ "Name": "shop-commits" });
        let other = json!({ "Name": "shop-commits", "Of": "Topic.Arn" });
        let third = json!({ "Name": "shop-commits", "Of": "Topic.Arn", "More": 1 });
        let table = json!({ "Name": "shop-view", "Size": 3 });
        let role = json!({ "Of": "BalancesTable.Arn", "By": "a table", "In": "here" });
        let expected = [
            ("Topic", topic),
            ("Other", other),
            ("Third", third),
            ("BalancesTable", table),
            ("BalancesRole", role),
        ];
        let expected = expected.map(|(id, of)| (id.to_owned(), of));
        assert_eq!(stacks.of_type("T").expect("they can be evaluated"), expected.into());
    }

    #[test]
    fn a_parameter_too_many_or_too_few_is_an_error() {
        for (core, view, what) in [
            ("Name: shop", "Size: 1", "value of Core for the stack Balances"),
            ("Name: shop", "Core: shop, Sizes: 1", "parameter Sizes"),
            ("", "Core: shop", "value of Name for the stack Core"),
        ] {
            let error = read(core, view).expect_err(what);
            assert_eq!(error.to_string(), format!("the template has no {what}"));
        }
    }
}
