//! Reading JSON with errors that name the field.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a text did not become a `T`.
pub(super) enum JsonProblem {
    /// Not JSON.
    Syntax(String),
    /// JSON of another form; the text starts with the field's path where there is one.
    Form(String),
}

impl JsonProblem {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Syntax(text) | Self::Form(text) => text,
        }
    }
}

/// Reads a `T`; what it costs to name the field is paid for broken input only.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonProblem> {
    serde_json::from_slice(bytes).map_err(|error| {
        if !error.is_data() {
            return JsonProblem::Syntax(error.to_string());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(located) if located.path().iter().next().is_some() => {
                JsonProblem::Form(format!("`{}`: {}", located.path(), located.inner()))
            }
            _ => JsonProblem::Form(error.to_string()),
        }
    })
}

/// As [`read`], for a part of a text that is known to be JSON.
pub(super) fn read_raw<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
    read(raw.get().as_bytes()).map_err(JsonProblem::into_text)
}
