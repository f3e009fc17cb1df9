import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TestOutputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.errors.StreamsException;
import org.apache.kafka.streams.test.TestRecord;

/**
 * Runs every case through Kafka Streams and writes one golden file each: JSON lines, a header, then for
 * each input what comes out before the next one, or {"fails": ...} where it stops the application.
 *
 * <p>Keys, values and header values are strings where they are printable ASCII, else {"hex": ...}.
 */
public final class Parity {
    private Parity() {}

    public static void main(String[] args) throws IOException {
        Path directory = Path.of(args[0]);
        Set<String> wanted = new HashSet<>(Arrays.asList(args).subList(1, args.length));
        Suite suite = new Suite();
        StatelessCases.addTo(suite);
        AggregationCases.addTo(suite);
        TableCases.addTo(suite);
        JoinCases.addTo(suite);
        StreamJoinCases.addTo(suite);
        VersionedCases.addTo(suite);
        WindowCases.addTo(suite);
        ProcessorCases.addTo(suite);
        StoreCases.addTo(suite);
        Set<Path> written = new HashSet<>();
        for (Suite.Case each : suite.cases()) {
            Path file = directory.resolve(each.name() + ".jsonl");
            written.add(file);
            if (wanted.isEmpty() || wanted.contains(each.name())) {
                List<String> lines = run(each);
                Files.writeString(file, String.join("\n", lines) + "\n");
                System.out.println(each.name() + ": " + (lines.size() - 1) + " lines");
            }
        }
        // A case that is gone leaves no golden file behind.
        try (Stream<Path> files = Files.list(directory)) {
            for (Path file : files.toList()) {
                if (file.toString().endsWith(".jsonl") && !written.contains(file)) {
                    Files.delete(file);
                }
            }
        }
    }

    private static List<String> run(Suite.Case each) throws IOException {
        Path state = Files.createTempDirectory("parity");
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, "parity");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, "none:1");
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        // Windows are emitted on close as soon as they close, not once a second of wall-clock time.
        config.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        // Likewise the results of records that found no partner.
        config.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        // Every update goes downstream, as in millstream.
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        CRC32 seed = new CRC32();
        seed.update(each.name().getBytes(StandardCharsets.UTF_8));
        List<Input.Step> steps = each.input().steps(seed.getValue());
        Set<String> inputs = new TreeSet<>();
        for (Input.Step step : steps) {
            if (step instanceof Input.Pipe pipe) {
                inputs.add(pipe.topic());
            }
        }
        List<String> lines = new ArrayList<>();
        lines.add("{\"case\":" + quote(each.name()) + ",\"operator\":" + quote(each.operator())
                + ",\"seed\":" + seed.getValue() + "}");
        TopologyTestDriver driver = new TopologyTestDriver(each.build().get(), config, Instant.EPOCH);
        try {
            for (Input.Step step : steps) {
                lines.add(describe(step));
                try {
                    take(driver, step);
                } catch (StreamsException stopped) {
                    // No output of the failed record counts: its transaction is aborted.
                    lines.add("{\"fails\":" + quote(stopped.getClass().getSimpleName()) + "}");
                    break;
                }
                drain(driver, inputs, lines);
            }
        } finally {
            close(driver);
            delete(state);
        }
        return lines;
    }

    private static String describe(Input.Step step) {
        if (step instanceof Input.Pipe pipe) {
            return line("in", pipe.topic(), bytes(pipe.key()), bytes(pipe.value()), pipe.timestamp(), headers(pipe));
        }
        return "{\"advance\":" + ((Input.Advance) step).millis() + "}";
    }

    private static void take(TopologyTestDriver driver, Input.Step step) {
        if (step instanceof Input.Pipe pipe) {
            pipe(driver, pipe);
        } else if (step instanceof Input.Advance advance) {
            driver.advanceWallClockTime(Duration.ofMillis(advance.millis()));
        }
    }

    /** A driver whose task has failed may fail once more when it is closed. */
    private static void close(TopologyTestDriver driver) {
        try {
            driver.close();
        } catch (StreamsException stopped) {
            System.err.println("closed after a failure: " + stopped.getMessage());
        }
    }

    private static void pipe(TopologyTestDriver driver, Input.Pipe pipe) {
        TestInputTopic<String, String> topic =
                driver.createInputTopic(pipe.topic(), new StringSerializer(), new StringSerializer());
        // As an instant: only that may be negative, which a producer's record may be as well.
        topic.pipeInput(new TestRecord<>(pipe.key(), pipe.value(), headers(pipe),
                Instant.ofEpochMilli(pipe.timestamp())));
    }

    /** Outputs of one step, by topic; in order within each. */
    private static void drain(TopologyTestDriver driver, Set<String> inputs, List<String> lines) {
        for (String name : new TreeSet<>(driver.producedTopicNames())) {
            if (inputs.contains(name) || name.startsWith("parity-")) {
                continue;
            }
            TestOutputTopic<byte[], byte[]> topic =
                    driver.createOutputTopic(name, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            while (!topic.isEmpty()) {
                TestRecord<byte[], byte[]> record = topic.readRecord();
                lines.add(line("out", name, record.key(), record.value(), record.timestamp(), record.headers()));
            }
        }
    }

    private static Headers headers(Input.Pipe pipe) {
        Headers headers = new RecordHeaders();
        pipe.headers().forEach(header -> headers.add(header.key(), bytes(header.value())));
        return headers;
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    private static String line(String way, String topic, byte[] key, byte[] value, long timestamp, Headers headers) {
        StringBuilder line = new StringBuilder("{\"" + way + "\":" + quote(topic) + ",\"key\":" + json(key)
                + ",\"value\":" + json(value) + ",\"timestamp\":" + timestamp);
        if (headers.iterator().hasNext()) {
            List<String> pairs = new ArrayList<>();
            for (Header header : headers) {
                pairs.add("[" + quote(header.key()) + "," + json(header.value()) + "]");
            }
            line.append(",\"headers\":[").append(String.join(",", pairs)).append("]");
        }
        return line.append("}").toString();
    }

    private static String json(byte[] bytes) {
        if (bytes == null) {
            return "null";
        }
        for (byte b : bytes) {
            if (b < 0x20 || b > 0x7e) {
                return "{\"hex\":" + quote(HexFormat.of().formatHex(bytes)) + "}";
            }
        }
        return quote(new String(bytes, StandardCharsets.US_ASCII));
    }

    private static String quote(String ascii) {
        return "\"" + ascii.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }

    private static void delete(Path directory) throws IOException {
        try (Stream<Path> files = Files.walk(directory)) {
            for (Path file : files.sorted((a, b) -> b.compareTo(a)).toList()) {
                Files.delete(file);
            }
        }
    }
}
