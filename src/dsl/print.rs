//! `print`: records as text, for people.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::stream::KStream;
use crate::processor::BoxError;

type Target = Arc<Mutex<dyn Write + Send>>;
type Format<K, V> = Arc<dyn Fn(&K, &V) -> String + Send + Sync>;

/// Where and how [`KStream::print`] writes records: a line `[label]: key, value` each.
pub struct Printed<K, V> {
    target: Target,
    label: Option<String>,
    format: Format<K, V>,
}

impl<K, V> fmt::Debug for Printed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printed")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> Printed<K, V> {
    /// Writes to standard output.
    #[must_use]
    pub fn to_stdout() -> Self {
        Self::to_writer(io::stdout())
    }

    /// Writes to a file, which is emptied first.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::to_writer(File::create(path)?))
    }

    /// Writes to anything that takes bytes.
    #[must_use]
    pub fn to_writer(writer: impl Write + Send + 'static) -> Self {
        Self {
            target: Arc::new(Mutex::new(writer)),
            label: None,
            format: Arc::new(|key, value| format!("{key:?}, {value:?}")),
        }
    }
}

impl<K, V> Printed<K, V> {
    /// Puts a label before every record, in place of the node's name.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says how a record is written.
    #[must_use]
    pub fn with_key_value_mapper(
        mut self,
        format: impl Fn(&K, &V) -> String + Send + Sync + 'static,
    ) -> Self {
        self.format = Arc::new(format);
        self
    }
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Ends the stream by writing its records as text. What is written is not undone when the record
    /// is. A write that fails meets the source's policy.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// words.print(Printed::to_stdout().with_label("words"));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn print(&self, printed: Printed<K, V>) {
        let Printed {
            target,
            label,
            format,
        } = printed;
        let _end: Self = self.operator(
            "KSTREAM-PRINTER-",
            self.keeps_all(),
            move |scope, record| {
                let label = label.as_deref().unwrap_or_else(|| scope.name());
                let text = format(&record.key, &record.value);
                let line = format!("[{label}]: {text}\n");
                let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
                let written = target
                    .write_all(line.as_bytes())
                    .and_then(|()| target.flush());
                written.map_err(|error| scope.failure(BoxError::from(error)))
            },
        );
    }
}
