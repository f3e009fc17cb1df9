//! Where a caller in this process waits for the reply to its command.
//!
//! # Position
//! `http` sends a command to its topic and waits here; the command processor delivers after the
//! reply's transaction has committed (invariant 4).
//! # Invariants
//! - A waiter is registered before its command is sent, so that no reply is missed.
//! - The number of waiters is bounded; a waiter that is dropped is forgotten.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::command::Reply;

/// How many callers may wait at once in a process.
const WAITERS_MAX: usize = 16_384;

/// Aggregate type, aggregate id, command id.
type Address = (String, String, String);

#[derive(Default)]
struct Waiting {
    next: u64,
    count: usize,
    by_address: HashMap<Address, Vec<(u64, oneshot::Sender<Reply>)>>,
}

/// Hands replies to those who wait for them. Cheap to clone; shared by all threads of a process.
#[derive(Clone, Default)]
pub struct ReplyHub(Arc<Mutex<Waiting>>);

impl fmt::Debug for ReplyHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyHub")
            .field("waiting", &self.lock().count)
            .finish()
    }
}

impl ReplyHub {
    /// Creates a hub without waiters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a waiter; call it before the command is sent. `None` when too many wait already.
    #[must_use]
    pub fn wait(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        command_id: &str,
    ) -> Option<ReplyWaiter> {
        let mut waiting = self.lock();
        if waiting.count >= WAITERS_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let number = waiting.next;
        waiting.next = waiting.next.wrapping_add(1);
        waiting.count += 1;
        let address: Address = (
            aggregate_type.into(),
            aggregate_id.into(),
            command_id.into(),
        );
        waiting
            .by_address
            .entry(address.clone())
            .or_default()
            .push((number, sender));
        drop(waiting);
        Some(ReplyWaiter {
            hub: self.clone(),
            address: Some((address, number)),
            receiver,
        })
    }

    /// Returns whether anybody waits for this command's reply.
    #[must_use]
    pub fn is_awaited(&self, reply: &Reply) -> bool {
        let waiting = self.lock();
        waiting.count > 0 && waiting.by_address.contains_key(&address(reply))
    }

    /// Hands `reply` to all who wait for it.
    pub fn deliver(&self, reply: &Reply) {
        let senders = {
            let mut waiting = self.lock();
            let senders = waiting
                .by_address
                .remove(&address(reply))
                .unwrap_or_default();
            waiting.count -= senders.len();
            senders
        };
        for (_, sender) in senders {
            // A waiter that has just gone away needs no reply.
            drop(sender.send(reply.clone()));
        }
    }

    fn forget(&self, address: &Address, number: u64) {
        let mut waiting = self.lock();
        let Some(senders) = waiting.by_address.get_mut(address) else {
            return;
        };
        let before = senders.len();
        senders.retain(|(other, _)| *other != number);
        let gone = before - senders.len();
        if senders.is_empty() {
            waiting.by_address.remove(address);
        }
        waiting.count -= gone;
    }
}

fn address(reply: &Reply) -> Address {
    (
        reply.aggregate_type.to_string(),
        reply.aggregate_id.clone(),
        reply.command_id.clone(),
    )
}

/// Resolves to the reply, or to `None` when the process stops first. Give it a deadline.
#[must_use = "a dropped waiter waits no more"]
pub struct ReplyWaiter {
    hub: ReplyHub,
    /// `None` once the reply has come.
    address: Option<(Address, u64)>,
    receiver: oneshot::Receiver<Reply>,
}

impl fmt::Debug for ReplyWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyWaiter")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Future for ReplyWaiter {
    type Output = Option<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        let polled = Pin::new(&mut self.receiver).poll(context).map(Result::ok);
        if polled.is_ready() {
            self.address = None;
        }
        polled
    }
}

impl Drop for ReplyWaiter {
    fn drop(&mut self) {
        if let Some((address, number)) = self.address.take() {
            self.hub.forget(&address, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::command::Outcome;
    use super::*;

    fn reply(command_id: &str) -> Reply {
        Reply {
            command_id: command_id.into(),
            aggregate_type: "Account".into(),
            aggregate_id: "a".into(),
            outcome: Outcome::Accepted,
            aggregate_version: 1,
            tombstoned_at: None,
            event_ids: Vec::new(),
            reason: None,
        }
    }

    #[test]
    fn every_waiter_of_a_command_gets_its_reply_and_nobody_else() {
        let hub = ReplyHub::new();
        let first = hub.wait("Account", "a", "c-1").unwrap();
        let second = hub.wait("Account", "a", "c-1").unwrap();
        let other = hub.wait("Account", "a", "c-2").unwrap();
        assert!(hub.is_awaited(&reply("c-1")) && !hub.is_awaited(&reply("c-3")));
        hub.deliver(&reply("c-1"));
        assert_eq!(first.now_or_never(), Some(Some(reply("c-1"))));
        assert_eq!(second.now_or_never(), Some(Some(reply("c-1"))));
        assert_eq!(other.now_or_never(), None);
        assert_eq!(hub.lock().count, 0, "the dropped waiter is forgotten");
        assert!(hub.lock().by_address.is_empty());
    }

    #[test]
    fn waiters_are_bounded_and_a_dropped_one_makes_room() {
        let hub = ReplyHub::new();
        let mut waiters: Vec<_> = (0..WAITERS_MAX)
            .map(|n| hub.wait("Account", "a", &n.to_string()).unwrap())
            .collect();
        assert!(hub.wait("Account", "a", "one more").is_none());
        waiters.pop();
        assert!(hub.wait("Account", "a", "one more").is_some());
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_dropped() {
        let hub = ReplyHub::new();
        hub.deliver(&reply("c"));
        assert_eq!(hub.lock().count, 0);
    }
}
