//! What a configuration says under `sinks.<name>`.

use std::path::PathBuf;
use std::time::Duration;

use millstream::config::{ConfigErrors, DurationValue, Parameters, SizeValue};
use millstream::sink::{BadRecords, SinkBounds};
use serde::Deserialize;
use tokio_postgres::Config;

use crate::connect::Target;
use crate::table::is_identifier;

/// How often an idle sink checks that nobody has moved its offsets: what a rebuild waits for.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Limits of `batch_rows`.
const ROWS_MAX: usize = 100_000;
/// Limits of `timeout`. Connecting, asking, writing and finding a refused record may each take as
/// long, one after the other, within the group's `max.poll.interval.ms` of five minutes.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The settings of a PostgreSQL sink.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresParameters {
    /// `postgresql://user:password@host:port/database?sslmode=…`; take it from the environment.
    pub url: Secret,
    /// A file that holds the password; over the one of `url`. Read at every connection, so that a
    /// rotated secret needs no restart.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A file with the certificates (PEM) that the server's is checked against; the system's where
    /// absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The schema with the tables; created where it is missing. Default `public`.
    #[serde(default = "public")]
    pub schema: String,
    /// Rows of a partition in one transaction, at most. Default 1000. Higher: more rows per second
    /// while it catches up. Lower: shorter transactions.
    #[serde(default = "batch_rows")]
    pub batch_rows: usize,
    /// Bytes of a partition in one transaction, roughly at most. Default `4MiB`.
    #[serde(default = "batch_bytes")]
    pub batch_bytes: SizeValue,
    /// How long a call may take until the database counts as away. Default `30s`.
    #[serde(default = "timeout")]
    pub timeout: DurationValue,
    /// What happens to a record that does not fit its table: `stop` (default) or `skip`.
    #[serde(default)]
    pub bad_records: BadRecords,
}

/// A text that is not shown.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn public() -> String {
    "public".to_owned()
}

const fn batch_rows() -> usize {
    1000
}

const fn batch_bytes() -> SizeValue {
    SizeValue(4 << 20)
}

const fn timeout() -> DurationValue {
    DurationValue(Duration::from_secs(30))
}

impl PostgresParameters {
    /// Checks what serde cannot.
    pub(crate) fn check(
        self,
        parameters: &Parameters,
    ) -> Result<(Target, SinkBounds), ConfigErrors> {
        let DurationValue(timeout) = self.timeout;
        if !(TIMEOUT.0..=TIMEOUT.1).contains(&timeout) {
            return Err(parameters.refuse("`timeout` must be between 1s and 1m"));
        }
        if !(1..=ROWS_MAX).contains(&self.batch_rows) {
            return Err(parameters.refuse(format!("`batch_rows` must be between 1 and {ROWS_MAX}")));
        }
        if !is_identifier(&self.schema) {
            let message = format!(
                "`schema`: `{}` is no plain lower-case identifier",
                self.schema
            );
            return Err(parameters.refuse(message));
        }
        let Secret(url) = self.url;
        // The parser's error does not repeat the text, which holds a password.
        let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            parameters.refuse(format!("`url` is no PostgreSQL URL: {error}"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(parameters.refuse("`url` names no host"));
        }
        let bounds = SinkBounds {
            records: self.batch_rows,
            bytes: usize::try_from(self.batch_bytes.0).unwrap_or(usize::MAX),
            linger: Duration::ZERO,
            timeout,
            check_interval: CHECK_INTERVAL,
            bad_records: self.bad_records,
        };
        let target = Target {
            config,
            password_file: self.password_file,
            ca_file: self.ca_file,
            schema: self.schema,
            timeout,
        };
        Ok((target, bounds))
    }
}
