//! Rows of the files.

use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A cell that may say `NA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell<T>(pub(super) Option<T>);

impl<'de, T: FromStr> Deserialize<'de> for Cell<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "NA" | "" | "\\N" => Ok(Self(None)),
            text => match text.parse() {
                Ok(value) => Ok(Self(Some(value))),
                Err(_) => Err(D::Error::custom(format!(
                    "`{text}` is neither a value nor NA"
                ))),
            },
        }
    }
}

/// A scheduled departure. Times are local, delays in minutes.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FlightRow {
    pub(super) year: i16,
    pub(super) month: i8,
    pub(super) day: i8,
    /// `NA` where the flight was cancelled.
    pub(super) dep_time: Cell<i64>,
    pub(super) sched_dep_time: i64,
    pub(super) dep_delay: Cell<i64>,
    pub(super) arr_time: Cell<i64>,
    pub(super) sched_arr_time: i64,
    pub(super) arr_delay: Cell<i64>,
    pub(super) carrier: String,
    pub(super) flight: u32,
    pub(super) tailnum: Cell<String>,
    pub(super) origin: String,
    pub(super) dest: String,
    pub(super) air_time: Cell<i64>,
}
