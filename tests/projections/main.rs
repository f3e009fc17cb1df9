//! Projections on the production runtime: they follow events, are built anew beside the rows that serve
//! whatever is killed meanwhile, and are compared with what the events add up to.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "a test fails by a panic, in helpers as well"
)]

mod grouped;
mod library;
mod rebuild;
mod verify;
