import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TableJoined;

/** Joins with tables, of tables, and by foreign key. */
final class JoinCases {
    private JoinCases() {}

    static void addTo(Suite suite) {
        suite.add("stream-table-join", "KStream.join (KTable)", input(),
                builder -> StatelessCases.strings(builder)
                        .join(table(builder), (key, value, found) -> key + ":" + value + found).to("out"));
        suite.add("stream-table-left-join", "KStream.leftJoin (KTable)", input(),
                builder -> StatelessCases.strings(builder)
                        .leftJoin(table(builder), (key, value, found) -> key + ":" + value + found).to("out"));
        suite.add("stream-table-join-repartitioned", "KStream.join (KTable)", input().keys("1", "2", "3"),
                builder -> StatelessCases.strings(builder).selectKey((key, value) -> value)
                        .join(table(builder), (value, found) -> value + found,
                                Joined.<String, String, String>as("by-value")).to("out"));
        suite.add("stream-table-left-join-repartitioned", "KStream.leftJoin (KTable)", input().keys("1", "2", "3"),
                builder -> StatelessCases.strings(builder).selectKey((key, value) -> value)
                        .leftJoin(table(builder), (value, found) -> value + found,
                                Joined.<String, String, String>as("by-value")).to("out"));
        suite.add("stream-table-join-derived", "KStream.join (KTable)", input(),
                builder -> StatelessCases.strings(builder)
                        .join(table(builder).filter((key, value) -> value.compareTo("3") > 0)
                                .mapValues(value -> value + "!"), (value, found) -> value + found).to("out"));
        suite.add("table-table-join", "KTable.join", input(),
                builder -> TableCases.strings(builder)
                        .join(table(builder), (left, right) -> left + right).toStream().to("out"));
        suite.add("table-table-left-join", "KTable.leftJoin", input(),
                builder -> TableCases.strings(builder)
                        .leftJoin(table(builder), (left, right) -> left + right).toStream().to("out"));
        suite.add("table-table-outer-join", "KTable.outerJoin", input(),
                builder -> TableCases.strings(builder)
                        .outerJoin(table(builder), (left, right) -> left + right).toStream().to("out"));
        suite.add("table-table-join-materialized", "KTable.join", input(),
                builder -> TableCases.strings(builder)
                        .join(table(builder), (left, right) -> left + right, Materialized.as("joined"))
                        .filter((key, value) -> value.compareTo("5") > 0, Materialized.as("filtered"))
                        .toStream().to("out"));
        suite.add("table-table-join-derived", "KTable.join", input(),
                builder -> TableCases.strings(builder).filter((key, value) -> value.compareTo("3") > 0)
                        .join(table(builder).mapValues(value -> value + "!"), (left, right) -> left + right)
                        .toStream().to("out"));
        suite.add("table-table-left-join-derived", "KTable.leftJoin", input(),
                builder -> TableCases.strings(builder).filter((key, value) -> value.compareTo("3") > 0)
                        .leftJoin(table(builder).filter((key, value) -> value.compareTo("6") < 0),
                                (left, right) -> left + right)
                        .toStream().to("out"));
        suite.add("table-table-join-self", "KTable.join", TableCases.input(), builder -> {
            KTable<String, String> table = TableCases.strings(builder);
            table.join(table.mapValues(value -> value + "!"), (left, right) -> left + right).toStream().to("out");
        });
        suite.add("table-table-join-twice", "KTable.join", Input.random(90).topics("in", "table", "third").tombstones(),
                builder -> TableCases.strings(builder)
                        .leftJoin(table(builder), (left, right) -> left + right)
                        .outerJoin(builder.table("third", Materialized.<String, String,
                                org.apache.kafka.streams.state.KeyValueStore<org.apache.kafka.common.utils.Bytes,
                                byte[]>>as("third")), (left, right) -> left + "/" + right)
                        .toStream().to("out"));
        suite.add("table-table-outer-join-grouped", "KTable.outerJoin", input(),
                builder -> TableCases.strings(builder)
                        .outerJoin(table(builder), (left, right) -> left + right)
                        .groupBy((key, value) -> org.apache.kafka.streams.KeyValue.pair(value.substring(0, 1), value),
                                Grouped.with("by-first", Serdes.String(), Serdes.String()))
                        .count(Materialized.as("counts"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("stream-global-join", "KStream.join (GlobalKTable)", input().keys("1", "2", "3"),
                builder -> StatelessCases.strings(builder)
                        .join(global(builder), (key, value) -> value, (value, found) -> value + found).to("out"));
        suite.add("stream-global-left-join", "KStream.leftJoin (GlobalKTable)", input().keys("1", "2", "3"),
                builder -> StatelessCases.strings(builder)
                        .leftJoin(global(builder), (key, value) -> value, (value, found) -> value + found).to("out"));
        suite.add("foreign-key-join", "KTable.join (foreign key)", foreign(),
                builder -> TableCases.strings(builder)
                        .join(table(builder), JoinCases::foreignKey, (left, right) -> left + ":" + right,
                                TableJoined.as("fk"), Materialized.as("joined"))
                        .toStream().to("out"));
        suite.add("foreign-key-left-join", "KTable.leftJoin (foreign key)", foreign(),
                builder -> TableCases.strings(builder)
                        .leftJoin(table(builder), JoinCases::foreignKey, (left, right) -> left + ":" + right,
                                TableJoined.as("fk"), Materialized.as("joined"))
                        .toStream().to("out"));
    }

    /** The first character, none for {@code -}. */
    static String foreignKey(String value) {
        return value.startsWith("-") ? null : value.substring(0, 1);
    }

    private static Input input() {
        return Input.random(100).topics("in", "table").nullKeys().tombstones();
    }

    static Input foreign() {
        return Input.random(160).topics("in", "table").keys("a", "b", "c").values("a1", "a2", "b1", "b2", "c1", "-")
                .nullKeys().tombstones();
    }

    private static KTable<String, String> table(StreamsBuilder builder) {
        return builder.table("table", Materialized.as("table-store"));
    }

    private static GlobalKTable<String, String> global(StreamsBuilder builder) {
        return builder.globalTable("table", Materialized.as("global-store"));
    }
}
