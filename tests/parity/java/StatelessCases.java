import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Branched;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Named;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Operators without state. */
final class StatelessCases {
    private StatelessCases() {}

    static void addTo(Suite suite) {
        suite.add("copy", "KStream.to", Input.random(60).nullKeys().tombstones(),
                builder -> builder.stream("in").to("out"));
        suite.add("filter", "KStream.filter", Input.random(60).nullKeys(),
                builder -> strings(builder).filter((key, value) -> value.compareTo("5") > 0).to("out"));
        suite.add("filter-not", "KStream.filterNot", Input.random(60).nullKeys(),
                builder -> strings(builder).filterNot((key, value) -> value.compareTo("5") > 0).to("out"));
        suite.add("map", "KStream.map", Input.random(40),
                builder -> strings(builder).map((key, value) -> KeyValue.pair(value, key)).to("out"));
        suite.add("map-values", "KStream.mapValues", Input.random(40).nullKeys().tombstones(),
                builder -> strings(builder).mapValues(value -> value == null ? "none" : value + value).to("out"));
        suite.add("map-values-with-key", "KStream.mapValues", Input.random(40),
                builder -> strings(builder).mapValues((key, value) -> key + value).to("out"));
        suite.add("flat-map", "KStream.flatMap", Input.random(40),
                builder -> strings(builder)
                        .flatMap((key, value) -> List.of(KeyValue.pair(key, value), KeyValue.pair(value, key)))
                        .to("out"));
        suite.add("flat-map-values", "KStream.flatMapValues", Input.random(40).nullKeys().values("", "x", "xyz"),
                builder -> strings(builder)
                        .flatMapValues(value -> value.chars().mapToObj(Character::toString).collect(Collectors.toList()))
                        .to("out"));
        suite.add("select-key", "KStream.selectKey", Input.random(40).nullKeys(),
                builder -> strings(builder).selectKey((key, value) -> value + key).to("out"));
        suite.add("peek", "KStream.peek", Input.random(20),
                builder -> strings(builder).peek((key, value) -> { }).to("out"));
        suite.add("merge", "KStream.merge", Input.random(60).topics("in", "more").nullKeys(),
                builder -> strings(builder).merge(builder.stream("more")).to("out"));
        suite.add("split", "KStream.split", Input.random(60).nullKeys(), builder -> {
            var branches = strings(builder).split(Named.as("s-"))
                    .branch((key, value) -> value.compareTo("7") > 0, Branched.as("high"))
                    .branch((key, value) -> value.compareTo("3") > 0, Branched.as("middle"))
                    .defaultBranch(Branched.as("low"));
            branches.forEach((name, branch) -> branch.to("out-" + name.substring(2)));
        });
        suite.add("split-no-default", "KStream.split", Input.random(40),
                builder -> strings(builder).split()
                        .branch((key, value) -> value.compareTo("7") > 0, Branched.withConsumer(b -> b.to("out")))
                        .noDefaultBranch());
        suite.add("repartition", "KStream.repartition", Input.random(40).nullKeys().tombstones(),
                builder -> strings(builder).selectKey((key, value) -> value)
                        .repartition(Repartitioned.<String, String>as("by-value").withNumberOfPartitions(1)).to("out"));
        suite.add("process", "KStream.process", Input.random(40),
                builder -> strings(builder).process(Echo::new).to("out"));
        suite.add("process-values", "KStream.processValues", Input.random(40).nullKeys(),
                builder -> strings(builder).processValues(Twice::new).to("out"));
        suite.add("stream-of-topics", "StreamsBuilder.stream (several topics)", Input.random(40).topics("in", "more"),
                builder -> builder.<String, String>stream(List.of("in", "more")).to("out"));
        suite.add("stream-of-pattern", "StreamsBuilder.stream (pattern)", Input.random(40).topics("in-1", "in-2"),
                builder -> builder.<String, String>stream(Pattern.compile("in-.*")).to("out"));
        suite.add("dynamic-to", "KStream.to (TopicNameExtractor)", Input.random(40),
                builder -> strings(builder)
                        .to((key, value, context) -> value.compareTo("5") > 0 ? "out-high" : "out-low"));
        suite.add("timestamp-extractor", "Consumed.withTimestampExtractor", Input.random(40),
                builder -> builder.stream("in", Consumed.with(Serdes.String(), Serdes.String())
                        .withTimestampExtractor((record, partitionTime) ->
                                ((String) record.value()).compareTo("3") < 0
                                        ? -1 : record.timestamp() + 7 + Math.max(partitionTime, 0) / 2))
                        .to("out"));
        suite.add("partitioner", "StreamPartitioner (one partition)", Input.random(40).nullKeys(),
                builder -> strings(builder).to("out", Produced.streamPartitioner(
                        (topic, key, value, partitions) -> value.compareTo("5") < 0
                                ? Optional.empty() : Optional.of(Set.of(value.hashCode() % 3)))));
        suite.add("multicast", "StreamPartitioner (several partitions, none)", Input.random(60).nullKeys().tombstones(),
                builder -> strings(builder).to("out", Produced.streamPartitioner(StatelessCases::everywhere)));
        suite.addTopology("child-forward", "ProcessorContext.forward (child)", Input.random(40), () -> new Topology()
                .addSource("source", new StringDeserializer(), new StringDeserializer(), "in")
                .addProcessor("router", Router::new, "source")
                .addSink("high", "out-high", new StringSerializer(), new StringSerializer(), "router")
                .addSink("low", "out-low", new StringSerializer(), new StringSerializer(), "router"));
    }

    static KStream<String, String> strings(StreamsBuilder builder) {
        return builder.stream("in");
    }

    /** By its value a record is partitioned by its key, or dropped, or written to several partitions. */
    private static Optional<Set<Integer>> everywhere(String topic, String key, String value, int partitions) {
        if (value == null || value.compareTo("2") < 0) {
            return Optional.empty();
        }
        if (value.compareTo("5") < 0) {
            return Optional.of(Set.of());
        }
        // The test driver has one partition, and takes any.
        return Optional.of(value.compareTo("8") < 0 ? Set.of(0, 2) : Set.of(0, 1, 2));
    }

    /** Forwards a record changed in every part, then the record itself. */
    private static final class Echo extends ContextualProcessor<String, String, String, String> {
        @Override
        public void process(Record<String, String> record) {
            Record<String, String> changed = record.withKey(record.value()).withValue(record.key())
                    .withTimestamp(record.timestamp() + 5);
            changed.headers().add("echo", new byte[] {1});
            context().forward(changed);
            context().forward(record);
        }
    }

    /** Forwards the value twice. */
    private static final class Twice extends ContextualFixedKeyProcessor<String, String, String> {
        @Override
        public void process(FixedKeyRecord<String, String> record) {
            context().forward(record.withValue(record.value() + "!"));
            context().forward(record.withValue(record.value() + "?").withTimestamp(record.timestamp() + 1));
        }
    }

    /** Forwards to one child by name, every ninth value to all. */
    private static final class Router extends ContextualProcessor<String, String, String, String> {
        @Override
        public void process(Record<String, String> record) {
            if (record.value().equals("9")) {
                context().forward(record);
            } else {
                context().forward(record, record.value().compareTo("5") > 0 ? "high" : "low");
            }
        }
    }
}
