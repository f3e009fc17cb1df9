//! `POST /commands/{aggregateType}/{aggregateId}`: a command in, its reply out.
//!
//! ```text
//! type? ─▶ whose partition? ─▶ body ─▶ complete, check ─▶ wait for the reply ─▶ send ─▶ answer
//!  404       307, 503         413, 400       400               503            200, 409, 410 … 503
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::Problem;
use super::producer::{CommandRecord, SendFailure, SendOutcome};
use super::queries::path_and_query;
use super::server::{Segments, Shared};
use crate::event_sourcing::{CommandError, CompletedCommand, Outcome, Reply, ReplyWaiter, reasons};
use crate::format::topic_config::MAX_MESSAGE_BYTES;
use crate::packaged::AggregateEndpoint;

/// How long a caller waits for its reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest body: no larger record gets into the command topic.
const BODY_BYTES_MAX: usize = MAX_MESSAGE_BYTES;
/// How much of a body that is too large is read before the connection is closed.
const DISCARDED_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of all bodies is in memory at once, in KiB; further requests wait to be read.
pub(super) const UPLOADS_KIB_MAX: usize = 64 * 1024;
const _: () = assert!(UPLOADS_KIB_MAX * 1024 >= BODY_BYTES_MAX);

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

pub(super) async fn command(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Segments(aggregate_type, aggregate_id): Segments,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let endpoint = shared.endpoint(&aggregate_type)?;
    let command_topic = endpoint.command_topic().ok_or_else(|| {
        let message = format!("{aggregate_type} takes no commands");
        Problem::not_found("NO_COMMANDS", message)
    })?;
    let serving = shared.accepting()?;
    let place = serving
        .command_place(command_topic, &aggregate_id)
        .ok_or_else(|| Problem::internal("the command topic is not part of the topology"))?;
    if !serving.queries().serves(place.task) {
        return Err(serving.not_here(place.task, &path_and_query(&uri)).await);
    }
    let key = idempotency_key(&headers)?;
    // Its share of memory is the request's until it is answered.
    let (_share, body) = read(&shared.uploads, &headers, body).await?;
    let command = complete(endpoint, &body, &aggregate_id, key, shared.clock.now_ms())?;
    drop(body);
    let process = endpoint.process_of(&command);
    // ORDER: the waiter first, or the reply could come before it.
    let reply = endpoint
        .replies()
        .wait(&aggregate_type, &aggregate_id, &command.command_id)
        .ok_or_else(|| Problem::unavailable("OVERLOADED", "too many callers wait for replies"))?;
    let record = CommandRecord {
        topic: place.topic,
        partition: place.task.partition,
        key: command.aggregate_id.into_bytes(),
        value: command.value,
        timestamp: shared.clock.now_ms(),
    };
    let sent = serving
        .commands()
        .send(record)
        .ok_or_else(|| Problem::unavailable("OVERLOADED", "too many commands wait to be sent"))?;
    match outcome(&shared, reply, sent).await? {
        Some(reply) => Ok(answer(reply, process)),
        None => Ok(under_way(command.command_id, process)),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = |message| Problem::malformed("MALFORMED_HEADER", message);
    if values.any(|other| other != value) {
        return Err(malformed("`Idempotency-Key` is given twice, differently"));
    }
    // `HeaderValue::to_str` takes ASCII only.
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| malformed("`Idempotency-Key` is not UTF-8"))?;
    Ok(Some(text))
}

/// Reads the body, within its limit and the share of memory that all bodies have.
async fn read<'a>(
    uploads: &'a Semaphore,
    headers: &HeaderMap,
    body: Body,
) -> Result<(SemaphorePermit<'a>, Vec<u8>), Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // What will be too large is thrown away as it comes, and takes no memory.
    let bytes = announced.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    let receive = async {
        let share = uploads
            .acquire_many(kib)
            .await
            .map_err(|_| Problem::not_ready("the process has stopped"))?;
        Ok((share, collect(body).await?))
    };
    tokio::time::timeout(BODY_TIMEOUT, receive)
        .await
        .map_err(|_| {
            let message = format!("the body did not come within {BODY_TIMEOUT:?}");
            Problem::new(StatusCode::REQUEST_TIMEOUT, "TOO_SLOW", message)
        })?
}

