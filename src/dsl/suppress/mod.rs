//! `suppress`: a table's updates, held back until a time has come (KIP-328).
//!
//! # Position
//! [`Suppressed`] says until when, [`buffer`] holds updates back in a store, this module draws the node
//! and decides what leaves.
//! # Invariants
//! - The buffer is a store like any other: logged, restored, on disk beyond the cache. Kafka Streams
//!   holds it in memory only.
//! - A key keeps its place in the buffer when it is updated again: the first update decides when it
//!   leaves.
//! - As all stores, the buffer changes with the transaction: a crash neither loses an update that was
//!   held back nor forwards one twice.

mod buffer;

pub(in crate::dsl) use buffer::{Buffered, BufferedSerde};
mod config;

pub use config::{BufferBounds, BufferConfig, EagerBufferConfig, StrictBufferConfig, Suppressed};

use std::sync::Arc;

use self::buffer::{Buffer, BufferKey, BufferKeySerde, BytesCodec};
use self::config::{Full, Until};
use super::builder::StoreKey;
use super::config::{Materialized, SharedSerde};
use super::getter::Getter;
use super::stream::{KStream, Keeps};
use super::table::{Change, KTable, OldValues};
use super::window::ObservedTime;
use crate::clock::Timestamp;
use crate::dsl::assembly::Children;
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::serde::i64 as i64_serde;
use crate::state::StoreRef;
use crate::topology::{Durability, GraphNode, NodeKind, Persistence, StoreId, TopologyError};

struct SuppressNode<K: StoreKey, V> {
    name: Arc<str>,
    time: ObservedTime,
    until: Until<K>,
    bounds: BufferBounds,
    send_old: bool,
    buffer: Buffer<K, V>,
    downstream: Downstream<K, Change<V>>,
}

