import java.time.Duration;
import java.time.Instant;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.CogroupedKStream;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindowedKStream;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.SlidingWindows;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindowedKStream;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.UnlimitedWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

/** Windowed aggregations, emission on close, suppression. */
final class WindowCases {
    private static final long SECOND = 1000;

    private WindowCases() {}

    static void addTo(Suite suite) {
        TimeWindows tumbling = TimeWindows.ofSizeAndGrace(Duration.ofMillis(2 * SECOND), Duration.ofMillis(SECOND));
        TimeWindows strict = TimeWindows.ofSizeWithNoGrace(Duration.ofMillis(2 * SECOND));
        TimeWindows hopping = tumbling.advanceBy(Duration.ofMillis(700));
        SlidingWindows sliding =
                SlidingWindows.ofTimeDifferenceAndGrace(Duration.ofMillis(900), Duration.ofMillis(1500));
        SlidingWindows slidingStrict = SlidingWindows.ofTimeDifferenceWithNoGrace(Duration.ofMillis(900));
        SessionWindows sessions =
                SessionWindows.ofInactivityGapAndGrace(Duration.ofMillis(600), Duration.ofMillis(1300));
        SessionWindows sessionsStrict = SessionWindows.ofInactivityGapWithNoGrace(Duration.ofMillis(600));

        time(suite, "window-tumbling", "TimeWindows.ofSizeAndGrace", 2 * SECOND, b -> byKey(b).windowedBy(tumbling));
        time(suite, "window-tumbling-no-grace", "TimeWindows.ofSizeWithNoGrace", 2 * SECOND,
                b -> byKey(b).windowedBy(strict));
        time(suite, "window-hopping", "TimeWindows.advanceBy", 2 * SECOND, b -> byKey(b).windowedBy(hopping));
        time(suite, "window-unlimited", "UnlimitedWindows", Long.MAX_VALUE,
                b -> byKey(b).windowedBy(UnlimitedWindows.of().startOn(Instant.ofEpochMilli(41_000))));
        time(suite, "window-sliding", "SlidingWindows.ofTimeDifferenceAndGrace", 900,
                b -> byKey(b).windowedBy(sliding));
        time(suite, "window-sliding-no-grace", "SlidingWindows.ofTimeDifferenceWithNoGrace", 900,
                b -> byKey(b).windowedBy(slidingStrict));
        suite.add("window-sliding-early", "SlidingWindows.ofTimeDifferenceAndGrace", early(),
                b -> write(concatenated(byKey(b).windowedBy(sliding)), 900));
        session(suite, "window-session", "SessionWindows.ofInactivityGapAndGrace", b -> byKey(b).windowedBy(sessions));
        session(suite, "window-session-no-grace", "SessionWindows.ofInactivityGapWithNoGrace",
                b -> byKey(b).windowedBy(sessionsStrict));
        suite.add("window-session-reduce", "SessionWindowedKStream.reduce", input(),
                b -> writeSessions(byKey(b).windowedBy(sessions).reduce((one, other) -> one + other,
                        Materialized.as("store"))));
        suite.add("window-count", "TimeWindowedKStream.count", input(),
                b -> byKey(b).windowedBy(hopping).count(Materialized.as("store"))
                        .toStream().to("out", Produced.with(timeKeys(2 * SECOND), Serdes.Long())));
        suite.add("window-reduce", "TimeWindowedKStream.reduce", input(),
                b -> write(byKey(b).windowedBy(tumbling).reduce((one, other) -> one + other,
                        Materialized.as("store")), 2 * SECOND));
        suite.add("window-session-count", "SessionWindowedKStream.count", input(),
                b -> byKey(b).windowedBy(sessions).count(Materialized.as("store")).toStream()
                        .to("out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), Serdes.Long())));

        suite.add("window-null-keys", "TimeWindows.ofSizeAndGrace", input().nullKeys().tombstones(),
                b -> write(byKey(b).windowedBy(tumbling).aggregate(() -> "", WindowCases::append, texts()), 2 * SECOND));
        suite.add("window-sliding-nulls", "SlidingWindows.ofTimeDifferenceAndGrace", input().nullKeys().tombstones(),
                b -> write(byKey(b).windowedBy(sliding).aggregate(() -> "", WindowCases::append, texts()), 900));
        suite.add("window-session-nulls", "SessionWindows.ofInactivityGapAndGrace", input().nullKeys().tombstones(),
                b -> writeSessions(byKey(b).windowedBy(sessions).aggregate(() -> "", WindowCases::append,
                        (key, one, other) -> one + "+" + other, sessionTexts())));

        suite.add("window-cogroup", "CogroupedKStream.windowedBy(TimeWindows)", both(),
                b -> write(cogrouped(b).windowedBy(hopping).aggregate(() -> "", texts()), 2 * SECOND));
        suite.add("window-cogroup-sliding", "CogroupedKStream.windowedBy(SlidingWindows)", both(),
                b -> write(cogrouped(b).windowedBy(sliding).aggregate(() -> "", texts()), 900));
        suite.add("window-cogroup-session", "CogroupedKStream.windowedBy(SessionWindows)", both(),
                b -> writeSessions(cogrouped(b).windowedBy(sessions).aggregate(() -> "",
                        (key, one, other) -> one + "+" + other, sessionTexts())));

        closing(suite, "window-close-tumbling", steady(), b -> byKey(b).windowedBy(tumbling));
        closing(suite, "window-close-hopping", steady(), b -> byKey(b).windowedBy(hopping));
        closing(suite, "window-close-jump", input(), b -> byKey(b).windowedBy(tumbling));

        closing(suite, "window-close-sliding", steady().grid(100), b -> byKey(b).windowedBy(sliding));
        closing(suite, "window-close-sliding-steps", steady(), b -> byKey(b).windowedBy(sliding));
        closingSessions(suite, "window-close-session", steady(), sessionTexts());
        closingSessions(suite, "window-close-session-reached", reaching(), sessionTexts());
        closingSessions(suite, "window-close-session-retained", reaching(),
                sessionTexts().withRetention(Duration.ofMillis(10 * SECOND)));

        suite.add("suppress-window-closes", "KTable.suppress", input(),
                b -> write(concatenated(byKey(b).windowedBy(hopping)).suppress(Suppressed
                        .untilWindowCloses(BufferConfig.unbounded()).withName("final")), 2 * SECOND));
        suite.add("suppress-session-closes", "KTable.suppress", input(),
                b -> writeSessions(concatenated(byKey(b).windowedBy(sessions)).suppress(Suppressed
                        .untilWindowCloses(BufferConfig.unbounded()).withName("final"))));
        suite.add("suppress-sliding-closes", "KTable.suppress", input(),
                b -> write(concatenated(byKey(b).windowedBy(sliding)).suppress(Suppressed
                        .untilWindowCloses(BufferConfig.unbounded()).withName("final")), 900));
        suite.add("suppress-sliding-closes-at-end", "KTable.suppress", Input.script()
                        // Stream time 12,400: the window that ends at 10,900 has been open for its grace period.
                        .pipe("in", "a", "0", 10_000).pipe("in", "a", "1", 10_900).pipe("in", "z", "!", 12_400)
                        .pipe("in", "a", "2", 10_500).pipe("in", "z", "!", 12_401).pipe("in", "z", "!", 20_000),
                b -> write(concatenated(byKey(b).windowedBy(sliding)).suppress(Suppressed
                        .untilWindowCloses(BufferConfig.unbounded()).withName("final")), 900));
        suite.add("suppress-window-closes-shut-down", "KTable.suppress", input(),
                b -> write(concatenated(byKey(b).windowedBy(hopping)).suppress(Suppressed
                        .untilWindowCloses(BufferConfig.maxRecords(9).shutDownWhenFull()).withName("final")),
                        2 * SECOND));
        suppress(suite, "suppress-time-limit", Input.random(80).tombstones(),
                Suppressed.<String>untilTimeLimit(Duration.ofMillis(900), BufferConfig.unbounded()).withName("calm"));
        suppress(suite, "suppress-time-limit-bounded", Input.random(80).tombstones(),
                Suppressed.<String>untilTimeLimit(Duration.ofMillis(5000), BufferConfig.maxRecords(2))
                        .withName("calm"));
        Suppressed<String> bytes = Suppressed.<String>untilTimeLimit(Duration.ofMillis(5000),
                BufferConfig.maxBytes(340)).withName("calm");
        suppress(suite, "suppress-time-limit-bytes", distinct(), bytes);
        suppress(suite, "suppress-time-limit-bytes-updates", large(80), bytes);
        suppress(suite, "suppress-time-limit-shut-down", Input.random(80),
                Suppressed.<String>untilTimeLimit(Duration.ofMillis(5000),
                        BufferConfig.maxRecords(3).shutDownWhenFull()).withName("calm"));
    }

    private static void suppress(Suite suite, String name, Input input, Suppressed<String> until) {
        suite.add(name, "KTable.suppress", input, b -> b.<String, String>table("in",
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("table")
                        .withKeySerde(Serdes.String()).withValueSerde(Serdes.String()))
                .suppress(until).toStream().to("out"));
    }

    /** Values of a hundred bytes: what a buffer of either side adds to one matters little. */
    private static Input large(int records) {
        String[] values = new String[5];
        for (int i = 0; i < values.length; i++) {
            values[i] = large(Integer.toString(i));
        }
        return Input.random(records).values(values);
    }

    private static String large(String digit) {
        return digit.repeat(100);
    }

    /** No key comes twice: no update has an old value. */
    private static Input distinct() {
        Input input = Input.script();
        for (int i = 0; i < 40; i++) {
            input.pipe("in", Integer.toString(10 + i), large(Integer.toString(i % 10)),
                    10_000 + 300L * i - 700L * (i % 3));
        }
        return input;
    }

    /** A session that has closed, then a record in reach of it that is not late. */
    private static Input reaching() {
        return Input.script().pipe("in", "a", "0", 10_000).pipe("in", "a", "1", 10_300)
                .pipe("in", "z", "!", 12_300)
                .pipe("in", "a", "2", 10_700).pipe("in", "a", "3", 11_200)
                .pipe("in", "z", "!", 20_000).pipe("in", "z", "!", 21_000);
    }

    private static void closingSessions(Suite suite, String name, Input input,
            Materialized<String, String, SessionStore<Bytes, byte[]>> store) {
        SessionWindows windows = SessionWindows.ofInactivityGapAndGrace(Duration.ofMillis(600), Duration.ofMillis(1300));
        suite.add(name, "EmitStrategy.onWindowClose (SessionWindows)", input, b -> writeSessions(
                byKey(b).windowedBy(windows).emitStrategy(EmitStrategy.onWindowClose()).aggregate(() -> "",
                        (key, value, text) -> text + value, (key, one, other) -> one + "+" + other, store)));
    }

    /** Ends far ahead, so that everything closes. */
    private static Input input() {
        return Input.random(90).step(300).pipe("in", "z", "!", 400_000);
    }

    /** Two topics. */
    private static Input both() {
        return Input.random(120).topics("in", "more").step(300).nullKeys().tombstones();
    }

    private static CogroupedKStream<String, String> cogrouped(StreamsBuilder builder) {
        return byKey(builder).<String>cogroup((key, value, text) -> text + "(" + empty(value) + ")")
                .cogroup(builder.<String, String>stream("more").groupByKey(Grouped.as("more")),
                        (key, value, text) -> text + "[" + empty(value) + "]");
    }

    private static String append(String key, String value, String text) {
        return text + empty(value);
    }

    private static String empty(String value) {
        return value == null ? "" : value;
    }

    /** Ends in small steps: a store of Kafka Streams forgets what one long step has closed. */
    private static Input steady() {
        Input input = Input.random(90).step(300);
        for (int i = 0; i < 24; i++) {
            input.pipe("in", "z", "!", 36_000 + 500 * i);
        }
        return input;
    }

    /** Records whose sliding windows would begin before 1970. */
    private static Input early() {
        return Input.random(0).pipe("in", "a", "0", 200).pipe("in", "a", "1", 500).pipe("in", "a", "2", 300)
                .pipe("in", "a", "3", 500).pipe("in", "b", "4", 899).pipe("in", "a", "5", 0).pipe("in", "a", "6", 1000)
                .pipe("in", "b", "7", 100).pipe("in", "a", "8", 900).pipe("in", "b", "9", 101)
                .pipe("in", "a", "0", 2000).pipe("in", "a", "1", 450).pipe("in", "a", "2", 4000);
    }

    private interface Draw<T> {
        T of(StreamsBuilder builder);
    }

    private static void time(Suite suite, String name, String operator, long size,
            Draw<TimeWindowedKStream<String, String>> draw) {
        suite.add(name, operator, input(), builder -> write(concatenated(draw.of(builder)), size));
    }

    private static void session(Suite suite, String name, String operator,
            Draw<SessionWindowedKStream<String, String>> draw) {
        suite.add(name, operator, input(), builder -> writeSessions(concatenated(draw.of(builder))));
    }

    /** Kafka Streams looks for closed windows at most once a second unless the emit interval is configured. */
    private static void closing(Suite suite, String name, Input input,
            Draw<TimeWindowedKStream<String, String>> draw) {
        suite.add(name, "EmitStrategy.onWindowClose", input, builder -> write(
                concatenated(draw.of(builder).emitStrategy(EmitStrategy.onWindowClose())), 2 * SECOND));
    }

    private static KGroupedStream<String, String> byKey(StreamsBuilder builder) {
        return builder.<String, String>stream("in").groupByKey(Grouped.as("by-key"));
    }

    private static KTable<Windowed<String>, String> concatenated(TimeWindowedKStream<String, String> stream) {
        return stream.aggregate(() -> "", (key, value, text) -> text + value, texts());
    }

    private static Materialized<String, String, WindowStore<Bytes, byte[]>> texts() {
        return Materialized.<String, String, WindowStore<Bytes, byte[]>>as("store")
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.String());
    }

    private static Materialized<String, String, SessionStore<Bytes, byte[]>> sessionTexts() {
        return Materialized.<String, String, SessionStore<Bytes, byte[]>>as("store")
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.String());
    }

    private static KTable<Windowed<String>, String> concatenated(SessionWindowedKStream<String, String> stream) {
        return stream.aggregate(() -> "", (key, value, text) -> text + value,
                (key, one, other) -> one + "+" + other, sessionTexts());
    }

    private static org.apache.kafka.common.serialization.Serde<Windowed<String>> timeKeys(long size) {
        return WindowedSerdes.timeWindowedSerdeFrom(String.class, size);
    }

    private static void write(KTable<Windowed<String>, String> table, long size) {
        table.toStream().to("out", Produced.with(timeKeys(size), Serdes.String()));
    }

    private static void writeSessions(KTable<Windowed<String>, String> table) {
        table.toStream().to("out",
                Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), Serdes.String()));
    }
}
