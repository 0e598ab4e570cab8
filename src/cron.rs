//! Jobs that run at their time: when, whether they ran, and what became of it.

pub mod expression;
pub mod schedule;
