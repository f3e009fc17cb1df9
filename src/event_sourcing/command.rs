//! Commands and their replies on the wire.
//!
//! ```text
//! command  {"commandId","commandType","aggregateId","expectedVersion"?,"timestamp",
//!           "correlationId"?,"metadata"?,"data"}
//! reply    {"commandId","aggregateType","aggregateId","outcome","aggregateVersion","eventIds",
//!           "reason":{"code","message"}?}
//! ```
//! Both are keyed by the aggregate's id. Unknown fields of the command's envelope are ignored;
//! unknown fields of its `data` are refused where the data's type says so, because a misspelled
//! optional field would otherwise change what is done.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::envelope::{Text, is_object};
use super::json::{self, JsonProblem};
use super::process::ProcessRef;
use super::reason::{ReasonCode, reasons};
use super::time::{TimeError, format_timestamp, parse_timestamp};
use crate::clock::Timestamp;

/// A command as it is on the wire; borrows from the bytes it was read from.
#[derive(Debug, Clone)]
pub struct CommandEnvelope<'a> {
    /// Unique per aggregate; a repeated one gets its first reply again.
    pub command_id: Cow<'a, str>,
    /// The imperative name, such as `TopUp`.
    pub command_type: Cow<'a, str>,
    /// The aggregate; also the record's key. Never contains U+0000.
    pub aggregate_id: Cow<'a, str>,
    /// The version the sender has seen; another one is a conflict.
    pub expected_version: Option<u64>,
    /// When the sender made it; kept in the events' `metadata.commandTimestamp`.
    pub timestamp: Timestamp,
    /// Follows one request through all events; absent means the command's id.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Who, why and by what source; handed on to the events.
    pub metadata: Option<&'a RawValue>,
    /// The command's own fields.
    pub data: &'a RawValue,
    /// The process whose step it is, as the record's headers say; `None` after
    /// [`parse`](Self::parse), which sees no headers.
    pub process: Option<ProcessRef>,
}

/// Why a record is not a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not JSON at all.
    #[error("the command is not JSON: {0}")]
    NotJson(String),
    /// JSON, but a field is missing or has a wrong type.
    #[error("not a command: {0}")]
    Form(String),
    /// A field is there, but its content is not allowed.
    #[error("`{field}` {problem}")]
    Field {
        /// The field's name on the wire.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `timestamp` is not a timestamp.
    #[error("`timestamp`: {0}")]
    Timestamp(TimeError),
    /// An unknown `commandType`.
    #[error("unknown command type `{command_type}`")]
    UnknownType {
        /// The type.
        command_type: String,
    },
    /// `data` is not what the type says.
    #[error("`data` of `{command_type}`: {problem}")]
    Data {
        /// The type.
        command_type: String,
        /// What is wrong.
        problem: String,
    },
    /// A command that only a process may give.
    #[error("`{command_type}` is a command that only a process may give")]
    OfProcess {
        /// The type.
        command_type: String,
    },
    /// The record has no key.
    #[error("the record has no key; it must be the aggregate's id")]
    MissingKey,
    /// The record's key is not the aggregate's id.
    #[error("the record's key is not `aggregateId` {aggregate_id}")]
    KeyMismatch {
        /// What the key must be.
        aggregate_id: String,
    },
    /// Two places give one field different values.
    #[error("`{field}` is given twice and differs")]
    Contradiction {
        /// The field's name on the wire.
        field: &'static str,
    },
}

