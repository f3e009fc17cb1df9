//! Exit codes: a contract with whoever starts the process.

/// How the process ended. The numbers from 64 on are those of BSD's `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All was done; `run` was stopped by SIGTERM or SIGINT, drained, and left the group.
    Success = 0,
    /// Something failed at run time that is none of the below; the log says what.
    Failure = 1,
    /// The command line itself is wrong; nothing was done.
    Usage = 2,
    /// What there is to compare here is right, but a part of it is not here (`verify`, without
    /// `--partial`).
    Partial = 3,
    /// What a command needs now could not be reached: the cluster (`reset`), or the daemon that it asks
    /// (`inspect`).
    Unavailable = 69,
    /// A broken invariant: a bug in millstream or in the topology. Nothing was committed after it.
    Bug = 70,
    /// The state directory cannot be used: read-only, or in use by another process.
    StateDir = 73,
    /// Refused for now: `reset` while members are alive.
    Refused = 75,
    /// The configuration is wrong; nothing was done.
    Config = 78,
}

impl ExitCode {
    /// All exit codes.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Partial,
        Self::Unavailable,
        Self::Bug,
        Self::StateDir,
        Self::Refused,
        Self::Config,
    ];

    /// Returns the number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns what the code means, for the help text and the documentation.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done, or stopped cleanly by a signal",
            Self::Failure => "failed at run time; the log says why",
            Self::Usage => "wrong command line",
            Self::Partial => "right as far as it was compared, which is a part only",
            Self::Unavailable => "the cluster, or the daemon that is asked, could not be reached",
            Self::Bug => "a broken invariant; please report it",
            Self::StateDir => "the state directory is read-only, full or in use",
            Self::Refused => "refused for now: members of the group are alive",
            Self::Config => "wrong configuration",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}
