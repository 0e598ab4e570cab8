//! Skills by fixtures (`tests/fixtures/skills`: `UPDATE=1` writes anew what is read of each), and what
//! leads out of a folder, or takes the place of another.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::error::log_line;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/skills");

/// A SKILL.md of this name.
fn text(name: &str, body: &str) -> String {
    format!("---\nname: {name}\ndescription: About {name}.\n---\n{body}\n")
}

fn write(place: &Place, folder: &str, text: &str) {
    fs::create_dir_all(place.path().join(folder)).unwrap();
    fs::write(place.path().join(folder).join(SKILL_FILE), text).unwrap();
}

fn told(mistakes: &[SkillError]) -> Vec<String> {
    mistakes.iter().map(|mistake| log_line(mistake)).collect()
}

fn names(skills: &Skills) -> Vec<(&str, &str)> {
    skills.iter().map(|skill| (skill.name.as_str(), skill.tier().as_str())).collect()
}

fn shelf(place: &Place) -> Shelf {
    let (shelf, mistakes) = Shelf::default().read_again(place);
    assert_eq!(told(&mistakes), Vec::<String>::new());
    shelf
}

#[test]
fn every_fixture_is_read_as_written() {
    let mut files: Vec<_> = fs::read_dir(FIXTURES).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    assert!(files.len() >= 25, "{} fixtures", files.len());
    let place = Place::instance(Path::new("/data"));
    let mut out = String::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        writeln!(out, "==== {name}").unwrap();
        let read = skill(&fs::read_to_string(&file).unwrap(), &place, "folder");
        assert_eq!(read.is_ok(), name.starts_with("good_"), "{name}: {read:?}");
        match read {
            Ok(skill) => {
                writeln!(out, "name: {}\ndescription: {}", skill.name, skill.description).unwrap();
                let lists = [&skill.platforms, &skill.tags, &skill.related];
                writeln!(out, "platforms, tags, related: {lists:?}").unwrap();
                writeln!(out, "source: {:?}\nbody: {:?}", skill.source_repo, skill.body).unwrap();
            }
            Err(mistake) => writeln!(out, "line {}: {}", mistake.line, mistake.reason).unwrap(),
        }
    }
    let expected = Path::new(FIXTURES).join("expected.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, &out).unwrap();
    }
    assert_eq!(out, fs::read_to_string(&expected).unwrap());
}

/// Whatever is cut off or put in, there is an answer and no panic.
#[test]
fn no_text_is_too_strange_to_be_judged() {
    let place = Place::instance(Path::new("/data"));
    for entry in fs::read_dir(FIXTURES).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for (at, _) in text.char_indices() {
            skill(&text[..at], &place, "folder").ok();
            for strange in ["\"", "'", "[", ",", "\\", "\n", "- ", ":", ">", "漢", "\t", "---\n"] {
                skill(&format!("{}{strange}{}", &text[..at], &text[at..]), &place, "folder").ok();
            }
        }
    }
}

#[test]
fn a_bad_file_leaves_the_old_skill_in_force_and_a_removed_one_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::instance(folder.path());
    assert_eq!(shelf(&place), Shelf::default(), "no folder");
    write(&place, "a", &text("a", "One"));
    write(&place, "b", "no front matter");
    fs::create_dir_all(place.path().join("empty")).unwrap();
    fs::create_dir_all(place.path().join(".archive")).unwrap();
    fs::write(place.path().join("README.md"), "x").unwrap();
    let (old, mistakes) = Shelf::default().read_again(&place);
    assert_eq!(old.iter().map(|skill| skill.body.as_str()).collect::<Vec<_>>(), ["One"]);
    let mistakes = told(&mistakes);
    assert!(mistakes.len() == 1 && mistakes[0].contains("b/SKILL.md:1: must begin"), "{mistakes:?}");
    assert!(mistakes[0].contains("left out"), "{mistakes:?}");

    let broken: [&[u8]; 4] = [b"---\nname: a", b"\xff\xfe", &[b'x'; 100 * 1024 + 1], b""];
    for text in broken {
        fs::write(place.path().join("a/SKILL.md"), text).unwrap();
        let (kept, mistakes) = old.read_again(&place);
        assert_eq!(kept, old);
        let mistakes = told(&mistakes);
        assert!(mistakes[0].contains("a/SKILL.md") && mistakes[0].contains("stays"), "{mistakes:?}");
    }
    fs::remove_file(place.path().join("a/SKILL.md")).unwrap();
    fs::create_dir(place.path().join("a/SKILL.md")).unwrap();
    assert_eq!(old.read_again(&place).0, old, "a folder in its place");
    fs::remove_dir(place.path().join("a/SKILL.md")).unwrap();
    let (gone, _) = old.read_again(&place);
    assert_eq!(gone, Shelf::default());
    assert_eq!(gone.changed_from(&old), [place.path().join("a/SKILL.md")]);
    fs::remove_dir_all(place.path()).unwrap();
    fs::write(place.path(), "no folder").unwrap();
    let (kept, mistakes) = old.read_again(&place);
    assert_eq!((kept, mistakes.len()), (old, 1));
}

