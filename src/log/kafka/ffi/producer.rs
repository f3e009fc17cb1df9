//! Producing, and the transactional calls.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;
use sys::rd_kafka_vtype_t as VType;

use super::client::{Client, NativeError, c_name};
use super::consumer::NativeGroupMetadata;
use super::list::PartitionList;
use super::millis;
use crate::log::Headers;

/// Lets the partitioner choose; a macro in C, so that the bindings lack it.
const PARTITION_ANY: i32 = -1;

/// Identifies a topic object of a client. Compared, never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::log::kafka) struct TopicKey(usize);

impl TopicKey {
    pub(super) fn of(topic: *const sys::rd_kafka_topic_t) -> Self {
        Self(topic.addr())
    }
}

/// A topic object of a client: saves the look-up by name per record.
#[derive(Debug)]
pub(in crate::log::kafka) struct Topic {
    raw: NonNull<sys::rd_kafka_topic_t>,
    client: Arc<Client>,
}

// SAFETY: topic objects are locked inside and may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    pub(in crate::log::kafka) fn new(
        client: &Arc<Client>,
        name: &str,
    ) -> Result<Self, NativeError> {
        let c_topic = c_name(name)?;
        // SAFETY: the client is alive, the name is copied, null is the default configuration.
        let raw =
            unsafe { sys::rd_kafka_topic_new(client.as_ptr(), c_topic.as_ptr(), ptr::null_mut()) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self {
                raw,
                client: Arc::clone(client),
            }),
            // SAFETY: reads the thread's last error, set by the failed call.
            None => Err(NativeError::from_code(unsafe {
                sys::rd_kafka_last_error()
            })),
        }
    }

    pub(in crate::log::kafka) fn key(&self) -> TopicKey {
        TopicKey::of(self.raw.as_ptr())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_t {
        self.raw.as_ptr()
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned reference, given back once; the client is still alive.
        unsafe { sys::rd_kafka_topic_destroy(self.raw.as_ptr()) }
    }
}

/// A record to produce.
#[derive(Debug, Clone, Copy)]
pub(in crate::log::kafka) struct Produce<'a> {
    pub(in crate::log::kafka) partition: Option<i32>,
    pub(in crate::log::kafka) key: Option<&'a [u8]>,
    pub(in crate::log::kafka) value: Option<&'a [u8]>,
    pub(in crate::log::kafka) timestamp: i64,
    pub(in crate::log::kafka) headers: &'a Headers,
}

/// Headers on their way into a record.
struct RawHeaders(*mut sys::rd_kafka_headers_t);

impl RawHeaders {
    fn of(headers: &Headers) -> Self {
        // SAFETY: the new headers are owned; names and values are copied with their lengths. A
        // null value is a null header.
        unsafe {
            let raw = sys::rd_kafka_headers_new(headers.len());
            for (name, value) in headers.iter() {
                let (bytes, size) =
                    value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
                // Fails for read-only headers only, which fresh ones are not.
                let _ = sys::rd_kafka_header_add(
                    raw,
                    name.as_ptr().cast(),
                    isize::try_from(name.len()).unwrap_or(0),
                    bytes.cast(),
                    isize::try_from(size).unwrap_or(0),
                );
            }
            Self(raw)
        }
    }
}

impl Drop for RawHeaders {
    fn drop(&mut self) {
        // SAFETY: owned, unless a record took them over and they were forgotten.
        unsafe { sys::rd_kafka_headers_destroy(self.0) }
    }
}

fn value(vtype: VType, u: sys::rd_kafka_vu_s__bindgen_ty_1) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

fn bytes(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1 {
    // An empty slice has a dangling, non-null pointer: empty is told apart from null.
    let (ptr, size) = bytes.map_or((ptr::null_mut(), 0), |bytes| {
        (bytes.as_ptr().cast_mut().cast(), bytes.len())
    });
    sys::rd_kafka_vu_s__bindgen_ty_1 {
        mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size },
    }
}

impl Topic {
    /// Queues a copy of a record; does not block.
    pub(in crate::log::kafka) fn produce(&self, record: &Produce<'_>) -> Result<(), NativeError> {
        use sys::rd_kafka_vu_s__bindgen_ty_1 as U;
        let headers = (!record.headers.is_empty()).then(|| RawHeaders::of(record.headers));
        let parts = [
            value(VType::RD_KAFKA_VTYPE_RKT, U { rkt: self.as_ptr() }),
            value(
                VType::RD_KAFKA_VTYPE_PARTITION,
                U {
                    i32_: record.partition.unwrap_or(PARTITION_ANY),
                },
            ),
            value(
                VType::RD_KAFKA_VTYPE_MSGFLAGS,
                U {
                    i: sys::RD_KAFKA_MSG_F_COPY,
                },
            ),
            value(VType::RD_KAFKA_VTYPE_KEY, bytes(record.key)),
            value(VType::RD_KAFKA_VTYPE_VALUE, bytes(record.value)),
            value(
                VType::RD_KAFKA_VTYPE_TIMESTAMP,
                U {
                    i64_: record.timestamp,
                },
            ),
            value(
                VType::RD_KAFKA_VTYPE_HEADERS,
                U {
                    headers: headers
                        .as_ref()
                        .map_or(ptr::null_mut(), |headers| headers.0),
                },
            ),
        ];
        // SAFETY: each part's tag matches the member of the union that was set; key and value are
        // copied (`MSG_F_COPY`) and only read; the topic's client is alive.
        let result = unsafe {
            NativeError::take(sys::rd_kafka_produceva(
                self.client().as_ptr(),
                parts.as_ptr(),
                parts.len(),
            ))
        };
        // On success the record owns the headers, on failure they are still ours.
        if result.is_ok() {
            std::mem::forget(headers);
        }
        result
    }
}

impl Client {
    /// Waits until all queued records are delivered or have failed. Another thread must serve the
    /// delivery reports.
    pub(in crate::log::kafka) fn flush(&self, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: the client is alive.
        NativeError::check(unsafe { sys::rd_kafka_flush(self.as_ptr(), millis(timeout)) })
    }

    pub(in crate::log::kafka) fn init_transactions(
        &self,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: the client is alive; the error is owned by the caller.
        unsafe {
            NativeError::take(sys::rd_kafka_init_transactions(
                self.as_ptr(),
                millis(timeout),
            ))
        }
    }

    pub(in crate::log::kafka) fn begin_transaction(&self) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::take(sys::rd_kafka_begin_transaction(self.as_ptr())) }
    }

    pub(in crate::log::kafka) fn send_offsets(
        &self,
        offsets: &PartitionList,
        group: &NativeGroupMetadata,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: as above; list and group metadata are alive and copied by the call.
        unsafe {
            NativeError::take(sys::rd_kafka_send_offsets_to_transaction(
                self.as_ptr(),
                offsets.as_ptr(),
                group.as_ptr(),
                millis(timeout),
            ))
        }
    }

    /// Commits at librdkafka's own pace. rust-rdkafka's `commit_transaction` flushes first, in
    /// slices of 100 ms, which puts that floor under every commit.
    pub(in crate::log::kafka) fn commit_transaction(
        &self,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe {
            NativeError::take(sys::rd_kafka_commit_transaction(
                self.as_ptr(),
                millis(timeout),
            ))
        }
    }

    pub(in crate::log::kafka) fn abort_transaction(
        &self,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe {
            NativeError::take(sys::rd_kafka_abort_transaction(
                self.as_ptr(),
                millis(timeout),
            ))
        }
    }
}
