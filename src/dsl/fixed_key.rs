//! Processors that keep the key, so that nothing is repartitioned after them.

use std::fmt;
use std::time::Duration;

use super::process::{ProcessorSetup, Stores};
use super::stream::KStream;
use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::{
    BoxError, ForwardError, Init, Processor, ProcessorContext, Punctuation, PunctuationId,
    PunctuationType, Record, RecordMetadata,
};
use crate::topology::TaskId;

/// A record whose key cannot be changed.
///
/// Kafka Streams' `FixedKeyRecord`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedKeyRecord<K, V>(Record<K, V>);

impl<K, V> FixedKeyRecord<K, V> {
    /// Returns the key.
    pub const fn key(&self) -> &K {
        &self.0.key
    }

    /// Returns the value.
    pub const fn value(&self) -> &V {
        &self.0.value
    }

    /// Returns the event time.
    pub const fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    /// Returns the headers.
    pub const fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// Returns the record with another value.
    #[must_use]
    pub fn with_value<V2>(self, value: V2) -> FixedKeyRecord<K, V2> {
        FixedKeyRecord(self.0.with_value(value))
    }

    /// Returns the record with another timestamp.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.0.timestamp = timestamp;
        self
    }

    /// Returns the record with other headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.0.headers = headers;
        self
    }
}

/// What a [`FixedKeyProcessor`] sees: its task, and the way downstream for records that keep their key.
///
/// Kafka Streams' `FixedKeyProcessorContext`. A punctuator can schedule, commit and write to stores, but
/// has no record to forward: a [`FixedKeyRecord`] comes from a record only.
pub struct FixedKeyProcessorContext<'a, 'b, K, V>(&'a mut ProcessorContext<'b, K, V>);

impl<K, V> fmt::Debug for FixedKeyProcessorContext<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FixedKeyProcessorContext")
            .field(&self.0)
            .finish()
    }
}

impl<K: Clone, V: Clone> FixedKeyProcessorContext<'_, '_, K, V> {
    /// Hands a record to everything downstream.
    ///
    /// # Errors
    /// See [`ProcessorContext::forward`].
    pub fn forward(&mut self, record: FixedKeyRecord<K, V>) -> Result<(), ForwardError> {
        self.0.forward(record.0)
    }

    /// Hands a record to one operator downstream.
    ///
    /// # Errors
    /// See [`ProcessorContext::forward_to`].
    pub fn forward_to(
        &mut self,
        child: &str,
        record: FixedKeyRecord<K, V>,
    ) -> Result<(), ForwardError> {
        self.0.forward_to(child, record.0)
    }

    /// Calls [`FixedKeyProcessor::punctuate`] every `interval`; see [`ProcessorContext::schedule`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// /// Counts what passes, and keeps the count from time to time.
    /// struct Count {
    ///     passed: i64,
    ///     counts: StoreRef<String, i64>,
    /// }
    ///
    /// impl FixedKeyProcessor<String, i64, i64> for Count {
    ///     fn init(
    ///         &mut self,
    ///         context: &mut FixedKeyProcessorContext<'_, '_, String, i64>,
    ///     ) -> Result<Init, BoxError> {
    ///         context.schedule(Duration::from_secs(60), PunctuationType::WallClockTime);
    ///         Ok(Init::Ready)
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         context: &mut FixedKeyProcessorContext<'_, '_, String, i64>,
    ///         record: FixedKeyRecord<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         self.passed += 1;
    ///         Ok(context.forward(record)?)
    ///     }
    ///
    ///     fn punctuate(
    ///         &mut self,
    ///         _context: &mut FixedKeyProcessorContext<'_, '_, String, i64>,
    ///         _punctuation: Punctuation,
    ///     ) -> Result<(), BoxError> {
    ///         Ok(self.counts.put("passed".to_owned(), self.passed)?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let counts = StoreBuilder::as_store("counts", serdes::string(), serdes::i64());
    /// let counts = builder.add_state_store(counts);
    /// builder
    ///     .stream("orders", Consumed::with(serdes::string(), serdes::i64()))
    ///     .process_values("count", (&counts,), |_, (counts,)| Count { passed: 0, counts })
    ///     .to("out", Produced::with(serdes::string(), serdes::i64()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let orders = driver.input_topic("orders", serdes::string(), serdes::i64());
    /// orders.pipe(&mut driver, "tea".to_owned(), 7)?;
    /// driver.advance_wall_clock_time(Duration::from_secs(60))?;
    /// assert_eq!(driver.store_value("counts", "passed")?, Some(1.into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> PunctuationId {
        self.0.schedule(interval, kind)
    }

    /// Calls [`FixedKeyProcessor::punctuate`] at `start` and every `interval` from there on; see
    /// [`ProcessorContext::schedule_from`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// # struct Hourly;
    ///
    /// impl FixedKeyProcessor<String, i64, i64> for Hourly {
    ///     fn init(
    ///         &mut self,
    ///         context: &mut FixedKeyProcessorContext<'_, '_, String, i64>,
    ///     ) -> Result<Init, BoxError> {
    ///         // On the hour, whenever the task was started.
    ///         context.schedule_from(0, Duration::from_secs(3600), PunctuationType::WallClockTime);
    ///         Ok(Init::Ready)
    ///     }
    /// #   fn process(
    /// #       &mut self,
    /// #       context: &mut FixedKeyProcessorContext<'_, '_, String, i64>,
    /// #       record: FixedKeyRecord<String, i64>,
    /// #   ) -> Result<(), BoxError> {
    /// #       Ok(context.forward(record)?)
    /// #   }
    /// }
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # orders
    /// #     .process_values("hourly", (), |_, ()| Hourly)
    /// #     .to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn schedule_from(
        &mut self,
        start: Timestamp,
        interval: Duration,
        kind: PunctuationType,
    ) -> PunctuationId {
        self.0.schedule_from(start, interval, kind)
    }

    /// Cancels a punctuator.
    pub fn cancel(&mut self, id: PunctuationId) {
        self.0.cancel(id);
    }

    /// See [`ProcessorContext::task`].
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.0.task()
    }

    /// See [`ProcessorContext::record_metadata`].
    #[must_use]
    pub const fn record_metadata(&self) -> Option<&RecordMetadata> {
        self.0.record_metadata()
    }

    /// See [`ProcessorContext::stream_time`].
    #[must_use]
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.0.stream_time()
    }

    /// See [`ProcessorContext::system_time`].
    #[must_use]
    pub const fn system_time(&self) -> Timestamp {
        self.0.system_time()
    }

    /// See [`ProcessorContext::request_commit`].
    pub fn request_commit(&mut self) {
        self.0.request_commit();
    }

    /// See [`ProcessorContext::after_commit`].
    pub fn after_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.0.after_commit(action);
    }
}