#[test]
fn the_same_name_shadows_what_lies_lower_and_in_one_place_it_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let (instance, own) =
        (Place::instance(&folder.path().join("data")), Place::workspace(&folder.path().join("w")));
    write(&instance, "one", &text("weather", "operator"));
    write(&instance, "two", &text("maps", "operator"));
    write(&own, "x", &text("weather", "worker"));
    write(&own, "y", "---\nname: maps\ndescription: x\nplatforms: [plan9]\n---\nworker\n");
    let none = Shelf::default();
    assert_eq!(names(&Skills::of(&shelf(&instance), &none)), [("maps", "instance"), ("weather", "instance")]);
    let both = Skills::of(&shelf(&instance), &shelf(&own));
    // What is not for this machine shadows nothing.
    assert_eq!(names(&both), [("maps", "instance"), ("weather", "workspace")]);
    assert_eq!(both.find("weather").unwrap().body, "worker");
    assert!(both.has_any_of_workspace());

    let old = shelf(&instance);
    write(&instance, "new", &text("weather", "again"));
    let (found, mistakes) = old.read_again(&instance);
    assert!(told(&mistakes)[0].contains("new/SKILL.md: the name \"weather\" is that of one"), "{mistakes:?}");
    assert_eq!(found, old, "what is in force keeps its name");
    let (found, mistakes) = none.read_again(&instance);
    assert!(told(&mistakes)[0].contains("one/SKILL.md"), "else it is that of the first folder: {mistakes:?}");
    assert_eq!(found.iter().map(|skill| skill.body.as_str()).collect::<Vec<_>>(), ["again", "operator"]);
}

#[test]
fn systems_have_more_than_one_name() {
    for (name, system) in [("Linux", "linux"), ("darwin", "macos"), ("macOS", "macos"), ("win32", "windows")]
    {
        assert!(is_system(name, system), "{name}");
        assert!(!is_system(name, "plan9"), "{name}");
    }
}

