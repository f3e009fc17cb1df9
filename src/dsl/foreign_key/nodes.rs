//! The operators of a foreign-key join, as they are in a task.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::messages::{Response, Subscription, bytes_of, hash_value};
use crate::dsl::builder::StoreKey;
use crate::dsl::config::SharedSerde;
use crate::dsl::getter::Lookup;
use crate::dsl::table::Change;
use crate::dsl::table_store::Updates;
use crate::format::foreign_key::{self, Instruction};
use crate::processor::{BoxError, Downstream, Node, ProcessError, Record, TaskContext};
use crate::state::StoreRef;

pub(super) type SharedDownstream<K, V> = Rc<RefCell<Downstream<K, Response<V>>>>;

/// Keeps the subscriptions to the foreign keys of its task.
pub(super) struct SubscribeNode<K, FK, V2> {
    pub(super) name: Arc<str>,
    pub(super) key_serde: SharedSerde<K>,
    pub(super) foreign_key_serde: SharedSerde<FK>,
    pub(super) subscriptions: StoreRef<Vec<u8>, Vec<u8>>,
    pub(super) lookup: Lookup<FK, V2>,
    pub(super) downstream: SharedDownstream<K, V2>,
}

impl<K: 'static, FK: 'static, V2> SubscribeNode<K, FK, V2> {
    #[cold]
    fn failure(&self, source: impl Into<BoxError>) -> ProcessError {
        ProcessError::Processing {
            node: self.name.to_string(),
            source: source.into(),
        }
    }

    /// Returns what the store keys of a foreign key's subscriptions begin with.
    fn prefix(&self, foreign_key: &FK) -> Result<Vec<u8>, ProcessError> {
        let bytes = bytes_of(&self.foreign_key_serde, foreign_key);
        let bytes = bytes.map_err(|error| self.failure(error))?;
        foreign_key::store_prefix(&bytes).ok_or_else(|| self.failure("a foreign key is too long"))
    }

    fn left_key(&self, bytes: &[u8]) -> Result<K, ProcessError> {
        let key = self.key_serde.deserialize(Some(bytes));
        key.map_err(|error| self.failure(error))
    }
}

impl<K, FK, V2> Node<FK, Subscription> for SubscribeNode<K, FK, V2>
where
    K: Clone + 'static,
    FK: 'static,
    V2: Clone,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<FK, Subscription>,
    ) -> Result<(), ProcessError> {
        let Record {
            key: foreign_key,
            value:
                Subscription {
                    instruction,
                    subscriber,
                    key,
                },
            timestamp,
            headers,
        } = record;
        let left_key = self.left_key(&key)?;
        let mut store_key = self.prefix(&foreign_key)?;
        store_key.extend_from_slice(&key);
        match instruction {
            Instruction::DeleteSilently | Instruction::Delete => {
                drop(self.subscriptions.delete(&store_key)?);
            }
            Instruction::Answer | Instruction::AnswerIfThere => {
                let mut bytes = Vec::new();
                foreign_key::encode_subscriber(subscriber, &mut bytes);
                self.subscriptions.put(store_key, bytes)?;
            }
        }
        let found = (self.lookup)(&foreign_key)?;
        let timestamp = found
            .as_ref()
            .map_or(timestamp, |(_, at)| timestamp.max(*at));
        let found = found.map(|(value, _)| value);
        let value = match instruction {
            Instruction::DeleteSilently => return Ok(()),
            Instruction::Delete => None,
            Instruction::Answer | Instruction::AnswerIfThere => found,
        };
        let record = Record {
            key: left_key,
            value: Response {
                to: subscriber,
                quiet: instruction == Instruction::AnswerIfThere && value.is_none(),
                value,
            },
            timestamp,
            headers,
        };
        self.downstream.borrow_mut().process_at(cx, record)
    }
}

/// Answers all subscriptions to a foreign key whose value has changed.
pub(super) struct AnswerNode<K, FK, V2>(pub(super) SubscribeNode<K, FK, V2>);

