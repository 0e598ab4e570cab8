//! File tools: what they do in the workspace, and that nothing leads out of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use spacebot::effect::{Answer, Ask, Effect};
use spacebot::thread::{self, Cancel};
use spacebot::tools::file_edit::FileEdit;
use spacebot::tools::file_list::FileList;
use spacebot::tools::file_read::FileRead;
use spacebot::tools::file_write::FileWrite;
use spacebot::tools::workspace::Workspace;
use spacebot::tools::{Desk, Tool, ToolContext, ToolError};

struct Nobody;

impl Desk for Nobody {
    fn tell(&mut self, _: Effect) {}
    fn ask(&mut self, _: Ask) -> Result<Answer, ToolError> {
        Err(ToolError::Cancelled)
    }
}

fn call(tool: &mut dyn Tool, arguments: Value) -> Result<String, ToolError> {
    tool.call(arguments, &mut ToolContext { cancel: &Cancel::new(), desk: &mut Nobody, outside: false })
}

/// A folder with a secret in it and the workspace below.
fn yard() -> (tempfile::TempDir, Arc<Workspace>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("workspace")).unwrap();
    std::fs::write(folder.path().join("SOUL.md"), "private soul").unwrap();
    let workspace = Arc::new(Workspace::open(&folder.path().join("workspace")).unwrap());
    (folder, workspace)
}

#[test]
fn write_read_edit_list() {
    let (folder, workspace) = yard();
    let mut write = FileWrite::new(workspace.clone());
    call(&mut write, json!({ "path": "notes/a.txt", "content": "one\ntwo\nthree\n" })).unwrap();
    let mut read = FileRead::new(workspace.clone());
    let lines = call(&mut read, json!({ "path": "notes/a.txt", "offset": "2", "limit": 1 })).unwrap();
    assert!(lines.starts_with("2\ttwo\n") && lines.contains("use offset"), "{lines}");
    let mut edit = FileEdit::new(workspace.clone());
    call(&mut edit, json!({ "path": "notes/a.txt", "old_string": "two", "new_string": "2" })).unwrap();
    let path = folder.path().join("workspace/notes/a.txt");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n2\nthree\n");
    let ambiguous = call(&mut edit, json!({ "path": "notes/a.txt", "old_string": "e\n", "new_string": "x" }));
    assert!(ambiguous.unwrap_err().to_string().contains("occurs 2 times"));
    let listed = call(&mut FileList::new(workspace), json!({ "path": "notes" })).unwrap();
    assert!(listed.contains("a.txt") && !listed.contains(".new"), "{listed}");
}

#[test]
fn nothing_leads_out() {
    let (folder, workspace) = yard();
    let inside = folder.path().join("workspace");
    symlink(folder.path(), inside.join("up")).unwrap();
    symlink(folder.path().join("SOUL.md"), inside.join("soul")).unwrap();
    symlink("/proc/self/cwd/Cargo.toml", inside.join("magic")).unwrap();
    let soul = folder.path().join("SOUL.md").to_string_lossy().into_owned();
    for path in ["../SOUL.md", "up/SOUL.md", "soul", "magic", soul.as_str(), "/etc/passwd", "a/../../SOUL.md"]
    {
        let read = call(&mut FileRead::new(workspace.clone()), json!({ "path": path }));
        assert!(matches!(read, Err(ToolError::Denied(_) | ToolError::NotFound(_))), "read {path}: {read:?}");
        let write = call(&mut FileWrite::new(workspace.clone()), json!({ "path": path, "content": "gone" }));
        assert!(write.is_err(), "write {path}: {write:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("SOUL.md")).unwrap(), "private soul");
}

#[test]
fn a_link_that_changes_under_the_tool_does_not_help() {
    let (folder, workspace) = yard();
    let inside = folder.path().join("workspace");
    std::fs::create_dir(inside.join("real")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (stop, place, outside) = (over.clone(), inside.clone(), folder.path().to_owned());
    let swapper = thread::spawn("swapper", move || {
        while !stop.load(Ordering::SeqCst) {
            for target in [Path::new("real"), outside.as_path()] {
                symlink(target, place.join("next")).unwrap();
                std::fs::rename(place.join("next"), place.join("dir")).unwrap();
            }
        }
    });
    let mut write = FileWrite::new(workspace);
    for _ in 0..2_000 {
        call(&mut write, json!({ "path": "dir/SOUL.md", "content": "gone", "create_dirs": false })).ok();
    }
    over.store(true, Ordering::SeqCst);
    swapper.unwrap().join().unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("SOUL.md")).unwrap(), "private soul");
}

#[test]
fn odd_files_are_refused_without_waiting() {
    let (folder, workspace) = yard();
    let inside = folder.path().join("workspace");
    nix::unistd::mkfifo(&inside.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(inside.join("binary"), [0, 1, 2]).unwrap();
    let mut read = FileRead::new(workspace);
    for path in ["pipe", "binary", "."] {
        assert!(call(&mut read, json!({ "path": path })).is_err(), "{path}");
    }
}
