//! The Processor API: records, processors, what a processor may ask of its task.
//!
//! # Position
//! `dsl` builds chains of [`Node`]s; `runtime::task` feeds their [`SourceNode`]s and owns the
//! [`TaskContext`]. A chain lives on one thread and never leaves it.
//! # Invariants
//! - One dynamic call per operator at most; a record stays typed from source to sink.
//! - Everything a record does (outputs, store writes, after-commit actions, punctuator changes) is
//!   staged and joins the transaction only when the whole chain returned `Ok` (a record is atomic).

mod context;
mod downstream;
mod error;
mod held;
mod outputs;
mod punctuation;

pub use context::{ForwardError, ProcessorContext, RecordMetadata, TaskContext};
pub use downstream::Downstream;
pub(crate) use downstream::SharedNode;
pub use error::{BoxError, ErrorPolicy, InvalidTimestamp, ProcessError, Reject, Stage};
pub use held::HoldsBack;
pub use outputs::{OutputStage, StagedOutput};
pub use punctuation::{Punctuation, PunctuationId, PunctuationType, Schedules};

use crate::clock::Timestamp;
use crate::log::Headers;

/// A record between two operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Event time in milliseconds since the Unix epoch.
    pub timestamp: Timestamp,
    /// The headers.
    pub headers: Headers,
}

impl<K, V> Record<K, V> {
    /// Creates a record without headers.
    pub const fn new(key: K, value: V, timestamp: Timestamp) -> Self {
        Self {
            key,
            value,
            timestamp,
            headers: Headers::new(),
        }
    }

    /// Returns the record with another key.
    pub fn with_key<K2>(self, key: K2) -> Record<K2, V> {
        Record {
            key,
            value: self.value,
            timestamp: self.timestamp,
            headers: self.headers,
        }
    }

    /// Returns the record with another value.
    pub fn with_value<V2>(self, value: V2) -> Record<K, V2> {
        Record {
            key: self.key,
            value,
            timestamp: self.timestamp,
            headers: self.headers,
        }
    }
}

/// A record as it came from the log, before deserialisation.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes.
    pub value: Option<&'a [u8]>,
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The headers.
    pub headers: &'a Headers,
}

/// The first record of an input partition, whose event time is asked for before its turn has come.
#[derive(Debug, Clone, Copy)]
pub struct HeadRecord<'a> {
    /// As it came from the log.
    pub raw: RawRecord<'a>,
    /// Where it came from.
    pub metadata: &'a RecordMetadata,
    /// The latest event time of the partition so far; `None` before its first record.
    pub partition_time: Option<Timestamp>,
    /// The wall-clock time.
    pub system_time: Timestamp,
}

/// Whether a processor is ready for its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// The processor may get records.
    Ready,
    /// `init` did a bounded slice of work: commit it, then call `init` again. No record is
    /// processed by the task before all its processors are ready.
    Continue,
}

/// A stateful operator written by hand.
///
/// Kafka Streams' `Processor<KIn, VIn, KOut, VOut>`; stores are handed to the constructor instead of
/// being looked up by name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a processor from `({KIn}, {VIn})` to `({KOut}, {VOut})`",
    note = "implement `Processor<{KIn}, {VIn}, {KOut}, {VOut}>` for `{Self}`"
)]
pub trait Processor<KIn, VIn, KOut, VOut> {
    /// Prepares the processor after its stores are restored: schedules punctuators, rebuilds state.
    /// May write to stores and forward. Called again as long as it returns [`Init::Continue`], with
    /// a commit in between.
    ///
    /// # Errors
    /// Any error stops the task.
    fn init(&mut self, context: &mut ProcessorContext<'_, KOut, VOut>) -> Result<Init, BoxError> {
        let _ = context;
        Ok(Init::Ready)
    }

    /// Processes one record.
    ///
    /// # Errors
    /// Undoes everything this record did and meets the source's error policy.
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, KOut, VOut>,
        record: Record<KIn, VIn>,
    ) -> Result<(), BoxError>;

    /// Serves a punctuator that this processor scheduled.
    ///
    /// # Errors
    /// Undoes everything this punctuation did and stops the task.
    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, KOut, VOut>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        let _ = (context, punctuation);
        Ok(())
    }

    /// Releases what the processor holds. Its writes are not committed.
    fn close(&mut self) {}
}

/// An operator instance within a task, typed by what it takes.
pub trait Node<K, V> {
    /// Processes one record and everything downstream of it.
    ///
    /// # Errors
    /// The whole chain's work for this record is undone by the task.
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError>;
}

/// The entry of a chain: deserialises.
pub trait SourceNode {
    /// Returns whether event times are [extracted](Self::extract); otherwise they are the log's.
    fn extracts(&self) -> bool {
        false
    }

    /// Returns the event time of a record that is the first of its partition; a negative one drops it.
    ///
    /// # Errors
    /// [`ProcessError::Deserialization`]: the record meets its source's policy at once.
    fn extract(&mut self, head: &HeadRecord<'_>) -> Result<Timestamp, ProcessError> {
        Ok(head.raw.timestamp)
    }

    /// Deserialises a record and processes it to the end of the chain.
    ///
    /// # Errors
    /// As [`Node::process`].
    fn process(&mut self, cx: &mut TaskContext, record: &RawRecord<'_>)
    -> Result<(), ProcessError>;
}

/// The type-erased side of a processor instance, for what is not per record.
pub trait ProcessorNode {
    /// Returns the node's name.
    fn name(&self) -> &str;
    /// See [`Processor::init`].
    ///
    /// # Errors
    /// Stops the task.
    fn init(&mut self, cx: &mut TaskContext) -> Result<Init, ProcessError>;
    /// See [`Processor::punctuate`].
    ///
    /// # Errors
    /// Stops the task.
    fn punctuate(
        &mut self,
        cx: &mut TaskContext,
        punctuation: Punctuation,
    ) -> Result<(), ProcessError>;
    /// See [`Processor::close`].
    fn close(&mut self);
}
