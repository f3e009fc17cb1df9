//! Faults that a simulation injects, at the places where a broker's would show.

use std::fmt::Debug;

use crate::log::TopicPartition;

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultPoint {
    /// `init_transactions`.
    Init,
    /// `send`, before the record is appended.
    Send,
    /// `flush`.
    Flush,
    /// `send_offsets`.
    SendOffsets,
    /// `commit_transaction` of a transaction that wrote something.
    Commit,
    /// `abort_transaction` of a transaction that wrote something.
    Abort,
    /// A consumer's or reader's `poll`.
    Fetch,
    /// `committed`.
    Committed,
}

/// Who is doing what, for a [`FaultPlan`] to choose by.
#[derive(Debug, Clone, Copy)]
pub struct FaultSite<'a> {
    /// What is about to be done.
    pub point: FaultPoint,
    /// The client's `client.id`; empty for a reader.
    pub client_id: &'a str,
    /// The producer's `transactional.id`.
    pub transactional_id: Option<&'a str>,
    /// The partition, where there is one.
    pub partition: Option<&'a TopicPartition>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing happens; the same call may succeed later: `Retriable`. At [`FaultPoint::Send`], whose
    /// callers know no such answer, `AbortRequired`; at [`FaultPoint::Commit`], `UnknownOutcome`.
    Retriable,
    /// The transaction is lost: `AbortRequired`, until it is aborted. Elsewhere as `Retriable`.
    AbortRequired,
    /// Only for [`FaultPoint::Commit`]: the request is lost, nothing is committed, the caller sees
    /// `UnknownOutcome` and may commit again. Elsewhere as `Retriable`.
    RequestLost,
    /// Only for [`FaultPoint::Commit`]: the transaction commits, but its reply is lost: the caller
    /// sees `UnknownOutcome`; to commit again succeeds. Elsewhere as `Retriable`.
    ReplyLost,
    /// Nothing happens, and the client can do nothing more: `Fatal` from now on. (After a
    /// `RequestLost` or a `ReplyLost` this is a commit whose outcome stays unknown.)
    Fatal,
}

/// Decides what goes wrong. Called without any lock held, in the order of the operations.
pub trait FaultPlan: Send + Sync + Debug {
    /// Returns the fault to inject at `site`, if any.
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault>;
}
