import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.kstream.internals.SessionWindow;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.AggregationWithHeaders;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.SessionStoreWithHeaders;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.TimestampedKeyValueStore;
import org.apache.kafka.streams.state.TimestampedKeyValueStoreWithHeaders;
import org.apache.kafka.streams.state.TimestampedWindowStore;
import org.apache.kafka.streams.state.TimestampedWindowStoreWithHeaders;
import org.apache.kafka.streams.state.ValueAndTimestamp;
import org.apache.kafka.streams.state.ValueTimestampHeaders;
import org.apache.kafka.streams.state.internals.AbstractStoreBuilder;

/** Stores as processors use them: the value of a record says what is done, and what it finds goes on. */
final class StoreCases {
    private static final Duration SIZE = Duration.ofMillis(1000);
    private static final Duration RETENTION = Duration.ofMillis(4000);

    private StoreCases() {}

    static void addTo(Suite suite) {
        Input input = Input.random(300).keys("a", "ab", "b", "bc", "c").values(
                "put", "put", "put", "put-if-absent", "put-all", "delete", "get", "range", "reverse-range",
                "prefix-scan", "all", "reverse-all");
        add(suite, "store-key-value", "TimestampedKeyValueStore", input, Stores.timestampedKeyValueStoreBuilder(
                Stores.persistentTimestampedKeyValueStore("store"), Serdes.String(), Serdes.String()),
                KeyValues::new);
        add(suite, "store-key-value-in-memory", "Stores.inMemoryKeyValueStore", input,
                Stores.timestampedKeyValueStoreBuilder(Stores.inMemoryKeyValueStore("store"), Serdes.String(),
                        Serdes.String()), KeyValues::new);

        Input windows = Input.random(300).keys("a", "ab", "b", "c").values(
                "put", "put", "put", "delete", "fetch", "fetch-range", "backward-fetch-range", "fetch-keys",
                "backward-fetch-keys", "fetch-all", "backward-fetch-all", "all", "backward-all");
        add(suite, "store-window", "TimestampedWindowStore", windows, Stores.timestampedWindowStoreBuilder(
                Stores.persistentTimestampedWindowStore("store", RETENTION, SIZE, false), Serdes.String(),
                Serdes.String()), Windows::new);

        Input sessions = Input.random(300).keys("a", "ab", "b", "c").values(
                "put", "put", "put", "remove", "fetch-session", "find-sessions", "backward-find-sessions",
                "find-sessions-of-keys", "backward-find-sessions-of-keys", "fetch", "backward-fetch", "fetch-keys",
                "backward-fetch-keys");
        add(suite, "store-session", "SessionStore", sessions, Stores.sessionStoreBuilder(
                Stores.persistentSessionStore("store", RETENTION), Serdes.String(), Serdes.String()), Sessions::new);

        Input headers = Input.random(100).keys("a", "b").values("put", "put", "delete", "get");
        add(suite, "store-with-headers", "Stores.persistentTimestampedKeyValueStoreWithHeaders", headers,
                Stores.timestampedKeyValueStoreWithHeadersBuilder(
                        Stores.persistentTimestampedKeyValueStoreWithHeaders("store"), Serdes.String(),
                        Serdes.String()), HeaderedValues::new);
        add(suite, "store-window-with-headers", "Stores.persistentTimestampedWindowStoreWithHeaders", headers,
                Stores.timestampedWindowStoreWithHeadersBuilder(
                        Stores.persistentTimestampedWindowStoreWithHeaders("store", RETENTION, SIZE, false),
                        Serdes.String(), Serdes.String()), HeaderedWindows::new);
        add(suite, "store-session-with-headers", "Stores.persistentSessionStoreWithHeaders", headers,
                Stores.sessionStoreWithHeadersBuilder(Stores.persistentSessionStoreWithHeaders("store", RETENTION),
                        Serdes.String(), Serdes.String()), HeaderedSessions::new);

        add(suite, "store-custom", "StateStore", Input.random(60).values("1", "2", "3", "4", "5", "6", "7"),
                new AbstractStoreBuilder<String, String, Highest>("store", null, null,
                        org.apache.kafka.common.utils.Time.SYSTEM) {
                    @Override
                    public Highest build() {
                        return new Highest(name());
                    }
                }.withLoggingDisabled(), Bids::new);
    }

    private static void add(Suite suite, String name, String operator, Input input, StoreBuilder<?> store,
            java.util.function.Supplier<ContextualProcessor<String, String, String, String>> processor) {
        suite.add(name, operator, input, builder -> {
            builder.addStateStore(store);
            StatelessCases.strings(builder).process(processor::get, "store").to("out");
        });
    }

