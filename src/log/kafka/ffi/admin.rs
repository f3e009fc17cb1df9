//! Administrative requests: each is sent, and waited for on a queue of its own.

use std::ffi::{CString, c_char};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;
use sys::rd_kafka_IsolationLevel_t as RawIsolation;
use sys::rd_kafka_admin_op_t as Operation;

use super::client::{Client, NativeError, c_name, text};
use super::list::{self, Entry, PartitionList};
use super::queue::{Event, Queue};
use super::{Code, millis};
use crate::log::{Isolation, TopicSpec};

/// How much longer than its request time-out a request is waited for: librdkafka answers itself
/// when the time-out has passed.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Makes administrative requests.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct Admin {
    pub(super) client: Arc<Client>,
    timeout: Duration,
}

/// What the cluster says of a topic.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct TopicFacts {
    pub(in crate::log::kafka) name: String,
    pub(in crate::log::kafka) id: [u8; 16],
    pub(in crate::log::kafka) partitions: usize,
    pub(in crate::log::kafka) result: Result<(), NativeError>,
}

/// A topic's name, and what became of the request for it.
pub(in crate::log::kafka) type TopicResult = (String, Result<(), NativeError>);

/// Receives each entry of an answer.
pub(in crate::log::kafka) type Collect<'a> = &'a mut dyn FnMut(Entry<'_>);

/// Owned options of one request.
struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// Destroys request objects when the request has been sent.
pub(super) struct Owned<T>(
    pub(super) Vec<*mut T>,
    pub(super) unsafe extern "C" fn(*mut T),
);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        for &object in &self.0 {
            // SAFETY: each pointer is owned, not null, and paired with its type's destructor.
            unsafe { (self.1)(object) }
        }
    }
}

