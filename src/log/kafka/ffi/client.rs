//! Configurations, clients, and the errors their calls return.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka_sys as sys;
use sys::{rd_kafka_conf_res_t as ConfRes, rd_kafka_type_t as RawKind};

use super::{Code, millis};
use crate::log::kafka::events;

/// How many bytes librdkafka may use to explain itself.
const ERROR_TEXT_BYTES: usize = 512;

/// What librdkafka says about a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::kafka) struct NativeError {
    pub(in crate::log::kafka) code: Code,
    pub(in crate::log::kafka) message: String,
    /// The client can do nothing more.
    pub(in crate::log::kafka) fatal: bool,
    /// The same call may be made again.
    pub(in crate::log::kafka) retriable: bool,
    /// The transaction is lost.
    pub(in crate::log::kafka) requires_abort: bool,
}

impl NativeError {
    pub(in crate::log::kafka) fn new(code: Code, message: impl Into<String>) -> Self {
        let fatal = code == Code::RD_KAFKA_RESP_ERR__FATAL;
        Self {
            code,
            message: message.into(),
            fatal,
            retriable: false,
            requires_abort: false,
        }
    }

    pub(in crate::log::kafka) fn from_code(code: Code) -> Self {
        // SAFETY: returns a static string for every code.
        Self::new(code, unsafe { text(sys::rd_kafka_err2str(code)) })
    }

    pub(super) fn check(code: Code) -> Result<(), Self> {
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Self::from_code(code)),
        }
    }

    /// Takes ownership of an error object; null is success.
    ///
    /// # Safety
    /// `error` is null or an error object that nobody else owns.
    pub(super) unsafe fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: by contract `error` is valid; it is destroyed once, after the last read.
        let taken = unsafe {
            let taken = Self {
                code: sys::rd_kafka_error_code(error),
                message: text(sys::rd_kafka_error_string(error)),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            taken
        };
        Err(taken)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::RD_KAFKA_RESP_ERR__INVALID_ARG, message)
    }
}

/// Copies a C string; null is empty.
///
/// # Safety
/// `string` is null or points to a NUL-terminated string.
pub(super) unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(string) }
        .to_string_lossy()
        .into_owned()
}

/// Makes a C string of a name that must not contain NUL.
pub(super) fn c_name(name: &str) -> Result<CString, NativeError> {
    CString::new(name).map_err(|_| NativeError::invalid(format!("`{name:?}` contains a NUL byte")))
}

/// Why a property was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::kafka) enum ConfError {
    Unknown(String),
    Invalid { key: String, message: String },
}

/// A client's configuration before the client exists.
#[derive(Debug)]
pub(in crate::log::kafka) struct Conf(NonNull<sys::rd_kafka_conf_t>);

impl Conf {
    pub(in crate::log::kafka) fn new() -> Self {
        // SAFETY: no preconditions; allocation failure aborts inside.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        Self(NonNull::new(conf).unwrap_or_else(|| unreachable!("librdkafka never returns null")))
    }

