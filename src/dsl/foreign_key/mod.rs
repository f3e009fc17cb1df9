//! Joins of two tables by a foreign key that the left table's values hold (KIP-213).
//!
//! # Position
//! ```text
//! left table ─▶ subscriptions ─▶ <name>-subscription-repartition ─▶ right table's task
//!   ▲                                                                  │ store: (foreign key, key)
//!   └─ resolve ◀─ <name>-response-repartition ◀──── responses ◀────────┘
//! ```
//! A left value subscribes its key at the task of its foreign key. That task answers with the right
//! value, once at the subscription and again at each of its changes. The left task joins the answer
//! with its current value.
//! # Invariants
//! - A subscription carries a hash of the left value, and every answer brings it back: an answer to a
//!   value that is no longer the current one is dropped, since the current one's is on its way. So the
//!   left value's serde must write a value always as the same bytes; one that does not fails by name.
//! - A subscription carries the partition of the left task, too, and answers go back to it: the left
//!   table may be partitioned by whatever its writers choose (KIP-775).
//! - At rest the result is the join of both tables' latest values. In an inner join of Kafka Streams
//!   4.3.1 a right value's delete may pass a change of a left value that refers to it: the delete's
//!   answer, made for the older left value, is dropped; the newer value gets none, since there is no
//!   right value; and the old result stays. Likewise when a left value loses its foreign key and
//!   changes again before the answer is back. Here such a change is answered too, quietly: the answer is
//!   dropped unless there is a result to end.
//! - Apart from that, which instruction goes out when and which timestamp a result has is as in Kafka
//!   Streams 4.3.1 (`SubscriptionSendProcessorSupplier`, `SubscriptionJoinProcessorSupplier`). The bytes
//!   of both topics and of the store are millstream's own: they are drained when an application moves.

mod messages;
mod nodes;

use std::sync::Arc;

