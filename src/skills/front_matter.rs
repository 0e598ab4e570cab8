//! What stands between the two `---` lines of a SKILL.md: the part of YAML that skills are written in.
//! Texts (plain, quoted, `>` and `|`) and lists (inline and with dashes); every mistake has its line.
//! Keys of other programs are passed over, whatever their values look like.

use std::collections::{BTreeMap, BTreeSet};

/// Keys that are a text.
const TEXTS: [&str; 3] = ["name", "description", "source_repo"];
/// Keys that are a list of texts.
const LISTS: [&str; 3] = ["platforms", "tags", "related_skills"];
/// OpenClaw keeps what it knows of a skill in here, as JSON.
const METADATA: &str = "metadata";
/// The first line behind the one that opens the front matter.
const FIRST_LINE: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// From 1.
    pub(super) line: usize,
    pub(super) reason: String,
}

impl Mistake {
    pub(super) fn at(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// A value with the line of its key.
pub(super) type Field<T> = (usize, T);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FrontMatter {
    texts: BTreeMap<&'static str, Field<String>>,
    lists: BTreeMap<&'static str, Field<Vec<String>>>,
    metadata: String,
}

impl FrontMatter {
    /// What the key says; an empty text says nothing.
    pub(super) fn text(&self, key: &str) -> Option<&Field<String>> {
        self.texts.get(key).filter(|(_, text)| !text.is_empty())
    }

    pub(super) fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map_or(&[], |(_, list)| list)
    }

    /// The JSON below `metadata`; nothing if it is none, which is no mistake: nobody has promised it.
    pub(super) fn metadata(&self) -> serde_json::Value {
        serde_json::from_str(&self.metadata).unwrap_or_default()
    }
}

/// The front matter and what stands behind it.
pub(super) fn parse(text: &str) -> Result<(FrontMatter, &str), Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    let mut next = || {
        let (line, behind) = rest.split_at(rest.find('\n').map_or(rest.len(), |end| end + 1));
        rest = behind;
        (!line.is_empty()).then(|| line.trim_end_matches(['\n', '\r']))
    };
    if next().map(str::trim_end) != Some("---") {
        return Err(Mistake::at(1, "must begin with `---`, the line that opens the front matter"));
    }
    let mut lines = Vec::new();
    loop {
        match next() {
            Some(line) if line.trim_end() == "---" => break,
            Some(line) => lines.push(line),
            None => return Err(Mistake::at(1, "the front matter has no end, a second line `---`")),
        }
    }
    Ok((fields(&lines)?, rest))
}

fn fields(lines: &[&str]) -> Result<FrontMatter, Mistake> {
    let (mut matter, mut seen, mut at) = (FrontMatter::default(), BTreeSet::new(), 0);
    while let Some(line) = lines.get(at) {
        let number = at + FIRST_LINE;
        at += 1;
        if is_empty(line) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            return Err(Mistake::at(number, "is indented and belongs to no key"));
        }
        let (key, value) = key_and_value(line).ok_or_else(|| Mistake::at(number, "is no `key: value`"))?;
        if !seen.insert(key) {
            return Err(Mistake::at(number, format!("`{key}` stands here twice")));
        }
        let below = lines[at..].iter().take_while(|line| belongs_to_above(line)).count();
        let value = Written { line: number, value, below: &lines[at..at + below] };
        at += below;
        if let Some(key) = TEXTS.into_iter().find(|known| *known == key) {
            matter.texts.insert(key, (number, value.text()?));
        } else if let Some(key) = LISTS.into_iter().find(|known| *known == key) {
            matter.lists.insert(key, (number, value.list()?));
        } else if key == METADATA {
            matter.metadata = fold(std::iter::once(value.value).chain(value.below.iter().copied()));
        }
    }
    Ok(matter)
}

/// Nothing but a comment.
fn is_empty(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn belongs_to_above(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t']) || item_of(line).is_some()
}

fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_key = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let fits = !key.is_empty() && key.chars().all(is_key);
    (fits && (value.is_empty() || value.starts_with([' ', '\t']))).then(|| (key, value.trim()))
}

/// Of a line `- item`.
fn item_of(line: &str) -> Option<&str> {
    let item = line.trim().strip_prefix('-')?;
    (item.is_empty() || item.starts_with([' ', '\t'])).then(|| item.trim())
}

/// A value as it was written: what stands behind its key, and the lines below.
struct Written<'a> {
    line: usize,
    value: &'a str,
    below: &'a [&'a str],
}

