//! Who owns a partition: asked of the group, remembered briefly.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::format::names;
use crate::log::{GroupMember, Log, LogError, TopicPartition};

/// How long an answer of the group is good. Short: a redirect to a process that has just lost the
/// partition is answered by another redirect, and a client follows only so many.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Where a partition is, by what the group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The process that answers at this address.
    At(String),
    /// This process: it has yet to take the partition up, or is giving it back.
    Here,
    /// Nobody: the group is about to assign it.
    Nobody,
    /// This member, which does not say where it can be reached.
    Unreachable(String),
}

type Ask = Arc<dyn Fn() -> Result<Vec<GroupMember>, LogError> + Send + Sync>;

/// Finds owners.
pub(super) struct Owners {
    ask: Ask,
    /// What the `client.id`s of this process begin with.
    identity: String,
    /// Held while the group is asked: callers that come meanwhile share the answer.
    known: Mutex<Option<(Instant, Vec<GroupMember>)>>,
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Owners {
    pub(super) fn new<L: Log>(log: &L, group: &str, process_id: &str) -> Self {
        let (log, group) = (log.clone(), group.to_owned());
        let identity = names::process_identity(&group, process_id);
        Self {
            ask: Arc::new(move || log.group_members(&group)),
            identity,
            known: Mutex::new(None),
        }
    }

    /// Returns who owns `partition`, a partition of a topic that threads subscribe to.
    ///
    /// # Errors
    /// When the group cannot be asked.
    pub(super) async fn owner_of(&self, partition: &TopicPartition) -> Result<Owner, LogError> {
        let mut known = self.known.lock().await;
        let members = match &*known {
            Some((at, members)) if at.elapsed() < FRESH_FOR => members,
            Some(_) | None => {
                let ask = Arc::clone(&self.ask);
                let asked = tokio::task::spawn_blocking(move || ask()).await;
                let members = asked.unwrap_or_else(|panic| {
                    let message = panic.to_string();
                    Err(LogError::Retriable {
                        operation: "ask for the group's members",
                        message,
                    })
                })?;
                &known.insert((Instant::now(), members)).1
            }
        };
        Ok(owner_among(members, partition, &self.identity))
    }
}

fn owner_among(members: &[GroupMember], partition: &TopicPartition, identity: &str) -> Owner {
    let Some(member) = members
        .iter()
        .find(|member| member.assignment.contains(partition))
    else {
        return Owner::Nobody;
    };
    if member.client_id.starts_with(identity) {
        return Owner::Here;
    }
    match names::advertised_address(&member.client_id) {
        Some(address) => Owner::At(address.to_owned()),
        None => Owner::Unreachable(member.client_id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client_id: &str, partition: i32) -> GroupMember {
        GroupMember {
            client_id: client_id.to_owned(),
            group_instance_id: None,
            assignment: vec![TopicPartition::new("commands", partition)],
        }
    }

    #[test]
    fn the_owner_is_the_member_with_the_partition() {
        let members = [
            member("app-aa-0@node-1:80", 0),
            member("app-bb-0@node-2:80", 1),
            member("app-cc-0", 2),
        ];
        let owner = |partition| {
            owner_among(
                &members,
                &TopicPartition::new("commands", partition),
                "app-aa-",
            )
        };
        assert_eq!(owner(0), Owner::Here);
        assert_eq!(owner(1), Owner::At("node-2:80".to_owned()));
        assert_eq!(owner(2), Owner::Unreachable("app-cc-0".to_owned()));
        assert_eq!(owner(3), Owner::Nobody);
    }
}
