//! The writer's promises: durable before the answer, one failure undoes only itself, order kept.

use super::*;

fn opened() -> (tempfile::TempDir, Db, JoinHandle<()>) {
    let folder = tempfile::tempdir().expect("folder");
    let (db, handle) = Db::open(&folder.path().join("t.db"), "t").expect("open");
    db.write(|c| Ok(c.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")?)).expect("table");
    (folder, db, handle)
}

fn insert(n: i64) -> impl FnOnce(&Connection) -> Result<i64, DbError> + Send + 'static {
    move |connection| {
        connection.execute("INSERT INTO t (n) VALUES (?1)", [n])?;
        Ok(n)
    }
}

fn numbers(db: &Db) -> Vec<i64> {
    db.read(|c| {
        let mut statement = c.prepare("SELECT n FROM t ORDER BY n")?;
        let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(rows)
    })
    .expect("read")
}

#[test]
fn a_failing_write_undoes_only_itself() {
    let (_folder, db, handle) = opened();
    let tickets: Vec<_> = [1, 2, 2, 3].into_iter().map(|n| db.submit(insert(n)).expect("submit")).collect();
    let results: Vec<_> = tickets.into_iter().map(Ticket::wait).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(results[2].is_err(), "the second 2 breaks the key");
    assert_eq!(numbers(&db), [1, 2, 3]);
    db.close();
    handle.join().expect("join");
}

#[test]
fn many_threads_write_and_all_is_there_after_reopening() {
    let (folder, db, handle) = opened();
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let db = db.clone();
            thread::spawn(format!("w{t}"), move || {
                (0..50).for_each(|n| assert_eq!(db.write(insert(t * 50 + n)).expect("write"), t * 50 + n))
            })
            .expect("spawn")
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("join"));
    db.close();
    handle.join().expect("join");
    assert!(matches!(db.write(insert(9999)), Err(DbError::Closed)));
    let again = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    assert_eq!(numbers(&again).len(), 400);
}

#[test]
fn a_reader_cannot_write() {
    let (_folder, db, handle) = opened();
    assert!(db.read(|c| Ok(c.execute("INSERT INTO t (n) VALUES (1)", [])?)).is_err());
    db.close();
    handle.join().expect("join");
}

#[test]
fn an_edited_migration_is_refused() {
    let (folder, db, handle) = opened();
    db.write(|c| Ok(c.execute("UPDATE schema_migrations SET checksum = checksum + 1", [])?)).expect("write");
    db.close();
    handle.join().expect("join");
    let error = Db::open(&folder.path().join("t.db"), "t").err().expect("refused");
    assert!(matches!(error, DbError::Migration { .. }), "{error}");
}

struct Gate;
impl CommitGate for Gate {
    fn before_commit(&self) -> Result<(), DbError> {
        Err(DbError::Full)
    }
    fn after_commit(&self) -> Result<(), DbError> {
        Ok(())
    }
}

#[test]
fn a_refused_commit_stores_nothing() {
    let (folder, db, handle) = opened();
    db.close();
    handle.join().expect("join");
    let gated = Db::open_inline(&folder.path().join("t.db"), Some(Arc::new(Gate))).expect("open");
    assert!(matches!(gated.write(insert(1)), Err(DbError::Full)));
    assert!(numbers(&gated).is_empty());
}

#[test]
fn a_deferred_write_rides_along_or_comes_soon_and_none_is_lost_at_the_close() {
    let (folder, db, handle) = opened();
    let deferred = |n: i64| db.defer(move |connection| insert(n)(connection).map(drop)).expect("defer");
    deferred(1);
    assert_eq!(db.write(insert(2)).expect("write"), 2);
    assert_eq!(numbers(&db), [1, 2], "it rode along with the next commit, or came before it");
    (3..200).for_each(deferred);
    db.close();
    handle.join().expect("join");
    assert!(matches!(db.defer(|_| Ok(())), Err(DbError::Closed)));
    let again = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    assert_eq!(numbers(&again).len(), 199);
}

#[test]
fn a_deferred_write_comes_by_itself_when_nothing_else_is_written() {
    let (_folder, db, handle) = opened();
    let (committed, seen) = bounded(1);
    db.defer(move |connection| {
        insert(1)(connection)?;
        committed.send(()).map_err(|_| DbError::Closed)
    })
    .expect("defer");
    seen.recv_timeout(LINGER * 40).expect("the writer came back for it");
    db.close();
    handle.join().expect("join");
}

#[test]
fn what_must_not_wait_is_told_after_the_commit_and_refused_when_the_queue_is_full() {
    let (_folder, db, handle) = opened();
    let ((entered, holding), (release, released)) = (bounded(1), bounded::<()>(1));
    let held = db
        .submit(move |_| {
            entered.send(()).expect("the test");
            released.recv().expect("the test");
            Ok(())
        })
        .expect("submit");
    holding.recv().expect("the writer");
    let (told, tell) = bounded(2 * WRITE_QUEUE);
    let many = WRITE_QUEUE as i64 + 10;
    for n in 1..=many {
        let told = told.clone();
        db.submit_then(insert(n), move |result| told.send((n, result)).expect("the test"));
    }
    let refused: Vec<_> = tell.try_iter().collect();
    assert_eq!(refused.len(), 10, "the others wait");
    assert!(refused.iter().all(|(_, result)| matches!(result, Err(DbError::QueueFull))));
    assert!(matches!(db.defer(|_| Ok(())), Ok(()) | Err(DbError::QueueFull)), "and does not wait");
    release.send(()).expect("the writer");
    held.wait().expect("held");
    for n in 1..=WRITE_QUEUE as i64 {
        let (told, result) = tell.recv().expect("told");
        assert_eq!((told, result.expect("stored")), (n, n));
    }
    assert_eq!(numbers(&db).len(), WRITE_QUEUE);
    db.close();
    handle.join().expect("join");
    let (closed, was_closed) = bounded(1);
    db.submit_then(insert(9999), move |result| closed.send(result).expect("the test"));
    assert!(matches!(was_closed.recv().expect("told"), Err(DbError::Closed)));
}

#[test]
fn all_statements_of_one_read_see_the_same_state() {
    let (_folder, db, handle) = opened();
    db.write(insert(1)).expect("write");
    let count = |c: &Connection| {
        c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).expect("count")
    };
    let seen = db
        .read(|connection| {
            let first = count(connection);
            db.write(insert(2))?;
            Ok([first, count(connection)])
        })
        .expect("read");
    assert_eq!(seen, [1, 1], "what is committed meanwhile is for the next read");
    assert_eq!(numbers(&db), [1, 2]);
    db.close();
    handle.join().expect("join");
}

#[test]
fn a_large_write_leaves_no_large_log_behind() {
    let (folder, db, handle) = opened();
    let log = || std::fs::metadata(folder.path().join("t.db-wal")).expect("log").len();
    db.write(|c| Ok(c.execute_batch("CREATE TABLE b (b BLOB); INSERT INTO b VALUES (zeroblob(16000000))")?))
        .expect("write");
    assert!(log() > 16_000_000, "{}", log());
    for n in 1..=3 {
        db.write(insert(n)).expect("write");
    }
    assert!(log() < 6_000_000, "{}", log());
    db.close();
    handle.join().expect("join");
}