use self::messages::{
    Response, ResponseSerde, Serdes, Subscription, SubscriptionSerde, bytes_of, hash_value,
    instructions,
};
use self::nodes::{AnswerNode, ResolveNode, SubscribeNode};
use super::assembly::Children;
use super::builder::StoreKey;
use super::config::{Materialized, Repartitioned, TableJoined};
use super::sink::Partitions;
use super::stream::{KStream, Keeps};
use super::table::{Change, KTable};
use super::table_store::{Stateful, Updates};
use crate::format::foreign_key::Subscriber;
use crate::format::names;
use crate::processor::Record;
use crate::serde;
use crate::topology::{GraphNode, NodeKind, TopologyError};

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Joins every entry with the entry of `other` whose key `extractor` finds in it (KIP-213): the
    /// result has this table's keys, and follows changes of both tables. `None` is no foreign key, and
    /// no result.
    ///
    /// Two repartition topics and a store are named after `joined`. Left values are told apart by their
    /// bytes, so that the serde must write equal values alike: no `HashMap` in them. Both tables need to know their
    /// serdes: keep a derived one in a store first, with [`materialized`](Self::materialized).
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = |name| builder.table(
    /// #     name,
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store(name, serdes::string(), serdes::string()),
    /// # );
    /// let (city_of_user, country_of_city) = (table("users"), table("cities"));
    /// let country_of_user = city_of_user.join_foreign_key(
    ///     &country_of_city,
    ///     |_, city| Some(city.clone()),
    ///     |_, city, country| format!("{city}, {country}"),
    ///     TableJoined::as_name("country-of-user"),
    ///     Materialized::as_store("countries", serdes::string(), serdes::string()),
    /// );
    /// # drop(country_of_user);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn join_foreign_key<FK, V2, R>(
        &self,
        other: &KTable<FK, V2>,
        extractor: impl Fn(&K, &V) -> Option<FK> + Send + Sync + 'static,
        joiner: impl Fn(&K, V, V2) -> R + Send + Sync + 'static,
        joined: TableJoined<FK>,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R>
    where
        FK: StoreKey,
        V2: Clone + 'static,
        R: Clone + 'static,
    {
        let join = move |key: &K, value, found: Option<V2>| Some(joiner(key, value, found?));
        self.foreign_key_join(other, false, extractor, join, &joined, materialized)
    }

    /// As [`join_foreign_key`](Self::join_foreign_key); an entry without a foreign key, or whose
    /// foreign key has no value, is joined with `None`.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = |name| builder.table(
    /// #     name,
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store(name, serdes::string(), serdes::string()),
    /// # );
    /// # let (city_of_user, country_of_city) = (table("users"), table("cities"));
    /// let country_of_user = city_of_user.left_join_foreign_key(
    ///     &country_of_city,
    ///     |_, city| Some(city.clone()),
    ///     |_, city, country| match country {
    ///         Some(country) => format!("{city}, {country}"),
    ///         None => city,
    ///     },
    ///     TableJoined::as_name("country-of-user"),
    ///     Materialized::as_store("countries", serdes::string(), serdes::string()),
    /// );
    /// # drop(country_of_user);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn left_join_foreign_key<FK, V2, R>(
        &self,
        other: &KTable<FK, V2>,
        extractor: impl Fn(&K, &V) -> Option<FK> + Send + Sync + 'static,
        joiner: impl Fn(&K, V, Option<V2>) -> R + Send + Sync + 'static,
        joined: TableJoined<FK>,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R>
    where
        FK: StoreKey,
        V2: Clone + 'static,
        R: Clone + 'static,
    {
        let join = move |key: &K, value, found| Some(joiner(key, value, found));
        self.foreign_key_join(other, true, extractor, join, &joined, materialized)
    }

    fn foreign_key_join<FK, V2, R>(
        &self,
        other: &KTable<FK, V2>,
        left_join: bool,
        extractor: impl Fn(&K, &V) -> Option<FK> + Send + Sync + 'static,
        join: impl Fn(&K, V, Option<V2>) -> Option<R> + Send + Sync + 'static,
        joined: &TableJoined<FK>,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R>
    where
        FK: StoreKey,
        V2: Clone + 'static,
        R: Clone + 'static,
    {
        self.refuse_held_back(other);
        let foreign = self
            .updates
            .is_foreign(&other.updates.draft, "joined table");
        let serdes = self
            .foreign_key_serdes(other, &joined.name)
            .filter(|_| !foreign);
        let Some(serdes) = serdes else {
            // `build` reports it; a table of the right type is all that is needed until then.
            let join = Arc::new(move |key: &K, value| join(key, value, None));
            return self.derive("KTABLE-FK-JOIN-", None, false, move |key, value| {
                join(key, value)
            });
        };
        self.enable_sending_old_values();
        let extractor = Arc::new(extractor);
        let (subscriptions, without) = self.subscriptions(&serdes, left_join, &extractor, joined);
        let responses = other.responses(&serdes, &subscriptions, &joined.name);
        let responses = responses.merge(&without);
        self.resolve(&serdes, &responses, join, materialized)
    }

    fn foreign_key_serdes<FK, V2>(
        &self,
        other: &KTable<FK, V2>,
        name: &str,
    ) -> Option<Serdes<K, V, FK, V2>> {
        let graph = &mut self.updates.draft.borrow_mut().graph;
        for (field, known) in [
            ("key", self.key_serde.is_some() && other.key_serde.is_some()),
            (
                "value",
                self.value_serde.is_some() && other.value_serde.is_some(),
            ),
        ] {
            if !known {
                let name = name.to_owned();
                graph
                    .mistakes
                    .push(TopologyError::MissingSerde { name, field });
            }
        }
        Some(Serdes {
            key: self.key_serde.clone()?,
            value: self.value_serde.clone()?,
            foreign_key: other.key_serde.clone()?,
            foreign_value: other.value_serde.clone()?,
        })
    }

    /// Draws the way to the task of the foreign key, and the short way of values that have none.
    fn subscriptions<FK: StoreKey, V2: Clone + 'static>(
        &self,
        serdes: &Serdes<K, V, FK, V2>,
        left_join: bool,
        extractor: &Arc<impl Fn(&K, &V) -> Option<FK> + Send + Sync + 'static>,
        joined: &TableJoined<FK>,
    ) -> (KStream<FK, Subscription>, KStream<K, Response<V2>>) {
        let extract = {
            let (extractor, serdes) = (Arc::clone(extractor), serdes.clone());
            move |key: &K, value: Option<&V>| {
                let found = extractor(key, value?)?;
                (!serdes.foreign_key.is_null(&found)).then_some(found)
            }
        };
        let extract = Arc::new(extract);
        let keeps = KStream::<K, Change<V>>::keeps_nothing();
        let (own, find) = (serdes.clone(), Arc::clone(&extract));
        let asked =
            self.updates
                .operator(names::FOREIGN_KEY_SUBSCRIBE, keeps, move |scope, record| {
                    if !scope.is_latest() {
                        // The result is one of latest values (KIP-914).
                        scope.drop_record();
                        return Ok(());
                    }
                    let Change { new, old } = &record.value;
                    let (old, found) = (
                        find(&record.key, old.as_ref()),
                        find(&record.key, new.as_ref()),
                    );
                    let key =
                        bytes_of(&own.key, &record.key).map_err(|error| scope.failure(error))?;
                    let hash =
                        hash_value(&own.value, new.as_ref()).map_err(|e| scope.failure(e))?;
                    let changed = old != found;
                    for (foreign_key, instruction) in instructions(left_join, old, found, changed) {
                        let value = Subscription {
                            instruction,
                            subscriber: Subscriber {
                                hash,
                                partition: Some(scope.partition()),
                            },
                            key: key.clone(),
                        };
                        scope.forward(Record {
                            key: foreign_key,
                            value,
                            timestamp: record.timestamp,
                            headers: record.headers.clone(),
                        })?;
                    }
                    Ok(())
                });
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let own = serdes.clone();
        let without = self
            .updates
            .operator("KTABLE-FK-WITHOUT-", keeps, move |scope, record| {
                let Change { new, old } = &record.value;
                let nothing = new.is_none() && old.is_none();
                // Out-of-order updates were counted beside.
                if nothing || !scope.is_latest() || extract(&record.key, new.as_ref()).is_some() {
                    return Ok(());
                }
                // An inner join asks the old foreign key's task to say so. Without one either, that
                // was asked for an older value: its answer is late.
                if !left_join && extract(&record.key, old.as_ref()).is_some() {
                    return Ok(());
                }
                let hash = hash_value(&own.value, new.as_ref()).map_err(|e| scope.failure(e))?;
                scope.forward(record.with_value(Response {
                    to: Subscriber {
                        hash,
                        partition: None,
                    },
                    value: None,
                    quiet: !left_join,
                }))
            });
        let subscriptions = asked.repartition(Repartitioned {
            name: format!("{}-subscription", joined.name),
            key_serde: Some(Arc::clone(&serdes.foreign_key)),
            value_serde: Some(Arc::new(SubscriptionSerde)),
            partitions: None,
            partitioner: joined.partitioner(),
        });
        (subscriptions, without)
    }

    /// Draws the right table's part: what keeps the subscriptions to it and answers them.
    fn responses<PK: Clone + 'static, V1: 'static>(
        &self,
        serdes: &Serdes<PK, V1, K, V>,
        subscriptions: &KStream<K, Subscription>,
        name: &str,
    ) -> KStream<PK, Response<V>> {
        let draft = &self.updates.draft;
        let (store, node) = {
            let mut draft = draft.borrow_mut();
            let (key, value) = (serde::bytes(), serde::bytes());
            let store = Materialized::as_store(format!("{name}-subscriptions"), key, value);
            let store = draft.add_store::<Vec<u8>, Vec<u8>>(store);
            let mut stores = self.getter.stores.clone();
            stores.push(store);
            let generated = draft.graph.generate_name("KTABLE-FK-ANSWER-");
            let node = draft.graph.add(GraphNode {
                name: generated,
                named: false,
                kind: NodeKind::Operator { processor: false },
                parents: vec![subscriptions.parts.node, self.updates.parts.node],
                stores,
            });
            (store, node)
        };
        let children = Children::<PK, Response<V>>::new();
        let (getter, downstream) = (self.getter.clone(), children.clone());
        let (key_serde, foreign_key_serde) =
            (Arc::clone(&serdes.key), Arc::clone(&serdes.foreign_key));
        let make = Arc::new(move |assembly: &mut super::assembly::Assembly<'_>| {
            Ok::<_, crate::state::StateError>(SubscribeNode {
                name: assembly.name(node),
                key_serde: Arc::clone(&key_serde),
                foreign_key_serde: Arc::clone(&foreign_key_serde),
                subscriptions: assembly.store(store),
                lookup: getter.lookup(assembly),
                downstream: assembly.shared(node, |assembly| downstream.assemble(assembly))?,
            })
        });
        let subscribe = Arc::clone(&make);
        subscriptions
            .parts
            .children
            .add(node, move |assembly| Ok(Box::new(subscribe(assembly)?)));
        self.updates.parts.children.add(node, move |assembly| {
            Ok(Box::new(AnswerNode(make(assembly)?)))
        });
        let keeps = KStream::<K, Change<V>>::keeps_nothing();
        let mut lineage = self.updates.parts.lineage.clone();
        lineage.rewindable &= subscriptions.parts.lineage.rewindable;
        KStream::new(draft, node, children, keeps, lineage).repartition(Repartitioned {
            name: format!("{name}-response"),
            key_serde: Some(Arc::clone(&serdes.key)),
            value_serde: Some(Arc::new(ResponseSerde(Arc::clone(&serdes.foreign_value)))),
            partitions: None,
            partitioner: Some(Arc::new(|_, response: &Response<V>, _| {
                let asked = response.to.partition.map(|partition| vec![partition]);
                asked.map_or(Partitions::ByKey, Partitions::These)
            })),
        })
    }

    /// Draws what joins the answers with this table's current values.
    fn resolve<FK, V2: Clone + 'static, R: Clone + 'static>(
        &self,
        serdes: &Serdes<K, V, FK, V2>,
        responses: &KStream<K, Response<V2>>,
        join: impl Fn(&K, V, Option<V2>) -> Option<R> + Send + Sync + 'static,
        materialized: Materialized<K, R>,
    ) -> KTable<K, R> {
        let parts = &responses.parts;
        let Stateful {
            node,
            store,
            table,
            children,
            old_values,
        } = KTable::materialize(
            &self.updates.draft,
            "KTABLE-FK-RESOLVE-",
            vec![parts.node],
            materialized,
            &parts.lineage,
        );
        let graph = &mut self.updates.draft.borrow_mut().graph;
        graph.connect(node, &self.getter.stores);
        let (getter, join) = (self.getter.clone(), Arc::new(join));
        let value_serde = Arc::clone(&serdes.value);
        parts.children.add(node, move |assembly| {
            Ok(Box::new(ResolveNode {
                name: assembly.name(node),
                value_serde: Arc::clone(&value_serde),
                lookup: getter.lookup(assembly),
                join: Arc::clone(&join),
                updates: Updates {
                    store: assembly.store(store),
                    send_old: old_values.sent(),
                    downstream: children.assemble(assembly)?,
                },
            }))
        });
        table
    }
}
