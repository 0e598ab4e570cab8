//! A task's metadata: a JSON object that changes are merged into.

use serde_json::{Map, Value};

use super::TaskError;

pub type Metadata = Map<String, Value>;

/// Longest metadata of one task as JSON, in bytes: notes of workers, not their files.
pub const METADATA_BYTES_MAX: usize = 8 << 10;
/// Objects and lists inside of each other.
const DEPTH_MAX: usize = 8;

/// Objects are merged key by key, `null` takes a key away, everything else replaces what was there.
pub(super) fn merge(base: &mut Metadata, change: Metadata) -> Result<(), TaskError> {
    if change.values().any(|value| depth(value) >= DEPTH_MAX) {
        return Err(TaskError::Invalid(format!("metadata is nested deeper than {DEPTH_MAX}")));
    }
    merge_into(base, change);
    let bytes = serde_json::to_string(base).map_or(usize::MAX, |text| text.len());
    if bytes > METADATA_BYTES_MAX {
        return Err(TaskError::Invalid(format!(
            "metadata would have {bytes} bytes, at most {METADATA_BYTES_MAX} are kept"
        )));
    }
    Ok(())
}

/// Bounded by the depth of `change`.
fn merge_into(base: &mut Metadata, change: Metadata) {
    for (key, value) in change {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => drop(base.remove(&key)),
            (Some(Value::Object(old)), Value::Object(new)) => merge_into(old, new),
            (_, Value::Object(new)) => {
                // The nulls of a new object name keys that are not there.
                let mut fresh = Map::new();
                merge_into(&mut fresh, new);
                base.insert(key, Value::Object(fresh));
            }
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// serde_json reads at most 128 levels, so that this ends.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Metadata {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn objects_are_merged_and_the_rest_is_replaced() {
        let cases = [
            (json!({}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3}}), json!({"a": {"b": 3, "c": 2}})),
            (json!({"a": {"b": 1}}), json!({"a": {"b": null}}), json!({"a": {}})),
            (json!({"a": 1, "b": 2}), json!({"a": null, "z": null}), json!({"b": 2})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({"a": {"b": 1}}), json!({"a": "text"}), json!({"a": "text"})),
            (json!({"a": "text"}), json!({"a": {"b": {"c": null, "d": 1}}}), json!({"a": {"b": {"d": 1}}})),
        ];
        for (base, change, wanted) in cases {
            let mut merged = object(base.clone());
            merge(&mut merged, object(change.clone())).unwrap();
            assert_eq!(Value::Object(merged), wanted, "{base} + {change}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut base = Metadata::new();
        assert!(merge(&mut base, object(json!({"a": "x".repeat(METADATA_BYTES_MAX)}))).is_err());
        let mut base = Metadata::new();
        let half = "x".repeat(METADATA_BYTES_MAX / 2);
        merge(&mut base, object(json!({ "a": half }))).unwrap();
        assert!(merge(&mut base, object(json!({ "b": half }))).is_err(), "both together");
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "k": inner }));
        assert!(merge(&mut Metadata::new(), object(nested(DEPTH_MAX))).is_ok());
        assert!(merge(&mut Metadata::new(), object(nested(DEPTH_MAX + 1))).is_err());
    }
}
