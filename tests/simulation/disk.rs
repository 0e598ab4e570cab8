//! What the disk does with a commit.

#![allow(unreachable_pub)] // one of the parts of one test

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use spacebot::db::{CommitGate, DbError};

/// Lets commits through until the crash; afterwards nothing is written any more.
pub struct Disk {
    pub commits_to_crash: AtomicI64,
    /// The commit of the crash reaches the disk, but nobody hears of it.
    pub after: AtomicBool,
    pub crashed: AtomicBool,
    pub full: AtomicBool,
}

impl Disk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            commits_to_crash: AtomicI64::new(i64::MAX),
            after: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    pub fn crash(&self) -> DbError {
        self.crashed.store(true, Ordering::SeqCst);
        DbError::Corrupt("simulated crash".to_owned())
    }
}

impl CommitGate for Disk {
    fn before_commit(&self) -> Result<(), DbError> {
        if self.crashed.load(Ordering::SeqCst) {
            return Err(self.crash());
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(DbError::Full);
        }
        let left = self.commits_to_crash.fetch_sub(1, Ordering::SeqCst);
        if left <= 1 && !self.after.load(Ordering::SeqCst) { Err(self.crash()) } else { Ok(()) }
    }

    fn after_commit(&self) -> Result<(), DbError> {
        if self.commits_to_crash.load(Ordering::SeqCst) <= 0 { Err(self.crash()) } else { Ok(()) }
    }
}
