//! What librdkafka's errors mean to the runtime: from codes and flags to [`LogError`].
//!
//! One place decides, in this order: the group knows a newer member; a newer producer exists; the
//! client is dead; the transaction is lost; the call may be repeated. What is left is refused input
//! or a broken invariant, and is fatal to the client.

use super::ffi::{Client, Code, FetchError, NativeError};
use crate::log::{LogError, Refusal, TopicPartition};

/// What the runtime does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    Fenced,
    MemberUnknown,
    OffsetMetadataTooLarge,
    AbortRequired,
    Retriable,
    Fatal,
}

fn recovery(error: &NativeError) -> Recovery {
    match error.code {
        Code::RD_KAFKA_RESP_ERR__FENCED
        | Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED
        | Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH
        | Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
        | Code::RD_KAFKA_RESP_ERR_UNRELEASED_INSTANCE_ID => Recovery::Fenced,
        Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID
        | Code::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH
        | Code::RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH
        | Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED => Recovery::MemberUnknown,
        Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE => Recovery::OffsetMetadataTooLarge,
        _ if error.fatal => Recovery::Fatal,
        _ if error.requires_abort => Recovery::AbortRequired,
        _ if error.retriable || is_transient(error.code) => Recovery::Retriable,
        _ => Recovery::Fatal,
    }
}

/// Returns whether a code speaks of a condition that passes: of calls that carry no flags.
pub(super) fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR__TRANSPORT
            | Code::RD_KAFKA_RESP_ERR__RESOLVE
            | Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | Code::RD_KAFKA_RESP_ERR__TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
            | Code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR__WAIT_COORD
            | Code::RD_KAFKA_RESP_ERR__WAIT_CACHE
            | Code::RD_KAFKA_RESP_ERR__IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR__RETRY
            | Code::RD_KAFKA_RESP_ERR__QUEUE_FULL
            | Code::RD_KAFKA_RESP_ERR__NODE_UPDATE
            | Code::RD_KAFKA_RESP_ERR__DESTROY_BROKER
            | Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            | Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR
            | Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS
            | Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR_NOT_CONTROLLER
            | Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR
            | Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS
            | Code::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
            | Code::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED
            | Code::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT
    )
}

/// Returns whether a code says that a topic or partition does not exist.
pub(super) fn is_unknown_topic(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
    )
}

/// Returns why a broker refuses a record for good; `None` for a failure that may pass.
pub(super) fn refusal(code: Code) -> Option<Refusal> {
    match code {
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE => Some(Refusal::TooLarge),
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP => Some(Refusal::InvalidTimestamp),
        Code::RD_KAFKA_RESP_ERR_INVALID_RECORD => Some(Refusal::InvalidRecord),
        _ => None,
    }
}

/// Converts the error of a call on `client`. A fatal client answers every call with "fatal": the
/// error that made it so is what decides.
pub(super) fn of_client(client: &Client, operation: &'static str, error: NativeError) -> LogError {
    let root = if error.fatal {
        client.fatal_error()
    } else {
        None
    };
    log_error(operation, root.unwrap_or(error))
}

/// Converts an error.
pub(super) fn log_error(operation: &'static str, error: NativeError) -> LogError {
    let decided = recovery(&error);
    let message = describe(error);
    match decided {
        Recovery::Fenced => LogError::Fenced { operation, message },
        Recovery::MemberUnknown => LogError::MemberUnknown { operation, message },
        Recovery::OffsetMetadataTooLarge => LogError::OffsetMetadataTooLarge { operation, message },
        Recovery::AbortRequired => LogError::AbortRequired { operation, message },
        Recovery::Retriable => LogError::Retriable { operation, message },
        Recovery::Fatal => LogError::Fatal { operation, message },
    }
}

/// Converts the error of a commit. Whatever may be repeated leaves the outcome open: librdkafka
/// may have sent the request already.
pub(super) fn of_commit(client: &Client, error: NativeError) -> LogError {
    let unresolved = error.code == Code::RD_KAFKA_RESP_ERR__CONFLICT;
    match of_client(client, "commit the transaction", error) {
        LogError::Retriable { message, .. } => LogError::UnknownOutcome { message },
        LogError::Fatal { message, .. } if unresolved => LogError::UnknownOutcome { message },
        other => other,
    }
}

/// Converts the error of an abort; while a commit is unresolved aborting is not allowed.
pub(super) fn of_abort(client: &Client, error: NativeError) -> LogError {
    if error.code == Code::RD_KAFKA_RESP_ERR__CONFLICT && !error.fatal {
        return LogError::UnknownOutcome {
            message: describe(error),
        };
    }
    of_client(client, "abort the transaction", error)
}

/// Converts a condition found in a partition's record stream.
pub(super) fn of_fetch(partition: &TopicPartition, error: FetchError) -> LogError {
    match error.code {
        _ if error.is_out_of_range() => LogError::OffsetOutOfRange {
            partition: partition.clone(),
            offset: error.offset,
        },
        code if is_unknown_topic(code) => LogError::UnknownTopic {
            topic: partition.topic.to_string(),
        },
        code => log_error(
            "fetch",
            NativeError::new(code, format!("{partition}: {}", error.message)),
        ),
    }
}

fn describe(error: NativeError) -> String {
    let code = format!("{:?}", error.code);
    let code = code
        .trim_start_matches("RD_KAFKA_RESP_ERR_")
        .trim_start_matches('_');
    format!("{} ({code})", error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, fatal: bool, retriable: bool, requires_abort: bool) -> NativeError {
        NativeError {
            code,
            message: "m".into(),
            fatal,
            retriable,
            requires_abort,
        }
    }

    #[test]
    fn fencing_decides_before_every_flag() {
        for code in [
            Code::RD_KAFKA_RESP_ERR__FENCED,
            Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
        ] {
            for (fatal, abort) in [(true, false), (false, true), (false, false)] {
                assert_eq!(
                    recovery(&error(code, fatal, false, abort)),
                    Recovery::Fenced
                );
            }
        }
    }

    #[test]
    fn a_lost_generation_is_no_longer_a_member_although_the_transaction_must_be_aborted() {
        let code = Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
        assert_eq!(
            recovery(&error(code, false, false, true)),
            Recovery::MemberUnknown
        );
    }

    #[test]
    fn flags_decide_over_codes() {
        let code = Code::RD_KAFKA_RESP_ERR__TIMED_OUT;
        assert_eq!(recovery(&error(code, true, true, true)), Recovery::Fatal);
        assert_eq!(
            recovery(&error(code, false, true, true)),
            Recovery::AbortRequired
        );
        assert_eq!(
            recovery(&error(code, false, false, false)),
            Recovery::Retriable
        );
        let code = Code::RD_KAFKA_RESP_ERR__STATE;
        assert_eq!(
            recovery(&error(code, false, true, false)),
            Recovery::Retriable
        );
        assert_eq!(recovery(&error(code, false, false, false)), Recovery::Fatal);
    }

    #[test]
    fn the_message_names_the_code() {
        let native = error(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, false, true, false);
        assert_eq!(
            log_error("flush", native).to_string(),
            "flush: m (TIMED_OUT)"
        );
    }
}