    pub(in crate::log::kafka) fn set(&mut self, key: &str, value: &str) -> Result<(), ConfError> {
        let invalid = |message: String| ConfError::Invalid {
            key: key.to_owned(),
            message,
        };
        let name = CString::new(key).map_err(|error| invalid(error.to_string()))?;
        let setting = CString::new(value).map_err(|error| invalid(error.to_string()))?;
        let mut reason: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the configuration is owned; both strings and the buffer outlive the call.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                self.0.as_ptr(),
                name.as_ptr(),
                setting.as_ptr(),
                reason.as_mut_ptr(),
                reason.len(),
            )
        };
        match result {
            ConfRes::RD_KAFKA_CONF_OK => Ok(()),
            ConfRes::RD_KAFKA_CONF_UNKNOWN => Err(ConfError::Unknown(key.to_owned())),
            // SAFETY: librdkafka terminates what it writes, and the buffer starts as zeros.
            ConfRes::RD_KAFKA_CONF_INVALID => Err(invalid(unsafe { text(reason.as_ptr()) })),
        }
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: owned, and not handed to a client (`Client::new` forgets it then).
        unsafe { sys::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum ClientKind {
    Consumer,
    Producer,
    /// Delivers no events: its errors are log lines, and nobody polls it between requests.
    Admin,
    /// The same for requests about one group, whose name it has. librdkafka answers a coordinator that
    /// has moved by asking its own group for the new one, and a producer has none: 2.12.1 ends in a null
    /// pointer there (`rd_kafka_handle_OffsetFetch`).
    GroupAdmin,
}

/// A librdkafka instance: its threads, connections and queues.
#[derive(Debug)]
pub(in crate::log::kafka) struct Client(NonNull<sys::rd_kafka_t>);

// SAFETY: librdkafka's handle is documented to be thread-safe; the exceptions (one transactional
// call at a time) report an error instead of racing.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Creates a client that delivers errors, rebalances and delivery reports as events.
    pub(in crate::log::kafka) fn new(kind: ClientKind, conf: Conf) -> Result<Self, NativeError> {
        let (raw_kind, events) = match kind {
            ClientKind::Consumer => (
                RawKind::RD_KAFKA_CONSUMER,
                sys::RD_KAFKA_EVENT_ERROR | sys::RD_KAFKA_EVENT_REBALANCE,
            ),
            ClientKind::Admin => (RawKind::RD_KAFKA_PRODUCER, sys::RD_KAFKA_EVENT_NONE),
            ClientKind::GroupAdmin => (RawKind::RD_KAFKA_CONSUMER, sys::RD_KAFKA_EVENT_NONE),
            ClientKind::Producer => (
                RawKind::RD_KAFKA_PRODUCER,
                sys::RD_KAFKA_EVENT_ERROR | sys::RD_KAFKA_EVENT_DR,
            ),
        };
        let mut reason: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the configuration is owned and valid. `rd_kafka_new` takes it over only when it
        // succeeds, which is when it is forgotten here. The log callback is a plain function.
        let client = unsafe {
            sys::rd_kafka_conf_set_events(conf.0.as_ptr(), events);
            sys::rd_kafka_conf_set_log_cb(conf.0.as_ptr(), Some(on_log));
            sys::rd_kafka_new(raw_kind, conf.0.as_ptr(), reason.as_mut_ptr(), reason.len())
        };
        match NonNull::new(client) {
            Some(client) => {
                std::mem::forget(conf);
                Ok(Self(client))
            }
            // SAFETY: librdkafka terminates what it writes, and the buffer starts as zeros.
            None => Err(NativeError::invalid(unsafe { text(reason.as_ptr()) })),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.0.as_ptr()
    }

    /// Returns the error that made the client unusable, if there is one.
    pub(in crate::log::kafka) fn fatal_error(&self) -> Option<NativeError> {
        let mut reason: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the client is alive and the buffer outlives the call.
        let code =
            unsafe { sys::rd_kafka_fatal_error(self.as_ptr(), reason.as_mut_ptr(), reason.len()) };
        (code != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| NativeError {
            code,
            // SAFETY: librdkafka terminates what it writes, and the buffer starts as zeros.
            message: unsafe { text(reason.as_ptr()) },
            fatal: true,
            retriable: false,
            requires_abort: false,
        })
    }

    /// Prepares a group member's end as if its process had been killed.
    ///
    /// `rd_kafka_destroy_flags` waits for ever for the answer to an assignment that was handed out
    /// (or still waits in the queue), although nobody is left to give it. A client with a fatal
    /// error hands out no more of them, and takes any call for the answer to the last one; it
    /// neither rejoins nor leaves.
    ///
    /// Only for static members: librdkafka looks for a fatal error of no others, and the call would
    /// have no effect on them.
    pub(in crate::log::kafka) fn abandon_group(&self) {
        // SAFETY: the client is alive, the text is terminated and copied; null is an empty
        // assignment. Both calls may fail only when there is nothing to be done.
        unsafe {
            sys::rd_kafka_test_fatal_error(
                self.as_ptr(),
                Code::RD_KAFKA_RESP_ERR__DESTROY,
                events::ABANDONED.as_ptr(),
            );
            sys::rd_kafka_assign(self.as_ptr(), ptr::null());
        }
    }

    /// Makes the client believe that a broker has answered with a fatal error.
    #[cfg(test)]
    pub(in crate::log::kafka) fn raise_fatal_error(&self, code: Code) {
        // SAFETY: the client is alive, the text is terminated and copied.
        let raised = unsafe {
            sys::rd_kafka_test_fatal_error(self.as_ptr(), code, c"raised by a test".as_ptr())
        };
        assert_eq!(raised, Code::RD_KAFKA_RESP_ERR_NO_ERROR);
    }

    /// Waits until a broker has answered, so that later calls find a connection.
    pub(in crate::log::kafka) fn connect(&self, timeout: Duration) -> Result<(), NativeError> {
        self.metadata(0, timeout).map(drop)
    }

    /// Asks anew who leads which partition.
    pub(in crate::log::kafka) fn refresh(&self, timeout: Duration) -> Result<(), NativeError> {
        self.metadata(1, timeout).map(drop)
    }

    /// Returns the names of all topics of the cluster, but for those about to vanish.
    pub(in crate::log::kafka) fn topic_names(
        &self,
        timeout: Duration,
    ) -> Result<Vec<String>, NativeError> {
        Ok(self.metadata(1, timeout)?.topic_names())
    }

    fn metadata(&self, all_topics: c_int, timeout: Duration) -> Result<Metadata, NativeError> {
        let mut metadata: *const sys::rd_kafka_metadata = ptr::null();
        // SAFETY: the client is alive; null names no topic.
        let code = unsafe {
            sys::rd_kafka_metadata(
                self.as_ptr(),
                all_topics,
                ptr::null_mut(),
                &raw mut metadata,
                millis(timeout),
            )
        };
        // Owned before the code is looked at: whatever there is will be destroyed.
        let metadata = Metadata(metadata);
        NativeError::check(code).map(|()| metadata)
    }
}

/// What brokers said of themselves and their topics; null when nothing.
struct Metadata(*const sys::rd_kafka_metadata);

impl Metadata {
    fn topic_names(&self) -> Vec<String> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: not null, and alive until `self` is dropped; librdkafka sets pointer and count
        // together, and the pointer is null for no topics.
        let topics = unsafe {
            let count = usize::try_from((*self.0).topic_cnt).unwrap_or(0);
            if count == 0 || (*self.0).topics.is_null() {
                return Vec::new();
            }
            std::slice::from_raw_parts((*self.0).topics, count)
        };
        topics
            .iter()
            .filter(|topic| NativeError::check(topic.err).is_ok())
            // SAFETY: the name of a topic is a terminated string that lives as long as `self`.
            .map(|topic| unsafe { text(topic.topic) })
            .collect()
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: this is the only owner.
            unsafe { sys::rd_kafka_metadata_destroy(self.0) };
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Without closing the consumer: a static member keeps its partitions for its next life.
        // SAFETY: this is the last owner; queues, topics and messages hold an `Arc<Client>`, so
        // all of them are gone. Never runs on a librdkafka thread: callbacks own no client.
        unsafe {
            sys::rd_kafka_destroy_flags(self.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

/// Receives librdkafka's own log lines, on any of its threads.
unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes terminated strings that live for the call; the client may be null
    // while it is being created.
    unsafe {
        let name = if client.is_null() {
            String::new()
        } else {
            text(sys::rd_kafka_name(client))
        };
        events::library_log(&name, level, &text(facility), &text(line));
    }
}
