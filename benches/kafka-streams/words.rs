//! What a side says of itself on its standard output: when it begins to restore, and when all of its
//! tasks run. The observer takes the moment, and counts CPU and memory itself.

use std::fmt;

/// Begins each line; other lines are passed on.
const PREFIX: &str = "side: ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The first of its tasks reads its changelog.
    Restoring,
    /// All tasks run, after so many records read from changelogs.
    Running { restored: u64 },
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restoring => write!(f, "{PREFIX}restoring"),
            Self::Running { restored } => write!(f, "{PREFIX}running {restored}"),
        }
    }
}

impl Word {
    /// Reads what `Display` writes; `None` for any other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.strip_prefix(PREFIX)?.split_once(' ') {
            Some(("running", restored)) => Some(Self::Running {
                restored: restored.parse().ok()?,
            }),
            None if line.ends_with("restoring") => Some(Self::Restoring),
            Some(_) | None => None,
        }
    }
}
