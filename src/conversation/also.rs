//! What rides along in a transaction of the conversations: modules of one floor do not know each other,
//! and yet what belongs together is stored together.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::Connection;

/// What another module writes in the same transaction, such as what is to be told of it elsewhere.
pub trait Also: FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static {}

impl<F: FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static> Also for F {}

/// For a transaction that nobody else takes part in.
///
/// # Errors
/// None.
pub fn nothing_else(_: &Connection, _: Timestamp) -> Result<(), DbError> {
    Ok(())
}
