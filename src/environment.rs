//! The environment variables by which libraries in this process are told what to do. Set once, before the first
//! thread.

#![allow(unsafe_code)] // one call that is sound as long as there is one thread

/// onnxruntime 1.31 sends its maker, from Linux too, that and how it is used: it makes an identifier of the device
/// and a database in the home folder, keeps a thread and looks for a server, also where the API has said "no
/// telemetry". It begins when the library is initialised; only this variable keeps it from that.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// To be called once, before the first thread starts.
pub fn settle() {
    // SAFETY: no other thread runs yet, so nobody reads the environment meanwhile.
    unsafe {
        std::env::set_var(NO_TELEMETRY, "1");
    }
}

/// Whether [`settle`] has been called, or whoever started us has seen to it: without it, onnxruntime is not loaded.
#[must_use]
pub fn keeps_to_itself() -> bool {
    std::env::var_os(NO_TELEMETRY).is_some_and(|value| value == "1")
}
