//! What an error of the database means for the sink.

use millstream::sink::SinkError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What a database error calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The same may succeed later.
    Away,
    /// The data does not fit, now or later.
    Data,
    /// Somebody has to act.
    Person,
}

/// Decides by SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn meaning(error: &Error) -> Meaning {
    let Some(state) = error.code() else {
        // No answer of the server: the connection.
        return Meaning::Away;
    };
    of_state(state)
}

fn of_state(state: &SqlState) -> Meaning {
    if *state == SqlState::READ_ONLY_SQL_TRANSACTION || *state == SqlState::LOCK_NOT_AVAILABLE {
        // A standby that may become the primary; a lock that will be given up.
        return Meaning::Away;
    }
    match state.code().get(..2).unwrap_or_default() {
        // Cardinality (keys that are one to the database, in one statement), data exception, constraint
        // violation, limits (a key that no index takes).
        "21" | "22" | "23" | "54" => Meaning::Data,
        // Authorisation, catalogue and schema names, rules and privileges, features.
        "28" | "3D" | "3F" | "42" | "0A" | "44" => Meaning::Person,
        // Connection, rollback, resources, shutdown, system.
        _ => Meaning::Away,
    }
}

/// Returns the error for all but data.
pub(crate) fn sink_error(error: &Error) -> SinkError {
    let text = text(error);
    match meaning(error) {
        Meaning::Away => SinkError::unavailable(text),
        Meaning::Data | Meaning::Person => SinkError::failed(text),
    }
}

/// Returns what the server said, or the connection.
pub(crate) fn text(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let detail = said
            .detail()
            .map(|detail| format!(" ({detail})"))
            .unwrap_or_default();
        return format!(
            "PostgreSQL: {} {}{detail}",
            said.code().code(),
            said.message()
        );
    }
    let cause = std::error::Error::source(error);
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("PostgreSQL: {error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_who_has_to_act() {
        for (code, expected) in [
            ("57P01", Meaning::Away),
            ("57P03", Meaning::Away),
            ("53300", Meaning::Away),
            ("40P01", Meaning::Away),
            ("25006", Meaning::Away),
            ("XX000", Meaning::Away),
            ("21000", Meaning::Data),
            ("22003", Meaning::Data),
            ("23514", Meaning::Data),
            ("54000", Meaning::Data),
            ("28P01", Meaning::Person),
            ("3D000", Meaning::Person),
            ("42P01", Meaning::Person),
        ] {
            assert_eq!(of_state(&SqlState::from_code(code)), expected, "{code}");
        }
    }
}
