//! Whether a request is the one that a script waits for.

use serde_json::Value;

use super::say::{Request, array};

/// Why `request` is not what `expect` describes.
pub(super) fn mismatch(expect: &Value, request: &Request) -> Option<String> {
    if let Some(provider) = expect["provider"].as_str()
        && !request.path.starts_with(&format!("/{provider}/"))
    {
        return Some(format!("asked at {} instead of provider {provider}", request.path));
    }
    if let Some(streamed) = expect["streamed"].as_bool()
        && request.streamed != streamed
    {
        return Some(format!("streamed is {}", request.streamed));
    }
    for section in [expect, &expect[request.wire.name()]] {
        if let Some(path) = section["path"].as_str()
            && request.path != path
        {
            return Some(format!("path {} instead of {path}", request.path));
        }
        if let Some(name) =
            array(&section["headers"]).iter().find(|name| request.header(name.as_str().unwrap()).is_none())
        {
            return Some(format!("no header {name}"));
        }
        if let Some(wanted) = section.get("json")
            && let Some(problem) = difference(&normal(wanted), &normal(&request.json), "")
        {
            return Some(problem);
        }
    }
    None
}

/// What `wanted` says and `found` does not. An object may hold more; an array that ends in `"..."` may
/// be longer; `"<any>"` is anything.
fn difference(wanted: &Value, found: &Value, at: &str) -> Option<String> {
    match (wanted, found) {
        (Value::String(any), _) if any == "<any>" => None,
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, wanted)| {
            difference(wanted, found.get(key).unwrap_or(&Value::Null), &format!("{at}/{key}"))
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            let open = wanted.last().is_some_and(|last| last == "...");
            let wanted = if open { &wanted[..wanted.len() - 1] } else { &wanted[..] };
            if found.len() < wanted.len() || (!open && found.len() > wanted.len()) {
                return Some(format!("{at} has {} elements instead of {}", found.len(), wanted.len()));
            }
            let pairs = wanted.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (wanted, found))| difference(wanted, found, &format!("{at}/{index}")))
        }
        _ if wanted == found => None,
        _ => Some(format!("{at} is {found} instead of {wanted}")),
    }
}

/// The same value with ids and times, which differ from run to run, replaced by their kind.
fn normal(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(normal_text(text)),
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), normal(value))).collect())
        }
        other => other.clone(),
    }
}

/// `0` in a shape stands for a digit of any base, everything else for itself.
const SHAPES: &[(&str, &str)] =
    &[("00000000-0000-0000-0000-000000000000", "<uuid>"), ("0000-00-00T00:00:00Z", "<time>")];

fn normal_text(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    'next: while let Some(character) = rest.chars().next() {
        for (shape, name) in SHAPES {
            let fits = rest.len() >= shape.len()
                && shape.bytes().zip(rest.bytes()).all(|(wanted, found)| match wanted {
                    b'0' => found.is_ascii_hexdigit(),
                    _ => wanted == found,
                });
            if fits {
                normal.push_str(name);
                rest = &rest[shape.len()..];
                continue 'next;
            }
        }
        normal.push(character);
        rest = &rest[character.len_utf8()..];
    }
    normal
}