impl Written<'_> {
    fn wrong(&self, reason: impl Into<String>) -> Mistake {
        Mistake::at(self.line, reason)
    }

    fn text(&self) -> Result<String, Mistake> {
        let value = self.value;
        match value.chars().next() {
            Some('>' | '|') => self.block(),
            Some('"' | '\'') => quoted_alone(&self.whole()).map_err(|reason| self.wrong(reason)),
            Some('[' | '{') => Err(self.wrong("must be a text; one that begins so is put in quotes")),
            Some('&' | '*' | '!' | '%' | '@' | '`') => {
                Err(self.wrong("begins with a sign that means something else in YAML: put it in quotes"))
            }
            _ if value.is_empty() && self.below.iter().any(|line| item_of(line).is_some()) => {
                Err(self.wrong("must be a text, not a list"))
            }
            _ => {
                let lines = std::iter::once(value).chain(self.below.iter().copied());
                Ok(fold(lines.map(without_comment)))
            }
        }
    }

    fn list(&self) -> Result<Vec<String>, Mistake> {
        if self.value.starts_with('[') {
            return inline_list(&self.whole()).map_err(|reason| self.wrong(reason));
        }
        if !without_comment(self.value).is_empty() {
            // `a, b`, as many write it.
            let text = self.text()?;
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            return Ok(items.map(str::to_owned).collect());
        }
        let mut items = Vec::new();
        for (line, number) in self.below.iter().zip(self.line + 1..) {
            if is_empty(line) {
                continue;
            }
            let item = item_of(line).ok_or_else(|| Mistake::at(number, "is no `- item`"))?;
            let item = Written { line: number, value: item, below: &[] }.text()?;
            items.extend((!item.is_empty()).then_some(item));
        }
        Ok(items)
    }

    /// All of it as if it stood on one line.
    fn whole(&self) -> String {
        fold(std::iter::once(self.value).chain(self.below.iter().copied()))
    }

    /// `|` keeps its lines, `>` makes paragraphs of them.
    fn block(&self) -> Result<String, Mistake> {
        let (sign, behind) = self.value.split_at(1);
        if !matches!(without_comment(behind), "" | "-" | "+") {
            return Err(self.wrong(format!("behind `{sign}` there may be `-` or `+`, and the text is below")));
        }
        let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let least =
            self.below.iter().find(|line| !line.trim().is_empty()).map_or(0, |line| indentation(line));
        let mut out = String::new();
        // The line before could be gone on with.
        let mut open = false;
        for (line, number) in self.below.iter().zip(self.line + 1..) {
            if line.trim().is_empty() {
                out.push('\n');
                open = false;
                continue;
            }
            if indentation(line) < least || least == 0 {
                return Err(Mistake::at(number, "is indented less than the text above, or by tabs"));
            }
            let line = line[least..].trim_end();
            let plain = sign == ">" && !line.starts_with([' ', '\t']);
            if open && plain {
                out.push(' ');
            } else if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(line);
            open = plain;
        }
        Ok(out.trim().to_owned())
    }
}

/// Lines of one text; an empty one is the end of a line.
fn fold<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for line in lines.map(str::trim) {
        if line.is_empty() {
            out.push('\n');
            continue;
        }
        if !out.is_empty() && !out.ends_with('\n') {
            out.push(' ');
        }
        out.push_str(line);
    }
    out.trim().to_owned()
}

fn without_comment(text: &str) -> &str {
    let text = text.trim();
    if text.starts_with('#') {
        return "";
    }
    let comment = text.find(" #").into_iter().chain(text.find("\t#")).min();
    comment.map_or(text, |at| text[..at].trim_end())
}

fn quoted_alone(text: &str) -> Result<String, String> {
    let (value, rest) = quoted(text)?;
    let rest = without_comment(rest);
    if rest.is_empty() { Ok(value) } else { Err(format!("{rest:?} stands behind the end of the quotes")) }
}

/// The text in quotes that `text` begins with, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut characters = text.char_indices();
    let quote = characters.next().map_or('"', |(_, quote)| quote);
    let mut out = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quote == '\'' && text[at + 1..].starts_with('\'') => {
                characters.next();
                out.push('\'');
            }
            _ if character == quote => return Ok((out, &text[at + 1..])),
            '\\' if quote == '"' => {
                let sign = characters.next().map_or('\n', |(_, sign)| sign);
                out.push(match sign {
                    '"' | '\\' | '/' => sign,
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'x' => coded(&mut characters, 2)?,
                    'u' => coded(&mut characters, 4)?,
                    'U' => coded(&mut characters, 8)?,
                    _ => return Err(format!("`\\{}` is no escape", sign.escape_default())),
                });
            }
            _ => out.push(character),
        }
    }
    Err(format!("the {quote} that opens the text is never closed"))
}

fn coded(characters: &mut std::str::CharIndices<'_>, digits: usize) -> Result<char, String> {
    let code: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
    let number = (code.len() == digits).then(|| u32::from_str_radix(&code, 16).ok()).flatten();
    number.and_then(char::from_u32).ok_or_else(|| format!("{code:?} is the code of no character"))
}

/// `[a, "b"]`
fn inline_list(text: &str) -> Result<Vec<String>, String> {
    let (mut items, mut rest) = (Vec::new(), text[1..].trim_start());
    loop {
        let item = match rest.chars().next() {
            None => return Err("the list has no `]`".to_owned()),
            Some(']') => break,
            Some('[' | '{') => return Err("is a list of texts, not of lists".to_owned()),
            Some('"' | '\'') => {
                let (item, behind) = quoted(rest)?;
                rest = behind.trim_start();
                item
            }
            Some(_) => {
                let (item, behind) = rest.split_at(rest.find([',', ']']).unwrap_or(rest.len()));
                rest = behind;
                item.trim().to_owned()
            }
        };
        items.extend((!item.is_empty()).then_some(item));
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind.trim_start(),
            None if rest.is_empty() || rest.starts_with(']') => {}
            None => return Err(format!("a comma is missing before {rest:?}")),
        }
    }
    let behind = without_comment(&rest[1..]);
    if behind.is_empty() { Ok(items) } else { Err(format!("{behind:?} stands behind the list")) }
}
