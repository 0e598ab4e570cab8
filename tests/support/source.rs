//! Reads Rust sources the way the checks need them: files, code without comments and texts, functions.

#![allow(dead_code, unreachable_pub)] // every check uses a part of this

use std::path::{Path, PathBuf};

/// The files below `folder` with this extension, as paths from the top of the repository.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut open, mut found) = (vec![top.join(folder)], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path.strip_prefix(top).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

pub fn text_of(path: &Path) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The source with comments, texts and characters blanked; lines and columns stay.
pub fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    let blank = |code: &mut Vec<u8>, from: usize, to: usize| {
        for byte in &mut code[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    while at < bytes.len() {
        let rest = &source.as_bytes()[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + find(rest, b"*/").map_or(rest.len(), |found| found + 2)
        } else if let Some(hashes) = raw_text(rest, at, bytes) {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let open = find(rest, b"\"").unwrap_or(0) + 1;
            at + open + find(&rest[open..], &close).map_or(rest.len() - open, |found| found + close.len())
        } else if rest[0] == b'"' {
            at + 1 + quoted(&rest[1..], b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            at + 1 + quoted(&rest[1..], b'\'')
        } else {
            at += 1;
            continue;
        };
        blank(&mut code, at, end.min(bytes.len()));
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Number of hashes when a raw text begins here.
fn raw_text(rest: &[u8], at: usize, all: &[u8]) -> Option<usize> {
    let after_word = at > 0 && (all[at - 1].is_ascii_alphanumeric() || all[at - 1] == b'_');
    if after_word || rest[0] != b'r' {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Length up to and with the closing mark.
fn quoted(rest: &[u8], mark: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == mark => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character, and not a lifetime.
fn is_character(rest: &[u8]) -> bool {
    rest.get(1) == Some(&b'\\')
        || rest
            .iter()
            .skip(2)
            .take(5)
            .position(|byte| *byte == b'\'')
            .is_some_and(|at| at == 0 || !rest[1].is_ascii())
}

/// The code before the tests of the file.
pub fn production(code: &str) -> &str {
    let cut = code
        .find("#[cfg(test)]\nmod tests {")
        .or_else(|| code.find("#[cfg(test)]\n#[allow"))
        .unwrap_or(code.len());
    &code[..cut]
}

/// True for files that hold only tests.
pub fn is_test_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with("tests/")
        || text.starts_with("benches/")
        || text.contains("/tests/")
        || text.ends_with("/tests.rs")
}

/// Names and lengths in lines of the functions in `code`.
pub fn functions(code: &str) -> Vec<(String, usize)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && !bytes[at - 1].is_ascii_whitespace() && bytes[at - 1] != b'(' {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|character| character.is_alphanumeric() || *character == '_')
            .collect();
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if name.is_empty() || bytes[open] == b';' {
            continue;
        }
        let mut depth = 0;
        let close = code[open..].char_indices().find(|(_, character)| {
            depth += i32::from(*character == '{') - i32::from(*character == '}');
            depth == 0
        });
        let end = close.map_or(code.len(), |(offset, _)| open + offset);
        found.push((name, code[at..end].lines().count()));
    }
    found
}