impl Admin {
    pub(in crate::log::kafka) fn new(client: Arc<Client>, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Asks anew who leads which partition.
    pub(in crate::log::kafka) fn refresh(&self) -> Result<(), NativeError> {
        self.client.refresh(self.timeout)
    }

    /// Sends a request and waits for its answer.
    pub(super) fn request(
        &self,
        operation: Operation,
        configure: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t) -> Result<(), NativeError>,
        send: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Event, NativeError> {
        let missing = || NativeError::invalid("librdkafka could not create an admin request");
        // SAFETY: the client is alive, the options are ours.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(self.client.as_ptr(), operation) };
        let options = Options(NonNull::new(options).ok_or_else(missing)?);
        let mut reason: [c_char; 256] = [0; 256];
        // SAFETY: options and buffer are alive.
        NativeError::check(unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                millis(self.timeout),
                reason.as_mut_ptr(),
                reason.len(),
            )
        })?;
        configure(options.0.as_ptr())?;
        let queue = Queue::new(&self.client).ok_or_else(missing)?;
        send(options.0.as_ptr(), queue.as_ptr());
        let event = queue.poll(self.timeout + ANSWER_GRACE).ok_or_else(|| {
            NativeError::new(
                Code::RD_KAFKA_RESP_ERR__TIMED_OUT,
                "no answer from the cluster",
            )
        })?;
        event.error()?;
        Ok(event)
    }

    pub(super) fn unexpected(event: &Event) -> NativeError {
        NativeError::invalid(format!("unexpected answer `{}`", event.name()))
    }

    /// Creates topics; one result per topic, with its name.
    pub(in crate::log::kafka) fn create_topics(
        &self,
        topics: &[TopicSpec],
    ) -> Result<Vec<TopicResult>, NativeError> {
        let mut requests = Owned(Vec::new(), sys::rd_kafka_NewTopic_destroy);
        for topic in topics {
            requests.0.push(Self::new_topic(topic)?);
        }
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            |_| Ok(()),
            // SAFETY: all pointers are alive; librdkafka copies the requests.
            |options, queue| unsafe {
                sys::rd_kafka_CreateTopics(
                    self.client.as_ptr(),
                    requests.0.as_mut_ptr(),
                    requests.0.len(),
                    options,
                    queue,
                );
            },
        )?;
        // SAFETY: the event is alive while its results are read.
        unsafe {
            let answer = sys::rd_kafka_event_CreateTopics_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let results = sys::rd_kafka_CreateTopics_result_topics(answer, &raw mut count);
            Ok(topic_results(results, count))
        }
    }

    fn new_topic(topic: &TopicSpec) -> Result<*mut sys::rd_kafka_NewTopic_t, NativeError> {
        let name = c_name(&topic.name)?;
        let mut reason: [c_char; 256] = [0; 256];
        // SAFETY: the name is copied, the buffer is alive; -1 is the broker's default.
        let raw = unsafe {
            sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                topic.partitions,
                topic.replication_factor.unwrap_or(-1),
                reason.as_mut_ptr(),
                reason.len(),
            )
        };
        if raw.is_null() {
            // SAFETY: librdkafka terminates what it writes.
            return Err(NativeError::invalid(unsafe { text(reason.as_ptr()) }));
        }
        let guard = Owned(vec![raw], sys::rd_kafka_NewTopic_destroy);
        for (key, setting) in &topic.config {
            let (key, setting) = (c_name(key)?, c_name(setting)?);
            // SAFETY: the request is alive, both strings are copied.
            NativeError::check(unsafe {
                sys::rd_kafka_NewTopic_set_config(raw, key.as_ptr(), setting.as_ptr())
            })?;
        }
        std::mem::forget(guard);
        Ok(raw)
    }

    /// Deletes topics; one result per topic, with its name.
    pub(in crate::log::kafka) fn delete_topics(
        &self,
        topics: &[&str],
    ) -> Result<Vec<TopicResult>, NativeError> {
        let mut requests = Owned(Vec::new(), sys::rd_kafka_DeleteTopic_destroy);
        for topic in topics {
            let name = c_name(topic)?;
            // SAFETY: the name is copied; never null.
            requests
                .0
                .push(unsafe { sys::rd_kafka_DeleteTopic_new(name.as_ptr()) });
        }
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_DELETETOPICS,
            |_| Ok(()),
            // SAFETY: all pointers are alive; librdkafka copies the requests.
            |options, queue| unsafe {
                sys::rd_kafka_DeleteTopics(
                    self.client.as_ptr(),
                    requests.0.as_mut_ptr(),
                    requests.0.len(),
                    options,
                    queue,
                );
            },
        )?;
        // SAFETY: the event is alive while its results are read.
        unsafe {
            let answer = sys::rd_kafka_event_DeleteTopics_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let results = sys::rd_kafka_DeleteTopics_result_topics(answer, &raw mut count);
            Ok(topic_results(results, count))
        }
    }

    /// Returns the names of all topics, in no particular order.
    pub(in crate::log::kafka) fn topic_names(&self) -> Result<Vec<String>, NativeError> {
        self.client.topic_names(self.timeout)
    }

    /// Describes topics, in no particular order.
    pub(in crate::log::kafka) fn describe_topics(
        &self,
        topics: &[&str],
    ) -> Result<Vec<TopicFacts>, NativeError> {
        let names: Vec<CString> = topics
            .iter()
            .map(|topic| c_name(topic))
            .collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names are copied; never null.
        let collection = unsafe {
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        };
        let collection = Owned(vec![collection], sys::rd_kafka_TopicCollection_destroy);
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            |_| Ok(()),
            |options, queue| {
                for &topics in &collection.0 {
                    // SAFETY: all pointers are alive; librdkafka copies the names.
                    unsafe {
                        sys::rd_kafka_DescribeTopics(self.client.as_ptr(), topics, options, queue);
                    }
                }
            },
        )?;
        // SAFETY: the event is alive while its results are read and copied; arrays have the
        // counts that come with them.
        unsafe {
            let answer = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let results = sys::rd_kafka_DescribeTopics_result_topics(answer, &raw mut count);
            Ok((0..count)
                .map(|index| topic_facts(*results.add(index)))
                .collect())
        }
    }

    /// Looks offsets up: each entry of `partitions` carries -2 (earliest) or -1 (latest).
    pub(in crate::log::kafka) fn list_offsets(
        &self,
        partitions: &PartitionList,
        isolation: Isolation,
        each: Collect<'_>,
    ) -> Result<(), NativeError> {
        let level = match isolation {
            Isolation::ReadCommitted => RawIsolation::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::ReadUncommitted => RawIsolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            // SAFETY: the options are alive, the error is ours.
            |options| unsafe {
                NativeError::take(sys::rd_kafka_AdminOptions_set_isolation_level(
                    options, level,
                ))
            },
            // SAFETY: all pointers are alive; librdkafka copies the list.
            |options, queue| unsafe {
                sys::rd_kafka_ListOffsets(
                    self.client.as_ptr(),
                    partitions.as_ptr(),
                    options,
                    queue,
                );
            },
        )?;
        // SAFETY: the event is alive while its results are read.
        unsafe {
            let answer = sys::rd_kafka_event_ListOffsets_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let results = sys::rd_kafka_ListOffsets_result_infos(answer, &raw mut count);
            for index in 0..count {
                let info = *results.add(index);
                each(list::entry(
                    sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info),
                ));
            }
        }
        Ok(())
    }

    /// Deletes records below the offsets in `below`.
    pub(in crate::log::kafka) fn delete_records(
        &self,
        below: &PartitionList,
        each: Collect<'_>,
    ) -> Result<(), NativeError> {
        // SAFETY: the list is alive and copied; never null.
        let request = unsafe { sys::rd_kafka_DeleteRecords_new(below.as_ptr()) };
        let mut request = Owned(vec![request], sys::rd_kafka_DeleteRecords_destroy);
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_DELETERECORDS,
            |_| Ok(()),
            // SAFETY: all pointers are alive; librdkafka copies the request.
            |options, queue| unsafe {
                sys::rd_kafka_DeleteRecords(
                    self.client.as_ptr(),
                    request.0.as_mut_ptr(),
                    request.0.len(),
                    options,
                    queue,
                );
            },
        )?;
        // SAFETY: the event is alive while its results are read.
        unsafe {
            let answer = sys::rd_kafka_event_DeleteRecords_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            list::entries(sys::rd_kafka_DeleteRecords_result_offsets(answer)).for_each(each);
        }
        Ok(())
    }
}