/// Collects a body. One that is too large is read on for a while: a caller that is still sending
/// when the connection closes never sees the answer.
async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut collected = Vec::new();
    let mut read = 0;
    while read <= DISCARDED_BYTES_MAX
        && let Some(chunk) = chunks.next().await
    {
        let chunk = chunk.map_err(|error| Problem::malformed("MALFORMED_BODY", error))?;
        read += chunk.len();
        if read <= BODY_BYTES_MAX {
            collected.extend_from_slice(&chunk);
        } else {
            collected = Vec::new();
        }
    }
    if read > BODY_BYTES_MAX {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TOO_LARGE",
            message,
        ));
    }
    Ok(collected)
}

fn complete(
    endpoint: &AggregateEndpoint,
    body: &[u8],
    aggregate_id: &str,
    key: Option<&str>,
    now: crate::clock::Timestamp,
) -> Result<CompletedCommand, Problem> {
    let malformed = |error: CommandError| Problem::malformed(error.code().as_str(), error);
    let command =
        CompletedCommand::from_request(body, aggregate_id, key, now).map_err(malformed)?;
    endpoint.check(&command).map_err(malformed)?;
    Ok(command)
}

/// Waits for the reply. `None`: the command is in its topic, and no reply has come in time.
async fn outcome(
    shared: &Shared,
    mut reply: ReplyWaiter,
    mut sent: SendOutcome,
) -> Result<Option<Reply>, Problem> {
    let mut is_sent = false;
    let mut deadline = std::pin::pin!(tokio::time::sleep(REPLY_TIMEOUT));
    let mut stopped = std::pin::pin!(shared.stopped());
    loop {
        tokio::select! {
            biased;
            reply = &mut reply => match reply {
                Some(reply) => return Ok(Some(reply)),
                None => break,
            },
            outcome = &mut sent, if !is_sent => match outcome {
                Ok(Ok(())) => is_sent = true,
                Ok(Err(SendFailure::TooLarge(message))) => {
                    let status = StatusCode::PAYLOAD_TOO_LARGE;
                    return Err(Problem::new(status, "TOO_LARGE", message));
                }
                Ok(Err(SendFailure::Refused(message))) => {
                    return Err(Problem::unavailable("LOG_UNAVAILABLE", message));
                }
                Err(_) => break,
            },
            () = &mut deadline => break,
            () = &mut stopped => break,
        }
    }
    if is_sent {
        return Ok(None);
    }
    let message = "the command could not be sent in time, and may still be carried out: repeat it \
                   with the same command id";
    Err(Problem::unavailable("LOG_UNAVAILABLE", message))
}

fn answer(reply: Reply, process: Option<String>) -> Response {
    let version = reply.aggregate_version;
    let tombstoned_at = reply.tombstoned_at.clone();
    let gone = reply
        .reason
        .as_ref()
        .is_some_and(|reason| reason.code == reasons::TOMBSTONED.as_str());
    let status = match (reply.outcome, process) {
        (Outcome::Accepted, None) => return Json(reply).into_response(),
        (Outcome::Accepted, process) => return under_way(reply.command_id, process),
        (Outcome::Conflict, _) => StatusCode::CONFLICT,
        (Outcome::Rejected, _) if gone => StatusCode::GONE,
        (Outcome::Rejected, _) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let (code, message) = reply.reason.map_or_else(
        || ("REJECTED".into(), "the command was rejected".to_owned()),
        |reason| (reason.code, reason.message),
    );
    let problem = Problem::new(status, code, message);
    match status {
        StatusCode::CONFLICT => problem.at_version(version).into_response(),
        StatusCode::GONE => problem
            .at_version(version)
            .tombstoned_at(tombstoned_at)
            .into_response(),
        _ => problem.into_response(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnderWay {
    command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<String>,
}

fn under_way(command_id: String, transaction_id: Option<String>) -> Response {
    let body = UnderWay {
        command_id,
        transaction_id,
    };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}
