//! The embedded log against a model of it, and its journal against crashes.

mod faults;
mod journal;
mod model;
mod wait;
