//! What has changed between two states, field by field.

use serde::Serialize;
use serde_json::Value;

/// A field that is not what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The field's path in the state: names with dots between (`stand`, `crew.captain`); empty when
    /// the state is no object.
    pub field: String,
    /// What it was; null when it was not there.
    pub before: Value,
    /// What it is; null when it is no longer there.
    pub after: Value,
}

/// Returns the fields that differ, in the order of their names. Objects are looked into; lists and
/// all else are told whole.
pub(super) fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(String::new(), before, after, &mut found);
    found
}

fn compare(field: String, before: &Value, after: &Value, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        found.push(Change {
            field,
            before: before.clone(),
            after: after.clone(),
        });
        return;
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = if field.is_empty() {
            name.clone()
        } else {
            format!("{field}.{name}")
        };
        let part = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
        compare(
            path,
            &part(old).unwrap_or_default(),
            &part(new).unwrap_or_default(),
            found,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: Value, after: Value) -> Vec<(String, Value, Value)> {
        changes(&before, &after)
            .into_iter()
            .map(|change| (change.field, change.before, change.after))
            .collect()
    }

    #[test]
    fn equal_states_have_no_changes() {
        assert_eq!(told(json!({"a": [1]}), json!({"a": [1]})), []);
        assert_eq!(told(json!({"a": null}), json!({})), [], "null is absent");
    }

    #[test]
    fn fields_are_told_by_path_and_lists_whole() {
        let before = json!({"a": 1, "b": {"x": 1, "y": "same"}, "gone": true, "list": [1, 2]});
        let after = json!({"a": 2, "b": {"x": null, "y": "same"}, "list": [1], "new": {"z": 0}});
        let expected = [
            ("a".to_owned(), json!(1), json!(2)),
            ("b.x".to_owned(), json!(1), json!(null)),
            ("gone".to_owned(), json!(true), json!(null)),
            ("list".to_owned(), json!([1, 2]), json!([1])),
            ("new".to_owned(), json!(null), json!({"z": 0})),
        ];
        assert_eq!(told(before, after), expected);
        assert_eq!(
            told(json!(1), json!("x")),
            [(String::new(), json!(1), json!("x"))]
        );
    }
}
