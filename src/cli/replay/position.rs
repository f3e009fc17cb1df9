//! How far a replay into a topic has come: kept by the target, in the transaction of what it wrote.
//!
//! The target's log keeps it as the metadata of one committed offset: that of partition 0 of the target
//! topic, in a group of the replay's name, whose offset counts the records written.
//!
//! ```text
//! millstream-replay 1 <what is replayed, 16 hexadecimal digits> <partition>:<next>/<end>,…
//! ```

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use super::super::ExitCode;
use super::super::outcome::Exit;
use super::super::sinks::of_log;
use crate::log::{CommittedOffset, Log, Offset, TopicName, TopicPartition};
use crate::sink::SinkTopic;

/// How long the target may take to say how far a replay has come.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

const PREFIX: &str = "millstream-replay 1";
/// A broker's default for `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4_096;
/// What a position of 20 digits takes more than one of one digit.
const GROWTH: usize = 19;

/// What is replayed, as far as a later start must agree with an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request(String);

impl Request {
    pub(super) fn of(described: &str) -> Self {
        let mut hash = Fnv::default();
        hash.write(described.as_bytes());
        Self(format!("{:016x}", hash.finish()))
    }
}

/// FNV-1a: the same in every release, which the standard library's hashers do not promise.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where a partition of the source goes on, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) next: Offset,
    pub(super) end: Offset,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partitions: BTreeMap<i32, Stretch>,
    /// Records written.
    pub(super) replayed: Offset,
}

impl Position {
    pub(super) const fn starting(partitions: BTreeMap<i32, Stretch>) -> Self {
        Self {
            partitions,
            replayed: 0,
        }
    }

    /// Reads what an earlier start has left; `None` for the first.
    pub(super) fn stored<L: Log>(
        log: &L,
        name: &str,
        target: &SinkTopic,
        request: &Request,
    ) -> Result<Option<Self>, Exit> {
        let at = [place(target)];
        let began = Instant::now();
        let stored = loop {
            match log.group_offsets(name, &at) {
                // A transaction that was left open has a position in it, until it is settled.
                Err(error) if error.is_retriable() && began.elapsed() < PATIENCE => {
                    std::thread::park_timeout(PAUSE);
                }
                stored => break stored.map_err(|error| of_log(&error))?,
            }
        };
        let Some(stored) = stored.into_iter().flatten().next() else {
            return Ok(None);
        };
        Self::parse(&stored, request).map(Some).map_err(|problem| {
            let message = format!(
                "error: `{name}` {problem} in the target; `--name` gives this replay another name"
            );
            Exit::new(ExitCode::Refused, message)
        })
    }

    fn parse(stored: &CommittedOffset, request: &Request) -> Result<Self, String> {
        let foreign = || "is a group of something else".to_owned();
        let rest = stored.metadata.strip_prefix(PREFIX).ok_or_else(foreign)?;
        let (found, partitions) = rest.trim_start().split_once(' ').ok_or_else(foreign)?;
        if found != request.0 {
            return Err("is the replay of something else".to_owned());
        }
        let stretch = |text: &str| {
            let (partition, rest) = text.split_once(':')?;
            let (next, end) = rest.split_once('/')?;
            let (next, end) = (next.parse().ok()?, end.parse().ok()?);
            Some((partition.parse().ok()?, Stretch { next, end }))
        };
        let parts = partitions.split(',').filter(|part| !part.is_empty());
        let partitions = parts.map(stretch).collect::<Option<_>>();
        Ok(Self {
            partitions: partitions.ok_or_else(foreign)?,
            replayed: stored.offset,
        })
    }

    /// Returns what the target is to keep.
    pub(super) fn committed(
        &self,
        target: &SinkTopic,
        request: &Request,
    ) -> (TopicPartition, CommittedOffset) {
        let metadata = self.metadata(request);
        let offset = self.replayed;
        (place(target), CommittedOffset { offset, metadata })
    }

    fn metadata(&self, request: &Request) -> String {
        let parts = self.partitions.iter();
        let parts: Vec<String> = parts
            .map(|(partition, Stretch { next, end })| format!("{partition}:{next}/{end}"))
            .collect();
        format!("{PREFIX} {} {}", request.0, parts.join(","))
    }

    /// Refuses what a broker would refuse later, in the middle.
    pub(super) fn check_size(&self) -> Result<(), Exit> {
        let now = self.metadata(&Request::of("")).len();
        if now + self.partitions.len() * GROWTH <= METADATA_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "error: positions of {} partitions do not fit into one committed offset; replay some of \
             them at a time (`--partition`), each time under another `--name`",
            self.partitions.len()
        );
        Err(Exit::new(ExitCode::Usage, message))
    }

    /// Moves a partition on.
    pub(super) fn advance(&mut self, partition: i32, next: Offset) {
        if let Some(stretch) = self.partitions.get_mut(&partition) {
            stretch.next = stretch.next.max(next);
        }
    }

    /// Moves every partition to its end: all of it has been read.
    pub(super) fn finish(&mut self) {
        for stretch in self.partitions.values_mut() {
            stretch.next = stretch.end;
        }
    }
}

fn place(target: &SinkTopic) -> TopicPartition {
    TopicPartition::new(TopicName::clone(&target.name), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> SinkTopic {
        SinkTopic {
            declared: "copy".to_owned(),
            name: "copy".into(),
            partitions: 3,
            id: [0; 16],
        }
    }

    #[test]
    fn a_position_reads_back_and_only_for_the_same_request() {
        let partitions = [(0, (5, 9)), (7, (0, 0))]
            .map(|(partition, (next, end))| (partition, Stretch { next, end }));
        let mut position = Position::starting(partitions.into());
        position.replayed = 5;
        let request = Request::of("topic a");
        let (at, stored) = position.committed(&target(), &request);
        assert_eq!(at.to_string(), "copy-0");
        let expected = format!("millstream-replay 1 {} 0:5/9,7:0/0", request.0);
        assert_eq!(stored.metadata, expected);
        assert_eq!(Position::parse(&stored, &request), Ok(position));
        let refused = Position::parse(&stored, &Request::of("topic b")).unwrap_err();
        assert!(refused.contains("something else"), "{refused}");
        let foreign = CommittedOffset {
            metadata: String::new(),
            ..stored
        };
        assert!(Position::parse(&foreign, &request).is_err());
    }

    #[test]
    fn more_partitions_than_fit_are_refused_before_anything_is_written() {
        let of = |count: i32| {
            let stretch = Stretch { next: 0, end: 1 };
            Position::starting((0..count).map(|partition| (partition, stretch)).collect())
        };
        assert!(of(100).check_size().is_ok());
        assert!(of(1_000).check_size().is_err());
    }
}
