//! Events that have left the history store: what stays of them there, and where they are read from.
//!
//! # Position
//! [`keep_recent`](super::EventSourced::keep_recent) lets the store keep whole only the latest events of
//! an aggregate; [`Trim`](super::trim::Trim) replaces older ones by an [`ArchivedEvent`] once the archive
//! has them. Whoever reads history reads [`StoredEvent`]s and has an [`EventArchive`] bring back those
//! that have left: from the archive, or from the topic while that still reaches back.
//! # Invariants
//! - Nothing leaves the store that the archive does not hold: an event goes when one of the same
//!   aggregate with a higher version is archived, in a partition that is archived from its start.
//! - The entry stays: versions are gapless in the store, and a repetition is known by its event id
//!   without asking the archive.
//! - What comes back is the event with that id and version, or an error that names it; never another,
//!   and never one fewer.
//! # Failure
//! [`ArchivedEventsError`]. A query answers it; a task that needs the event (a rebuild) stops by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use super::envelope::Envelope;
use super::history::{HistoryEntry, HistoryError, HistoryKey, Origin};
use crate::clock::Timestamp;
use crate::log::Offset;
use crate::sink::{PastError, SinkError, SinkRecord};

const NATIVE: u8 = 3;
const FOREIGN: u8 = 4;

/// How many events are brought back at once.
pub(super) const RETURN_ENTRIES_MAX: usize = 256;
/// How many bytes of events are brought back at once; a single event may be larger.
pub(super) const RETURN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the history store keeps of an event that has left it.
///
/// ```text
/// origin: u8 (3 native, 4 foreign) ‖ until: i64 BE ‖ timestamp: i64 BE ‖ bytes: u32 BE ‖ event id: UTF-8
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEvent {
    /// Who wrote it.
    pub origin: Origin,
    /// Its offset on the events topic is below this one.
    pub until: Offset,
    /// The event's timestamp.
    pub timestamp: Timestamp,
    /// The length of its envelope.
    pub bytes: u32,
    /// Its `eventId`.
    pub event_id: String,
}

/// An event as the history store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEvent {
    /// With its envelope.
    Whole(HistoryEntry),
    /// It has left for the archive.
    Archived(ArchivedEvent),
}

impl StoredEvent {
    /// Returns the length of its envelope.
    #[must_use]
    pub fn event_bytes(&self) -> usize {
        match self {
            Self::Whole(entry) => entry.event.len(),
            Self::Archived(event) => usize::try_from(event.bytes).unwrap_or(usize::MAX),
        }
    }

    /// Appends the entry's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Whole(entry) => entry.encode(into),
            Self::Archived(event) => {
                into.push(match event.origin {
                    Origin::Native => NATIVE,
                    Origin::Foreign => FOREIGN,
                });
                into.extend_from_slice(&event.until.to_be_bytes());
                into.extend_from_slice(&event.timestamp.to_be_bytes());
                into.extend_from_slice(&event.bytes.to_be_bytes());
                into.extend_from_slice(event.event_id.as_bytes());
            }
        }
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`HistoryError::Value`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HistoryError> {
        let origin = match bytes.first() {
            Some(&NATIVE) => Origin::Native,
            Some(&FOREIGN) => Origin::Foreign,
            Some(_) | None => return HistoryEntry::decode(bytes).map(Self::Whole),
        };
        let archived = || {
            let (until, rest) = bytes.get(1..)?.split_first_chunk()?;
            let (timestamp, rest) = rest.split_first_chunk()?;
            let (length, event_id) = rest.split_first_chunk()?;
            Some(ArchivedEvent {
                origin,
                until: Offset::from_be_bytes(*until),
                timestamp: Timestamp::from_be_bytes(*timestamp),
                bytes: u32::from_be_bytes(*length),
                event_id: std::str::from_utf8(event_id).ok()?.to_owned(),
            })
        };
        let found = archived().map(Self::Archived);
        found.ok_or(HistoryError::Value { len: bytes.len() })
    }
}

/// Where the events of an aggregate type are read that its history store no longer has: the seam to an
/// archive. The daemon's implementation is [`TopicPast`](crate::sink::TopicPast).
pub trait PastEvents: Send + Sync + fmt::Debug {
    /// Returns the offset up to which the archive holds a partition of the events topic whole, from
    /// offset 0 on; `None` where it does not, or is not known to yet. Asks nobody: a task calls it.
    fn archived_until(&self, partition: i32) -> Option<Offset>;

