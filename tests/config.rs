//! The config file by fixtures: `tests/fixtures/config/*.toml` and what `spacebot check` says about
//! each, with its exit code, in `*.expected`. `UPDATE=1` writes anew what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What must never be printed, wherever it stands in a fixture or its environment.
const SECRETS: [&str; 6] = [
    "k-secret-value",
    "sk-ant-verysecret",
    "hunter2hunter2",
    "literal-token",
    "12345678901",
    "login-password",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

/// A command in an environment of its own: `home` is the home directory and holds nothing else.
fn spacebot(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spacebot"));
    command.args(arguments).env_clear().env("HOME", home).env("KEY", "k-secret-value").env("EMPTY", "");
    // Else it would be that of the machine.
    command.env("TZ", "Europe/Berlin");
    command
}

fn check(home: &Path, file: &Path) -> Output {
    spacebot(home, &["check", "--config"]).arg(file).output().unwrap()
}

/// What was said, without the places of this run.
fn said(output: &Output, home: &Path, file: &Path) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.replace(&file.to_string_lossy().into_owned(), "FILE")
            .replace(&home.to_string_lossy().into_owned(), "HOME")
    };
    let code = output.status.code().map_or("a signal".to_owned(), |code| code.to_string());
    format!("{}{}exit {code}\n", text(&output.stderr), text(&output.stdout))
}

#[test]
fn every_fixture_is_judged_as_written() {
    let home = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let mut files: Vec<_> = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (tomls, expectations): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.extension() == Some(OsStr::new("toml")));
    assert!(tomls.len() >= 20, "only {} fixtures", tomls.len());
    for toml in &tomls {
        // The warning about secrets depends on who may read the file, which git does not keep.
        let file = home.path().join(toml.file_name().unwrap());
        fs::copy(toml, &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let said = said(&check(home.path(), &file), home.path(), &file);
        for secret in SECRETS {
            assert!(!said.contains(secret), "{} prints {secret}:\n{said}", toml.display());
        }
        let expected = toml.with_extension("expected");
        if fs::read_to_string(&expected).is_ok_and(|expected| expected == said) {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, said).unwrap();
        } else {
            wrong.push(format!("{}:\n{said}", toml.display()));
        }
    }
    assert!(wrong.is_empty(), "said otherwise than written:\n{}", wrong.join("\n"));
    for expected in expectations {
        assert!(expected.with_extension("toml").exists(), "{} belongs to nothing", expected.display());
    }
}

#[test]
fn what_check_prints_is_a_config_that_resolves_to_the_same() {
    let home = tempfile::tempdir().unwrap();
    for name in ["full", "defaults", "bom_and_crlf", "example_ollama"] {
        let printed = check(home.path(), &fixtures().join(name).with_extension("toml")).stdout;
        // A hidden secret reads as a literal one.
        let file = home.path().join("again.toml");
        fs::write(&file, &printed).unwrap();
        let again = check(home.path(), &file);
        let values = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(again.status.success(), "{name}: {}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(values(&again.stdout), values(&printed), "{name}");
    }
}

#[test]
fn the_file_is_looked_for_in_the_written_order() {
    let home = tempfile::tempdir().unwrap();
    let port = |command: &mut Command| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let api = text.split("[api]").nth(1).expect("api").to_owned();
        api.lines().find_map(|line| line.strip_prefix("port = ").map(str::to_owned)).expect("port")
    };
    let write = |path: &str, port: u16| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("[api]\nport = {port}\n")).unwrap();
    };
    assert_eq!(port(&mut spacebot(home.path(), &["check"])), "19898", "defaults");
    write(".spacebot/config.toml", 1111);
    assert_eq!(port(&mut spacebot(home.path(), &["check"])), "1111");
    write("own/config.toml", 2222);
    let own = home.path().join("own");
    assert_eq!(port(spacebot(home.path(), &["check"]).env("SPACEBOT_DIR", &own)), "2222");
    write("named.toml", 3333);
    let named = home.path().join("named.toml");
    assert_eq!(
        port(spacebot(home.path(), &["check"]).env("SPACEBOT_DIR", &own).arg("--config").arg(&named)),
        "3333"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing.toml");
    let folder = home.path().join("folder.toml");
    fs::create_dir(&folder).unwrap();
    let huge = home.path().join("huge.toml");
    fs::write(&huge, "# comment\n".repeat(250_000)).unwrap();
    for file in [missing, folder, huge, PathBuf::from("/dev/zero")] {
        let output = check(home.path(), &file);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&*file.to_string_lossy()), "{said}");
    }
}
