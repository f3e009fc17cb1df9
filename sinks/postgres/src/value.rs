//! From a record's JSON to the text of a column, checked before the database sees it.

use jiff::Timestamp;
use jiff::civil::Date;
use millstream::sink::SinkRecord;
use serde_json::Value;

use crate::table::{Column, Source, SqlType};

/// A column's value as text; `None` is null.
pub(crate) type Cell = Option<String>;

/// The digits that `numeric` takes, before and after the point.
const NUMERIC_DIGITS_MAX: (usize, usize) = (131_072, 16_383);

/// Returns a column's value in a record whose JSON is `value`.
pub(crate) fn cell(column: &Column, record: &SinkRecord, value: &Value) -> Result<Cell, String> {
    let found = match &column.source {
        Source::Key => return key_cell(column, record),
        Source::RecordTimestamp => {
            return Timestamp::from_millisecond(record.timestamp)
                .map(|time| Some(time.to_string()))
                .map_err(|error| format!("the record's timestamp: {error}"));
        }
        Source::Value => Some(value),
        Source::Field(path) => path.iter().try_fold(value, |at, name| at.get(name)),
    };
    match found {
        None | Some(Value::Null) if column.nullable => Ok(None),
        None => Err(format!("no value for column `{}`", column.name)),
        Some(found) => convert(column.sql_type, found)
            .map(Some)
            .map_err(|problem| format!("column `{}`: {problem}", column.name)),
    }
}

/// Returns a column's value that comes from the record's key.
pub(crate) fn key_cell(column: &Column, record: &SinkRecord) -> Result<Cell, String> {
    let key = record.key.as_deref().ok_or("the record has no key")?;
    let key = std::str::from_utf8(key).map_err(|_| "the record's key is no UTF-8 text")?;
    text(key)
        .map(Some)
        .map_err(|problem| format!("column `{}`: {problem}", column.name))
}

fn convert(sql_type: SqlType, value: &Value) -> Result<String, String> {
    let expected = |what: &str| Err(format!("expected {what}, found {}", shown(value)));
    match (sql_type, value) {
        (SqlType::Text, Value::String(found)) => text(found),
        (SqlType::Text, _) => expected("a string"),
        (SqlType::Integer, _) => match value.as_i64().map(i32::try_from) {
            Some(Ok(number)) => Ok(number.to_string()),
            _ => expected("an integer of 32 bits"),
        },
        (SqlType::BigInt, _) => match value.as_i64() {
            Some(number) => Ok(number.to_string()),
            None => expected("an integer of 64 bits"),
        },
        (SqlType::Numeric, Value::String(found)) if is_decimal(found) => Ok(found.clone()),
        (SqlType::Numeric, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(number.to_string())
        }
        (SqlType::Numeric, _) => expected("a decimal string"),
        (SqlType::Boolean, Value::Bool(found)) => Ok(found.to_string()),
        (SqlType::Boolean, _) => expected("true or false"),
        (SqlType::Timestamp, Value::String(found)) if found.parse::<Timestamp>().is_ok() => {
            Ok(found.clone())
        }
        (SqlType::Timestamp, _) => expected("an RFC 3339 timestamp"),
        (SqlType::Date, Value::String(found)) if found.parse::<Date>().is_ok() => Ok(found.clone()),
        (SqlType::Date, _) => expected("a date"),
        (SqlType::Jsonb, _) => {
            let json = value.to_string();
            if holds_null_character(value) {
                return Err("PostgreSQL takes no U+0000".to_owned());
            }
            Ok(json)
        }
    }
}

fn text(found: &str) -> Result<String, String> {
    if found.contains('\0') {
        return Err("PostgreSQL takes no U+0000".to_owned());
    }
    Ok(found.to_owned())
}

fn holds_null_character(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_null_character),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_null_character(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether this is `-?digits[.digits]`, and not more of them than `numeric` takes.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all(whole)
        && all(fraction)
        && whole.len() <= NUMERIC_DIGITS_MAX.0
        && fraction.len() <= NUMERIC_DIGITS_MAX.1
}

/// A value for people, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(60).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use millstream::log::Headers;
    use serde_json::json;

    use super::*;

    fn record() -> SinkRecord {
        SinkRecord {
            offset: 7,
            timestamp: 1_000,
            key: Some(b"a-1".to_vec()),
            value: None,
            headers: Headers::new(),
        }
    }

    fn of(sql_type: SqlType, value: Value) -> Result<Cell, String> {
        cell(&Column::new("x", sql_type), &record(), &json!({"x": value}))
    }

    #[test]
    fn values_that_fit_are_sent_as_they_are_written() {
        for (sql_type, value, expected) in [
            (SqlType::Text, json!("é"), "é"),
            (SqlType::Integer, json!(-5), "-5"),
            (SqlType::BigInt, json!(i64::MAX), "9223372036854775807"),
            (SqlType::Numeric, json!("-150.00"), "-150.00"),
            (SqlType::Numeric, json!(15), "15"),
            (SqlType::Boolean, json!(true), "true"),
            (
                SqlType::Timestamp,
                json!("2025-12-09T12:00:00.000Z"),
                "2025-12-09T12:00:00.000Z",
            ),
            (SqlType::Date, json!("2025-12-09"), "2025-12-09"),
            (SqlType::Jsonb, json!({"a": [1]}), r#"{"a":[1]}"#),
        ] {
            assert_eq!(of(sql_type, value), Ok(Some(expected.to_owned())));
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused_by_name() {
        for (sql_type, value) in [
            (SqlType::Text, json!(5)),
            (SqlType::Text, json!("a\u{0}b")),
            (SqlType::Text, Value::Null),
            (SqlType::Integer, json!(3_000_000_000_i64)),
            (SqlType::BigInt, json!("5")),
            (SqlType::Numeric, json!(1.5)),
            (SqlType::Numeric, json!("1e5")),
            (SqlType::Numeric, json!("NaN")),
            (SqlType::Numeric, json!("1.")),
            (SqlType::Boolean, json!("true")),
            (SqlType::Timestamp, json!("yesterday")),
            (SqlType::Date, json!("2025-02-30")),
            (SqlType::Jsonb, json!({"a\u{0}": 1})),
        ] {
            let refused = of(sql_type, value.clone()).unwrap_err();
            assert!(refused.contains("column `x`"), "{value}: {refused}");
        }
    }

    #[test]
    fn absent_and_null_are_null_where_that_is_allowed() {
        let column = Column::new("x", SqlType::Text).field("a.b").nullable();
        for value in [json!({}), json!({"a": {"b": null}}), json!({"a": 5})] {
            assert_eq!(cell(&column, &record(), &value), Ok(None));
        }
        let found = cell(&column, &record(), &json!({"a": {"b": "c"}}));
        assert_eq!(found, Ok(Some("c".to_owned())));
    }

    #[test]
    fn keys_and_times_come_from_the_record() {
        let key = Column::new("id", SqlType::Text).from(Source::Key);
        assert_eq!(
            cell(&key, &record(), &json!({})),
            Ok(Some("a-1".to_owned()))
        );
        let time = Column::new("at", SqlType::Timestamp).from(Source::RecordTimestamp);
        let found = cell(&time, &record(), &json!({})).unwrap();
        assert_eq!(found.as_deref(), Some("1970-01-01T00:00:01Z"));
    }
}
