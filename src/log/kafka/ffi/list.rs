//! Lists of partitions with offsets, codes and metadata: what most calls take and return.

use std::ffi::CStr;
use std::ptr::NonNull;

use rdkafka_sys as sys;

use super::client::{NativeError, c_name};
use super::{Code, code_of};
use crate::log::{CommittedOffset, Offset, TopicPartition};

/// An owned list of partitions.
#[derive(Debug)]
pub(in crate::log::kafka) struct PartitionList(NonNull<sys::rd_kafka_topic_partition_list_t>);

/// One entry of a list.
#[derive(Debug, Clone, Copy)]
pub(in crate::log::kafka) struct Entry<'a> {
    pub(in crate::log::kafka) topic: &'a str,
    pub(in crate::log::kafka) partition: i32,
    pub(in crate::log::kafka) offset: Offset,
    pub(in crate::log::kafka) metadata: &'a [u8],
    pub(in crate::log::kafka) code: Code,
}

impl Entry<'_> {
    pub(in crate::log::kafka) fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic, self.partition)
    }

    /// Returns the committed offset of an answer; a negative one stands for none.
    pub(in crate::log::kafka) fn committed(&self) -> Option<CommittedOffset> {
        (self.offset >= 0).then(|| CommittedOffset {
            offset: self.offset,
            metadata: String::from_utf8_lossy(self.metadata).into_owned(),
        })
    }
}

impl PartitionList {
    pub(in crate::log::kafka) fn new(capacity: usize) -> Self {
        let size = i32::try_from(capacity).unwrap_or(0);
        // SAFETY: no preconditions; allocation failure aborts inside.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(size) };
        Self(NonNull::new(list).unwrap_or_else(|| unreachable!("librdkafka never returns null")))
    }

    pub(in crate::log::kafka) fn of<'a>(
        partitions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
    ) -> Result<Self, NativeError> {
        let mut list = Self::new(8);
        for (at, offset) in partitions {
            list.push(&at.topic, at.partition, offset, None)?;
        }
        Ok(list)
    }

    pub(in crate::log::kafka) fn of_committed(
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<Self, NativeError> {
        let mut list = Self::new(offsets.len());
        for (at, committed) in offsets {
            list.push(
                &at.topic,
                at.partition,
                committed.offset,
                Some(&committed.metadata),
            )?;
        }
        Ok(list)
    }

    pub(in crate::log::kafka) fn push(
        &mut self,
        topic: &str,
        partition: i32,
        offset: Offset,
        metadata: Option<&str>,
    ) -> Result<(), NativeError> {
        let name = c_name(topic)?;
        // SAFETY: the list is owned; the name is copied. `metadata` must come from librdkafka's
        // allocator because the list frees it; it is written only while the fresh entry is not
        // shared, and within the length that was allocated.
        unsafe {
            let entry =
                sys::rd_kafka_topic_partition_list_add(self.as_ptr(), name.as_ptr(), partition);
            (*entry).offset = offset;
            if let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) {
                let copy = sys::rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len());
                assert!(
                    !copy.is_null(),
                    "librdkafka's allocator aborts rather than fail"
                );
                copy.cast::<u8>()
                    .copy_from_nonoverlapping(metadata.as_ptr(), metadata.len());
                (*entry).metadata = copy;
                (*entry).metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub(in crate::log::kafka) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        // SAFETY: owned and alive as long as the borrow.
        unsafe { entries(self.0.as_ptr()) }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.as_ptr()) }
    }
}

/// Iterates over a list that somebody else owns; null is empty.
///
/// # Safety
/// `list` is null or valid and unchanged for `'a`.
pub(super) unsafe fn entries<'a>(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> impl Iterator<Item = Entry<'a>> {
    let (first, len) = if list.is_null() {
        (std::ptr::null_mut(), 0)
    } else {
        // SAFETY: by contract.
        unsafe { ((*list).elems, usize::try_from((*list).cnt).unwrap_or(0)) }
    };
    (0..len).map(move |index| {
        // SAFETY: `index` is below the list's count, which is the number of entries at `first`.
        unsafe { entry(first.add(index)) }
    })
}

/// Reads one entry.
///
/// # Safety
/// `raw` is valid and unchanged for `'a`.
pub(super) unsafe fn entry<'a>(raw: *const sys::rd_kafka_topic_partition_t) -> Entry<'a> {
    // SAFETY: by contract; the topic is a terminated string, metadata has the given length. The
    // code is read as an integer because it may be one that the bindings' enum does not have.
    unsafe {
        let metadata = (*raw).metadata.cast::<u8>();
        Entry {
            topic: CStr::from_ptr((*raw).topic).to_str().unwrap_or(""),
            partition: (*raw).partition,
            offset: (*raw).offset,
            metadata: if metadata.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(metadata, (*raw).metadata_size)
            },
            code: code_of((&raw const (*raw).err).cast::<i32>().read()),
        }
    }
}
