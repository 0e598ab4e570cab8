//! The unit file: valid, closed enough, and yet open enough for workers' commands and file tools.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::path::Path;
use std::process::Command;

use daemon::not_run;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/spacebot.service");
const TRIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/trial.sh");
/// systemd's measure of exposure, times ten.
const MOST_EXPOSED: &str = "20";
/// How `trial.sh` ends where it cannot try.
const CANNOT: i32 = 3;

/// What must stand in the unit, and what breaks without it. Each was seen to break.
const NEEDED: &[(&str, &[&str])] = &[
    ("RestrictNamespaces", &["user", "mnt", "pid", "net", "uts"]),
    ("RestrictAddressFamilies", &["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]),
    ("SystemCallFilter", &["@system-service", "mount", "umount2", "pivot_root", "capset"]),
    // An uncovered /proc, without which bubblewrap may not mount its own (systemd 253 and later).
    ("BindPaths", &["/proc:/run/spacebot-proc/proc:norbind"]),
    ("TemporaryFileSystem", &["/run/spacebot-proc:mode=0700,size=4k"]),
    ("SystemCallErrorNumber", &["EPERM"]),
    ("PrivateIPC", &["yes"]),
];
/// What would make the unit look safer and break it.
const HARMFUL: &[(&str, &str)] = &[
    ("RestrictSUIDSGID", "openat2 fails: no file tools, no bubblewrap from 0.12 on"),
    ("DynamicUser", "it implies RestrictSUIDSGID"),
    ("ProcSubset", "bubblewrap reads /proc/sys"),
    ("MemoryDenyWriteExecute", "programs with a just-in-time compiler do not start"),
];

/// All values of a key, over all its lines.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| *name == key).flat_map(|(_, value)| value.split_whitespace()).collect()
}

fn mistakes(unit: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, wanted) in NEEDED {
        let there = values(unit, key);
        let missing = wanted.iter().filter(|value| !there.contains(value));
        found.extend(missing.map(|value| format!("{key}={value} is missing")));
    }
    let harmful = HARMFUL.iter().filter(|(key, _)| !values(unit, key).is_empty());
    found.extend(harmful.map(|(key, reason)| format!("{key}: {reason}")));
    found
}

fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze").args(arguments).output().ok()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), text))
}

fn unit() -> String {
    std::fs::read_to_string(UNIT).unwrap()
}

#[test]
fn the_unit_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spacebot.service");
    // The real path is not there on a build machine.
    let here = unit().replace("/usr/local/bin/spacebot", env!("CARGO_BIN_EXE_spacebot"));
    std::fs::write(&path, &here).unwrap();
    let Some((valid, said)) = analyze(&["verify", &path.to_string_lossy()]) else {
        return not_run("systemd-analyze is not installed");
    };
    // It also reads the units that ours names; their faults are not ours.
    assert!(valid && !said.contains("spacebot"), "{said}");

    std::fs::write(&path, here.replace("UMask=", "Mask=")).unwrap();
    let (_, said) = analyze(&["verify", &path.to_string_lossy()]).unwrap();
    assert!(said.contains("Unknown key"), "a mistake is not seen: {said}");
}

#[test]
fn the_unit_is_closed_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spacebot.service");
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let judge = |text: &str| {
        std::fs::write(&path, text).unwrap();
        analyze(&["security", "--offline=true", &threshold, &path.to_string_lossy()])
    };
    let Some((closed, said)) = judge(&unit()) else {
        return not_run("systemd-analyze is not installed");
    };
    assert!(closed, "{said}");
    let (closed, said) = judge(&unit().replace("NoNewPrivileges=yes", "")).unwrap();
    assert!(!closed, "a hole is not seen: {said}");
}

#[test]
fn the_unit_leaves_open_what_commands_and_file_tools_need() {
    let unit = unit();
    assert_eq!(mistakes(&unit), Vec::<String>::new());
    for (key, _) in NEEDED {
        assert!(!mistakes(&unit.replace(&format!("\n{key}="), "\n#")).is_empty(), "{key} is not missed");
    }
    for (key, _) in HARMFUL {
        assert_eq!(mistakes(&format!("{unit}\n{key}=yes\n")).len(), 1, "{key} is not noticed");
    }
}

/// The unit under a real systemd, in namespaces of its own: the daemon gets ready, a worker's command
/// runs in its sandbox and sees neither the daemon's data nor the door to the uncovered /proc.
#[test]
fn the_daemon_and_its_commands_run_in_the_unit() {
    assert!(Path::new(TRIAL).is_file());
    let output = Command::new("bash").args([TRIAL, env!("CARGO_BIN_EXE_spacebot"), UNIT]).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT) {
        // No package is missing: a container may not, and an ordinary user neither.
        println!("not run: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let lines = [
        "state: active, restarts: 0",
        "answer: spacebot\n",
        "answer: made\n",
        "answer: /proc/self\n",
        "reload: done\n",
        "in force from now on: agents.main.max_turns\n",
        "state after the reload: active, waits for a restart: api.port, restarts: 0\n",
    ];
    for line in lines {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
    for path in ["/run/spacebot-proc", "/var/lib/spacebot/agents/main/data"] {
        assert!(said.contains(&format!("'{path}': No such file")), "{path} is seen:\n{said}");
    }
    assert!(said.contains("stopped: success"), "{said}");
}
