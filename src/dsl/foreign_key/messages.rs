//! What the two tables of a foreign-key join say to each other, and what follows from a change.

use std::sync::Arc;

use crate::dsl::config::SharedSerde;
use crate::format::foreign_key::{
    self, Instruction, ResponseParts, Subscriber, SubscriptionParts, ValueHash, hash_of,
};
use crate::processor::BoxError;
use crate::serde::Serde;

/// What a left entry asks the task of a foreign key for.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) instruction: Instruction,
    pub(super) subscriber: Subscriber,
    /// The left key's bytes.
    pub(super) key: Vec<u8>,
}

pub(super) struct SubscriptionSerde;

impl Serde<Subscription> for SubscriptionSerde {
    fn serialize(&self, data: &Subscription, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let parts = SubscriptionParts {
            instruction: data.instruction,
            subscriber: data.subscriber,
            key: &data.key,
        };
        foreign_key::encode_subscription(parts, out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Subscription, BoxError> {
        let bytes = bytes.ok_or("null is no subscription")?;
        let SubscriptionParts {
            instruction,
            subscriber,
            key,
        } = foreign_key::decode_subscription(bytes)?;
        Ok(Subscription {
            instruction,
            subscriber,
            key: key.to_vec(),
        })
    }
}

/// The right value for a left entry.
#[derive(Debug, Clone)]
pub(super) struct Response<V> {
    /// Of the left value that asked, and where; read back, it is there.
    pub(super) to: Subscriber,
    pub(super) value: Option<V>,
    /// Whether the absence of a value is news only where there is a result.
    pub(super) quiet: bool,
}

pub(super) struct ResponseSerde<V>(pub(super) SharedSerde<V>);

impl<V: 'static> Serde<Response<V>> for ResponseSerde<V> {
    fn serialize(&self, data: &Response<V>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let mut bytes = Vec::new();
        let present = match &data.value {
            Some(value) => self.0.serialize(value, &mut bytes)?,
            None => false,
        };
        let parts = ResponseParts {
            hash: data.to.hash,
            value: present.then_some(&bytes),
            quiet: data.quiet,
        };
        foreign_key::encode_response(parts, out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Response<V>, BoxError> {
        let bytes = bytes.ok_or("null is no response")?;
        let ResponseParts { hash, value, quiet } = foreign_key::decode_response(bytes)?;
        let value = value.map(|bytes| self.0.deserialize(Some(bytes)));
        Ok(Response {
            to: Subscriber {
                hash,
                partition: None,
            },
            value: value.transpose()?,
            quiet,
        })
    }
}

pub(super) fn bytes_of<T: 'static>(serde: &SharedSerde<T>, data: &T) -> Result<Vec<u8>, BoxError> {
    let mut bytes = Vec::new();
    serde.serialize(data, &mut bytes)?;
    Ok(bytes)
}

/// How both tables become bytes.
pub(super) struct Serdes<K, V, FK, V2> {
    pub(super) key: SharedSerde<K>,
    pub(super) value: SharedSerde<V>,
    pub(super) foreign_key: SharedSerde<FK>,
    pub(super) foreign_value: SharedSerde<V2>,
}

impl<K, V, FK, V2> Clone for Serdes<K, V, FK, V2> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            value: Arc::clone(&self.value),
            foreign_key: Arc::clone(&self.foreign_key),
            foreign_value: Arc::clone(&self.foreign_value),
        }
    }
}

pub(super) fn hash_value<V: 'static>(
    serde: &SharedSerde<V>,
    value: Option<&V>,
) -> Result<Option<ValueHash>, BoxError> {
    let hash = |value| Ok(hash_of(&bytes_of(serde, value)?));
    value.map(hash).transpose()
}

/// Returns what a change of a left entry asks for, in order. `changed`: the two keys differ.
pub(super) fn instructions<FK>(
    left_join: bool,
    old: Option<FK>,
    new: Option<FK>,
    changed: bool,
) -> Vec<(FK, Instruction)> {
    match (old, new) {
        (Some(old), Some(new)) if changed => vec![
            (old, Instruction::DeleteSilently),
            (new, Instruction::Answer),
        ],
        (_, Some(new)) if left_join => vec![(new, Instruction::Answer)],
        (_, Some(new)) => vec![(new, Instruction::AnswerIfThere)],
        // A left join answers itself: a value without a foreign key still has a result.
        (Some(old), None) if left_join => vec![(old, Instruction::DeleteSilently)],
        (Some(old), None) => vec![(old, Instruction::Delete)],
        (None, None) => Vec::new(),
    }
}
