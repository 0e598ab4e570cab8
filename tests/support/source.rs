//! Reads Rust sources the way the checks need them: files, code without comments and texts, functions.

#![allow(dead_code, unreachable_pub)] // every check uses a part of this

use std::ops::Range;
use std::path::{Path, PathBuf};

/// The files below `folder` with this extension (all without one), as paths from the top of the repository.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut open, mut found) = (vec![top.join(folder)], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if extension.is_empty() || path.extension().is_some_and(|found| found == extension) {
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
            at + block_comment(rest)
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

/// Length of the comment that begins here, with those inside it.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => Some(depth + 1),
            [b'*', b'/', ..] => Some(depth - 1),
            _ => None,
        };
        at += if step.is_some() { 2 } else { 1 };
        depth = step.unwrap_or(depth);
        if depth == 0 {
            return at;
        }
    }
    rest.len()
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

/// Where `code` has items that exist in tests only, attribute included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let condition: String = code[at + 6..].chars().take_while(|character| *character != ']').collect();
        let only_tests = words(&condition).any(|word| word == "test") && !condition.contains("not(");
        if only_tests && found.last().is_none_or(|last| last.end <= at) {
            found.push(at..item_end(code, at));
        }
    }
    found
}

/// Behind the item, field, arm or argument that begins at `at`: its last brace, semicolon or comma.
fn item_end(code: &str, at: usize) -> usize {
    const ITEMS: [&str; 11] =
        ["fn", "mod", "impl", "use", "struct", "enum", "trait", "type", "const", "static", "macro_rules"];
    let mut depth = 0_i32;
    for (offset, character) in code[at..].char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        let closed = match character {
            '}' | ';' => depth == 0,
            // Within an item, a comma stands between type parameters.
            ',' => depth == 0 && !words(&code[at..at + offset]).any(|word| ITEMS.contains(&word)),
            _ => false,
        };
        if closed || depth < 0 {
            return at + offset + usize::from(closed);
        }
    }
    code.len()
}

/// `code` with the items of tests blanked; lines and columns stay.
pub fn production(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for byte in test_items(code).into_iter().flat_map(|item| item.clone()) {
        if bytes[byte] != b'\n' {
            bytes[byte] = b' ';
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lines of the file, comments included, without those of test items.
pub fn production_lines(source: &str) -> usize {
    let code = code_of(source);
    let tests: usize = test_items(&code).into_iter().map(|item| code[item].lines().count()).sum();
    source.lines().count() - tests
}

/// The names and numbers in `code`.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty())
}

/// Where `wanted` stands in `code` as whole words, as line numbers.
pub fn lines_with(code: &str, wanted: &str) -> Vec<usize> {
    let in_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let whole = |(at, _): &(usize, &str)| {
        let (before, after) = (code[..*at].chars().next_back(), code[at + wanted.len()..].chars().next());
        let longer = |outside, inside| in_word(outside) && in_word(inside);
        !longer(before, wanted.chars().next()) && !longer(after, wanted.chars().next_back())
    };
    let line = |(at, _): (usize, &str)| code[..at].matches('\n').count() + 1;
    code.match_indices(wanted).filter(whole).map(line).collect()
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
        if name.is_empty() {
            continue;
        }
        let Some(open) = body(&code[at..]).map(|offset| at + offset) else { continue };
        let mut depth = 0;
        let close = code[open..].char_indices().find(|(_, character)| {
            depth += i32::from(*character == '{') - i32::from(*character == '}');
            depth == 0
        });
        let end = close.map_or(code.len(), |(offset, _)| open + offset + 1);
        found.push((name, code[at..end].lines().count()));
    }
    found
}

/// Where the body of the function begins that begins here; none for a declaration.
fn body(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}
