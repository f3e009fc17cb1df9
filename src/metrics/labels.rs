//! Bounded sets of label values.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the value of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// Where a task is in its life, as in Kafka Streams' `Task.State`.
    TaskState {
        /// Assigned; its stores are not open yet.
        Created = "created",
        /// Its stores replay their changelogs.
        Restoring = "restoring",
        /// Its processors prepare: an event-sourced task rebuilds derived state from history.
        Initialising = "initialising",
        /// It processes records.
        Running = "running",
        /// It was given back while its stores were restored; the restore is about to end.
        Closing = "closing",
    }
}

labels! {
    /// Why a task's state directory was not trusted (invariant 2).
    SetAsideReason {
        /// A changelog was deleted and created again.
        TopicId = "topic_id",
        /// The checkpoint lies outside the changelog.
        OutOfRange = "out_of_range",
        /// The checkpoint is older than the changelog keeps tombstones.
        TooOld = "too_old",
        /// A store has data that no checkpoint explains.
        NoCheckpoint = "no_checkpoint",
        /// The application was reset since.
        Reset = "reset",
        /// A checksum or a file is wrong.
        Damaged = "damaged",
    }
}

labels! {
    /// Who uses memory.
    MemoryUser {
        /// RocksDB's block cache.
        BlockCache = "block_cache",
        /// RocksDB's write buffers.
        WriteBuffers = "write_buffers",
        /// Typed overlays: uncommitted and cached entries.
        Overlays = "overlays",
        /// Records read and not yet processed.
        RecordBuffers = "record_buffers",
    }
}

labels! {
    /// How a command was answered.
    CommandOutcome {
        /// `ACCEPTED`.
        Accepted = "accepted",
        /// `REJECTED`.
        Rejected = "rejected",
        /// `CONFLICT`.
        Conflict = "conflict",
        /// A command id seen before: the first reply again.
        Repeated = "repeated",
    }
}