    /// Returns the partition that an aggregate's events are in.
    fn partition_of(&self, aggregate_id: &str) -> i32;

    /// Calls `each` with the records of a partition below offset `until` that are not older than
    /// `since`, in the order of their offsets, until it breaks. Blocks.
    ///
    /// # Errors
    /// [`PastError`].
    fn read(
        &self,
        partition: i32,
        since: Option<Timestamp>,
        until: Offset,
        each: &mut dyn FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<(), PastError>;
}

/// Why events that have left the history store were not brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchivedEventsError {
    /// Nobody has connected an archive.
    #[error(
        "version {version} of {aggregate_id} has left the history store, and there is no archive to \
         read it from"
    )]
    NoArchive {
        /// The aggregate.
        aggregate_id: String,
        /// The version.
        version: u64,
    },
    /// It is not where it has gone.
    #[error(
        "version {version} of {aggregate_id} has left the history store, and is not among the records \
         of partition {partition} of {topic} below offset {until}"
    )]
    NotThere {
        /// The aggregate.
        aggregate_id: String,
        /// The version.
        version: u64,
        /// The declared name of the events topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset below which it was.
        until: Offset,
    },
    /// Archive or topic could not be read, or lack a range.
    #[error("version {version} of {aggregate_id} has left the history store")]
    Unread {
        /// The aggregate of the first event that was asked for.
        aggregate_id: String,
        /// Its version.
        version: u64,
        /// Why.
        source: PastError,
    },
}

impl ArchivedEventsError {
    /// Returns whether the same question may be answered later: the archive or the log is away.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unread { source, .. } => match source {
                PastError::Log(error) => error.is_retriable(),
                PastError::Archive(error) => matches!(error, SinkError::Unavailable { .. }),
                PastError::Missing { .. } => false,
            },
            Self::NoArchive { .. } | Self::NotThere { .. } => false,
        }
    }
}

/// The archive of an aggregate type's events, as its processors and readers know it: empty until
/// somebody [connects](Self::connect) one. Clones are of the same.
#[derive(Clone)]
pub struct EventArchive(Arc<Slot>);

struct Slot {
    topic: String,
    past: OnceLock<Arc<dyn PastEvents>>,
}

impl fmt::Debug for EventArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventArchive")
            .field("topic", &self.0.topic)
            .field("past", &self.0.past.get())
            .finish()
    }
}

impl EventArchive {
    pub(super) fn of(topic: &str) -> Self {
        Self(Arc::new(Slot {
            topic: topic.to_owned(),
            past: OnceLock::new(),
        }))
    }

    /// Returns the declared name of the events topic; empty where there is none.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Connects it, once: before tasks start, so that none asks in vain. Later calls change nothing.
    pub fn connect(&self, past: Arc<dyn PastEvents>) {
        drop(self.0.past.set(past));
    }

    /// As [`PastEvents::archived_until`].
    pub(super) fn archived_until(&self, partition: i32) -> Option<Offset> {
        self.0.past.get()?.archived_until(partition)
    }

    /// Brings back those that have left, and returns all in the order given. Each partition is read
    /// once, from the time of the oldest event to the offset of the latest.
    pub(super) fn bring_back(
        &self,
        stored: Vec<(HistoryKey, StoredEvent)>,
    ) -> Result<Vec<(HistoryKey, HistoryEntry)>, ArchivedEventsError> {
        let mut returned = self.find(&stored)?;
        let mut whole = Vec::with_capacity(stored.len());
        for (key, stored) in stored {
            let entry = match stored {
                StoredEvent::Whole(entry) => entry,
                StoredEvent::Archived(left) => match returned.remove(&key) {
                    Some(event) => HistoryEntry {
                        origin: left.origin,
                        event,
                    },
                    None => return Err(self.not_there(&key, &left)),
                },
            };
            whole.push((key, entry));
        }
        Ok(whole)
    }

    fn not_there(&self, key: &HistoryKey, left: &ArchivedEvent) -> ArchivedEventsError {
        let past = self.0.past.get();
        ArchivedEventsError::NotThere {
            aggregate_id: key.aggregate_id.clone(),
            version: key.version,
            topic: self.0.topic.clone(),
            partition: past.map_or(0, |past| past.partition_of(&key.aggregate_id)),
            until: left.until,
        }
    }

