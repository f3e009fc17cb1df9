//! Writes a replay into a topic: batches, each a transaction with the position that follows it.
//!
//! The replay is a member of a group of its own on the target, which fences a second one under the same
//! name, as does the transactional id; its membership is what a transaction's offsets are bound to.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::super::ExitCode;
use super::super::outcome::{Exit, print};
use super::super::sinks::of_log;
use super::goes_on;
use super::position::{Position, Request};
use super::source::Source;
use crate::log::{
    ConsumerSpec, Log, LogConsumer, LogError, LogProducer, MembershipEvent, ProducerRecord,
    ProducerSpec, TopicName,
};
use crate::sink::{SinkRecord, SinkTopic};

/// What a transaction holds at most; a single record may be larger.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the target may be away, or another replay of the same name may take to be forgotten.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// Writes what the source has from where an earlier start of the same name has come to, or from
/// `starting` on; returns the number of records.
pub(super) fn write<T: Log>(
    source: &dyn Source,
    log: &T,
    target: &SinkTopic,
    name: &str,
    request: &Request,
    starting: Position,
) -> Result<u64, Exit> {
    let mut writer = Writer::start(log, target, name, request)?;
    // ORDER: once nobody else can write, and what one that was killed has left open is settled.
    let position = match Position::stored(log, name, target, request)? {
        Some(position) => {
            print(goes_on(name, &position));
            position
        }
        None => starting,
    };
    writer.position = position.clone();
    writer.keeps_partitions = source.keeps_partitions() && source.partitions() == target.partitions;
    let mut trouble = None;
    let began = position.replayed;
    source.read(&position, &mut |partition, record, next| match writer.push(
        partition,
        &record,
        (source.slot(partition), next),
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(exit) => {
            trouble = Some(exit);
            ControlFlow::Break(())
        }
    })?;
    if let Some(exit) = trouble {
        return Err(exit);
    }
    writer.position.finish();
    writer.begin()?;
    writer.commit()?;
    // The group stays, with its offset; a member that does not leave would only keep others waiting.
    if let Err(error) = writer.member.leave() {
        tracing::debug!(%error, "the group was not left");
    }
    Ok(u64::try_from(writer.position.replayed - began).unwrap_or(0))
}

struct Writer<'a, T: Log> {
    producer: T::Producer,
    member: T::Consumer,
    target: &'a SinkTopic,
    request: &'a Request,
    position: Position,
    keeps_partitions: bool,
    open: bool,
    records: usize,
    bytes: usize,
}

impl<'a, T: Log> Writer<'a, T> {
    fn start(
        log: &T,
        target: &'a SinkTopic,
        name: &str,
        request: &'a Request,
    ) -> Result<Self, Exit> {
        let failed = |error: LogError| of_log(&error);
        let mut producer = log
            .producer(&ProducerSpec {
                transactional_id: Some(name.to_owned()),
                transaction_timeout: TRANSACTION_TIMEOUT,
                client_id: name.to_owned(),
            })
            .map_err(failed)?;
        patiently(|| producer.init_transactions())?;
        let mut member = log
            .consumer(&ConsumerSpec {
                group: name.to_owned(),
                // Static: one that was killed and comes back need not wait until it is forgotten.
                group_instance_id: Some(name.to_owned()),
                client_id: name.to_owned(),
                session_timeout: SESSION_TIMEOUT,
            })
            .map_err(failed)?;
        let topic = TopicName::clone(&target.name);
        member.subscribe(&[topic]).map_err(failed)?;
        let mut writer = Self {
            producer,
            member,
            target,
            request,
            position: Position::starting(std::collections::BTreeMap::new()),
            keeps_partitions: false,
            open: false,
            records: 0,
            bytes: 0,
        };
        let began = Instant::now();
        loop {
            writer.heartbeat()?;
            if writer.member.is_member() && writer.member.group_metadata().is_ok() {
                return Ok(writer);
            }
            if began.elapsed() > PATIENCE {
                let message =
                    format!("error: the group `{name}` was not joined within {PATIENCE:?}");
                return Err(Exit::new(ExitCode::Unavailable, message));
            }
            writer.member.wait(PAUSE);
        }
    }

    /// Answers the group. Nothing is read through it.
    fn heartbeat(&mut self) -> Result<(), Exit> {
        loop {
            match self.member.poll_membership() {
                Ok(None) => return Ok(()),
                Ok(Some(MembershipEvent::Assigned(_))) => {
                    self.member.assign(&[]).map_err(|error| of_log(&error))?;
                }
                Ok(Some(MembershipEvent::Revoked(given) | MembershipEvent::Lost(given))) => {
                    self.member
                        .unassign(&given)
                        .map_err(|error| of_log(&error))?;
                }
                Err(error) if error.is_retriable() => return Ok(()),
                Err(error) => return Err(fenced(&error)),
            }
        }
    }

    fn begin(&mut self) -> Result<(), Exit> {
        if !self.open {
            self.producer
                .begin_transaction()
                .map_err(|error| fenced(&error))?;
            self.open = true;
        }
        Ok(())
    }

    /// Writes a record that was in partition `from`; `after` is the slot of the position to move, and
    /// to where.
    fn push(&mut self, from: i32, record: &SinkRecord, after: (i32, i64)) -> Result<(), Exit> {
        self.begin()?;
        let partition = match (self.keeps_partitions, &record.key) {
            (true, _) => Some(from),
            (false, Some(_)) => None,
            // No key decides: the record's own partition does, as far as there is one.
            (false, None) => Some(from % self.target.partitions),
        };
        let record_out = ProducerRecord {
            topic: &self.target.name,
            partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            timestamp: record.timestamp,
            headers: &record.headers,
        };
        self.producer
            .send(record_out)
            .map_err(|error| fenced(&error))?;
        let (slot, next) = after;
        self.position.advance(slot, next);
        self.position.replayed += 1;
        self.records += 1;
        self.bytes += record.bytes();
        if self.records >= BATCH_RECORDS || self.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Exit> {
        self.heartbeat()?;
        let offset = [self.position.committed(self.target, self.request)];
        patiently(|| {
            let member = self.member.group_metadata()?;
            self.producer.send_offsets(&offset, &member)
        })?;
        patiently(|| self.producer.commit_transaction())?;
        (self.open, self.records, self.bytes) = (false, 0, 0);
        Ok(())
    }
}

/// Does it again while the log is away, or does not say how it ended.
fn patiently(mut attempt: impl FnMut() -> Result<(), LogError>) -> Result<(), Exit> {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error @ (LogError::Retriable { .. } | LogError::UnknownOutcome { .. }))
                if began.elapsed() < PATIENCE =>
            {
                tracing::debug!(%error, "again");
                std::thread::park_timeout(PAUSE);
            }
            Err(error) => return Err(fenced(&error)),
        }
    }
}

/// What is in the open transaction is aborted with the producer; the next start goes on before it.
fn fenced(error: &LogError) -> Exit {
    match error {
        LogError::Fenced { .. } | LogError::MemberUnknown { .. } => Exit::new(
            ExitCode::Refused,
            "error: another replay under the same name has taken over",
        ),
        error => of_log(error),
    }
}
