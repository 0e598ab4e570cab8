//! What a task can be, and what it can become.

use serde::{Deserialize, Serialize};

/// The states of a task as `tasks.status` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Status {
    /// Somebody has proposed it; nothing happens before a person has agreed.
    PendingApproval,
    /// Put aside.
    Backlog,
    /// A worker takes it as soon as there is room.
    Ready,
    /// A worker is bound to it.
    InProgress,
    Done,
    Failed,
}

impl Status {
    pub const ALL: [Status; 6] = [
        Status::PendingApproval,
        Status::Backlog,
        Status::Ready,
        Status::InProgress,
        Status::Done,
        Status::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::PendingApproval => "pending_approval",
            Status::Backlog => "backlog",
            Status::Ready => "ready",
            Status::InProgress => "in_progress",
            Status::Done => "done",
            Status::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// The table of spec §8.5: to stay is always allowed, and so is being put aside.
    pub fn can_become(self, next: Status) -> bool {
        use Status::{Backlog, Done, Failed, InProgress, PendingApproval, Ready};
        self == next
            || matches!(
                (self, next),
                (_, Backlog)
                    | (PendingApproval | Backlog | Done | Failed, Ready)
                    | (Ready, InProgress)
                    | (InProgress, Done | Ready | Failed)
            )
    }

    /// Nothing more happens to it by itself.
    pub fn is_over(self) -> bool {
        matches!(self, Status::Done | Status::Failed)
    }
}

/// The most urgent first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Priority {
    Critical,
    High,
    #[default]
    Medium,
    Low,
}

impl Priority {
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::High, Priority::Medium, Priority::Low];

    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == text)
    }

    /// 0 comes first.
    pub fn urgency(self) -> u8 {
        self as u8
    }
}

/// How one attempt of a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    Success,
    /// Not all of it, but what there is counts.
    Partial,
    Failed,
    Timeout,
    /// Somebody stopped the worker.
    Cancelled,
    /// The daemon was stopped in order; no fault of the task.
    Interrupted,
}

impl AttemptEnd {
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Success => "success",
            AttemptEnd::Partial => "partial",
            AttemptEnd::Failed => "failed",
            AttemptEnd::Timeout => "timeout",
            AttemptEnd::Cancelled => "cancelled",
            AttemptEnd::Interrupted => "interrupted",
        }
    }

    /// What a task in progress becomes after its `attempts`th attempt of at most `limit`.
    pub fn leads_to(self, attempts: usize, limit: usize) -> Status {
        match self {
            AttemptEnd::Success | AttemptEnd::Partial => Status::Done,
            AttemptEnd::Cancelled => Status::Backlog,
            AttemptEnd::Interrupted => Status::Ready,
            AttemptEnd::Failed | AttemptEnd::Timeout if attempts < limit => Status::Ready,
            AttemptEnd::Failed | AttemptEnd::Timeout => Status::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Status::{Backlog, Done, Failed, InProgress, PendingApproval, Ready};
    use super::*;

    #[test]
    fn exactly_the_written_transitions_are_allowed() {
        let allowed = [
            (PendingApproval, vec![PendingApproval, Backlog, Ready]),
            (Backlog, vec![Backlog, Ready]),
            (Ready, vec![Backlog, Ready, InProgress]),
            (InProgress, vec![Backlog, Ready, InProgress, Done, Failed]),
            (Done, vec![Backlog, Ready, Done]),
            (Failed, vec![Backlog, Ready, Failed]),
        ];
        for (from, wanted) in allowed {
            let found: Vec<_> = Status::ALL.into_iter().filter(|to| from.can_become(*to)).collect();
            assert_eq!(found, wanted, "from {from:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        assert!(Status::ALL.iter().all(|status| Status::parse(status.as_str()) == Some(*status)));
        assert!(Priority::ALL.iter().all(|priority| Priority::parse(priority.as_str()) == Some(*priority)));
        assert!(Priority::ALL.is_sorted_by_key(|priority| priority.urgency()));
        assert_eq!(serde_json::json!(Status::ALL), serde_json::json!(Status::ALL.map(Status::as_str)));
        assert_eq!((Status::parse("Ready"), Priority::parse("")), (None, None));
    }

    #[test]
    fn every_end_of_an_attempt_leads_to_an_allowed_state() {
        use AttemptEnd::{Cancelled, Interrupted, Partial, Success, Timeout};
        let ends = [Success, Partial, AttemptEnd::Failed, Timeout, Cancelled, Interrupted];
        for (end, attempts) in ends.into_iter().flat_map(|end| (1..5).map(move |attempts| (end, attempts))) {
            assert!(InProgress.can_become(end.leads_to(attempts, 3)), "{end:?} after {attempts}");
        }
        let after = |end: AttemptEnd| [1, 2, 3].map(|attempts| end.leads_to(attempts, 3));
        assert_eq!(after(AttemptEnd::Failed), [Ready, Ready, Failed]);
        assert_eq!(after(Timeout), [Ready, Ready, Failed]);
        assert_eq!(after(Interrupted), [Ready; 3], "an orderly stop is no failure");
    }
}
