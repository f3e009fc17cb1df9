import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TableJoined;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.VersionedKeyValueStore;
import org.apache.kafka.streams.state.VersionedRecord;

/** Versioned stores and tables. */
final class VersionedCases {
    private static final Duration HISTORY = Duration.ofMillis(3000);

    private VersionedCases() {}

    static void addTo(Suite suite) {
        suite.add("versioned-store", "versioned store", Input.random(300).keys("a", "b", "c").tombstones(),
                builder -> {
                    builder.addStateStore(Stores.versionedKeyValueStoreBuilder(
                            Stores.persistentVersionedKeyValueStore("versions", HISTORY), Serdes.String(),
                            Serdes.String()));
                    StatelessCases.strings(builder).process(Versions::new, "versions").to("out");
                });
        suite.add("versioned-table", "StreamsBuilder.table (versioned)", input("in"),
                builder -> versioned(builder, "in").toStream().to("out"));
        suite.add("versioned-table-filter", "StreamsBuilder.table (versioned)", input("in"),
                builder -> versioned(builder, "in").filter((key, value) -> value.compareTo("5") < 0)
                        .mapValues(value -> value + "!").toStream().to("out"));
        suite.add("versioned-to-table", "KStream.toTable (versioned)", input("in"),
                builder -> StatelessCases.strings(builder).toTable(store("latest")).toStream().to("out"));
        suite.add("versioned-stream-table-join", "KStream.join (versioned KTable)", input("in", "table"),
                builder -> StatelessCases.strings(builder)
                        .join(versioned(builder, "table"), (value, found) -> value + found).to("out"));
        suite.add("versioned-stream-table-left-join", "KStream.leftJoin (versioned KTable)", input("in", "table"),
                builder -> StatelessCases.strings(builder)
                        .leftJoin(versioned(builder, "table").filter((key, value) -> value.compareTo("7") < 0)
                                .mapValues(value -> value + "!"), (value, found) -> value + found).to("out"));
        suite.add("versioned-table-table-join", "KTable.join (versioned)", input("in", "table"),
                builder -> versioned(builder, "in")
                        .join(versioned(builder, "table"), (left, right) -> left + right).toStream().to("out"));
        suite.add("versioned-table-table-left-join", "KTable.leftJoin (versioned)", input("in", "table"),
                builder -> versioned(builder, "in")
                        .leftJoin(unversioned(builder), (left, right) -> left + right)
                        .toStream().to("out"));
        suite.add("versioned-foreign-key-join", "KTable.join (foreign key, versioned)", foreign(),
                builder -> versioned(builder, "in")
                        .join(versioned(builder, "table"), JoinCases::foreignKey, (left, right) -> left + ":" + right,
                                TableJoined.as("fk"), Materialized.as("joined"))
                        .toStream().to("out"));
        suite.add("versioned-foreign-key-left-join", "KTable.leftJoin (foreign key, versioned)", foreign(),
                builder -> versioned(builder, "in")
                        .leftJoin(versioned(builder, "table"), JoinCases::foreignKey,
                                (left, right) -> left + ":" + right, TableJoined.as("fk"), Materialized.as("joined"))
                        .toStream().to("out"));
        suite.add("versioned-foreign-key-join-left", "KTable.join (foreign key, versioned)", foreign(),
                builder -> versioned(builder, "in")
                        .join(unversioned(builder), JoinCases::foreignKey, (left, right) -> left + ":" + right,
                                TableJoined.as("fk"), Materialized.as("joined"))
                        .toStream().to("out"));
        suite.add("versioned-table-group-count", "KTable.groupBy (versioned)", input("in"),
                builder -> versioned(builder, "in")
                        .groupBy((key, value) -> KeyValue.pair(value, key),
                                Grouped.with("by-value", Serdes.String(), Serdes.String()))
                        .count(Materialized.as("counts")).toStream()
                        .to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("versioned-stream-table-join-grace", "KStream.join (grace)", input("in", "table"),
                builder -> StatelessCases.strings(builder)
                        .join(versioned(builder, "table"), (key, value, found) -> key + ":" + value + found, grace())
                        .to("out"));
        suite.add("versioned-stream-table-left-join-grace", "KStream.leftJoin (grace)",
                Input.random(300).topics("in", "table").keys("a", "b", "c").tombstones(),
                builder -> StatelessCases.strings(builder)
                        .leftJoin(versioned(builder, "table"), (key, value, found) -> key + ":" + value + found,
                                grace()).to("out"));
    }

    private static Input foreign() {
        return JoinCases.foreign();
    }

    private static Joined<String, String, String> grace() {
        return Joined.with(Serdes.String(), Serdes.String(), Serdes.String(), "joined", Duration.ofMillis(1200));
    }

    private static Input input(String... topics) {
        return Input.random(300).topics(topics).keys("a", "b", "c").nullKeys().tombstones();
    }

    private static KTable<String, String> versioned(StreamsBuilder builder, String topic) {
        return builder.table(topic, store(topic + "-store"));
    }

    private static KTable<String, String> unversioned(StreamsBuilder builder) {
        return builder.table("table", Materialized.as("unversioned-store"));
    }

    private static <T> Materialized<String, T, org.apache.kafka.streams.state.KeyValueStore<
            org.apache.kafka.common.utils.Bytes, byte[]>> store(String name) {
        return Materialized.as(Stores.persistentVersionedKeyValueStore(name, HISTORY));
    }

    /** Writes each record and says what the store then knows of now, of before, and of long ago. */
    private static final class Versions implements Processor<String, String, String, String> {
        private ProcessorContext<String, String> context;
        private VersionedKeyValueStore<String, String> store;

        @Override
        public void init(ProcessorContext<String, String> context) {
            this.context = context;
            store = context.getStateStore("versions");
        }

        @Override
        public void process(Record<String, String> record) {
            StringBuilder known = new StringBuilder();
            if (record.value() != null && record.value().equals("9")) {
                known.append("deleted ").append(show(store.delete(record.key(), record.timestamp())));
            } else {
                long put = store.put(record.key(), record.value(), record.timestamp());
                known.append(put == VersionedKeyValueStore.PUT_RETURN_CODE_NOT_PUT ? "expired"
                        : put == VersionedKeyValueStore.PUT_RETURN_CODE_VALID_TO_UNDEFINED ? "latest" : "until " + put);
            }
            known.append(" now ").append(show(store.get(record.key())));
            for (long ago : new long[] {0, 300, 1500, 2900, 6000}) {
                known.append(" -").append(ago).append(" ")
                        .append(show(store.get(record.key(), record.timestamp() - ago)));
            }
            context.forward(record.withValue(known.toString()));
        }

        private static String show(VersionedRecord<String> version) {
            return version == null ? "none" : version.value() + "@" + version.timestamp()
                    + (version.validTo().isPresent() ? ".." + version.validTo().get() : "");
        }
    }
}
