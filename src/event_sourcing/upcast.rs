//! Schema versions of an event's `data`, and the chain `v1 → v2 → …` that brings an old one up.
//!
//! Each version is a type; a version names the one before it and how to come from there. The chain
//! is resolved by the compiler: reading the current version costs nothing extra, and a version
//! number cannot be skipped, because it is the predecessor's plus one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::json;
use super::reason::{ReasonCode, reasons};

/// Why an event's `data` cannot be read. The deserialisation policy decides what happens then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A type that this build does not know.
    #[error("unknown event type `{event_type}`")]
    UnknownType {
        /// The type.
        event_type: String,
    },
    /// A version from the future.
    #[error("schema version {version} of `{event_type}` is newer than {known}, the newest known")]
    FutureVersion {
        /// The type.
        event_type: String,
        /// The version found.
        version: u32,
        /// The newest version this build reads.
        known: u32,
    },
    /// `data` is not what the version's type says.
    #[error("`data` of `{event_type}` version {version}: {problem}")]
    Data {
        /// The type.
        event_type: String,
        /// The version found.
        version: u32,
        /// What is wrong.
        problem: String,
    },
}

impl EventError {
    /// Returns the code for programs.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::UnknownType { .. } => reasons::UNKNOWN_EVENT_TYPE,
            Self::FutureVersion { .. } => reasons::UNSUPPORTED_SCHEMA_VERSION,
            Self::Data { .. } => reasons::MALFORMED_EVENT,
        }
    }
}

/// One schema version of an event's `data`.
///
/// The first version has no predecessor; [`first_version!`](crate::first_version) says so in a line.
/// A later one names its predecessor and the upcast:
///
/// ```
/// use millstream::event_sourcing::Versioned;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct StandAllocatedV1 { stand: String }
/// millstream::first_version!(StandAllocatedV1);
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct StandAllocated { stand: String, allocated_by: String }
/// impl Versioned for StandAllocated {
///     type Previous = StandAllocatedV1;
///     fn upcast(old: StandAllocatedV1) -> Self {
///         Self { stand: old.stand, allocated_by: "system".into() }
///     }
/// }
/// assert_eq!(StandAllocated::VERSION, 2);
/// ```
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version before, or [`FirstVersion`].
    type Previous: Versioned;
    /// This version's number.
    const VERSION: u32 = Self::Previous::VERSION + 1;

    /// Turns the version before into this one.
    fn upcast(previous: Self::Previous) -> Self;

    /// Reads `data` of `version`, running every upcast from there to here.
    ///
    /// # Errors
    /// [`EventError::FutureVersion`] and [`EventError::Data`].
    fn read(event_type: &str, version: u32, data: &RawValue) -> Result<Self, EventError> {
        match version.cmp(&Self::VERSION) {
            std::cmp::Ordering::Less => Ok(Self::upcast(Self::Previous::read(
                event_type, version, data,
            )?)),
            std::cmp::Ordering::Equal => json::read_raw(data).map_err(|problem| EventError::Data {
                event_type: event_type.into(),
                version,
                problem,
            }),
            std::cmp::Ordering::Greater => Err(EventError::FutureVersion {
                event_type: event_type.into(),
                version,
                known: Self::VERSION,
            }),
        }
    }

    /// Writes `data`.
    ///
    /// # Errors
    /// When a field refuses to be written.
    fn write(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }
}

/// What comes before version 1: nothing. Has no values.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum FirstVersion {}

impl<'de> Deserialize<'de> for FirstVersion {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("schema versions start at 1"))
    }
}

impl Versioned for FirstVersion {
    type Previous = Self;
    const VERSION: u32 = 0;

    fn upcast(previous: Self) -> Self {
        previous
    }

    fn read(event_type: &str, version: u32, _: &RawValue) -> Result<Self, EventError> {
        let problem = "schema versions start at 1".into();
        Err(EventError::Data {
            event_type: event_type.into(),
            version,
            problem,
        })
    }
}

/// The events of one aggregate, as an enum over their current versions; see
/// [`events!`](crate::events).
pub trait Event: Sized {
    /// Returns the past-tense name, `eventType` on the wire.
    fn event_type(&self) -> &'static str;

    /// Returns the schema version that [`data`](Self::data) writes.
    fn schema_version(&self) -> u32;

    /// Writes `data` in the current version.
    ///
    /// # Errors
    /// When a field refuses to be written.
    fn data(&self) -> Result<Box<RawValue>, serde_json::Error>;

    /// Reads `data`, upcasting from the version it was written in. The only way to read an event.
    ///
    /// # Errors
    /// [`EventError`].
    fn read(event_type: &str, schema_version: u32, data: &RawValue) -> Result<Self, EventError>;
}

