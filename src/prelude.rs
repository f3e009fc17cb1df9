//! What a topology's author types daily.

pub use crate::clock::Timestamp;
pub use crate::dsl::{
    BranchedKStream, BufferConfig, Change, CogroupedKStream, Consumed, EmitStrategy,
    FixedKeyProcessor, FixedKeyProcessorContext, FixedKeyRecord, Grouped, Joined, KGroupedStream,
    KGroupedTable, KStream, KTable, Materialized, Printed, ProcessorSetup, Produced, Repartitioned,
    SessionStoreHandle, SessionWindowedKStream, StoreBuilder, StoreHandle, StreamsBuilder,
    Suppressed, TableJoined, TimeWindowedKStream, WindowStoreHandle,
};
pub use crate::log::Headers;
pub use crate::processor::{
    BoxError, ErrorPolicy, ForwardError, Init, Processor, ProcessorContext, Punctuation,
    PunctuationId, PunctuationType, Record, RecordMetadata, Reject, Stage,
};
/// Kafka Streams' `Serdes`: constructors of the built-in serdes. Not called `serde`, which would hide the
/// crate of that name.
pub use crate::serde as serdes;
pub use crate::serde::{Serde, TextCodec, Versioned};
pub use crate::state::{SessionStore, StateError, StoreRef, WindowStore};
pub use crate::topology::{TaskId, Topology, TopologyError, TopologyErrors};
pub use crate::window::{
    SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Window, Windowed, Windows,
};
