//! Files of messages: kept once, as long as their message, within their room.

use super::*;
use crate::message::attachment::Files;
use crate::message::{Attachment, FileKind, NewFile};

fn file(name: &str, bytes: &[u8]) -> NewFile {
    NewFile { name: name.to_owned(), media_type: "text/plain".to_owned(), bytes: bytes.to_vec() }
}

fn receive(c: &Conversations, id: &str, files: Vec<NewFile>) -> Result<Option<InboxId>, DbError> {
    let (tell, told) = crossbeam_channel::bounded(1);
    c.begin_receive_with(inbound(id, "hello"), files, move |done| tell.send(done).expect("told once"));
    told.try_recv().expect("told")
}

fn names(c: &Conversations) -> Vec<String> {
    let folder = c.db.path().with_file_name("attachments");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn run(c: &Conversations, sql: &str) {
    let sql = sql.to_owned();
    c.db.write(move |connection| Ok(connection.execute_batch(&sql)?)).expect("write");
}

#[test]
fn files_come_with_their_message_and_the_same_bytes_are_kept_once() {
    let (_folder, c) = conversations();
    receive(&c, "1", vec![file("a.txt", b"one"), file("b.txt", b"two")]).expect("taken");
    c.receive(inbound("2", "without")).expect("taken");
    receive(&c, "3", vec![file("../../c.txt", b"one")]).expect("taken");
    assert_eq!(receive(&c, "3", vec![file("d.txt", b"three")]).expect("known"), None);
    let kept: Vec<Vec<Attachment>> = c
        .unanswered(&place().conversation, 10)
        .expect("read")
        .into_iter()
        .map(|received| received.attachments)
        .collect();
    let called = |files: &[Attachment]| files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        kept.iter().map(|files| called(files)).collect::<Vec<_>>(),
        [vec!["a.txt", "b.txt"], Vec::new(), vec!["../../c.txt"]]
    );
    assert_eq!(kept[0][0].hash, kept[2][0].hash);
    assert_eq!((kept[0][0].kind, kept[0][0].bytes), (FileKind::Text, 3));
    assert_eq!(names(&c).len(), 2, "{:?}", names(&c));
    let folder = c.attachments();
    assert_eq!(folder.read(&kept[0][1]).as_deref(), Some(&b"two"[..]));
    assert_eq!(folder.beginning(&kept[0][1], 2).as_deref(), Some(&b"tw"[..]));
    std::fs::write(c.db.path().with_file_name("attachments").join(&kept[0][1].hash), b"twe").expect("write");
    assert_eq!(folder.read(&kept[0][1]), None, "it is not what it was");
    let elsewhere = Attachment { hash: "../t.db".to_owned(), ..kept[0][0].clone() };
    assert!(folder.read(&elsewhere).is_none() && !folder.has(&elsewhere));
}

#[test]
fn files_go_with_the_last_message_that_has_them_and_a_start_deletes_what_belongs_to_none() {
    let (_folder, c) = conversations();
    for (id, bytes) in [("1", "one"), ("2", "one"), ("3", "two")] {
        receive(&c, id, vec![file("x", bytes.as_bytes())]).expect("taken");
    }
    let forget = || c.forget_old(Duration::from_secs(1)).expect("forget");
    run(&c, "DELETE FROM inbox WHERE platform_id = '1'");
    forget();
    assert_eq!(names(&c).len(), 2, "another message has it");
    run(&c, "DELETE FROM inbox WHERE platform_id = '2'");
    forget();
    assert_eq!(names(&c).len(), 1);
    let folder = c.db.path().with_file_name("attachments");
    for orphan in ["new-0190", &"0".repeat(64)] {
        std::fs::write(folder.join(orphan), b"x").expect("write");
    }
    assert_eq!(c.sweep_attachments().expect("swept"), 2);
    assert_eq!((names(&c).len(), c.sweep_attachments().expect("swept")), (1, 0));
}

#[test]
fn files_have_so_much_room_and_those_of_unanswered_messages_stay() {
    let (_folder, c) = conversations();
    for id in ["1", "2", "3"] {
        receive(&c, id, vec![file(id, id.as_bytes())]).expect("taken");
    }
    let most = FILES_BYTES_MAX;
    run(&c, &format!("UPDATE attachments SET bytes = {} WHERE name IN ('1', '2')", most / 2));
    let full = receive(&c, "4", vec![file("4", b"4")]);
    assert!(matches!(full, Err(DbError::NoRoom(_))), "{full:?}");
    assert_eq!((names(&c).len(), c.unanswered(&place().conversation, 10).expect("read").len()), (3, 3));
    run(&c, "UPDATE inbox SET answered_at = 1 WHERE platform_id IN ('1', '2')");
    receive(&c, "4", vec![file("4", b"4")]).expect("taken").expect("new");
    assert_eq!(names(&c).len(), 3, "the oldest made room, and no other");
    let left: Vec<Vec<Attachment>> = c
        .unanswered(&place().conversation, 10)
        .expect("read")
        .into_iter()
        .map(|received| received.attachments)
        .collect();
    assert!(left.iter().flatten().all(|file| c.attachments().has(file)) && left.len() == 2, "{left:?}");
}
