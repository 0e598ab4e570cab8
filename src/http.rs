//! HTTP both ways, on blocking sockets: the transport under the model clients, and a small server.

pub mod server;
pub mod transport;
