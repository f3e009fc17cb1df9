//! What a topology's author types daily.

pub use crate::clock::Timestamp;
pub use crate::dsl::{
    BranchedKStream, BufferConfig, Change, CogroupedKStream, Consumed, ConsumedRecord,
    EmitStrategy, FailOnInvalidTimestamp, FixedKeyProcessor, FixedKeyProcessorContext,
    FixedKeyRecord, GlobalKTable, Grouped, Joined, KGroupedStream, KGroupedTable, KStream, KTable,
    LogAndSkipOnInvalidTimestamp, Materialized, Printed, ProcessorSetup, Produced,
    ReadOnlyStoreHandle, Repartitioned, SessionStoreHandle, SessionWindowedCogroupedKStream,
    SessionWindowedKStream, StoreBuilder, StoreHandle, StreamJoined, StreamsBuilder, Suppressed,
    TableJoined, TimeWindowedCogroupedKStream, TimeWindowedKStream, TimestampExtractor,
    UsePartitionTimeOnInvalidTimestamp, VersionedStoreHandle, WallclockTimestampExtractor,
    WindowStoreHandle, WithHeaders,
};
pub use crate::log::Headers;
pub use crate::processor::{
    BoxError, ErrorPolicy, ForwardError, Init, Processor, ProcessorContext, Punctuation,
    PunctuationId, PunctuationType, Record, RecordMetadata, Reject, Stage,
};
/// Kafka Streams' `Serdes`: constructors of the built-in serdes. Not called `serde`, which would hide the
/// crate of that name.
pub use crate::serde as serdes;
pub use crate::serde::{Serde, TextCodec, VersionedValue};
pub use crate::state::{
    ReadOnlyStore, SessionStore, StateError, StoreRef, VersionedPut, VersionedRecord,
    VersionedStore, WindowStore,
};
pub use crate::topology::{TaskId, Topology, TopologyError, TopologyErrors};
pub use crate::window::{
    JoinWindows, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Window, Windowed,
    Windows,
};
