import java.time.Duration;
import java.time.Instant;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.Cancellable;
import org.apache.kafka.streams.processor.LogAndSkipOnInvalidTimestamp;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.UsePartitionTimeOnInvalidTimestamp;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.TimestampedKeyValueStore;
import org.apache.kafka.streams.state.ValueAndTimestamp;

/** Processors: punctuators, what a context tells, stores that others fill; timestamp extractors. */
final class ProcessorCases {
    private ProcessorCases() {}

    static void addTo(Suite suite) {
        punctuate(suite, "punctuate-stream-time", "ProcessorContext.schedule (STREAM_TIME)", Input.random(80).step(300),
                context -> context.schedule(Duration.ofMillis(700), PunctuationType.STREAM_TIME, tick(context)));
        punctuate(suite, "punctuate-wall-clock", "ProcessorContext.schedule (WALL_CLOCK_TIME)", passing(),
                context -> context.schedule(Duration.ofMillis(700), PunctuationType.WALL_CLOCK_TIME, tick(context)));
        punctuate(suite, "punctuate-stream-time-anchored", "ProcessorContext.schedule (startTime)",
                Input.random(80).step(300), context -> context.schedule(Instant.ofEpochMilli(33_333),
                        Duration.ofMillis(700), PunctuationType.STREAM_TIME, tick(context)));
        punctuate(suite, "punctuate-wall-clock-anchored", "ProcessorContext.schedule (startTime)", passing(),
                context -> context.schedule(Instant.ofEpochMilli(1_234), Duration.ofMillis(700),
                        PunctuationType.WALL_CLOCK_TIME, tick(context)));
        suite.add("punctuate-later", "Cancellable.cancel", Input.random(80).step(300),
                builder -> StatelessCases.strings(builder).process(Restless::new).to("out"));

        suite.add("context", "ProcessorContext.recordMetadata", Input.random(60).topics("in", "more").nullKeys(),
                builder -> StatelessCases.strings(builder).merge(builder.stream("more"))
                        .process(Where::new).to("out"));
        suite.add("request-commit", "ProcessorContext.commit", Input.random(40),
                builder -> StatelessCases.strings(builder).process(Hasty::new).to("out"));

        suite.add("global-store", "StreamsBuilder.addGlobalStore", tables(), builder -> {
            builder.addGlobalStore(texts("global"), "table", Consumed.with(Serdes.String(), Serdes.String()),
                    ByValue::new);
            // As a join does, which the other side draws it with: it has no use for a record without value.
            StatelessCases.strings(builder).filter((key, value) -> value != null)
                    .process(() -> new LookUp("global", Record::value)).to("out");
        });
        suite.addTopology("read-only-store", "Topology.addReadOnlyStateStore", tables(), () -> new Topology()
                .addSource("source", new StringDeserializer(), new StringDeserializer(), "in")
                .addReadOnlyStateStore(texts("names"), "names-source", new StringDeserializer(),
                        new StringDeserializer(), "table", "names-keeper", Keep::new)
                .addProcessor("look-up", () -> new LookUp("names", Record::key), "source")
                .connectProcessorAndStateStores("look-up", "names")
                .addSink("sink", "out", new StringSerializer(), new StringSerializer(), "look-up"));

        extract(suite, "timestamp-fail", "FailOnInvalidTimestamp", null);
        extract(suite, "timestamp-skip", "LogAndSkipOnInvalidTimestamp", new LogAndSkipOnInvalidTimestamp());
        extract(suite, "timestamp-of-partition", "UsePartitionTimeOnInvalidTimestamp",
                new UsePartitionTimeOnInvalidTimestamp());
        suite.add("timestamp-of-partition-none", "UsePartitionTimeOnInvalidTimestamp",
                Input.script().pipe("in", "a", "0", -1).pipe("in", "a", "1", 5),
                builder -> builder.stream("in", Consumed.with(Serdes.String(), Serdes.String())
                        .withTimestampExtractor(new UsePartitionTimeOnInvalidTimestamp())).to("out"));
    }

    private interface Schedule {
        void on(ProcessorContext<String, String> context);
    }

    private static void punctuate(Suite suite, String name, String operator, Input input, Schedule schedule) {
        suite.add(name, operator, input, builder -> StatelessCases.strings(builder)
                .process((ProcessorSupplier<String, String, String, String>) () -> new Ticking(schedule)).to("out"));
    }

    /** Says when it was called, and what the clocks are then. */
    private static org.apache.kafka.streams.processor.Punctuator tick(ProcessorContext<String, String> context) {
        return time -> context.forward(new Record<>("tick", time + " stream " + context.currentStreamTimeMs()
                + " system " + context.currentSystemTimeMs(), time));
    }