/// A stateful operator written by hand that keeps the key.
///
/// Kafka Streams' `FixedKeyProcessor<KIn, VIn, VOut>`. See [`Processor`] for what its methods mean.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a processor of `{K}` that turns `{VIn}` into `{VOut}`",
    note = "implement `FixedKeyProcessor<{K}, {VIn}, {VOut}>` for `{Self}`"
)]
pub trait FixedKeyProcessor<K, VIn, VOut> {
    /// See [`Processor::init`].
    ///
    /// # Errors
    /// Any error stops the task.
    fn init(
        &mut self,
        context: &mut FixedKeyProcessorContext<'_, '_, K, VOut>,
    ) -> Result<Init, BoxError> {
        let _ = context;
        Ok(Init::Ready)
    }

    /// See [`Processor::process`].
    ///
    /// # Errors
    /// Undoes everything this record did and meets the source's error policy.
    fn process(
        &mut self,
        context: &mut FixedKeyProcessorContext<'_, '_, K, VOut>,
        record: FixedKeyRecord<K, VIn>,
    ) -> Result<(), BoxError>;

    /// See [`Processor::punctuate`].
    ///
    /// # Errors
    /// Undoes everything this punctuation did and stops the task.
    fn punctuate(
        &mut self,
        context: &mut FixedKeyProcessorContext<'_, '_, K, VOut>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        let _ = (context, punctuation);
        Ok(())
    }

    /// See [`Processor::close`].
    fn close(&mut self) {}
}

struct Keeping<P>(P);

impl<K, VIn, VOut, P> Processor<K, VIn, K, VOut> for Keeping<P>
where
    P: FixedKeyProcessor<K, VIn, VOut>,
{
    fn init(&mut self, context: &mut ProcessorContext<'_, K, VOut>) -> Result<Init, BoxError> {
        self.0.init(&mut FixedKeyProcessorContext(context))
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, K, VOut>,
        record: Record<K, VIn>,
    ) -> Result<(), BoxError> {
        let record = FixedKeyRecord(record);
        self.0
            .process(&mut FixedKeyProcessorContext(context), record)
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, K, VOut>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        self.0
            .punctuate(&mut FixedKeyProcessorContext(context), punctuation)
    }

    fn close(&mut self) {
        self.0.close();
    }
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Processes records with a [`FixedKeyProcessor`] written by hand (KIP-820): as
    /// [`process`](Self::process), but the key stays, so that nothing is repartitioned after it.
    ///
    /// ```
    /// use millstream::prelude::*;
    ///
    /// struct Number {
    ///     seen: StoreRef<String, i64>,
    /// }
    ///
    /// impl FixedKeyProcessor<String, String, String> for Number {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut FixedKeyProcessorContext<'_, '_, String, String>,
    ///         record: FixedKeyRecord<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         let number = self.seen.get(record.key())?.unwrap_or(0) + 1;
    ///         self.seen.put(record.key().clone(), number)?;
    ///         let numbered = format!("{number}: {}", record.value());
    ///         Ok(context.forward(record.with_value(numbered))?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let seen = builder
    ///     .add_state_store(StoreBuilder::as_store("seen", serdes::string(), serdes::i64()));
    /// let numbered = builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .process_values("number", (&seen,), |_setup, (seen,)| Number { seen });
    /// # numbered.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn process_values<VOut, S, P>(
        &self,
        name: &str,
        stores: S,
        supplier: impl Fn(&ProcessorSetup, S::Refs) -> P + Send + Sync + 'static,
    ) -> KStream<K, VOut>
    where
        VOut: Clone + 'static,
        S: Stores,
        P: FixedKeyProcessor<K, V, VOut> + 'static,
    {
        let processed = self.process(name, stores, move |setup, stores| {
            Keeping(supplier(setup, stores))
        });
        let lineage = processed.parts.lineage.clone();
        let (node, children) = (processed.parts.node, processed.parts.children.clone());
        KStream::new_in(self, node, children, self.keeps_key(), lineage)
    }
}
