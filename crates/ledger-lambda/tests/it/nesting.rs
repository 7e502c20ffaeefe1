//! The template of the ledger passes on what the templates that it nests ask for.

use std::collections::{BTreeMap, BTreeSet};

use fanfold::View;
use fanfold_aws::names::Tables;
use ledger::views::{Balances, Statement, Totals};
use serde_json::{Value, json};

use crate::stack::{STACK, Template, as_text, file};
use crate::template::{VIEWS, id};

/// Parameters that the ledger's template does not have: it gives them values of its own.
const OWN: [&str; 4] = ["Name", "Core", "View", "ViewVersion"];

fn nested() -> BTreeMap<String, Value> {
    let kind = "AWS::CloudFormation::Stack";
    Template::with(&[]).stacks().root().of_type(kind).expect("it can be evaluated")
}

#[test]
fn every_parameter_is_declared_alike_and_passed_on() {
    let template = Template::with(&[]);
    let root = template.stacks().root().parameters();
    let mut passed = BTreeSet::new();
    for (id, nested) in template.stacks().nested() {
        for (name, mut declared) in nested.parameters() {
            if OWN.contains(&name.as_str()) {
                continue;
            }
            let fields = declared.as_object_mut().expect("a declaration");
            fields.retain(|field, _| !field.ends_with("Description"));
            assert_eq!(root.get(&name), Some(&declared), "{id}: {name}");
            passed.insert(name);
        }
    }
    assert_eq!(passed, root.into_keys().collect());
    // A value that nothing else has arrives under the same name.
    for name in &passed {
        let mut stacks = Template::with(&[]).stacks().root().clone();
        stacks.define(name, json!("a value"));
        let nested = stacks.of_type("AWS::CloudFormation::Stack").expect("it can be evaluated");
        for (id, of) in nested {
            let declares = template.stacks().nested()[&id].parameters().contains_key(name);
            let expected = if declares { json!("a value") } else { Value::Null };
            assert_eq!(of["Parameters"][name], expected, "{id}: {name}");
        }
    }
}

#[test]
fn each_view_of_the_app_is_nested_in_its_version() {
    let versions = [Balances::VERSION, Statement::VERSION, Totals::VERSION];
    let mut expected: BTreeSet<_> = VIEWS.into_iter().map(str::to_owned).zip(versions).collect();
    for (id, of) in nested() {
        let name = as_text(&of["Parameters"][if id == "Core" { "Name" } else { "Core" }]);
        assert_eq!(name, STACK, "{id}");
        if id == "Core" {
            assert_eq!(of["TemplateURL"], "core.yaml");
            continue;
        }
        assert_eq!(of["TemplateURL"], "view.yaml", "{id}");
        let view = as_text(&of["Parameters"]["View"]);
        let version = of["Parameters"]["ViewVersion"].as_u64().expect("a number") as u32;
        assert!(expected.remove(&(view.clone(), version)), "{view} in version {version}");
    }
    assert_eq!(expected, BTreeSet::new());
}

#[test]
fn core_names_no_view_and_neither_template_its_own_stack() {
    let [core, view] = ["core.yaml", "view.yaml"]
        .map(|name| std::fs::read_to_string(file(name)).expect("the template is there"));
    for name in VIEWS {
        for text in [&core, &view] {
            let words = text.split(|c: char| !c.is_alphanumeric());
            // `such as balances` explains a parameter.
            assert!(words.filter(|word| *word == name).count() <= usize::from(text == &view));
            assert!(!text.contains(&id(name, "Table")) && !text.contains(&id(name, "Function")));
        }
    }
    // A nested stack has a name that CloudFormation makes.
    assert!(!core.contains("AWS::StackName") && !view.contains("AWS::StackName"));
}

#[test]
fn the_table_of_a_view_is_one_that_the_api_may_read() {
    let begins = Tables::new(STACK).view("", 1);
    let begins = begins.trim_end_matches("-v1");
    for view in VIEWS {
        assert!(Tables::new(STACK).view(view, 7).starts_with(begins), "{view}");
    }
    assert_eq!(begins, format!("{STACK}-view-"));
}
