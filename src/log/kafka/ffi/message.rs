//! Fetched records that own their bytes.

use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use rdkafka_sys as sys;

use super::client::{Client, text};
use super::{Code, code_of};
use crate::log::{Headers, LogMessage, Offset, TopicName};

/// Where a record came from: shared by all records of one assigned partition, so that a record
/// costs one reference count.
#[derive(Debug)]
pub(in crate::log::kafka) struct Origin {
    pub(in crate::log::kafka) topic: TopicName,
    /// Keeps the client alive for as long as one of its records is.
    #[expect(dead_code, reason = "held, not used")]
    pub(in crate::log::kafka) client: Arc<Client>,
}

/// A record read from Kafka. Its bytes live in librdkafka's fetch buffer, which stays in memory
/// until all records of that fetch are dropped; the client stays alive until then as well.
pub struct KafkaMessage {
    raw: NonNull<sys::rd_kafka_message_t>,
    // Dropped after `raw` was destroyed.
    origin: Arc<Origin>,
}

// SAFETY: the message is owned and may be read and destroyed on any thread. Not `Sync`:
// `rd_kafka_message_headers` parses lazily into the message.
unsafe impl Send for KafkaMessage {}

/// A condition of one partition, delivered in its record stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::kafka) struct FetchError {
    pub(in crate::log::kafka) code: Code,
    pub(in crate::log::kafka) offset: Offset,
    pub(in crate::log::kafka) message: String,
}

impl FetchError {
    /// Returns whether an offset was asked for that the log does not have.
    pub(in crate::log::kafka) fn is_out_of_range(&self) -> bool {
        matches!(
            self.code,
            Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
                | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
        )
    }
}

/// What a queue delivers: not yet told apart, and not yet owned by its partition's `Origin`.
#[derive(Debug)]
pub(in crate::log::kafka) struct Fetched(NonNull<sys::rd_kafka_message_t>);

impl Fetched {
    /// # Safety
    /// `raw` is a message that nobody else owns, and its client outlives the result.
    pub(super) unsafe fn from_raw(raw: *mut sys::rd_kafka_message_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: owned and alive. The error code is only read through `code`.
        unsafe { self.0.as_ref() }
    }

    fn code(&self) -> Code {
        // SAFETY: as above; read as an integer because it may be unknown to the bindings' enum.
        code_of(unsafe { (&raw const (*self.0.as_ptr()).err).cast::<i32>().read() })
    }

    pub(in crate::log::kafka) fn offset(&self) -> Offset {
        self.raw().offset
    }

    /// Returns the topic object and partition; null for a condition of no partition.
    pub(in crate::log::kafka) fn place(&self) -> (super::TopicKey, i32) {
        (super::TopicKey::of(self.raw().rkt), self.raw().partition)
    }

    /// Tells a record from a condition.
    pub(in crate::log::kafka) fn into_record(
        self,
        origin: &Arc<Origin>,
    ) -> Result<KafkaMessage, FetchError> {
        let code = self.code();
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            let raw = self.0;
            std::mem::forget(self);
            return Ok(KafkaMessage {
                raw,
                origin: Arc::clone(origin),
            });
        }
        Err(FetchError {
            code,
            offset: self.offset(),
            // SAFETY: the message is alive; the result is a terminated string or null.
            message: unsafe { text(sys::rd_kafka_message_errstr(self.0.as_ptr())) },
        })
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: owned; destroyed once, since `into_record` forgets what it hands on.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

impl KafkaMessage {
    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: owned and alive. A record's error code is "no error", a known enum value.
        unsafe { self.raw.as_ref() }
    }
}

impl LogMessage for KafkaMessage {
    fn key(&self) -> Option<&[u8]> {
        let raw = self.raw();
        // SAFETY: a non-null key has `key_len` bytes that live as long as the message.
        (!raw.key.is_null())
            .then(|| unsafe { slice::from_raw_parts(raw.key.cast::<u8>(), raw.key_len) })
    }

    fn value(&self) -> Option<&[u8]> {
        let raw = self.raw();
        // SAFETY: a non-null payload has `len` bytes that live as long as the message.
        (!raw.payload.is_null())
            .then(|| unsafe { slice::from_raw_parts(raw.payload.cast::<u8>(), raw.len) })
    }

    fn timestamp(&self) -> i64 {
        // SAFETY: the message is alive; the type of timestamp is not asked for.
        unsafe { sys::rd_kafka_message_timestamp(self.raw.as_ptr(), std::ptr::null_mut()) }
    }

    fn offset(&self) -> Offset {
        self.raw().offset
    }

    fn partition(&self) -> i32 {
        self.raw().partition
    }

    fn topic(&self) -> &str {
        &self.origin.topic
    }

    fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the message is alive and not shared between threads. The headers it returns
        // belong to it; names are terminated strings, non-null values have the given length, and
        // both are copied before the message can be dropped.
        unsafe {
            if sys::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut raw)
                != Code::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return headers;
            }
            let (mut index, mut name) = (0, std::ptr::null());
            let (mut value, mut size) = (std::ptr::null(), 0);
            while sys::rd_kafka_header_get_all(
                raw,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            ) == Code::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let bytes = (!value.is_null())
                    .then(|| slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
                headers.push(CStr::from_ptr(name).to_string_lossy().into_owned(), bytes);
                index += 1;
            }
        }
        headers
    }
}

impl fmt::Debug for KafkaMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaMessage")
            .field("topic", &self.origin.topic)
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl Drop for KafkaMessage {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once; `origin` keeps the client alive until after this.
        unsafe { sys::rd_kafka_message_destroy(self.raw.as_ptr()) }
    }
}
