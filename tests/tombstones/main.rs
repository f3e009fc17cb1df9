//! Aggregates that end for good: what is refused, what is gone, and what stays.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]

mod lives;
mod messages;
mod note;
mod past;
mod rows;