    /// Finds the envelopes of those that have left.
    fn find(
        &self,
        stored: &[(HistoryKey, StoredEvent)],
    ) -> Result<BTreeMap<HistoryKey, Vec<u8>>, ArchivedEventsError> {
        let left = stored.iter().filter_map(|(key, stored)| match stored {
            StoredEvent::Archived(event) => Some((key, event)),
            StoredEvent::Whole(_) => None,
        });
        let left: Vec<_> = left.collect();
        let mut found = BTreeMap::new();
        let Some(&(first, _)) = left.first() else {
            return Ok(found);
        };
        let Some(past) = self.0.past.get() else {
            return Err(ArchivedEventsError::NoArchive {
                aggregate_id: first.aggregate_id.clone(),
                version: first.version,
            });
        };
        let mut partitions: BTreeMap<i32, Wanted<'_>> = BTreeMap::new();
        for (key, event) in left {
            let partition = past.partition_of(&key.aggregate_id);
            partitions.entry(partition).or_default().add(key, event);
        }
        for (partition, mut wanted) in partitions {
            let unread = |source| ArchivedEventsError::Unread {
                aggregate_id: first.aggregate_id.clone(),
                version: first.version,
                source,
            };
            wanted
                .read(&**past, partition, Some(wanted.since), &mut found)
                .map_err(unread)?;
            if !wanted.events.is_empty() {
                // A record whose own timestamp is not its event's: another system's.
                wanted
                    .read(&**past, partition, None, &mut found)
                    .map_err(unread)?;
            }
        }
        Ok(found)
    }
}

/// The events of a partition that are still to be found.
struct Wanted<'a> {
    aggregates: BTreeSet<&'a [u8]>,
    events: BTreeMap<&'a HistoryKey, &'a str>,
    since: Timestamp,
    until: Offset,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            aggregates: BTreeSet::new(),
            events: BTreeMap::new(),
            since: Timestamp::MAX,
            until: 0,
        }
    }
}

impl<'a> Wanted<'a> {
    fn add(&mut self, key: &'a HistoryKey, event: &'a ArchivedEvent) {
        self.aggregates.insert(key.aggregate_id.as_bytes());
        self.events.insert(key, &event.event_id);
        self.since = self.since.min(event.timestamp);
        self.until = self.until.max(event.until);
    }

    fn read(
        &mut self,
        past: &dyn PastEvents,
        partition: i32,
        since: Option<Timestamp>,
        found: &mut BTreeMap<HistoryKey, Vec<u8>>,
    ) -> Result<(), PastError> {
        past.read(partition, since, self.until, &mut |record| {
            let key = record.key.as_deref().unwrap_or_default();
            if self.aggregates.contains(key)
                && let Some(value) = record.value
                && let Some(key) = self.take(&value)
            {
                found.insert(key, value);
            }
            if self.events.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// Takes the event that these bytes are off the list, where it is on it.
    fn take(&mut self, value: &[u8]) -> Option<HistoryKey> {
        // What does not read was a dead letter when it came, and no event of history.
        let envelope = Envelope::parse(value).ok()?;
        let id = envelope.aggregate_id.as_ref();
        if id.contains('\0') {
            return None;
        }
        let key = HistoryKey::new(id, envelope.aggregate_version);
        let wanted = self.events.get(&key)?;
        if *wanted != envelope.event_id {
            return None;
        }
        self.events.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_of_an_event_has_a_pinned_layout_and_reads_back() {
        let left = StoredEvent::Archived(ArchivedEvent {
            origin: Origin::Foreign,
            until: 0x0102,
            timestamp: -1,
            bytes: 7,
            event_id: "evt-1".to_owned(),
        });
        let mut bytes = Vec::new();
        left.encode(&mut bytes);
        let expected = [
            &[4, 0, 0, 0, 0, 0, 0, 1, 2][..],
            &[0xff; 8],
            &[0, 0, 0, 7],
            b"evt-1",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(StoredEvent::decode(&bytes), Ok(left));
        for cut in 0..21 {
            assert!(StoredEvent::decode(&bytes[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn a_whole_entry_is_stored_as_it_always_was() {
        let whole = HistoryEntry {
            origin: Origin::Native,
            event: b"{}".to_vec(),
        };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        whole.encode(&mut old);
        StoredEvent::Whole(whole.clone()).encode(&mut new);
        assert_eq!(old, new);
        assert_eq!(StoredEvent::decode(&old), Ok(StoredEvent::Whole(whole)));
    }
}