    /** Of each record: says what the store answers. */
    private abstract static class Asking<S extends StateStore>
            extends ContextualProcessor<String, String, String, String> {
        private S store;

        @Override
        public void init(ProcessorContext<String, String> context) {
            super.init(context);
            store = context.getStateStore("store");
        }

        @Override
        public void process(Record<String, String> record) {
            context().forward(record.withValue(record.value() + " " + answer(store, record)));
        }

        abstract String answer(S store, Record<String, String> record);
    }

    private static <K, V> String list(KeyValueIterator<K, V> entries, Function<KeyValue<K, V>, String> show) {
        List<String> shown = new ArrayList<>();
        try (entries) {
            entries.forEachRemaining(entry -> shown.add(show.apply(entry)));
        }
        return String.join(",", shown);
    }

    private static <V> String show(V value, Function<V, String> show) {
        return value == null ? "none" : show.apply(value);
    }

    private static String text(ValueAndTimestamp<String> value) {
        return show(value, found -> found.value() + "@" + found.timestamp());
    }

    private static String text(Headers headers) {
        StringBuilder text = new StringBuilder();
        for (Header header : headers) {
            text.append("[").append(header.key()).append(":")
                    .append(header.value() == null ? "null" : new String(header.value())).append("]");
        }
        return text.toString();
    }

    /** A value that tells when it was written. */
    private static String written(Record<String, String> record) {
        return record.key() + record.timestamp();
    }

    /** A window of a time: they begin at multiples of half a second. */
    private static long start(long timestamp) {
        return timestamp / 500 * 500;
    }

    private static final class KeyValues extends Asking<TimestampedKeyValueStore<String, String>> {
        @Override
        String answer(TimestampedKeyValueStore<String, String> store, Record<String, String> record) {
            ValueAndTimestamp<String> value = ValueAndTimestamp.make(written(record), record.timestamp());
            String key = record.key();
            switch (record.value()) {
                case "put":
                    store.put(key, value);
                    return "";
                case "put-if-absent":
                    return text(store.putIfAbsent(key, value));
                case "put-all":
                    store.putAll(List.of(KeyValue.pair(key, value), KeyValue.pair(key + "b", value)));
                    return "";
                case "delete":
                    return text(store.delete(key));
                case "get":
                    return text(store.get(key));
                case "range":
                    return list(store.range("ab", key));
                case "reverse-range":
                    return list(store.reverseRange("ab", key));
                case "prefix-scan":
                    return list(store.prefixScan(key, new StringSerializer()));
                case "all":
                    return list(store.all());
                default:
                    return list(store.reverseAll());
            }
        }

        private static String list(KeyValueIterator<String, ValueAndTimestamp<String>> entries) {
            return StoreCases.list(entries, entry -> entry.key + "=" + text(entry.value));
        }
    }

    private static final class Windows extends Asking<TimestampedWindowStore<String, String>> {
        @Override
        String answer(TimestampedWindowStore<String, String> store, Record<String, String> record) {
            String key = record.key();
            long start = start(record.timestamp());
            Instant from = Instant.ofEpochMilli(start - 1500);
            Instant to = Instant.ofEpochMilli(start + 500);
            switch (record.value()) {
                case "put":
                    store.put(key, ValueAndTimestamp.make(written(record), record.timestamp()), start);
                    return "";
                case "delete":
                    store.put(key, null, start);
                    return "";
                case "fetch":
                    return text(store.fetch(key, start));
                case "fetch-range":
                    return StoreCases.list(store.fetch(key, from, to), entry -> entry.key + "=" + text(entry.value));
                case "backward-fetch-range":
                    return StoreCases.list(store.backwardFetch(key, from, to),
                            entry -> entry.key + "=" + text(entry.value));
                case "fetch-keys":
                    return list(store.fetch("ab", "b", from, to));
                case "backward-fetch-keys":
                    return list(store.backwardFetch("ab", "b", from, to));
                case "fetch-all":
                    return list(store.fetchAll(from, to));
                case "backward-fetch-all":
                    return list(store.backwardFetchAll(from, to));
                case "all":
                    return list(store.all());
                default:
                    return list(store.backwardAll());
            }
        }

        private static String list(KeyValueIterator<Windowed<String>, ValueAndTimestamp<String>> entries) {
            return StoreCases.list(entries,
                    entry -> entry.key.key() + entry.key.window().start() + "=" + text(entry.value));
        }
    }

