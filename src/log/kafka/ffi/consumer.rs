//! Group membership and assignment calls, and fetching outside of a group.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka_sys as sys;

use super::client::{Client, NativeError, text};
use super::list::PartitionList;
use super::producer::Topic;
use super::queue::Queue;
use super::{Code, millis};
use crate::log::Offset;

/// The identity of a group member at one moment.
#[derive(Debug)]
pub(in crate::log::kafka) struct NativeGroupMetadata(
    NonNull<sys::rd_kafka_consumer_group_metadata_t>,
);

// SAFETY: a plain copy of strings and numbers, owned and never changed.
unsafe impl Send for NativeGroupMetadata {}

impl NativeGroupMetadata {
    pub(super) fn as_ptr(&self) -> *const sys::rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }

    /// Returns whether it names a member of a generation. Without both a broker does not fence.
    pub(in crate::log::kafka) fn is_member(&self) -> bool {
        // SAFETY: owned and alive; the member id is a terminated string or null.
        unsafe {
            sys::rd_kafka_consumer_group_metadata_generation_id(self.as_ptr()) >= 0
                && !text(sys::rd_kafka_consumer_group_metadata_member_id(
                    self.as_ptr(),
                ))
                .is_empty()
        }
    }
}

impl Drop for NativeGroupMetadata {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

impl Client {
    pub(in crate::log::kafka) fn subscribe(
        &self,
        topics: &PartitionList,
    ) -> Result<(), NativeError> {
        // SAFETY: the client is alive, the list is copied.
        NativeError::check(unsafe { sys::rd_kafka_subscribe(self.as_ptr(), topics.as_ptr()) })
    }

    pub(in crate::log::kafka) fn unsubscribe(&self) -> Result<(), NativeError> {
        // SAFETY: the client is alive.
        NativeError::check(unsafe { sys::rd_kafka_unsubscribe(self.as_ptr()) })
    }

    pub(in crate::log::kafka) fn incremental_assign(
        &self,
        partitions: &PartitionList,
    ) -> Result<(), NativeError> {
        // SAFETY: the client is alive, the list is copied, the error is ours.
        unsafe {
            NativeError::take(sys::rd_kafka_incremental_assign(
                self.as_ptr(),
                partitions.as_ptr(),
            ))
        }
    }

    pub(in crate::log::kafka) fn incremental_unassign(
        &self,
        partitions: &PartitionList,
    ) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe {
            NativeError::take(sys::rd_kafka_incremental_unassign(
                self.as_ptr(),
                partitions.as_ptr(),
            ))
        }
    }

    /// Gives up the whole assignment: the answer while no cooperative protocol is in force.
    pub(in crate::log::kafka) fn unassign_all(&self) -> Result<(), NativeError> {
        // SAFETY: as above; null is an empty assignment.
        NativeError::check(unsafe { sys::rd_kafka_assign(self.as_ptr(), ptr::null()) })
    }

    /// Returns whether changes to the assignment are incremental at the moment.
    pub(in crate::log::kafka) fn is_cooperative(&self) -> bool {
        // SAFETY: the client is alive; returns a static string or null.
        unsafe { text(sys::rd_kafka_rebalance_protocol(self.as_ptr())) == "COOPERATIVE" }
    }

    pub(in crate::log::kafka) fn assignment_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.as_ptr()) != 0 }
    }

    /// Moves positions; the outcome per partition is written to the list.
    pub(in crate::log::kafka) fn seek(
        &self,
        partitions: &PartitionList,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: as above; the list is exclusively ours during the call.
        unsafe {
            NativeError::take(sys::rd_kafka_seek_partitions(
                self.as_ptr(),
                partitions.as_ptr(),
                millis(timeout),
            ))
        }
    }

    /// Returns one past the last entry taken from a partition's queue, control records included;
    /// `None` when none was taken since fetching began, or began anew by a seek. `place` names the
    /// partition, and is written to.
    pub(in crate::log::kafka) fn position(&self, place: &PartitionList) -> Option<Offset> {
        // SAFETY: as above. Asks no broker; the outcome is written to the list.
        let code = unsafe { sys::rd_kafka_position(self.as_ptr(), place.as_ptr()) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let entry = place.entries().next()?;
        (entry.code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && entry.offset >= 0)
            .then_some(entry.offset)
    }

    /// Fetches committed offsets into the list; stable ones when the client reads committed.
    pub(in crate::log::kafka) fn committed(
        &self,
        partitions: &PartitionList,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        // SAFETY: as above.
        NativeError::check(unsafe {
            sys::rd_kafka_committed(self.as_ptr(), partitions.as_ptr(), millis(timeout))
        })
    }

    /// Returns the high watermark that the last fetch of a partition has brought.
    pub(in crate::log::kafka) fn high_watermark(
        &self,
        topic: &CString,
        partition: i32,
    ) -> Option<Offset> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is alive; name and results outlive the call.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.as_ptr(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    pub(in crate::log::kafka) fn group_metadata(&self) -> Option<NativeGroupMetadata> {
        // SAFETY: the client is alive; the caller owns the result.
        NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(self.as_ptr()) })
            .map(NativeGroupMetadata)
    }

    /// Starts closing; events go on to `queue`, which is to be polled until [`is_closed`](Self::is_closed).
    pub(in crate::log::kafka) fn close_consumer(&self, queue: &Queue) -> Result<(), NativeError> {
        // SAFETY: client and queue are alive, the error is ours.
        unsafe {
            NativeError::take(sys::rd_kafka_consumer_close_queue(
                self.as_ptr(),
                queue.as_ptr(),
            ))
        }
    }

    pub(in crate::log::kafka) fn is_closed(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_consumer_closed(self.as_ptr()) != 0 }
    }
}

impl Topic {
    /// Starts fetching a partition into `queue`, outside of any group.
    pub(in crate::log::kafka) fn start(
        &self,
        partition: i32,
        offset: Offset,
        queue: &Queue,
    ) -> Result<(), NativeError> {
        // SAFETY: topic and queue are alive and of one client.
        let result = unsafe {
            sys::rd_kafka_consume_start_queue(self.as_ptr(), partition, offset, queue.as_ptr())
        };
        Self::legacy(result)
    }

    /// Stops fetching a partition; what was prefetched is not delivered any more.
    pub(in crate::log::kafka) fn stop(&self, partition: i32) -> Result<(), NativeError> {
        // SAFETY: the topic is alive.
        Self::legacy(unsafe { sys::rd_kafka_consume_stop(self.as_ptr(), partition) })
    }

    fn legacy(result: i32) -> Result<(), NativeError> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: reads the thread's last error, set by the failed call.
        Err(NativeError::from_code(unsafe {
            sys::rd_kafka_last_error()
        }))
    }
}
