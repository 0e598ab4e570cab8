//! How polls hear that something was said, or is being written.

use std::sync::Arc;

use spacebot::http::server::ServerHandle;
use spacebot::id::ConversationId;
use spacebot::message::{Bell, Saying};
use spacebot::messaging::drafts::Drafts;

/// The polls that are parked at the server.
pub(super) struct Polls {
    pub(super) server: ServerHandle,
    pub(super) drafts: Arc<Drafts>,
}

impl Bell for Polls {
    fn ring(&self, conversation: &ConversationId) {
        self.server.wake(conversation.as_str());
    }

    fn saying(&self, conversation: &ConversationId, saying: Saying<'_>) {
        if self.drafts.hear(conversation, saying) {
            self.ring(conversation);
        }
    }
}