impl CommandError {
    /// Returns the code for programs.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NotJson(_) => reasons::NOT_JSON,
            Self::MissingKey => reasons::MISSING_KEY,
            Self::KeyMismatch { .. } => reasons::KEY_MISMATCH,
            Self::OfProcess { .. } => reasons::PROCESS_COMMAND,
            Self::Form(_)
            | Self::Field { .. }
            | Self::Timestamp(_)
            | Self::UnknownType { .. }
            | Self::Data { .. }
            | Self::Contradiction { .. } => reasons::INVALID_COMMAND,
        }
    }

    fn from_json(problem: JsonProblem) -> Self {
        match problem {
            JsonProblem::Syntax(text) => Self::NotJson(text),
            JsonProblem::Form(text) => Self::Form(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    command_id: Cow<'a, str>,
    #[serde(borrow)]
    command_type: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    #[serde(default)]
    expected_version: Option<u64>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    correlation_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<'a> CommandEnvelope<'a> {
    /// Reads a command's envelope; its `data` is read by [`Command::read`].
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let wire: Wire<'a> = json::read(bytes).map_err(CommandError::from_json)?;
        let refuse = |field, problem| Err(CommandError::Field { field, problem });
        let texts = [
            ("commandId", &wire.command_id),
            ("commandType", &wire.command_type),
            ("aggregateId", &wire.aggregate_id),
        ];
        for (field, text) in texts {
            if text.is_empty() {
                return refuse(field, "is empty");
            }
            if text.contains('\0') {
                // Store keys end an aggregate's id with this byte.
                return refuse(field, "contains U+0000");
            }
        }
        if wire
            .correlation_id
            .as_ref()
            .is_some_and(|Text(text)| text.is_empty())
        {
            return refuse("correlationId", "is empty");
        }
        if !is_object(wire.data) {
            return refuse("data", "is not an object");
        }
        if wire.metadata.is_some_and(|metadata| !is_object(metadata)) {
            return refuse("metadata", "is not an object");
        }
        if wire
            .metadata
            .is_some_and(|metadata| nesting(metadata.get()) > METADATA_DEPTH_MAX)
        {
            return refuse("metadata", "nests deeper than 64 levels");
        }
        Ok(Self {
            timestamp: parse_timestamp(&wire.timestamp).map_err(CommandError::Timestamp)?,
            command_id: wire.command_id,
            command_type: wire.command_type,
            aggregate_id: wire.aggregate_id,
            expected_version: wire.expected_version,
            correlation_id: wire.correlation_id.map(|Text(text)| text),
            metadata: wire.metadata,
            data: wire.data,
            process: None,
        })
    }

    /// Returns whom to answer when [`parse`](Self::parse) failed: the command's and the aggregate's
    /// id, if at least those can be read.
    #[must_use]
    pub fn address(bytes: &[u8]) -> Option<(String, String)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Address {
            command_id: String,
            aggregate_id: String,
        }
        let Address {
            command_id,
            aggregate_id,
        } = serde_json::from_slice(bytes).ok()?;
        let usable = |id: &str| !id.is_empty() && !id.contains('\0');
        (usable(&command_id) && usable(&aggregate_id)).then_some((command_id, aggregate_id))
    }

    /// Returns the correlation id: the command's own, or its id.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.correlation_id.as_deref().unwrap_or(&self.command_id)
    }
}

/// How deep metadata may nest. It is small; a reader of JSON goes 128 levels deep, and events say more
/// around it than commands do.
const METADATA_DEPTH_MAX: usize = 64;

/// Returns how deep a JSON text nests.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A command that came without a record: an HTTP body, with what the request says around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedCommand {
    /// The command's id.
    pub command_id: String,
    /// The command's type.
    pub command_type: String,
    /// The aggregate, which is the record's key.
    pub aggregate_id: String,
    /// The whole command as JSON, which is the record's value.
    pub value: Vec<u8>,
}

