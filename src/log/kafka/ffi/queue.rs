//! Queues of events and of fetched records.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;

use super::client::{Client, NativeError, c_name, text};
use super::message::Fetched;
use super::producer::TopicKey;
use super::{Code, code_of, list, millis};
use crate::log::{ConsumerWaker, Offset, TopicPartition};

/// How many records one call takes at most.
const BATCH_MAX: usize = 256;

/// A reference to one of a client's queues.
#[derive(Debug)]
pub(in crate::log::kafka) struct Queue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    /// Boxed: librdkafka holds its address while the callback is enabled.
    waker: Option<Box<ConsumerWaker>>,
    #[expect(dead_code, reason = "keeps the client alive")]
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues are locked inside and may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    fn from_raw(client: &Arc<Client>, raw: *mut sys::rd_kafka_queue_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self {
            raw,
            waker: None,
            client: Arc::clone(client),
        })
    }

    /// Returns the queue of a client's events.
    pub(in crate::log::kafka) fn main(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: the client is alive; the caller owns the returned reference.
        Self::from_raw(client, unsafe {
            sys::rd_kafka_queue_get_main(client.as_ptr())
        })
    }

    /// Creates a queue of the caller's.
    pub(in crate::log::kafka) fn new(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: as above.
        Self::from_raw(client, unsafe { sys::rd_kafka_queue_new(client.as_ptr()) })
    }

    /// Returns the queue of a group member: rebalances and, redirected here, all other events.
    pub(in crate::log::kafka) fn consumer(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: as above.
        unsafe {
            sys::rd_kafka_poll_set_consumer(client.as_ptr());
            Self::from_raw(client, sys::rd_kafka_queue_get_consumer(client.as_ptr()))
        }
    }

    /// Returns the queue of one partition's records, cut off from the consumer's queue.
    ///
    /// To be called **before** the partition is assigned: librdkafka leaves a queue alone that the
    /// application has forwarded (here: to nowhere), and would otherwise start by delivering to
    /// the consumer's queue, so that the first records of the partition arrive there.
    pub(in crate::log::kafka) fn partition(
        client: &Arc<Client>,
        at: &TopicPartition,
    ) -> Result<Self, NativeError> {
        let topic = c_name(&at.topic)?;
        // SAFETY: as above; the name is copied.
        let raw = unsafe {
            sys::rd_kafka_queue_get_partition(client.as_ptr(), topic.as_ptr(), at.partition)
        };
        let queue = Self::from_raw(client, raw)
            .ok_or_else(|| NativeError::invalid(format!("no queue for partition {at}")))?;
        // SAFETY: both queues are alive; null stops forwarding.
        unsafe { sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        Ok(queue)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.raw.as_ptr()
    }

    /// Wakes `waker` whenever the queue stops being empty.
    pub(in crate::log::kafka) fn wake_when_filled(&mut self, waker: ConsumerWaker) {
        let waker = self.waker.insert(Box::new(waker));
        let opaque = ptr::from_ref::<ConsumerWaker>(waker)
            .cast_mut()
            .cast::<c_void>();
        // SAFETY: `opaque` points into a box that this queue keeps until `Drop` has disabled the
        // callback; enabling replaces a former callback under the queue's lock.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.as_ptr(), Some(on_filled), opaque) }
    }

    /// Takes the next event, waiting up to `timeout` for it.
    pub(in crate::log::kafka) fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is alive; the caller owns the event.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.as_ptr(), millis(timeout)) }).map(Event)
    }

    /// Makes a blocked or the next [`poll`](Self::poll) return.
    pub(in crate::log::kafka) fn interrupt(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.as_ptr()) }
    }

    /// Returns whether nothing is there to be taken.
    pub(in crate::log::kafka) fn is_empty(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_length(self.as_ptr()) == 0 }
    }

    /// Takes up to `max` records or conditions that are there already, in order.
    pub(in crate::log::kafka) fn take(
        &self,
        max: usize,
        mut each: impl FnMut(Fetched),
    ) -> Result<usize, NativeError> {
        let mut batch = [ptr::null_mut(); BATCH_MAX];
        let mut taken = 0;
        while taken < max {
            let size = (max - taken).min(BATCH_MAX);
            // SAFETY: the queue is alive and `batch` has room for `size` pointers.
            let count = unsafe {
                sys::rd_kafka_consume_batch_queue(self.as_ptr(), 0, batch.as_mut_ptr(), size)
            };
            let Ok(count) = usize::try_from(count) else {
                // SAFETY: reads the thread's last error.
                return Err(NativeError::from_code(unsafe {
                    sys::rd_kafka_last_error()
                }));
            };
            for &raw in batch.iter().take(count) {
                // SAFETY: each of the first `count` pointers is a message that is ours now; this
                // queue keeps the client alive while `each` runs, an `Origin` does afterwards.
                if let Some(fetched) = unsafe { Fetched::from_raw(raw) } {
                    each(fetched);
                }
            }
            taken += count;
            if count < size {
                break;
            }
        }
        Ok(taken)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: alive until here, destroyed once. Disabling takes the queue's lock, under which
        // callbacks run: afterwards none holds the waker, which is dropped after this body.
        unsafe {
            if self.waker.is_some() {
                sys::rd_kafka_queue_cb_event_enable(self.as_ptr(), None, ptr::null_mut());
            }
            sys::rd_kafka_queue_destroy(self.as_ptr());
        }
    }
}

