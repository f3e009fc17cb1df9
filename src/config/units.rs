//! Durations and sizes with their unit in the value: `100ms`, `512MiB`.
//!
//! Whole numbers only, one unit, no space: there is one way to write a value, so two files can be
//! compared. A bare number is refused, since a reader cannot know whether 100 means milliseconds.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

/// Why a text is not the value that it should be, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Units of time, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses a duration such as `100ms`, `10s`, `5m`, `12h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Problem> {
    parse(text, "a duration", &DURATION_UNITS, "ms").map(Duration::from_millis)
}

/// Parses a size such as `16KiB`, `512MiB`, `2GiB` into bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, Problem> {
    parse(text, "a size", &SIZE_UNITS, "MiB")
}

/// Writes a duration in the largest unit that needs no fraction.
pub(crate) fn duration_text(duration: Duration) -> String {
    text(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATION_UNITS,
    )
}

/// Writes a size in the largest unit that needs no fraction.
pub(crate) fn size_text(bytes: u64) -> String {
    text(bytes, &SIZE_UNITS)
}

fn text(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| amount >= factor && amount.is_multiple_of(factor);
    let smallest = units.first().copied().unwrap_or(("", 1));
    let (unit, factor) = units.iter().rev().find(fits).copied().unwrap_or(smallest);
    format!("{}{unit}", amount / factor)
}

fn parse(text: &str, what: &str, units: &[(&str, u64)], example: &str) -> Result<u64, Problem> {
    let names = || {
        units
            .iter()
            .map(|(unit, _)| *unit)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(
            Problem::new(format!("expected {what}, found `{text}`")).help(format!(
                "write a whole number and its unit ({}), such as `100{example}`",
                names()
            )),
        );
    }
    if unit.is_empty() {
        return Err(
            Problem::new(format!("expected {what}, found `{text}` without a unit")).help(format!(
                "write the unit ({}), such as `{text}{example}`",
                names()
            )),
        );
    }
    if unit.starts_with(['.', ',', '_']) {
        return Err(Problem::new(format!("expected {what}, found `{text}`"))
            .help("write a whole number, in a smaller unit if need be"));
    }
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let meant = units.iter().find(|(name, _)| {
            let decimal = name.replace('i', "");
            name.eq_ignore_ascii_case(unit.trim()) || decimal.eq_ignore_ascii_case(unit.trim())
        });
        let help = match meant {
            Some((name, _)) => format!("did you mean `{digits}{name}`?"),
            None => format!("units are {}", names()),
        };
        return Err(Problem::new(format!("unknown unit `{}` in {what}", unit.trim())).help(help));
    };
    let amount: Option<u64> = digits.parse().ok();
    amount
        .and_then(|amount| amount.checked_mul(factor))
        .ok_or_else(|| Problem::new(format!("{what} of `{text}` is too large")))
}

/// A duration with its unit, for a topology's own parameters: `command_memory: 7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationValue(pub Duration);

/// A size in bytes with its unit, for a topology's own parameters: `event_max: 10MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeValue(pub u64);

impl fmt::Display for DurationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.0))
    }
}

impl fmt::Display for SizeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&size_text(self.0))
    }
}

impl<'de> Deserialize<'de> for DurationValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(UnitVisitor("a duration such as `100ms`", parse_duration))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for SizeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(UnitVisitor("a size such as `512MiB`", parse_size))
            .map(Self)
    }
}

struct UnitVisitor<T>(&'static str, fn(&str) -> Result<T, Problem>);

impl<T> de::Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(|problem| match problem.help {
            Some(help) => E::custom(format!("{}; {help}", problem.message)),
            None => E::custom(problem.message),
        })
    }

    // A bare number arrives as a number: say what is wrong with it, as for text.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, millis) in [
            ("0ms", 0),
            ("100ms", 100),
            ("10s", 10_000),
            ("5m", 300_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for (text, message, help) in [
            (
                "100",
                "expected a duration, found `100` without a unit",
                "write the unit (ms, s, m, h, d), such as `100ms`",
            ),
            (
                "fast",
                "expected a duration, found `fast`",
                "write a whole number and its unit (ms, s, m, h, d), such as `100ms`",
            ),
            (
                "-5ms",
                "expected a duration, found `-5ms`",
                "write a whole number and its unit (ms, s, m, h, d), such as `100ms`",
            ),
            (
                "1.5s",
                "expected a duration, found `1.5s`",
                "write a whole number, in a smaller unit if need be",
            ),
            (
                "10 s",
                "unknown unit `s` in a duration",
                "did you mean `10s`?",
            ),
            (
                "10sec",
                "unknown unit `sec` in a duration",
                "units are ms, s, m, h, d",
            ),
            (
                "10MS",
                "unknown unit `MS` in a duration",
                "did you mean `10ms`?",
            ),
        ] {
            let problem = parse_duration(text).expect_err(text);
            assert_eq!(
                (problem.message.as_str(), problem.help.as_deref()),
                (message, Some(help)),
                "{text}"
            );
        }
        assert_eq!(
            parse_duration("99999999999999999999d"),
            Err(Problem::new(
                "a duration of `99999999999999999999d` is too large"
            )),
        );
    }

    #[test]
    fn sizes_are_whole_numbers_with_a_binary_unit() {
        for (text, bytes) in [
            ("1B", 1),
            ("16KiB", 16_384),
            ("512MiB", 536_870_912),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, message, help) in [
            (
                "512",
                "expected a size, found `512` without a unit",
                "write the unit (B, KiB, MiB, GiB, TiB), such as `512MiB`",
            ),
            (
                "512MB",
                "unknown unit `MB` in a size",
                "did you mean `512MiB`?",
            ),
            (
                "512mib",
                "unknown unit `mib` in a size",
                "did you mean `512MiB`?",
            ),
            (
                "512M",
                "unknown unit `M` in a size",
                "units are B, KiB, MiB, GiB, TiB",
            ),
        ] {
            let problem = parse_size(text).expect_err(text);
            assert_eq!(
                (problem.message.as_str(), problem.help.as_deref()),
                (message, Some(help)),
                "{text}"
            );
        }
    }

    #[test]
    fn values_are_written_in_the_largest_whole_unit() {
        for text in ["0ms", "1500ms", "10s", "7d", "90m"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Ok(text));
        }
        for text in ["0B", "1B", "1536KiB", "2GiB"] {
            assert_eq!(parse_size(text).map(size_text).as_deref(), Ok(text));
        }
    }
}
