//! Processors that keep the key, so that nothing is repartitioned after them.

use std::fmt;

use super::process::{ProcessorSetup, Stores};
use super::stream::KStream;
use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::{
    BoxError, ForwardError, Init, Processor, ProcessorContext, Punctuation, Record,
};

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

/// What a [`FixedKeyProcessor`] sees: the task, through [`task`](Self::task), and the way downstream.
pub struct FixedKeyProcessorContext<'a, 'b, K, V>(&'a mut ProcessorContext<'b, K, V>);

impl<K, V> fmt::Debug for FixedKeyProcessorContext<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FixedKeyProcessorContext")
            .field(&self.0)
            .finish()
    }
}

impl<'b, K: Clone, V: Clone> FixedKeyProcessorContext<'_, 'b, K, V> {
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

    /// Returns the context of any processor: times, punctuators, commit requests. What is forwarded
    /// through it must keep its key.
    pub const fn task(&mut self) -> &mut ProcessorContext<'b, K, V> {
        self.0
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
