//! `<sub-topology>_<partition>`, as Kafka Streams writes it.

use std::fmt;
use std::str::FromStr;

/// A task: one partition of one sub-topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The sub-topology.
    pub sub_topology: u32,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

/// The text is not a task id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id such as `0_3`")]
pub struct ParseTaskIdError(String);

impl FromStr for TaskId {
    type Err = ParseTaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTaskIdError(text.to_owned());
        let (sub_topology, partition) = text.split_once('_').ok_or_else(error)?;
        let task = Self {
            sub_topology: sub_topology.parse().map_err(|_| error())?,
            partition: partition.parse().map_err(|_| error())?,
        };
        if task.partition < 0 {
            Err(error())
        } else {
            Ok(task)
        }
    }
}
