//! One table of the file, read key by key: wrong types, ranges and `env:` names become errors with
//! line and path, and what nobody asked for is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::budget::decimal;
use super::load::Environment;
use super::{ConfigError, Secret};

/// Least similarity (0 to 1) of a key that is offered in place of an unknown one.
const SIMILAR: f64 = 0.7;

/// What all sections of one file share.
pub(super) struct Source<'a> {
    file: PathBuf,
    /// Byte offsets at which lines begin.
    lines: Vec<usize>,
    environment: &'a dyn Environment,
    errors: RefCell<Vec<ConfigError>>,
    /// Paths of literal secrets.
    literal_secrets: RefCell<Vec<String>>,
    /// All that was read, also where it is not in use.
    secrets: RefCell<Vec<Secret>>,
    /// Paths of the secrets that were asked for, and whether they were there.
    #[cfg(test)]
    pub(super) asked_secrets: RefCell<std::collections::BTreeMap<String, bool>>,
    /// Every key that was asked for, with its range if it is a number: what docs/CONFIG.md must name.
    #[cfg(test)]
    pub(super) known: RefCell<std::collections::BTreeMap<String, Option<(u64, u64)>>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: PathBuf, text: &str, environment: &'a dyn Environment) -> Rc<Self> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Rc::new(Self {
            file,
            lines,
            environment,
            errors: RefCell::default(),
            literal_secrets: RefCell::default(),
            secrets: RefCell::default(),
            #[cfg(test)]
            asked_secrets: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        })
    }

    pub(super) fn error(&self, at: usize, path: &str, reason: impl Into<String>) {
        let line = self.lines.partition_point(|start| *start <= at);
        let (file, path, reason) = (self.file.clone(), path.to_owned(), reason.into());
        self.errors.borrow_mut().push(ConfigError { file, line, path, reason });
    }

    pub(super) fn take_errors(&self) -> Vec<ConfigError> {
        let mut errors = self.errors.take();
        errors.sort_by_key(|error| error.line);
        // The first says it; "is needed" behind "must be a text" would not help.
        let mut said = BTreeSet::new();
        errors.retain(|error| error.path.is_empty() || said.insert((error.line, error.path.clone())));
        errors
    }

    pub(super) fn take_secrets(&self) -> Vec<Secret> {
        self.secrets.take()
    }

    pub(super) fn literal_secrets(&self) -> Vec<String> {
        self.literal_secrets.take()
    }
}

/// A table with its path; missing tables read as empty ones.
pub(super) struct Section<'s, 'a> {
    source: Rc<Source<'a>>,
    path: String,
    at: usize,
    table: Option<&'s DeTable<'s>>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'s, 'a> Section<'s, 'a> {
    pub(super) fn root(source: &Rc<Source<'a>>, table: &'s DeTable<'s>) -> Self {
        Self::new(source.clone(), String::new(), 0, Some(table))
    }

    fn new(source: Rc<Source<'a>>, path: String, at: usize, table: Option<&'s DeTable<'s>>) -> Self {
        Self { source, path, at, table, asked: RefCell::default() }
    }

    /// True when the table stands in the file.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn find(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        self.asked.borrow_mut().insert(key);
        #[cfg(test)]
        self.source.known.borrow_mut().entry(key.to_owned()).or_default();
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let found = value.get_ref().type_str();
        self.source.error(value.span().start, &self.path_of(key), format!("must be {wanted}, is {found}"));
    }

    /// An error at this key, or at the table where the key is missing.
    pub(super) fn refuse(&self, key: &'static str, reason: impl Into<String>) {
        let at = self.find(key).map_or(self.at, |value| value.span().start);
        self.source.error(at, &self.path_of(key), reason);
    }

    /// An error at this table itself.
    pub(super) fn refuse_itself(&self, reason: impl Into<String>) {
        self.source.error(self.at, &self.path, reason);
    }

