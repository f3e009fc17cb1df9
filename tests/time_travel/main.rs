//! Time travel on the production runtime: states, timelines, differences and events of the past, what
//! they cost, and what is left of them when the program changes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod changed_programs;
mod cost;
mod leg;
mod past;
mod period;
mod support;
