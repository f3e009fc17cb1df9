import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TableJoined;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The application of tests/interop_kafka.rs on Kafka Streams, exactly once. Works off all input there is, then stops;
 * millstream takes over, and hands back.
 *
 * <p>Arguments: bootstrap servers, application id.
 */
public final class Interop {
    static final Duration SIZE = Duration.ofSeconds(1);
    static final Duration GRACE = Duration.ofMillis(500);
    static final Duration GAP = Duration.ofMillis(300);
    private static final long DEADLINE_MS = 90_000;
    /** How long everything must have been worked off, so that what a task writes to another has come. */
    private static final long QUIET_MS = 1_500;

    private Interop() {}

    /** Topics of input and output begin with the application id. */
    static Topology topology(String application) {
        UnaryOperator<String> topic = name -> application + "." + name;
        StreamsBuilder builder = new StreamsBuilder();
        var string = Serdes.String();
        var number = Serdes.Long();
        KStream<String, String> words = builder.stream(topic.apply("words"), Consumed.with(string, string));
        KGroupedStream<String, String> byKey = words.groupByKey(Grouped.with("by-key", string, string));
        byKey.count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(string).withValueSerde(number))
                .toStream().to(topic.apply("counts-out"), Produced.with(string, number));

        TimeWindows tumbling = TimeWindows.ofSizeAndGrace(SIZE, GRACE);
        Produced<Windowed<String>, Long> windowed =
                Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, SIZE.toMillis()), number);
        KTable<Windowed<String>, Long> windows = byKey.windowedBy(tumbling)
                .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("windows")
                        .withKeySerde(string).withValueSerde(number));
        windows.toStream().to(topic.apply("windows-out"), windowed);
        windows.suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()).withName("final"))
                .toStream().to(topic.apply("final-out"), windowed);
        byKey.windowedBy(tumbling).emitStrategy(EmitStrategy.onWindowClose())
                .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("closing")
                        // With less, windows expire before Kafka Streams looks which have closed.
                        .withKeySerde(string).withValueSerde(number).withRetention(Duration.ofHours(1)))
                .toStream().to(topic.apply("closing-out"), windowed);
        byKey.windowedBy(SessionWindows.ofInactivityGapAndGrace(GAP, GRACE))
                .count(Materialized.<String, Long, SessionStore<Bytes, byte[]>>as("sessions")
                        .withKeySerde(string).withValueSerde(number))
                .toStream()
                .to(topic.apply("sessions-out"), Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), number));

        words.groupBy((key, word) -> word, Grouped.with("by-word", string, string))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("word-counts")
                        .withKeySerde(string).withValueSerde(number))
                .toStream().to(topic.apply("word-counts-out"), Produced.with(string, number));

        KTable<String, String> users = builder.table(topic.apply("users"), Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("users"));
        words.join(users, (word, user) -> word + " by " + user, Joined.with(string, string, string, "named"))
                .to(topic.apply("named-out"), Produced.with(string, string));
        users.groupBy((key, city) -> org.apache.kafka.streams.KeyValue.pair(city, key),
                        Grouped.with("by-city", string, string))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("cities")
                        .withKeySerde(string).withValueSerde(number))
                .toStream().to(topic.apply("cities-out"), Produced.with(string, number));

        KTable<String, String> left = builder.table(topic.apply("left"), Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("left"));
        KTable<String, String> right = builder.table(topic.apply("right"), Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("right"));
        left.join(right, value -> value, (value, found) -> value + "|" + found, TableJoined.as("of-key"),
                        Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("joined")
                                .withKeySerde(string).withValueSerde(string))
                .toStream().to(topic.apply("joined-out"), Produced.with(string, string));
        return builder.build();
    }

    /** Every source topic with what the application still has to read, markers of transactions aside. */
    private static boolean isWorkedOff(Admin admin, String application, List<String> sources) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> committed =
                admin.listConsumerGroupOffsets(application).partitionsToOffsetAndMetadata().get();
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        for (var topic : admin.describeTopics(sources).allTopicNames().get().values()) {
            topic.partitions().forEach(
                    it -> latest.put(new TopicPartition(topic.name(), it.partition()), OffsetSpec.latest()));
        }
        for (Map.Entry<TopicPartition, ListOffsetsResultInfo> end : admin.listOffsets(latest).all().get().entrySet()) {
            OffsetAndMetadata at = committed.get(end.getKey());
            long position = at == null ? 0 : at.offset();
            // A marker may follow the last record.
            if (end.getValue().offset() - position > 1) {
                return false;
            }
        }
        return true;
    }

    /** Returns all topics that the topology reads, once they exist. */
    private static List<String> sources(Admin admin, String application, List<String> inputs) throws Exception {
        List<String> sources = new ArrayList<>(inputs);
        for (String topic : admin.listTopics().names().get()) {
            if (topic.startsWith(application + "-") && (topic.endsWith("-repartition") || topic.endsWith("-topic"))) {
                sources.add(topic);
            }
        }
        return sources;
    }

    public static void main(String[] arguments) throws Exception {
        String application = arguments[1];
        List<String> inputs = Stream.of("words", "users", "left", "right").map(it -> application + "." + it).toList();
        Path state = Files.createTempDirectory("kafka-streams-interop");
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        config.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        // What is in the repartition topics is looked at afterwards.
        config.put(StreamsConfig.REPARTITION_PURGE_INTERVAL_MS_CONFIG, 3_600_000L);
        // Closed windows are looked for with every record, not once a second.
        config.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0L);
        CountDownLatch failed = new CountDownLatch(1);
        boolean done = false;
        try (KafkaStreams streams = new KafkaStreams(topology(application), config);
                Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                failed.countDown();
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.start();
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            long quietSince = Long.MAX_VALUE;
            while (!done && System.currentTimeMillis() < deadline && !failed.await(100, TimeUnit.MILLISECONDS)) {
                boolean running = streams.state() == KafkaStreams.State.RUNNING;
                if (!running || !isWorkedOff(admin, application, sources(admin, application, inputs))) {
                    quietSince = Long.MAX_VALUE;
                    continue;
                }
                quietSince = Math.min(quietSince, System.currentTimeMillis());
                done = System.currentTimeMillis() - quietSince > QUIET_MS;
            }
            streams.close(Duration.ofSeconds(30));
        } finally {
            try (var files = Files.walk(state)) {
                for (Path file : files.sorted((one, other) -> other.compareTo(one)).toList()) {
                    Files.delete(file);
                }
            }
        }
        if (!done) {
            System.err.println("not all input was worked off");
            System.exit(1);
        }
    }
}
