//! The id of a flight leg: `<carrier><flight>-<scheduled local date>-<origin>-<destination>`, such as
//! `UA1545-2013-01-01-EWR-IAH`.

use std::fmt;

use jiff::civil::Date;

/// The longest id that is read.
const LEN_MAX: usize = 64;

/// A flight leg's id, taken apart. Borrows from the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightId<'a> {
    /// Carrier and number, `UA1545`.
    pub flight_number: &'a str,
    /// The scheduled date of departure, where the leg departs.
    pub date: Date,
    /// The airport of departure.
    pub origin: &'a str,
    /// The airport of arrival.
    pub destination: &'a str,
}

impl<'a> FlightId<'a> {
    /// Takes an id apart; `None` when it has another form.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() > LEN_MAX {
            return None;
        }
        let mut from_the_end = text.rsplitn(6, '-');
        let destination = from_the_end.next()?;
        let origin = from_the_end.next()?;
        let (day, month, year) = (
            from_the_end.next()?,
            from_the_end.next()?,
            from_the_end.next()?,
        );
        let flight_number = from_the_end.next()?;
        let is_code = |code: &str| {
            (3..=4).contains(&code.len())
                && code
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        };
        let is_number = flight_number.len() >= 3
            && flight_number
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !is_code(origin) || !is_code(destination) || !is_number {
            return None;
        }
        if (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
        Some(Self {
            flight_number,
            date,
            origin,
            destination,
        })
    }
}

impl fmt::Display for FlightId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flight_number,
            date,
            origin,
            destination,
        } = self;
        write!(f, "{flight_number}-{date}-{origin}-{destination}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_apart_and_put_together() {
        let text = "UA1545-2013-01-01-EWR-IAH";
        let id = FlightId::parse(text).unwrap();
        assert_eq!(
            (id.flight_number, id.origin, id.destination),
            ("UA1545", "EWR", "IAH")
        );
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn what_has_another_form_is_no_id() {
        for text in [
            "",
            "UA1545",
            "UA1545-2013-02-30-EWR-IAH",
            "UA1545-2013-1-01-EWR-IAH",
            "UA1545-2013-01-01-ewr-IAH",
            "UA1545-2013-01-01-EWR-",
            "U-2013-01-01-EWR-IAH",
            "U\u{0}A1-2013-01-01-EWR-IAH",
        ] {
            assert_eq!(FlightId::parse(text), None, "{text}");
        }
    }
}