/// Declares an aggregate's events: an enum with one variant per event type, whose name is the
/// `eventType`, over the [`Versioned`](crate::event_sourcing::Versioned) type of its current data.
/// Implements [`Event`](crate::event_sourcing::Event), and `From` for each data type.
#[macro_export]
macro_rules! events {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($data:ty)),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis enum $name { $($(#[$variant_meta])* $variant($data)),+ }

        impl $crate::event_sourcing::Event for $name {
            fn event_type(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant)),+ }
            }

            fn schema_version(&self) -> u32 {
                match self {
                    $(Self::$variant(_) => <$data as $crate::event_sourcing::Versioned>::VERSION),+
                }
            }

            fn data(
                &self,
            ) -> ::std::result::Result<
                ::std::boxed::Box<$crate::event_sourcing::RawValue>,
                $crate::event_sourcing::JsonError,
            > {
                match self {
                    $(Self::$variant(data) => $crate::event_sourcing::Versioned::write(data)),+
                }
            }

            fn read(
                event_type: &str,
                schema_version: u32,
                data: &$crate::event_sourcing::RawValue,
            ) -> ::std::result::Result<Self, $crate::event_sourcing::EventError> {
                match event_type {
                    $(stringify!($variant) => <$data as $crate::event_sourcing::Versioned>::read(
                        event_type, schema_version, data,
                    ).map(Self::$variant),)+
                    _ => ::std::result::Result::Err(
                        $crate::event_sourcing::EventError::UnknownType {
                            event_type: event_type.into(),
                        },
                    ),
                }
            }
        }

        $(impl ::std::convert::From<$data> for $name {
            fn from(data: $data) -> Self { Self::$variant(data) }
        })+
    };
}

/// Implements [`Versioned`](crate::event_sourcing::Versioned) for types that are version 1 of
/// their event.
#[macro_export]
macro_rules! first_version {
    ($($data:ty),+ $(,)?) => {
        $(impl $crate::event_sourcing::Versioned for $data {
            type Previous = $crate::event_sourcing::FirstVersion;

            fn upcast(previous: $crate::event_sourcing::FirstVersion) -> Self {
                match previous {}
            }
        })+
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct PaintedV1 {
        red: bool,
    }
    crate::first_version!(PaintedV1);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct PaintedV2 {
        colour: String,
    }
    impl Versioned for PaintedV2 {
        type Previous = PaintedV1;
        fn upcast(old: PaintedV1) -> Self {
            Self {
                colour: if old.red { "red" } else { "none" }.into(),
            }
        }
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Painted {
        colour: String,
        coats: u32,
    }
    impl Versioned for Painted {
        type Previous = PaintedV2;
        fn upcast(old: PaintedV2) -> Self {
            Self {
                colour: old.colour,
                coats: 1,
            }
        }
    }

    crate::events! {
        enum DoorEvent { Painted(Painted) }
    }

    fn read(event_type: &str, version: u32, data: &str) -> Result<DoorEvent, EventError> {
        let data = RawValue::from_string(data.into()).unwrap();
        DoorEvent::read(event_type, version, &data)
    }

    #[test]
    fn every_version_reads_as_the_newest() {
        let painted = |colour: &str, coats| -> DoorEvent {
            Painted {
                colour: colour.into(),
                coats,
            }
            .into()
        };
        assert_eq!(
            read("Painted", 1, r#"{"red":true}"#).unwrap(),
            painted("red", 1)
        );
        assert_eq!(
            read("Painted", 2, r#"{"colour":"blue"}"#).unwrap(),
            painted("blue", 1)
        );
        let newest = read("Painted", 3, r#"{"colour":"blue","coats":2}"#).unwrap();
        assert_eq!(newest, painted("blue", 2));
        assert_eq!(newest.schema_version(), 3);
        assert_eq!(
            newest.data().unwrap().get(),
            r#"{"colour":"blue","coats":2}"#
        );
    }

    #[test]
    fn an_unknown_type_and_a_version_from_the_future_are_errors_with_codes() {
        let error = read("Slammed", 1, "{}").unwrap_err();
        assert_eq!(error.code(), reasons::UNKNOWN_EVENT_TYPE);
        let error = read("Painted", 4, "{}").unwrap_err();
        assert_eq!(error.code(), reasons::UNSUPPORTED_SCHEMA_VERSION);
        assert!(matches!(
            error,
            EventError::FutureVersion {
                version: 4,
                known: 3,
                ..
            }
        ));
    }

    #[test]
    fn data_that_is_not_its_versions_is_malformed() {
        for version in [0, 1, 2, 3] {
            let error = read("Painted", version, "{}").unwrap_err();
            assert_eq!(error.code(), reasons::MALFORMED_EVENT, "version {version}");
        }
    }
}