    pub(super) fn table(&self, key: &'static str) -> Section<'s, 'a> {
        let path = self.path_of(key);
        let value = self.find(key);
        let table = value.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong(key, value, "a table");
                None
            }
        });
        Section::new(self.source.clone(), path, value.map_or(self.at, |value| value.span().start), table)
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'s, 'a>> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let Some(array) = self.array(key, value) else { return Vec::new() };
        let mut sections = Vec::new();
        for (number, item) in array.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let path = format!("{}[{number}]", self.path_of(key));
                    sections.push(Section::new(self.source.clone(), path, item.span().start, Some(table)));
                }
                _ => self.wrong(key, item, "a table"),
            }
        }
        sections
    }

    /// All tables below this one, whatever their names.
    pub(super) fn named_tables(&self) -> Vec<(String, Section<'s, 'a>)> {
        let mut sections = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let name = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(table) => {
                    let section = Section::new(
                        self.source.clone(),
                        self.path_of(&name),
                        value.span().start,
                        Some(table),
                    );
                    sections.push((name, section));
                }
                _ => self.wrong(&name, value, "a table"),
            }
        }
        sections
    }

    fn array(&self, key: &str, value: &'s Spanned<DeValue<'s>>) -> Option<&'s DeArray<'s>> {
        match value.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => {
                self.wrong(key, value, "a list");
                None
            }
        }
    }

    /// `env:NAME` is replaced; a name that is not set is an error.
    fn resolve(&self, key: &str, at: usize, text: &str) -> Option<String> {
        let Some(name) = text.strip_prefix("env:") else { return Some(text.to_owned()) };
        if name.is_empty() {
            self.source.error(at, &self.path_of(key), "env: names no variable");
            return None;
        }
        let value = self.source.environment.variable(name);
        if value.is_none() {
            self.source.error(at, &self.path_of(key), format!("the environment variable {name} is not set"));
        }
        value
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let value = self.find(key)?;
        match value.get_ref() {
            DeValue::String(text) => self.resolve(key, value.span().start, text),
            _ => {
                self.wrong(key, value, "a text");
                None
            }
        }
    }

    /// A text that must not be empty.
    pub(super) fn name(&self, key: &'static str) -> Option<String> {
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.refuse(key, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// The only way to a secret: it is known from here on.
    pub(super) fn secret(&self, key: &'static str) -> Option<Secret> {
        let value = self.name(key);
        #[cfg(test)]
        self.source.asked_secrets.borrow_mut().insert(self.path_of(key), value.is_some());
        let value = value?;
        if self
            .find(key)
            .and_then(|value| value.get_ref().as_str())
            .is_some_and(|text| !text.starts_with("env:"))
        {
            self.literal_secret(key);
        }
        Some(self.keep(value))
    }

    /// The same, or else the value of this variable.
    pub(super) fn secret_or(&self, key: &'static str, variable: &str) -> Option<Secret> {
        self.secret(key).or_else(|| Some(self.keep(self.source.environment.variable(variable)?)))
    }

    /// A value that was read in another way, and is secret.
    pub(super) fn keep(&self, value: String) -> Secret {
        let secret = Secret::new(value);
        self.source.secrets.borrow_mut().push(secret.clone());
        secret
    }

    /// All texts of this table, whatever their names, and whether each is from the environment.
    pub(super) fn named_texts(&self) -> Vec<(String, String, bool)> {
        let mut texts = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let name = name.get_ref().to_string();
            match value.get_ref() {
                DeValue::String(text) => {
                    let resolved = self.resolve(&name, value.span().start, text);
                    texts.extend(resolved.map(|resolved| (name, resolved, text.starts_with("env:"))));
                }
                _ => self.wrong(&name, value, "a text"),
            }
        }
        texts
    }

    /// An error at a key whose name the file has chosen.
    pub(super) fn refuse_named(&self, key: &str, reason: impl Into<String>) {
        let found = self.table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key));
        let at = found.map_or(self.at, |(_, value)| value.span().start);
        self.source.error(at, &self.path_of(key), reason);
    }

    /// This value is a secret, and stands in the file.
    pub(super) fn literal_secret(&self, key: &str) {
        self.source.literal_secrets.borrow_mut().push(self.path_of(key));
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.find(key)?;
        let mut texts = Vec::new();
        for item in self.array(key, value)?.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.extend(self.resolve(key, item.span().start, text)),
                _ => self.wrong(key, item, "a text"),
            }
        }
        Some(texts)
    }

    pub(super) fn switch(&self, key: &'static str) -> Option<bool> {
        let value = self.find(key)?;
        match value.get_ref() {
            DeValue::Boolean(switch) => Some(*switch),
            _ => {
                self.wrong(key, value, "true or false");
                None
            }
        }
    }

    /// A whole number within `least..=most`.
    pub(super) fn number(&self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        #[cfg(test)]
        self.source.known.borrow_mut().insert(key.to_owned(), Some((least, most)));
        let value = self.find(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.source.error(
                value.span().start,
                &self.path_of(key),
                format!("must be from {least} to {most}"),
            );
        }
        number
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&self, key: &'static str) -> Option<f64> {
        let value = self.find(key)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => {
                self.wrong(key, value, "a number");
                return None;
            }
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            self.source.error(value.span().start, &self.path_of(key), "must be from 0 to 1");
        }
        number
    }

    /// A number that is not negative, in units of its last decimal place; at most `most` whole ones.
    pub(super) fn decimal(&self, key: &'static str, places: u32, most: u64) -> Option<u64> {
        let value = self.find(key)?;
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => {
                self.wrong(key, value, "a number");
                return None;
            }
        };
        let number = decimal(text, places).filter(|number| *number <= most * 10_u64.pow(places));
        if number.is_none() {
            let wanted = format!("must be from 0 to {most} with at most {places} decimal places");
            self.source.error(value.span().start, &self.path_of(key), wanted);
        }
        number
    }

    /// A text in the form of `T`.
    pub(super) fn parsed<T: FromStr>(&self, key: &'static str, wanted: &str) -> Option<T> {
        let parsed = self.text(key)?.parse().ok();
        if parsed.is_none() {
            self.refuse(key, format!("must be {wanted}"));
        }
        parsed
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            self.refuse(key, format!("must be one of {}", names.join(", ")));
        }
        found
    }

    /// Call when every key has been asked for: the rest is unknown.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.into_iter().flatten() {
            let key = name.get_ref().as_ref();
            if asked.contains(key) {
                continue;
            }
            let near = asked.iter().map(|known| (strsim::jaro_winkler(known, key), *known));
            let near = near.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map(|(_, known)| format!(" (did you mean `{known}`?)")).unwrap_or_default();
            self.source.error(name.span().start, &self.path_of(key), format!("unknown key{hint}"));
        }
    }
}