impl<K: StoreKey, V: Clone + 'static> Node<K, Change<V>> for SuppressNode<K, V> {
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let observed = self.time.observe(cx, record.timestamp);
        let time = (self.until.time_of)(&record.key, record.timestamp);
        self.buffer.put(cx, time, record)?;
        let due = observed.saturating_sub(self.until.wait);
        if self.buffer.may_be_due(cx, due) {
            self.forward_while(cx, |_, first| first <= due)?;
        }
        if !self.is_over(cx)? {
            return Ok(());
        }
        match self.bounds.full {
            Full::EmitEarly => self.forward_while(cx, |node, _| node.exceeds()),
            Full::ShutDown => Err(ProcessError::Processing {
                node: self.name.to_string(),
                source: format!(
                    "the buffer is full: {} updates of {} bytes",
                    self.buffer.records(),
                    self.buffer.bytes()
                )
                .into(),
            }),
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> SuppressNode<K, V> {
    /// Forwards what lies in front, in order of time and key, as long as `leaves` says so.
    fn forward_while(
        &mut self,
        cx: &mut TaskContext,
        leaves: impl Fn(&Self, Timestamp) -> bool,
    ) -> Result<(), ProcessError> {
        for entry in self.buffer.scan() {
            let (key, update) = entry?;
            if !leaves(self, key.time) {
                self.buffer.set_first(Some(&key));
                return Ok(());
            }
            self.buffer.take(&key, &update)?;
            self.forward(cx, key.key, update)?;
        }
        self.buffer.set_first(None);
        Ok(())
    }

    fn forward(
        &mut self,
        cx: &mut TaskContext,
        key: K,
        update: Buffered<V>,
    ) -> Result<(), ProcessError> {
        if update.new.is_none() && self.until.final_results {
            // Nobody downstream has heard of this window.
            return Ok(());
        }
        let change = Change {
            new: update.new,
            old: update.prior.filter(|_| self.send_old),
        };
        self.downstream.process_at(
            cx,
            Record {
                key,
                value: change,
                timestamp: update.timestamp,
                headers: update.headers,
            },
        )
    }

    fn is_over(&mut self, cx: &TaskContext) -> Result<bool, ProcessError> {
        if self.bounds.is_unbounded() {
            return Ok(false);
        }
        self.buffer.measure(cx)?;
        Ok(self.exceeds())
    }

    fn exceeds(&self) -> bool {
        self.bounds
            .exceeded(self.buffer.records(), self.buffer.bytes())
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Holds updates back, and forwards only the last one of each key once its time has come.
    ///
    /// The buffer is a store, `<name>-buffer`, with a changelog; it spills to disk. An update that
    /// arrives while an earlier one of its key is held back replaces it, in its place.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let size = Duration::from_millis(10);
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .group_by_key(Grouped::as_name("by-key"))
    ///     .windowed_by(TimeWindows::of_size_and_grace(size, Duration::from_millis(5)))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
    ///     .suppress(Suppressed::until_window_closes("final-counts", BufferConfig::unbounded()))
    ///     .to_stream()
    ///     .map(|window, count| (window.key, count.unwrap_or(0)))
    ///     .to("counts-out", Produced::with(serdes::string(), serdes::i64()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let words = driver.input_topic("words", serdes::string(), serdes::string());
    /// let counts = driver.output_topic("counts-out", serdes::string(), serdes::i64());
    /// for time in [1, 9, 14] {
    ///     words.pipe_record(&mut driver, &Record::new("tea".to_owned(), String::new(), time))?;
    /// }
    /// assert!(counts.read_values(&mut driver)?.is_empty(), "the grace period is not over");
    /// words.pipe_record(&mut driver, &Record::new("tea".to_owned(), String::new(), 15))?;
    /// assert_eq!(counts.read_values(&mut driver)?, [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "suppressing updates has no effect of its own"]
    pub fn suppress(&self, suppressed: Suppressed<K>) -> Self {
        let name = suppressed.name.clone();
        self.refuse_to_hold_back("suppress");
        let Some((key_serde, value_serde, until)) = self.resolve_suppressed(&suppressed) else {
            // Reported by `build`; the table goes on as it is so that what follows is checked.
            return self.clone();
        };
        let updates = self.updates();
        let mut draft = updates.draft.borrow_mut();
        // Not Kafka Streams' `<name>-store`: its changelog has other bytes, and an application that moves
        // must not take one for the other.
        let buffer_name = format!("{name}-buffer");
        let buffer = draft.add_store(suppressed.store(
            buffer_name.clone(),
            Arc::new(BufferKeySerde(Arc::clone(&key_serde))),
            Arc::new(BufferedSerde(Arc::clone(&value_serde))),
        ));
        // Where the time is not in the key, a key's place must be found by the key.
        let index = (!until.time_in_key).then(|| {
            let index = format!("{name}-index");
            draft.add_store(suppressed.store(index, Arc::clone(&key_serde), Arc::new(i64_serde())))
        });
        let node = draft.graph.add(GraphNode {
            name: String::new(),
            named: true,
            kind: NodeKind::Operator { processor: false },
            parents: vec![updates.parts.node],
            stores: std::iter::once(buffer).chain(index).collect(),
        });
        draft.graph.rename(node, &name);
        drop(draft);
        let children = Children::new();
        let keeps = Keeps {
            key_serde: Some(Arc::clone(&key_serde)),
            value_serde: None,
            repartition_required: false,
        };
        let lineage = updates.parts.lineage.clone();
        let forwarded = KStream::new(&updates.draft, node, children.clone(), keeps, lineage);
        let old_values: OldValues = self.old_values.child();
        let table = Self::derived(
            forwarded,
            Some(Arc::clone(&key_serde)),
            Some(Arc::clone(&value_serde)),
            &old_values,
            self.emitted(buffer, index, &until),
        );
        let bounds = suppressed.bounds;
        updates.parts.children.add(node, move |assembly| {
            let index = index.map(|index| assembly.store(index));
            let serdes = (Arc::clone(&key_serde), Arc::clone(&value_serde));
            Ok(Box::new(SuppressNode {
                name: assembly.name(node),
                time: ObservedTime::of(&buffer_name),
                until: until.clone(),
                bounds,
                send_old: old_values.sent(),
                buffer: Buffer::new(assembly.store(buffer), index, serdes, bounds),
                downstream: children.assemble(assembly)?,
            }))
        });
        table
    }

    /// What readers downstream know of a key: what the buffer holds back is not known yet.
    fn emitted(&self, buffer: StoreId, index: Option<StoreId>, until: &Until<K>) -> Getter<K, V> {
        // The value before the first that is held back is the change's old one.
        self.old_values.request();
        let table = self.getter.clone();
        let time_of = Arc::clone(&until.time_of);
        let own = std::iter::once(buffer).chain(index);
        let stores = own.chain(table.stores.iter().copied()).collect();
        Getter::new(stores, move |assembly| {
            let lookup = table.lookup(assembly);
            let time_of = Arc::clone(&time_of);
            let buffer: StoreRef<BufferKey<K>, Buffered<V>> = assembly.store(buffer);
            let index: Option<StoreRef<K, Timestamp>> = index.map(|index| assembly.store(index));
            Box::new(move |key| {
                let time = match &index {
                    Some(index) => index.get(key)?,
                    None => Some(time_of(key, 0)),
                };
                let held = match time {
                    Some(time) => {
                        let key = key.clone();
                        buffer.get(&BufferKey { time, key })?
                    }
                    None => None,
                };
                match held {
                    Some(held) => Ok(held.prior.map(|prior| (prior, held.timestamp))),
                    None => lookup(key),
                }
            })
        })
    }

    /// Finds the serdes and the time to wait; notes what is missing.
    fn resolve_suppressed(
        &self,
        suppressed: &Suppressed<K>,
    ) -> Option<(SharedSerde<K>, SharedSerde<V>, Until<K>)> {
        let updates = self.updates();
        let grace = updates.parts.lineage.window_grace;
        let mut reasons = Vec::new();
        let until = suppressed.until(grace);
        if until.is_none() {
            reasons.push("the table is not windowed, so nothing ever closes");
        }
        if self.key_serde.is_none() {
            reasons.push("the key serde is not known, since the key was changed upstream");
        }
        if self.value_serde.is_none() {
            reasons.push(
                "the value serde is not known, since the value was changed upstream; suppress \
                 before `map_values`",
            );
        }
        let mistakes = &mut updates.draft.borrow_mut().graph.mistakes;
        mistakes.extend(
            reasons
                .into_iter()
                .map(|reason| TopologyError::IllegalSuppress {
                    name: suppressed.name.clone(),
                    reason,
                }),
        );
        Some((self.key_serde.clone()?, self.value_serde.clone()?, until?))
    }
}

impl<K> Suppressed<K> {
    fn store<K2, V2>(
        &self,
        name: String,
        key_serde: SharedSerde<K2>,
        value_serde: SharedSerde<V2>,
    ) -> Materialized<K2, V2> {
        Materialized {
            name,
            key_serde,
            value_serde,
            key_codec: Arc::new(BytesCodec::default()),
            value_codec: Arc::new(BytesCodec::default()),
            persistence: Persistence::RocksDb,
            durability: Durability::Derived,
            changelog: self.changelog.clone(),
            retention: None,
            history: None,
            ttl: None,
            keeps_headers: false,
            reuses_source: false,
            source_changelog: None,
        }
    }
}
