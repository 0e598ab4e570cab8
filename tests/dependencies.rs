//! What the lock file must not hold, and that every direct dependency is accounted for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

const NEVER: [&str; 9] =
    ["tokio", "hyper", "reqwest", "async-std", "smol", "mio", "openssl", "openssl-sys", "native-tls"];

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn packages(lock: &str) -> Vec<String> {
    lock.lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_async_runtime_and_no_openssl() {
    let packages = packages(&file("Cargo.lock"));
    let found: Vec<_> = packages.iter().filter(|name| NEVER.contains(&name.as_str())).collect();
    assert!(packages.len() > 50 && found.is_empty(), "{found:?}");
    println!("{} packages", packages.len());
}

#[test]
fn every_direct_dependency_has_its_line() {
    let manifest: toml::Table = toml::from_str(&file("Cargo.toml")).unwrap();
    let keys =
        |table: &str| manifest[table].as_table().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let wanted: BTreeSet<_> = keys("dependencies").union(&keys("dev-dependencies")).cloned().collect();
    let document = file("docs/DEPENDENCIES.md");
    let listed: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(wanted, listed);
}

#[test]
fn a_forbidden_package_would_be_seen() {
    assert_eq!(packages("[[package]]\nname = \"tokio\"\n"), ["tokio"]);
}