/// Reads an error that belongs to an answer; null is success.
///
/// # Safety
/// `error` is null or valid.
pub(super) unsafe fn borrowed_error(
    error: *const sys::rd_kafka_error_t,
) -> Result<(), NativeError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: by contract; the text is a terminated string.
    let (code, message) = unsafe {
        (
            sys::rd_kafka_error_code(error),
            text(sys::rd_kafka_error_string(error)),
        )
    };
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(NativeError::new(code, message)),
    }
}

/// # Safety
/// `results` has `count` valid results.
unsafe fn topic_results(
    results: *mut *const sys::rd_kafka_topic_result_t,
    count: usize,
) -> Vec<TopicResult> {
    (0..count)
        .map(|index| {
            // SAFETY: by contract; names and texts are terminated strings.
            unsafe {
                let result = *results.add(index);
                let name = text(sys::rd_kafka_topic_result_name(result));
                let outcome = match sys::rd_kafka_topic_result_error(result) {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                    code => {
                        let reason = text(sys::rd_kafka_topic_result_error_string(result));
                        Err(NativeError::new(code, reason))
                    }
                };
                (name, outcome)
            }
        })
        .collect()
}

/// # Safety
/// `topic` is valid.
unsafe fn topic_facts(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicFacts {
    // SAFETY: by contract; everything read belongs to the description and is copied.
    unsafe {
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let mut id = [0; 16];
        if !uuid.is_null() {
            let (high, low) = id.split_at_mut(8);
            high.copy_from_slice(&sys::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes());
            low.copy_from_slice(&sys::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes());
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        TopicFacts {
            name: text(sys::rd_kafka_TopicDescription_name(topic)),
            id,
            partitions,
            result: borrowed_error(sys::rd_kafka_TopicDescription_error(topic)),
        }
    }
}
