//! Timestamps on the wire: RFC 3339, UTC, milliseconds (`2025-12-09T12:00:00.000Z`).

use serde::Serializer;

use crate::clock::Timestamp;

/// Why a text is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// Not `YYYY-MM-DDTHH:MM:SS[.fraction]Z`.
    #[error("`{text}` is not an RFC 3339 timestamp in UTC, such as 2025-12-09T12:00:00.000Z")]
    Form {
        /// The text, cut to a readable length.
        text: String,
    },
    /// Milliseconds that no calendar date stands for.
    #[error("{millis} ms since 1970 is out of the calendar's range")]
    Range {
        /// The milliseconds.
        millis: Timestamp,
    },
}

/// Reads an RFC 3339 timestamp in UTC (`Z`) into milliseconds since 1970. A finer fraction is cut
/// to milliseconds, a coarser one is accepted; other offsets are not, since the contract says UTC.
///
/// # Errors
/// [`TimeError::Form`].
pub fn parse_timestamp(text: &str) -> Result<Timestamp, TimeError> {
    let form = || TimeError::Form {
        text: text.chars().take(64).collect(),
    };
    if !has_form(text.as_bytes()) {
        return Err(form());
    }
    let instant: jiff::Timestamp = text.parse().map_err(|_| form())?;
    Ok(instant.as_millisecond())
}

/// Returns whether `bytes` is `dddd-dd-ddTdd:dd:dd[.d+]Z`. jiff checks the ranges, but accepts
/// more forms than RFC 3339 does.
fn has_form(bytes: &[u8]) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some((head, tail)) = bytes.split_at_checked(FORM.len()) else {
        return false;
    };
    let head_fits = head.iter().zip(FORM).all(|(byte, form)| {
        if *form == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    });
    let tail_fits = match tail {
        [b'Z'] => true,
        [b'.', fraction @ .., b'Z'] => {
            !fraction.is_empty() && fraction.len() <= 9 && fraction.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    head_fits && tail_fits
}

/// Writes milliseconds since 1970 as RFC 3339 in UTC with exactly three digits of fraction.
///
/// # Errors
/// [`TimeError::Range`] for times outside years -9999 to 9999.
pub fn format_timestamp(millis: Timestamp) -> Result<String, TimeError> {
    let instant =
        jiff::Timestamp::from_millisecond(millis).map_err(|_| TimeError::Range { millis })?;
    Ok(format!("{instant:.3}"))
}

/// Serialises milliseconds as [`format_timestamp`] writes them.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn write_timestamp<S: Serializer>(
    millis: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = format_timestamp(*millis).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_has_three_digits_and_z() {
        assert_eq!(
            format_timestamp(1_765_281_600_000).unwrap(),
            "2025-12-09T12:00:00.000Z"
        );
        assert_eq!(
            format_timestamp(1_765_281_600_007).unwrap(),
            "2025-12-09T12:00:00.007Z"
        );
        assert_eq!(format_timestamp(0).unwrap(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 999, 1_765_281_600_123, 4_102_444_800_000] {
            assert_eq!(
                parse_timestamp(&format_timestamp(millis).unwrap()).unwrap(),
                millis
            );
        }
    }

    #[test]
    fn other_precisions_are_read() {
        assert_eq!(
            parse_timestamp("2025-12-09T12:00:00Z").unwrap(),
            1_765_281_600_000
        );
        assert_eq!(
            parse_timestamp("2025-12-09T12:00:00.1239Z").unwrap(),
            1_765_281_600_123
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2025-12-09",
            "2025-12-09 12:00:00Z",
            "2025-12-09T12:00:00",
            "2025-12-09T12:00:00+01:00",
            "2025-12-09T12:00:00.Z",
            "2025-13-09T12:00:00Z",
            "2025-02-30T12:00:00Z",
            "1765281600000",
        ] {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_off_the_calendar_is_an_error() {
        assert!(matches!(
            format_timestamp(i64::MAX),
            Err(TimeError::Range { .. })
        ));
    }
}