    /** A session around a time, whose length depends on the key. */
    private static Windowed<String> session(Record<String, String> record) {
        long start = start(record.timestamp());
        return new Windowed<>(record.key(), new SessionWindow(start, start + 400L * record.key().length()));
    }

    private static final class Sessions extends Asking<SessionStore<String, String>> {
        @Override
        String answer(SessionStore<String, String> store, Record<String, String> record) {
            Windowed<String> session = session(record);
            String key = record.key();
            long earliestEnd = session.window().start() - 1000;
            long latestStart = session.window().start() + 500;
            switch (record.value()) {
                case "put":
                    store.put(session, written(record));
                    return "";
                case "remove":
                    store.remove(session);
                    return "";
                case "fetch-session":
                    return show(store.fetchSession(key, session.window().start(), session.window().end()),
                            value -> value);
                case "find-sessions":
                    return list(store.findSessions(key, earliestEnd, latestStart));
                case "backward-find-sessions":
                    return list(store.backwardFindSessions(key, earliestEnd, latestStart));
                case "find-sessions-of-keys":
                    return list(store.findSessions("ab", "b", earliestEnd, latestStart));
                case "backward-find-sessions-of-keys":
                    return list(store.backwardFindSessions("ab", "b", earliestEnd, latestStart));
                case "fetch":
                    return list(store.fetch(key));
                case "backward-fetch":
                    return list(store.backwardFetch(key));
                case "fetch-keys":
                    return list(store.fetch("ab", "b"));
                default:
                    return list(store.backwardFetch("ab", "b"));
            }
        }

        private static String list(KeyValueIterator<Windowed<String>, String> entries) {
            return StoreCases.list(entries, entry -> entry.key.key() + entry.key.window().start() + "-"
                    + entry.key.window().end() + "=" + entry.value);
        }
    }

    private static String text(ValueTimestampHeaders<String> value) {
        return show(value, found -> found.value() + "@" + found.timestamp() + text(found.headers()));
    }

    private static final class HeaderedValues extends Asking<TimestampedKeyValueStoreWithHeaders<String, String>> {
        @Override
        String answer(TimestampedKeyValueStoreWithHeaders<String, String> store, Record<String, String> record) {
            switch (record.value()) {
                case "put":
                    store.put(record.key(),
                            ValueTimestampHeaders.make(written(record), record.timestamp(), record.headers()));
                    return "";
                case "delete":
                    return text(store.delete(record.key()));
                default:
                    return text(store.get(record.key()));
            }
        }
    }

    private static final class HeaderedWindows extends Asking<TimestampedWindowStoreWithHeaders<String, String>> {
        @Override
        String answer(TimestampedWindowStoreWithHeaders<String, String> store, Record<String, String> record) {
            long start = start(record.timestamp());
            switch (record.value()) {
                case "put":
                    store.put(record.key(),
                            ValueTimestampHeaders.make(written(record), record.timestamp(), record.headers()), start);
                    return "";
                case "delete":
                    store.put(record.key(), null, start);
                    return "";
                default:
                    return text(store.fetch(record.key(), start));
            }
        }
    }

    private static final class HeaderedSessions extends Asking<SessionStoreWithHeaders<String, String>> {
        @Override
        String answer(SessionStoreWithHeaders<String, String> store, Record<String, String> record) {
            Windowed<String> session = session(record);
            switch (record.value()) {
                case "put":
                    store.put(session, AggregationWithHeaders.make(written(record), record.headers()));
                    return "";
                case "delete":
                    store.remove(session);
                    return "";
                default:
                    return show(store.fetchSession(record.key(), session.window().start(), session.window().end()),
                            found -> found.aggregation() + text(found.headers()));
            }
        }
    }

    /** A store of one's own: the highest number of each key. */
    private static final class Highest implements StateStore {
        private final String name;
        private final Map<String, Integer> highest = new HashMap<>();
        private boolean open;

        Highest(String name) {
            this.name = name;
        }

        int raise(String key, int number) {
            return highest.merge(key, number, Math::max);
        }

        @Override
        public String name() {
            return name;
        }

        @Override
        public void init(StateStoreContext context, StateStore root) {
            context.register(root, (key, value) -> { });
            open = true;
        }

        @Override
        public void close() {
            open = false;
        }

        @Override
        public boolean persistent() {
            return false;
        }

        @Override
        public boolean isOpen() {
            return open;
        }
    }

    private static final class Bids extends Asking<Highest> {
        @Override
        String answer(Highest store, Record<String, String> record) {
            return Integer.toString(store.raise(record.key(), Integer.parseInt(record.value())));
        }
    }
}
