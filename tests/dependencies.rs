//! What the lock file must not hold, and that every direct dependency is accounted for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

const NEVER: [&str; 9] =
    ["tokio", "hyper", "reqwest", "async-std", "smol", "mio", "openssl", "openssl-sys", "native-tls"];
/// Crate, what for, why this one, packages it stands on, packages that would go with it.
const CELLS: usize = 5;

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn packages(lock: &str) -> Vec<&str> {
    lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect()
}

fn forbidden(lock: &str) -> Vec<&str> {
    packages(lock).into_iter().filter(|name| NEVER.contains(name)).collect()
}

/// The names in all dependency tables of a manifest, those of single targets included.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            found.extend(table.keys().cloned());
        } else if key == "target" {
            found.extend(table.values().filter_map(|target| target.as_table()).flat_map(dependencies));
        }
    }
    found
}

/// The rows of the document: the crate, and whether every cell says something.
fn rows(document: &str) -> Vec<(String, bool)> {
    let of = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let cells: Vec<_> = rest.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let full = cells.len() == CELLS - 1 && cells.iter().all(|cell| !cell.is_empty() && *cell != "–");
        Some((name.to_owned(), full))
    };
    document.lines().filter_map(of).collect()
}

/// What the document lacks, or has too much.
fn unaccounted(manifest: &str, document: &str) -> Vec<String> {
    let wanted = dependencies(&toml::from_str(manifest).unwrap());
    let rows = rows(document);
    let listed: BTreeSet<_> = rows.iter().map(|(name, _)| name.clone()).collect();
    let differing = wanted.symmetric_difference(&listed).cloned();
    differing.chain(rows.into_iter().filter(|(_, full)| !full).map(|(name, _)| name)).collect()
}

#[test]
fn no_async_runtime_and_no_openssl() {
    let lock = file("Cargo.lock");
    assert_eq!(forbidden(&lock), Vec::<&str>::new());
    assert!(packages(&lock).contains(&"spacebot"), "the lock file is not read");
    println!("{} packages", packages(&lock).len());
}

#[test]
fn every_direct_dependency_has_its_line() {
    let document = file("docs/DEPENDENCIES.md");
    assert_eq!(unaccounted(&file("Cargo.toml"), &document), Vec::<String>::new());
    let sum = format!("`Cargo.lock` holds {} packages", packages(&file("Cargo.lock")).len());
    assert!(document.contains(&sum), "the document does not say: {sum}");
}

#[test]
fn what_is_forbidden_or_missing_is_seen() {
    assert_eq!(forbidden("[[package]]\nname = \"tokio\"\n[[package]]\nname = \"tokio-not\"\n"), ["tokio"]);
    let manifest = "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\"\n[target.'cfg(unix)'.dependencies]\nc = \"1\"\n";
    let row = |name: &str| format!("| `{name}` | what | why | 1 | 0 |\n");
    let full = ["a", "b", "c"].map(row).concat();
    assert_eq!(unaccounted(manifest, &full), Vec::<String>::new());
    assert_eq!(unaccounted(manifest, &full.replace(&row("c"), "")), ["c"], "no row");
    assert_eq!(unaccounted(manifest, &(full.clone() + &row("d"))), ["d"], "no dependency");
    assert_eq!(unaccounted(manifest, &full.replacen("why", "–", 1)), ["a"], "no reason");
}
