//! The embedded log's reader of explicitly assigned partitions.

use std::time::{Duration, Instant};

use super::core::ClientId;
use super::faults::FaultPoint;
use super::producer::injected_retriable;
use super::record::EmbeddedMessage;
use super::{EmbeddedLog, fetch};
use crate::log::{ConsumerWaker, Isolation, LogError, LogReader, Offset, TopicPartition};

/// The longest single wait: records of open transactions, which only a read-uncommitted reader
/// sees, wake nobody.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// A reader of the embedded log.
#[derive(Debug)]
pub struct EmbeddedReader {
    log: EmbeddedLog,
    client: ClientId,
    isolation: Isolation,
    positions: Vec<(TopicPartition, Offset)>,
    /// Where the next poll starts, so that no partition starves.
    turn: usize,
    waker: ConsumerWaker,
}

impl EmbeddedReader {
    pub(super) fn new(log: EmbeddedLog, isolation: Isolation) -> Self {
        let client = log.core().next_client();
        let waker = ConsumerWaker::default();
        Self {
            log,
            client,
            isolation,
            positions: Vec::new(),
            turn: 0,
            waker,
        }
    }

    fn fetch_all(
        &mut self,
        max: usize,
        into: &mut Vec<EmbeddedMessage>,
    ) -> Result<usize, LogError> {
        let mut core = self.log.core();
        core.tick();
        let count = self.positions.len();
        let mut taken = 0;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let Some((partition, position)) = self.positions.get_mut(at) else {
                continue;
            };
            let fetched = fetch(
                &core,
                partition,
                *position,
                max - taken,
                self.isolation,
                |message| {
                    into.push(message);
                },
            );
            match fetched {
                Ok(fetched) => {
                    *position = fetched.position;
                    taken += fetched.count;
                }
                // What was taken from others is delivered first.
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            }
            if taken == max {
                self.turn = at + 1;
                break;
            }
        }
        Ok(taken)
    }
}

impl LogReader for EmbeddedReader {
    type Message = EmbeddedMessage;

    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let mut core = self.log.core();
        core.forget_client(self.client);
        for (partition, _) in from {
            core.watch(self.client, partition.clone(), &self.waker);
        }
        self.positions = from.to_vec();
        self.turn = 0;
        Ok(())
    }

    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        into: &mut Vec<EmbeddedMessage>,
    ) -> Result<usize, LogError> {
        for (partition, _) in &self.positions {
            if self
                .log
                .fault(FaultPoint::Fetch, "", None, Some(partition))
                .is_some()
            {
                return Err(injected_retriable("poll"));
            }
        }
        let deadline = Instant::now() + timeout;
        loop {
            let taken = self.fetch_all(max, into)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if taken > 0 || left.is_zero() || self.log.is_virtual() {
                return Ok(taken);
            }
            let _woken = self.waker.wait(left.min(WAIT_MAX));
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.positions
            .iter()
            .find(|(one, _)| one == partition)
            .map(|(_, position)| *position)
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        self.log.core().forget_client(self.client);
    }
}
