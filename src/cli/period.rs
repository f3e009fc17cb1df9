//! `--from` and `--to`: a span of time.

use super::ExitCode;
use super::outcome::Exit;
use crate::clock::Timestamp;
use crate::event_sourcing::parse_timestamp;

/// From one time on and before another, each if given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
}

impl Period {
    /// Reads the two options.
    ///
    /// # Errors
    /// A usage error for what is no time.
    pub(super) fn of(from: Option<&str>, to: Option<&str>) -> Result<Self, Exit> {
        let time = |text: Option<&str>| {
            let parsed = text.map(parse_timestamp).transpose();
            parsed.map_err(|error| Exit::because(ExitCode::Usage, &error))
        };
        Ok(Self {
            from: time(from)?,
            to: time(to)?,
        })
    }

    pub(super) fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}