impl CompletedCommand {
    /// Completes a request's `body`: a missing `aggregateId`, `commandId` or `timestamp` is filled
    /// in from the path, the `Idempotency-Key` and `now`. The fields that are there stay as they
    /// are, digit by digit.
    ///
    /// # Errors
    /// [`CommandError::Contradiction`] when body and request disagree, and whatever
    /// [`CommandEnvelope::parse`] returns for the completed command.
    pub fn from_request(
        body: &[u8],
        aggregate_id: &str,
        idempotency_key: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, CommandError> {
        let mut fields: BTreeMap<String, Box<RawValue>> =
            json::read(body).map_err(CommandError::from_json)?;
        complete(&mut fields, "aggregateId", Some(aggregate_id))?;
        complete(&mut fields, "commandId", idempotency_key)?;
        if !fields.contains_key("timestamp") {
            let text = format_timestamp(now).map_err(CommandError::Timestamp)?;
            complete(&mut fields, "timestamp", Some(&text))?;
        }
        let value = serde_json::to_vec(&fields).map_err(unwritable)?;
        let command = CommandEnvelope::parse(&value)?;
        Ok(Self {
            command_id: command.command_id.to_string(),
            command_type: command.command_type.to_string(),
            aggregate_id: command.aggregate_id.to_string(),
            value,
        })
    }
}

fn unwritable(error: serde_json::Error) -> CommandError {
    CommandError::Form(error.to_string())
}

/// Sets `field` to `value` unless the body has it; both must agree.
fn complete(
    fields: &mut BTreeMap<String, Box<RawValue>>,
    field: &'static str,
    value: Option<&str>,
) -> Result<(), CommandError> {
    let Some(value) = value else { return Ok(()) };
    if let Some(given) = fields.get(field).filter(|raw| raw.get() != "null") {
        let given: Cow<'_, str> = json::read_raw(given)
            .map_err(|problem| CommandError::Form(format!("`{field}`: {problem}")))?;
        return if given == value {
            Ok(())
        } else {
            Err(CommandError::Contradiction { field })
        };
    }
    let raw = serde_json::value::to_raw_value(value).map_err(unwritable)?;
    fields.insert(field.into(), raw);
    Ok(())
}

/// The `data` of one command type.
pub trait CommandData: DeserializeOwned {
    /// Whether only a [process](super::Process) may give it: as a step of its own. From anybody else,
    /// such as a caller over HTTP, it is refused `PROCESS_COMMAND`.
    const OF_PROCESS: bool = false;

