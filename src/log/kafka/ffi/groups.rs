//! Administrative requests about groups.

use std::ffi::CStr;
use std::ptr;

use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t as Operation;

use super::admin::{Admin, Collect, Owned, borrowed_error};
use super::client::{NativeError, c_name, text};
use super::list::{self, PartitionList};
use crate::log::TopicPartition;

/// What the coordinator says of a member.
#[derive(Debug, Clone)]
pub(in crate::log::kafka) struct GroupMemberFacts {
    pub(in crate::log::kafka) client_id: String,
    pub(in crate::log::kafka) group_instance_id: Option<String>,
    pub(in crate::log::kafka) assignment: Vec<TopicPartition>,
}

impl Admin {
    /// Returns a group's members.
    pub(in crate::log::kafka) fn group_members(
        &self,
        group: &str,
    ) -> Result<Vec<GroupMemberFacts>, NativeError> {
        let name = c_name(group)?;
        let mut names = [name.as_ptr()];
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
            |_| Ok(()),
            // SAFETY: all pointers are alive; librdkafka copies the names.
            |options, queue| unsafe {
                sys::rd_kafka_DescribeConsumerGroups(
                    self.client.as_ptr(),
                    names.as_mut_ptr(),
                    names.len(),
                    options,
                    queue,
                );
            },
        )?;
        // SAFETY: the event is alive while its results are read and copied; arrays have the
        // counts that come with them. The group's error belongs to the event and is only read.
        unsafe {
            let answer = sys::rd_kafka_event_DescribeConsumerGroups_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(answer, &raw mut count);
            let mut members = Vec::new();
            for index in 0..count {
                let described = *groups.add(index);
                borrowed_error(sys::rd_kafka_ConsumerGroupDescription_error(described))?;
                let size = sys::rd_kafka_ConsumerGroupDescription_member_count(described);
                members.extend((0..size).map(|member| {
                    member_facts(sys::rd_kafka_ConsumerGroupDescription_member(
                        described, member,
                    ))
                }));
            }
            Ok(members)
        }
    }

    /// Fetches a group's stable committed offsets.
    pub(in crate::log::kafka) fn group_offsets(
        &self,
        group: &str,
        partitions: &PartitionList,
        each: Collect<'_>,
    ) -> Result<(), NativeError> {
        let name = c_name(group)?;
        // SAFETY: name and list are alive and copied; never null.
        let request = unsafe {
            sys::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), partitions.as_ptr())
        };
        let mut request = Owned(
            vec![request],
            sys::rd_kafka_ListConsumerGroupOffsets_destroy,
        );
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
            // SAFETY: the options are alive, the error is ours.
            |options| unsafe {
                NativeError::take(sys::rd_kafka_AdminOptions_set_require_stable_offsets(
                    options, 1,
                ))
            },
            // SAFETY: all pointers are alive; librdkafka copies the request.
            |options, queue| unsafe {
                sys::rd_kafka_ListConsumerGroupOffsets(
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
            let answer = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let groups =
                sys::rd_kafka_ListConsumerGroupOffsets_result_groups(answer, &raw mut count);
            group_results(groups, count, each)
        }
    }

    /// Sets a group's committed offsets.
    pub(in crate::log::kafka) fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &PartitionList,
        each: Collect<'_>,
    ) -> Result<(), NativeError> {
        let name = c_name(group)?;
        // SAFETY: name and list are alive and copied; never null.
        let request =
            unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), offsets.as_ptr()) };
        let mut request = Owned(
            vec![request],
            sys::rd_kafka_AlterConsumerGroupOffsets_destroy,
        );
        let event = self.request(
            Operation::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
            |_| Ok(()),
            // SAFETY: all pointers are alive; librdkafka copies the request.
            |options, queue| unsafe {
                sys::rd_kafka_AlterConsumerGroupOffsets(
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
            let answer = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(event.as_ptr());
            if answer.is_null() {
                return Err(Self::unexpected(&event));
            }
            let mut count = 0;
            let groups =
                sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(answer, &raw mut count);
            group_results(groups, count, each)
        }
    }
}

/// # Safety
/// `groups` has `count` valid results.
unsafe fn group_results(
    groups: *mut *const sys::rd_kafka_group_result_t,
    count: usize,
    mut each: Collect<'_>,
) -> Result<(), NativeError> {
    for index in 0..count {
        // SAFETY: by contract; error and list belong to the answer.
        unsafe {
            let group = *groups.add(index);
            borrowed_error(sys::rd_kafka_group_result_error(group))?;
            list::entries(sys::rd_kafka_group_result_partitions(group)).for_each(&mut each);
        }
    }
    Ok(())
}

/// # Safety
/// `member` is valid.
unsafe fn member_facts(member: *const sys::rd_kafka_MemberDescription_t) -> GroupMemberFacts {
    // SAFETY: by contract; everything read belongs to the description and is copied.
    unsafe {
        let instance = sys::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = if assignment.is_null() {
            ptr::null()
        } else {
            sys::rd_kafka_MemberAssignment_partitions(assignment)
        };
        GroupMemberFacts {
            client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
            group_instance_id: (!instance.is_null())
                .then(|| CStr::from_ptr(instance).to_string_lossy().into_owned())
                .filter(|instance| !instance.is_empty()),
            assignment: list::entries(partitions)
                .map(|entry| entry.topic_partition())
                .collect(),
        }
    }
}
