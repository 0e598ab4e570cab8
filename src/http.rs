//! HTTP on blocking sockets.

pub mod transport;