    /// Fills in what the envelope says where the data is silent, such as an id made from the
    /// command's. Does nothing unless overridden.
    #[expect(unused_variables, reason = "names for implementors")]
    fn complete(&mut self, envelope: &CommandEnvelope<'_>) {}

    /// Reads the data of `envelope`.
    ///
    /// # Errors
    /// [`CommandError::Data`], [`CommandError::OfProcess`].
    fn read(envelope: &CommandEnvelope<'_>) -> Result<Self, CommandError> {
        if Self::OF_PROCESS && envelope.process.is_none() {
            return Err(CommandError::OfProcess {
                command_type: envelope.command_type.to_string(),
            });
        }
        let mut data: Self =
            json::read_raw(envelope.data).map_err(|problem| CommandError::Data {
                command_type: envelope.command_type.to_string(),
                problem,
            })?;
        data.complete(envelope);
        Ok(data)
    }
}

/// The commands of one aggregate, as an enum over their data; see [`commands!`](crate::commands).
pub trait Command: Sized {
    /// Reads a command.
    ///
    /// # Errors
    /// [`CommandError::UnknownType`], [`CommandError::Data`], [`CommandError::OfProcess`].
    fn read(envelope: &CommandEnvelope<'_>) -> Result<Self, CommandError>;
}

/// Implements [`CommandData`](crate::event_sourcing::CommandData) for types that take nothing from the
/// command's envelope.
#[macro_export]
macro_rules! command_data {
    ($($data:ty),+ $(,)?) => {
        $(impl $crate::event_sourcing::CommandData for $data {})+
    };
}

/// Declares an aggregate's commands: an enum with one variant per command type, whose name is the
/// `commandType`, over its [`CommandData`](crate::event_sourcing::CommandData). Implements
/// [`Command`](crate::event_sourcing::Command), and `From` for each data type.
#[macro_export]
macro_rules! commands {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($data:ty)),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $name { $($(#[$variant_meta])* $variant($data)),+ }

        impl $crate::event_sourcing::Command for $name {
            fn read(
                envelope: &$crate::event_sourcing::CommandEnvelope<'_>,
            ) -> ::std::result::Result<Self, $crate::event_sourcing::CommandError> {
                match envelope.command_type.as_ref() {
                    $(stringify!($variant) => {
                        <$data as $crate::event_sourcing::CommandData>::read(envelope)
                            .map(Self::$variant)
                    })+
                    other => ::std::result::Result::Err(
                        $crate::event_sourcing::CommandError::UnknownType {
                            command_type: other.into(),
                        },
                    ),
                }
            }
        }

        $(impl ::std::convert::From<$data> for $name {
            fn from(data: $data) -> Self { Self::$variant(data) }
        })+
    };
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// Its events are written.
    Accepted,
    /// A rule speaks against it; nothing but the reply is written.
    Rejected,
    /// `expectedVersion` is not the current one; nothing but the reply is written.
    Conflict,
}

/// Why a command was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyReason {
    /// A documented constant.
    pub code: Cow<'static, str>,
    /// A sentence for people.
    pub message: String,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The command.
    pub command_id: String,
    /// The aggregate's type.
    pub aggregate_type: Cow<'static, str>,
    /// The aggregate.
    pub aggregate_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The aggregate's version after the command.
    pub aggregate_version: u64,
    /// When the aggregate was tombstoned, by its last event; absent unless it is. Its version is
    /// `aggregate_version`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tombstoned_at: Option<String>,
    /// The events written, in order.
    pub event_ids: Vec<String>,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<ReplyReason>,
}

impl Reply {
    /// Returns a reply that says no.
    #[must_use]
    pub fn refusal(
        command_id: &str,
        aggregate_type: &'static str,
        aggregate_id: &str,
        aggregate_version: u64,
        (code, message): (ReasonCode, String),
    ) -> Self {
        let conflict = code == reasons::VERSION_CONFLICT;
        Self {
            command_id: command_id.into(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
            outcome: if conflict {
                Outcome::Conflict
            } else {
                Outcome::Rejected
            },
            aggregate_version,
            tombstoned_at: None,
            event_ids: Vec::new(),
            reason: Some(ReplyReason {
                code: code.as_str().into(),
                message,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = r#"{"commandId":"cmd-1","commandType":"TopUp","aggregateId":"account-1","expectedVersion":3,"timestamp":"2025-12-09T12:00:00.000Z","metadata":{"actorId":"u"},"data":{"amount":"1.00","reason":"x"}}"#;

    #[test]
    fn a_command_is_read_and_its_correlation_defaults_to_its_id() {
        let command = CommandEnvelope::parse(COMMAND.as_bytes()).unwrap();
        assert_eq!(command.command_type, "TopUp");
        assert_eq!(command.expected_version, Some(3));
        assert_eq!(command.correlation_id(), "cmd-1");
        assert_eq!(command.data.get(), r#"{"amount":"1.00","reason":"x"}"#);
    }

    #[test]
    fn each_broken_field_is_named() {
        for (from, to, named) in [
            (r#""commandId":"cmd-1","#, "", "commandId"),
            (r#""commandId":"cmd-1""#, r#""commandId":"""#, "commandId"),
            (r#""commandType":"TopUp","#, "", "commandType"),
            (
                r#""aggregateId":"account-1""#,
                r#""aggregateId":"a\u0000""#,
                "aggregateId",
            ),
            (
                r#""expectedVersion":3"#,
                r#""expectedVersion":-3"#,
                "expectedVersion",
            ),
            (
                r#""expectedVersion":3"#,
                r#""expectedVersion":"3""#,
                "string \"3\"",
            ),
            ("2025-12-09T12:00:00.000Z", "now", "timestamp"),
            (r#"{"actorId":"u"}"#, "1", "metadata"),
            (r#"{"amount":"1.00","reason":"x"}"#, "[]", "data"),
        ] {
            let text = COMMAND.replacen(from, to, 1);
            assert_ne!(text, COMMAND);
            let error = CommandEnvelope::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), reasons::INVALID_COMMAND, "{to}");
            assert!(error.to_string().contains(named), "{to}: {error}");
        }
        assert_eq!(
            CommandEnvelope::parse(b"{").unwrap_err().code(),
            reasons::NOT_JSON
        );
    }

    #[test]
    fn a_broken_command_is_answered_when_its_ids_can_be_read() {
        let text = br#"{"commandId":"c","aggregateId":"a","timestamp":7}"#;
        assert!(CommandEnvelope::parse(text).is_err());
        assert_eq!(
            CommandEnvelope::address(text),
            Some(("c".into(), "a".into()))
        );
        assert_eq!(CommandEnvelope::address(br#"{"commandId":"c"}"#), None);
        assert_eq!(
            CommandEnvelope::address(br#"{"commandId":"","aggregateId":"a"}"#),
            None
        );
        assert_eq!(CommandEnvelope::address(b"hello"), None);
    }

    #[test]
    fn a_request_completes_what_its_body_leaves_out() {
        let body = br#"{"commandType":"TopUp","data":{"amount":"1.10","reason":"x"}}"#;
        let command =
            CompletedCommand::from_request(body, "account-1", Some("key-1"), 1_765_281_600_000)
                .unwrap();
        assert_eq!(command.command_id, "key-1");
        let read = CommandEnvelope::parse(&command.value).unwrap();
        assert_eq!(read.aggregate_id, "account-1");
        assert_eq!(read.timestamp, 1_765_281_600_000);
        assert_eq!(read.data.get(), r#"{"amount":"1.10","reason":"x"}"#);
    }

    #[test]
    fn a_request_that_contradicts_its_body_is_refused() {
        let complete = |id, key| CompletedCommand::from_request(COMMAND.as_bytes(), id, key, 0);
        assert!(complete("account-1", Some("cmd-1")).is_ok());
        assert!(complete("account-1", None).is_ok());
        assert!(matches!(
            complete("account-2", None),
            Err(CommandError::Contradiction {
                field: "aggregateId"
            })
        ));
        assert!(matches!(
            complete("account-1", Some("cmd-2")),
            Err(CommandError::Contradiction { field: "commandId" })
        ));
    }

    #[test]
    fn a_request_without_any_command_id_is_refused() {
        let body = br#"{"commandType":"TopUp","data":{}}"#;
        let error = CompletedCommand::from_request(body, "a", None, 0).unwrap_err();
        assert!(error.to_string().contains("commandId"), "{error}");
    }

    #[test]
    fn replies_are_written_with_the_contracts_names() {
        let accepted = Reply {
            command_id: "c".into(),
            aggregate_type: "Account".into(),
            aggregate_id: "a".into(),
            outcome: Outcome::Accepted,
            aggregate_version: 2,
            tombstoned_at: None,
            event_ids: vec!["evt-1".into()],
            reason: None,
        };
        let text = serde_json::to_string(&accepted).unwrap();
        assert_eq!(
            text,
            r#"{"commandId":"c","aggregateType":"Account","aggregateId":"a","outcome":"ACCEPTED","aggregateVersion":2,"eventIds":["evt-1"]}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), accepted);

        let refusal = Reply::refusal(
            "c",
            "Account",
            "a",
            2,
            (reasons::VERSION_CONFLICT, "no".into()),
        );
        assert_eq!(
            serde_json::to_string(&refusal).unwrap(),
            r#"{"commandId":"c","aggregateType":"Account","aggregateId":"a","outcome":"CONFLICT","aggregateVersion":2,"eventIds":[],"reason":{"code":"VERSION_CONFLICT","message":"no"}}"#
        );
        let refusal = Reply::refusal(
            "c",
            "Account",
            "a",
            0,
            (reasons::FOREIGN_OWNED, "no".into()),
        );
        assert_eq!(refusal.outcome, Outcome::Rejected);
    }
}
