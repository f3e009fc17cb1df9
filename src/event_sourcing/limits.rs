//! How large an event may be. Topics, producers and fetches are set to 16 MiB, so that an event at
//! the limit still fits with its changelog, reply or dead-letter frame.

/// From here on an event is logged and counted as large.
pub const EVENT_BYTES_LARGE: usize = 1024 * 1024;
/// Above this an event is refused.
pub const EVENT_BYTES_MAX: usize = 10 * 1024 * 1024;

const _: () = assert!(EVENT_BYTES_LARGE < EVENT_BYTES_MAX);

/// What an event's size means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSize {
    /// Nothing to say.
    Normal,
    /// Over [`EVENT_BYTES_LARGE`]: log and count it.
    Large,
}

/// An event over [`EVENT_BYTES_MAX`]. Nothing of its command may be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "event `{event_type}` {event_id} has {size} bytes, more than the limit of {EVENT_BYTES_MAX}"
)]
pub struct EventTooLarge {
    /// Its type.
    pub event_type: String,
    /// Its id.
    pub event_id: String,
    /// Its serialised size in bytes.
    pub size: usize,
}

/// Judges the serialised size of an event.
///
/// # Errors
/// [`EventTooLarge`] above [`EVENT_BYTES_MAX`].
pub fn event_size(
    event_type: &str,
    event_id: &str,
    size: usize,
) -> Result<EventSize, EventTooLarge> {
    if size > EVENT_BYTES_MAX {
        return Err(EventTooLarge {
            event_type: event_type.into(),
            event_id: event_id.into(),
            size,
        });
    }
    Ok(if size > EVENT_BYTES_LARGE {
        EventSize::Large
    } else {
        EventSize::Normal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_themselves_are_still_within() {
        assert_eq!(
            event_size("T", "e", EVENT_BYTES_LARGE),
            Ok(EventSize::Normal)
        );
        assert_eq!(
            event_size("T", "e", EVENT_BYTES_LARGE + 1),
            Ok(EventSize::Large)
        );
        assert_eq!(event_size("T", "e", EVENT_BYTES_MAX), Ok(EventSize::Large));
    }

    #[test]
    fn an_event_over_the_limit_is_refused_by_type_id_and_size() {
        let error = event_size("BalanceChanged", "evt-1", EVENT_BYTES_MAX + 1).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("BalanceChanged") && text.contains("evt-1"),
            "{text}"
        );
        assert!(text.contains("10485761"), "{text}");
    }
}
