//! Patterns of topic names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use regex::Regex;

/// A regular expression that the **whole** name of a topic has to match, as Java's
/// `Matcher.matches` wants it. Equal when the text is equal.
#[derive(Clone)]
pub struct TopicPattern {
    text: String,
    whole: Regex,
}

impl TopicPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What the text is no regular expression for, in words.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        // The text alone first: `a)|(b` must not become legal by what is put around it.
        Regex::new(text).map_err(|error| error.to_string())?;
        let whole = Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())?;
        let text = text.to_owned();
        Ok(Self { text, whole })
    }

    /// Returns whether the pattern matches a topic's whole name.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.whole.is_match(topic)
    }

    /// Returns the text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicPattern").field(&self.text).finish()
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicPattern {}

impl Hash for TopicPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for TopicPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_only() {
        let pattern = TopicPattern::new("in-[0-9]|out").unwrap();
        for topic in ["in-1", "out"] {
            assert!(pattern.matches(topic), "{topic}");
        }
        for topic in ["in-12", "xin-1", "outer", "in-1\n", ""] {
            assert!(!pattern.matches(topic), "{topic}");
        }
    }

    #[test]
    fn a_pattern_that_only_its_frame_would_make_legal_is_refused() {
        for text in ["a)|(b", "(", "(?=a)"] {
            assert!(TopicPattern::new(text).is_err(), "{text}");
        }
    }
}