    /** Records, and wall-clock time that passes in steps from nothing to several intervals. */
    private static Input passing() {
        Input input = Input.random(10);
        for (int i = 0; i < 30; i++) {
            input.advance(137L * (i % 7));
            if (i % 3 == 0) {
                input.pipe("in", "a", Integer.toString(i % 10), 40_000 + 90L * i - 400L * (i % 2));
            }
            if (i == 20) {
                input.advance(4321);
            }
        }
        return input;
    }

    private static Input tables() {
        return Input.random(100).topics("in", "table").keys("1", "2", "3", "4").nullKeys().tombstones();
    }

    private static StoreBuilder<TimestampedKeyValueStore<String, String>> texts(String name) {
        return Stores.timestampedKeyValueStoreBuilder(Stores.persistentTimestampedKeyValueStore(name),
                Serdes.String(), Serdes.String());
    }

    private static void extract(Suite suite, String name, String operator, TimestampExtractor extractor) {
        Input input = Input.random(20);
        for (int i = 0; i < 12; i++) {
            input.pipe("in", "a", Integer.toString(i % 10), i % 3 == 1 ? -1 : 30_000 + 400L * (i % 5));
        }
        Consumed<String, String> plain = Consumed.with(Serdes.String(), Serdes.String());
        suite.add(name, operator, input, builder -> builder
                .stream("in", extractor == null ? plain : plain.withTimestampExtractor(extractor)).to("out"));
    }

    /** Passes records on, between what its schedule makes it say. */
    private static final class Ticking extends ContextualProcessor<String, String, String, String> {
        private final Schedule schedule;

        Ticking(Schedule schedule) {
            this.schedule = schedule;
        }

        @Override
        public void init(ProcessorContext<String, String> context) {
            super.init(context);
            schedule.on(context);
        }

        @Override
        public void process(Record<String, String> record) {
            context().forward(record);
        }
    }

    /** Schedules with every {@code 1}, cancels with every {@code 2}. */
    private static final class Restless extends ContextualProcessor<String, String, String, String> {
        private Cancellable schedule;

        @Override
        public void process(Record<String, String> record) {
            if (record.value().equals("1") && schedule == null) {
                schedule = context().schedule(Duration.ofMillis(500), PunctuationType.STREAM_TIME, tick(context()));
            } else if (record.value().equals("2") && schedule != null) {
                schedule.cancel();
                schedule = null;
            }
            context().forward(record);
        }
    }

    /** Says where each record is from, and what the clocks are. */
    private static final class Where extends ContextualProcessor<String, String, String, String> {
        @Override
        public void process(Record<String, String> record) {
            RecordMetadata from = context().recordMetadata().orElseThrow();
            context().forward(record.withValue(from.topic() + "-" + from.partition() + "@" + from.offset() + " stream "
                    + context().currentStreamTimeMs() + " system " + context().currentSystemTimeMs()));
        }
    }

    /** Asks for a commit with each record. */
    private static final class Hasty extends ContextualProcessor<String, String, String, String> {
        @Override
        public void process(Record<String, String> record) {
            context().forward(record);
            context().commit();
        }
    }

    /** Keeps keys by value: what a global store makes of its topic is up to its processor. */
    private static final class ByValue implements Processor<String, String, Void, Void> {
        private TimestampedKeyValueStore<String, String> store;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            store = context.getStateStore("global");
        }

        @Override
        public void process(Record<String, String> record) {
            if (record.key() != null && record.value() != null) {
                store.put(record.value(), ValueAndTimestamp.make(record.key(), record.timestamp()));
            }
        }
    }

    /** Keeps a topic as it is. */
    private static final class Keep implements Processor<String, String, Void, Void> {
        private KeyValueStore<String, ValueAndTimestamp<String>> store;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            store = context.getStateStore("names");
        }

        @Override
        public void process(Record<String, String> record) {
            if (record.key() != null) {
                store.put(record.key(), ValueAndTimestamp.make(record.value(), record.timestamp()));
            }
        }
    }

    /** Looks every record up in a store. */
    private static final class LookUp extends ContextualProcessor<String, String, String, String> {
        private final String name;
        private final java.util.function.Function<Record<String, String>, String> by;

        LookUp(String name, java.util.function.Function<Record<String, String>, String> by) {
            this.name = name;
            this.by = by;
        }

        @Override
        public void process(Record<String, String> record) {
            TimestampedKeyValueStore<String, String> store = context().getStateStore(name);
            String key = by.apply(record);
            ValueAndTimestamp<String> found = key == null ? null : store.get(key);
            context().forward(record.withValue(record.value() + ":"
                    + (found == null ? "none" : found.value() + "@" + found.timestamp())));
        }
    }
}
