//! Expands `Fn::ForEach` of the transform `AWS::LanguageExtensions`, as far as the template uses
//! it.

use serde_json::{Map, Value, json};

/// Replaces the loops among a template's resources by the resources that they make. Within a loop,
/// its name stands for an item in logical ids, in a `Ref` and in the text of a `Fn::Sub`, and
/// nowhere else.
pub(crate) fn expand(template: &mut Value) {
    let Some(resources) = template["Resources"].as_object_mut() else { return };
    for (id, of) in std::mem::take(resources) {
        if !id.starts_with("Fn::ForEach::") {
            resources.insert(id, of);
            continue;
        }
        let name = of[0].as_str().unwrap_or_default();
        for item in of[1].as_array().into_iter().flatten().filter_map(Value::as_str) {
            for (id, of) in of[2].as_object().into_iter().flatten() {
                resources.insert(id.replace(&placeholder(name), item), replaced(of, name, item));
            }
        }
    }
}

fn placeholder(name: &str) -> String {
    format!("${{{name}}}")
}

/// Also evaluates functions within `Ref` and `Fn::GetAtt`, which only loops allow there.
fn replaced(of: &Value, name: &str, item: &str) -> Value {
    match of {
        Value::Array(items) => items.iter().map(|of| replaced(of, name, item)).collect(),
        Value::Object(fields) => match fields.iter().next() {
            Some((function, Value::String(with))) if function == "Ref" && with == name => {
                json!(item)
            }
            Some((function, Value::String(text))) if function == "Fn::Sub" => {
                let text = text.replace(&placeholder(name), item);
                if text.contains("${") { json!({ "Fn::Sub": text }) } else { json!(text) }
            }
            Some((function, Value::Array(with))) if function == "Fn::GetAtt" => {
                let with = with.iter().map(|of| replaced(of, name, item));
                let with: Vec<String> =
                    with.filter_map(|of| of.as_str().map(str::to_owned)).collect();
                json!({ "Fn::GetAtt": with.join(".") })
            }
            _ => {
                let fields = fields.iter().map(|(k, of)| (k.clone(), replaced(of, name, item)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_makes_a_resource_of_each_item() {
        let mut template = json!({ "Resources": {
            "Topic": { "Type": "T" },
            "Fn::ForEach::All": ["Name", ["A", "B"], {
                "${Name}Errors": {
                    "Of": { "Ref": { "Fn::Sub": "${Name}Function" } },
                    "Arn": { "Fn::GetAtt": [{ "Fn::Sub": "${Name}Queue" }, "Arn"] },
                    "Named": { "Fn::Sub": "${AWS::StackName}-${Name}" },
                    "Itself": [{ "Ref": "Name" }, { "Ref": "Topic" }, "${Name}"],
                },
            }],
        }});
        expand(&mut template);
        let of = |name: &str| {
            json!({
                "Of": { "Ref": format!("{name}Function") },
                "Arn": { "Fn::GetAtt": format!("{name}Queue.Arn") },
                "Named": { "Fn::Sub": format!("${{AWS::StackName}}-{name}") },
                "Itself": [name, { "Ref": "Topic" }, "${Name}"],
            })
        };
        let expected = json!({ "Topic": { "Type": "T" }, "AErrors": of("A"), "BErrors": of("B") });
        assert_eq!(template["Resources"], expected);
    }
}