#[test]
fn no_path_leads_out_of_a_skill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("skills")).unwrap();
    fs::write(data.join("secret"), "key").unwrap();
    // The operator keeps this one elsewhere.
    let real = folder.path().join("elsewhere");
    fs::create_dir_all(real.join("references")).unwrap();
    fs::write(real.join(SKILL_FILE), text("a", "Body")).unwrap();
    fs::write(real.join("references/api.md"), "the api").unwrap();
    fs::write(real.join(".env"), "key").unwrap();
    fs::write(real.join("binary"), b"\xff\xfe").unwrap();
    fs::write(real.join("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    symlink("references/api.md", real.join("inside")).unwrap();
    symlink(data.join("secret"), real.join("outside")).unwrap();
    symlink("../data", real.join("scripts")).unwrap();
    symlink(&real, data.join("skills/a")).unwrap();
    nix::unistd::mkfifo(&real.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let place = Place::instance(&data);
    let shelf = shelf(&place);
    let skill = shelf.iter().next().unwrap();
    assert_eq!(skill.read_file("references/api.md").unwrap(), "the api");
    assert_eq!(skill.read_file("inside").unwrap(), "the api", "a link that stays inside");
    let escapes = [
        ("../data/secret", "`..`"),
        ("references/../../data/secret", "`..`"),
        ("/etc/passwd", "`..`"),
        ("", "`..`"),
        (".env", "hidden"),
        ("outside", "leads out"),
        ("scripts/secret", "leads out"),
        ("references", "no regular file"),
        ("pipe", "no regular file"),
        ("binary", "no UTF-8"),
        ("large", "longer than 1048576"),
        ("none", "no such file"),
        ("references/api.md/x", "no such file"),
    ];
    for (path, reason) in escapes {
        let error = skill.read_file(path).expect_err(path).to_string();
        assert!(error.contains(reason), "{path}: {error}");
    }
    let files: Vec<_> = skill.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, ["binary", "large", "references/api.md"]);
}

/// Workers write there, and could lead the daemon, which reads with more rights, to any file.
#[test]
fn in_a_workspace_no_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().join("workspace");
    let place = Place::workspace(&workspace);
    let real = folder.path().join("real");
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join(SKILL_FILE), text("linked", "Body")).unwrap();
    write(&place, "good", &text("good", "Body"));
    symlink(&real, place.path().join("linked")).unwrap();
    fs::create_dir(place.path().join("file")).unwrap();
    symlink(real.join(SKILL_FILE), place.path().join("file").join(SKILL_FILE)).unwrap();
    symlink("SKILL.md", place.path().join("good/inside")).unwrap();
    let (found, mistakes) = Shelf::default().read_again(&place);
    assert_eq!(found.iter().map(|skill| skill.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert!(mistakes.len() == 1 && told(&mistakes)[0].contains("file/SKILL.md: a link"), "{mistakes:?}");
    assert!(found.iter().next().unwrap().read_file("inside").is_err());
    assert!(!files(&place).contains(&place.path().join("linked").join(SKILL_FILE)), "nor watched");
    // All of it is a link.
    fs::rename(place.path(), folder.path().join("moved")).unwrap();
    symlink(folder.path().join("moved"), place.path()).unwrap();
    let (kept, mistakes) = found.read_again(&place);
    assert_eq!((&kept, told(&mistakes)[0].contains("is no folder")), (&found, true));
    assert!(kept.iter().next().unwrap().read_file("SKILL.md").is_err());
}

#[test]
fn there_are_only_so_many_and_the_workspace_takes_no_place_of_the_operators() {
    let folder = tempfile::tempdir().unwrap();
    let (instance, own) =
        (Place::instance(&folder.path().join("data")), Place::workspace(&folder.path().join("w")));
    for number in 0..SKILLS_MAX - 1 {
        write(&instance, &format!("s{number:03}"), &text(&format!("s{number:03}"), "x"));
    }
    for name in ["a0", "a1", "s000"] {
        write(&own, name, &text(name, "x"));
    }
    let skills = Skills::of(&shelf(&instance), &shelf(&own));
    assert_eq!((names(&skills).len(), skills.left_out()), (SKILLS_MAX, 1));
    assert_eq!(names(&skills)[..2], [("a0", "workspace"), ("s000", "workspace")]);
    for number in 0..3 {
        write(&instance, &format!("t{number}"), &text(&format!("t{number}"), "x"));
    }
    let (found, mistakes) = Shelf::default().read_again(&instance);
    assert_eq!(found.iter().count(), SKILLS_MAX);
    assert!(told(&mistakes)[0].contains("2 are left out"), "{mistakes:?}");
}

#[test]
fn a_description_is_one_short_line() {
    let place = Place::instance(Path::new("/data"));
    let long = "漢字 ".repeat(100);
    let text = format!("---\ndescription: \"{long}\\n\\u202e# Rules\\u0007\"\n---\nBody");
    let skill = skill(&text, &place, "folder").unwrap();
    assert_eq!(skill.name, "folder");
    assert!(!skill.description.contains(['\n', '\u{202e}', '\u{7}']), "{}", skill.description);
    assert!(skill.short_description().chars().count() <= 160 && skill.short_description().ends_with('…'));
}
