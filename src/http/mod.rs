//! HTTP: metrics, health, queries and commands of one process.
//!
//! # Position
//! The control plane, on tokio; records never pass here, but for commands that callers send. Asks
//! `query` for committed state and `runtime` for health; commands go to their topic by a producer on
//! a thread of its own, and their replies come back through the `ReplyHub`.
//! # Invariants
//! - Answers come from committed state; a command is answered after its batch is applied
//!   (invariant 4), so a read that follows the answer sees its effect.
//! - A command goes to its topic only from the process that owns its partition: others redirect, and
//!   decide that before anything is written.
//! - Bodies, waiters and queues are bounded (invariant 10).
//! # Failure
//! Every error is `{"code","message"}`; `docs/http.md` has the statuses.

mod commands;
mod history;
mod openapi;
mod owners;
mod parameters;
mod problem;
mod producer;
mod projections;
mod queries;
mod read_models;
mod routes;
mod server;
mod serving;

pub use producer::CommandProducer;
pub use server::{HttpServer, HttpSpec};
pub use serving::Serving;