/// Runs on a librdkafka thread under the queue's lock.
unsafe extern "C" fn on_filled(_client: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the waker that `wake_when_filled` boxed and `Drop` keeps until the
    // callback is disabled.
    unsafe { (*opaque.cast::<ConsumerWaker>()).wake() }
}

/// An event taken from a queue.
#[derive(Debug)]
pub(in crate::log::kafka) struct Event(NonNull<sys::rd_kafka_event_t>);

/// What an event says.
#[derive(Debug)]
pub(in crate::log::kafka) enum EventBody {
    Error(NativeError),
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
    Reports,
    Other,
}

/// The fate of one produced record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) struct Report {
    pub(in crate::log::kafka) topic: TopicKey,
    pub(in crate::log::kafka) partition: i32,
    /// Key and value, in bytes.
    pub(in crate::log::kafka) size: usize,
    /// Negative when the broker did not say (a duplicate).
    pub(in crate::log::kafka) offset: Offset,
    pub(in crate::log::kafka) code: Code,
}

impl Event {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    pub(in crate::log::kafka) fn kind(&self) -> i32 {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_type(self.as_ptr()) }
    }

    /// Returns the event's error; "no error" is success.
    pub(in crate::log::kafka) fn error(&self) -> Result<(), NativeError> {
        // SAFETY: the event is alive, its text is a terminated string or null.
        let (code, message, fatal) = unsafe {
            (
                sys::rd_kafka_event_error(self.as_ptr()),
                text(sys::rd_kafka_event_error_string(self.as_ptr())),
                // Of other events it would read a part of the union that they do not have.
                self.kind() == sys::RD_KAFKA_EVENT_ERROR
                    && sys::rd_kafka_event_error_is_fatal(self.as_ptr()) != 0,
            )
        };
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        let mut error = NativeError::new(code, message);
        error.fatal |= fatal;
        Err(error)
    }

    pub(in crate::log::kafka) fn body(&self) -> EventBody {
        match self.kind() {
            sys::RD_KAFKA_EVENT_ERROR => match self.error() {
                Err(error) => EventBody::Error(error),
                Ok(()) => EventBody::Other,
            },
            sys::RD_KAFKA_EVENT_REBALANCE => {
                // SAFETY: the list belongs to the event, which is alive while it is read.
                let partitions = unsafe {
                    list::entries(sys::rd_kafka_event_topic_partition_list(self.as_ptr()))
                        .map(|entry| entry.topic_partition())
                        .collect()
                };
                // SAFETY: the event is alive.
                match unsafe { sys::rd_kafka_event_error(self.as_ptr()) } {
                    Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => EventBody::Assign(partitions),
                    _ => EventBody::Revoke(partitions),
                }
            }
            sys::RD_KAFKA_EVENT_DR => EventBody::Reports,
            _ => EventBody::Other,
        }
    }

    /// Visits the delivery reports of the event.
    pub(in crate::log::kafka) fn reports(&self, mut each: impl FnMut(Report)) {
        loop {
            // SAFETY: the event is alive and owns the messages it hands out; the code is read as
            // an integer because it may be unknown to the bindings' enum.
            let report = unsafe {
                let message = sys::rd_kafka_event_message_next(self.as_ptr());
                if message.is_null() {
                    return;
                }
                Report {
                    topic: TopicKey::of((*message).rkt),
                    partition: (*message).partition,
                    size: (*message).len + (*message).key_len,
                    offset: (*message).offset,
                    code: code_of((&raw const (*message).err).cast::<i32>().read()),
                }
            };
            each(report);
        }
    }

    pub(super) fn name(&self) -> String {
        // SAFETY: returns a static string.
        unsafe { CStr::from_ptr(sys::rd_kafka_event_name(self.as_ptr())) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.as_ptr()) }
    }
}
