//! The unit file: valid, and closed enough.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::path::Path;
use std::process::Command;

use daemon::not_run;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/spacebot.service");
/// systemd's measure of exposure, times ten.
const MOST_EXPOSED: &str = "20";

fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze").args(arguments).output().ok()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), text))
}

#[test]
fn the_unit_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    // The real path is not there on a build machine.
    let text = std::fs::read_to_string(UNIT)
        .unwrap()
        .replace("/usr/local/bin/spacebot", env!("CARGO_BIN_EXE_spacebot"));
    let unit = folder.path().join("spacebot.service");
    std::fs::write(&unit, text).unwrap();
    let Some((valid, said)) = analyze(&["verify", &unit.to_string_lossy()]) else {
        return not_run("systemd-analyze is not installed");
    };
    assert!(valid && !said.contains("Unknown"), "{said}");
}

#[test]
fn the_unit_is_closed_enough() {
    assert!(Path::new(UNIT).is_file());
    let Some((closed, said)) =
        analyze(&["security", "--offline=true", &format!("--threshold={MOST_EXPOSED}"), UNIT])
    else {
        return not_run("systemd-analyze is not installed");
    };
    assert!(closed, "{said}");
}