impl<K, FK, V2> Node<FK, Change<V2>> for AnswerNode<K, FK, V2>
where
    K: Clone + 'static,
    FK: 'static,
    V2: Clone,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<FK, Change<V2>>,
    ) -> Result<(), ProcessError> {
        if !cx.is_latest() {
            // The result is one of latest values (KIP-914).
            cx.drop_record();
            return Ok(());
        }
        let node = &self.0;
        let prefix = node.prefix(&record.key)?;
        for entry in node.subscriptions.prefix_scan(&prefix) {
            let (store_key, bytes) = entry?;
            let subscriber = foreign_key::decode_subscriber(&bytes);
            let subscriber = subscriber.map_err(|error| node.failure(error))?;
            let left_key = store_key.get(prefix.len()..).unwrap_or_default();
            let response = Record {
                key: node.left_key(left_key)?,
                value: Response {
                    to: subscriber,
                    value: record.value.new.clone(),
                    quiet: false,
                },
                timestamp: record.timestamp,
                headers: record.headers.clone(),
            };
            node.downstream.borrow_mut().process_at(cx, response)?;
        }
        Ok(())
    }
}

/// Of a serde whose bytes differ from time to time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the value serde of the left table writes the same value as other bytes when it was read in between, \
     as a `HashMap` is written in any order: a foreign-key join tells left values apart by their bytes; use \
     a `BTreeMap`, or a serde that sorts"
)]
struct Unstable;

/// Joins an answer with the left value that asked for it.
pub(super) struct ResolveNode<F, K, V, R> {
    pub(super) name: Arc<str>,
    pub(super) value_serde: SharedSerde<V>,
    pub(super) lookup: Lookup<K, V>,
    pub(super) join: Arc<F>,
    pub(super) updates: Updates<K, R>,
}

impl<F, K, V: 'static, R> ResolveNode<F, K, V, R> {
    #[cold]
    fn failure(&self, source: BoxError) -> ProcessError {
        ProcessError::Processing {
            node: self.name.to_string(),
            source,
        }
    }

    fn read_back(&self, value: &V) -> Result<V, ProcessError> {
        let bytes = bytes_of(&self.value_serde, value);
        let read = bytes.and_then(|bytes| self.value_serde.deserialize(Some(&bytes)));
        read.map_err(|error| self.failure(error))
    }
}

impl<F, K, V, V2, R> Node<K, Response<V2>> for ResolveNode<F, K, V, R>
where
    K: StoreKey,
    V: 'static,
    R: Clone + 'static,
    F: Fn(&K, V, Option<V2>) -> Option<R>,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Response<V2>>,
    ) -> Result<(), ProcessError> {
        let Record {
            key,
            value: Response { to, value, quiet },
            timestamp,
            headers,
        } = record;
        let current = (self.lookup)(&key)?.map(|(value, _)| value);
        let hash = |value: Option<&V>| {
            let hash = hash_value(&self.value_serde, value);
            hash.map_err(|source| self.failure(source))
        };
        let of_current = hash(current.as_ref())?;
        if of_current != to.hash {
            // That of a value before, whose successor has asked by itself. A serde that writes one value
            // in several ways would make all answers look like that, and lose them.
            if let Some(current) = &current
                && hash(Some(&self.read_back(current)?))? != of_current
            {
                return Err(self.failure(Unstable.into()));
            }
            return Ok(());
        }
        // An answer to the left value before has perhaps said so already, and was dropped as one to
        // another value: the result that it would have ended is still there.
        if quiet && self.updates.store.get(&key)?.is_none() {
            return Ok(());
        }
        let new = current.and_then(|current| (self.join)(&key, current, value));
        let old = if self.updates.send_old {
            self.updates.store.get(&key)?
        } else {
            None
        };
        let record = Record {
            key,
            value: Change { new, old },
            timestamp,
            headers,
        };
        self.updates.apply(cx, record)
    }
}
