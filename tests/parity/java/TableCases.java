import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedTable;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/** Tables and their aggregations. */
final class TableCases {
    private TableCases() {}

    static void addTo(Suite suite) {
        suite.add("table", "StreamsBuilder.table", input(), builder -> strings(builder).toStream().to("out"));
        suite.add("to-table", "KStream.toTable", input(),
                builder -> StatelessCases.strings(builder).toTable(Materialized.as("store")).toStream().to("out"));
        suite.add("to-table-repartitioned", "KStream.toTable", input(),
                builder -> StatelessCases.strings(builder).selectKey((key, value) -> value == null ? key : value)
                        .toTable(Materialized.as("store")).toStream().to("out"));
        suite.add("to-stream-with-key", "KTable.toStream", input(),
                builder -> strings(builder).toStream((key, value) -> key + value).to("out"));
        suite.add("table-filter", "KTable.filter", input(),
                builder -> strings(builder).filter((key, value) -> value.compareTo("5") > 0).toStream().to("out"));
        suite.add("table-filter-materialized", "KTable.filter", input(),
                builder -> strings(builder).filter((key, value) -> value.compareTo("5") > 0, Materialized.as("filtered"))
                        .toStream().to("out"));
        suite.add("table-filter-not", "KTable.filterNot", input(),
                builder -> strings(builder).filterNot((key, value) -> value.compareTo("5") > 0).toStream().to("out"));
        suite.add("table-filter-not-materialized", "KTable.filterNot", input(),
                builder -> strings(builder)
                        .filterNot((key, value) -> value.compareTo("5") > 0, Materialized.as("filtered"))
                        .toStream().to("out"));
        suite.add("table-map-values", "KTable.mapValues", input(),
                builder -> strings(builder).mapValues((key, value) -> key + value).toStream().to("out"));
        suite.add("table-map-values-materialized", "KTable.mapValues", input(),
                builder -> strings(builder)
                        .mapValues((key, value) -> value.equals("7") ? null : key + value, Materialized.as("mapped"))
                        .toStream().to("out"));
        suite.add("table-group-count", "KGroupedTable.count", input(),
                builder -> byValue(builder).count(Materialized.as("count"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("table-group-reduce", "KGroupedTable.reduce", input(),
                builder -> byValue(builder)
                        .reduce((sum, value) -> sum + "+" + value, (sum, value) -> sum + "-" + value,
                                Materialized.as("reduced"))
                        .toStream().to("out"));
        suite.add("table-group-aggregate", "KGroupedTable.aggregate", input(),
                builder -> byValue(builder)
                        .aggregate(() -> "", (key, value, text) -> text + "+" + value,
                                (key, value, text) -> value.equals("b") ? null : text + "-" + value,
                                Materialized.as("aggregated"))
                        .toStream().to("out"));
        suite.add("table-group-same-key", "KTable.groupBy", input(),
                builder -> strings(builder).groupBy((key, value) -> KeyValue.pair(key, value), Grouped.as("same"))
                        .aggregate(() -> "", (key, value, text) -> text + "+" + value,
                                (key, value, text) -> text + "-" + value, Materialized.as("aggregated"))
                        .toStream().to("out"));
        suite.add("table-group-null-key", "KTable.groupBy", input(),
                builder -> strings(builder)
                        .groupBy((key, value) -> KeyValue.pair(value.equals("4") ? null : value, key), Grouped.as("by"))
                        .aggregate(() -> "", (key, value, text) -> text + "+" + value,
                                (key, value, text) -> text + "-" + value, Materialized.as("aggregated"))
                        .toStream().to("out"));
        suite.add("table-group-filtered", "KTable.groupBy", input(),
                builder -> strings(builder).filter((key, value) -> value.compareTo("3") > 0)
                        .mapValues(value -> value.compareTo("6") > 0 ? "x" : "y")
                        .groupBy((key, value) -> KeyValue.pair(value, key), Grouped.as("by"))
                        .count(Materialized.as("count"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("aggregate-group-table", "KTable.groupBy", Input.random(80).nullKeys(),
                builder -> StatelessCases.strings(builder).groupByKey().count(Materialized.as("counts"))
                        .groupBy((key, count) -> KeyValue.pair("total", count),
                                Grouped.with("total", Serdes.String(), Serdes.Long()))
                        .reduce(Long::sum, (total, count) -> total - count, Materialized.as("sum"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
    }

    static Input input() {
        return Input.random(80).nullKeys().tombstones();
    }

    static KTable<String, String> strings(StreamsBuilder builder) {
        return builder.table("in", Materialized.as("store"));
    }

    private static KGroupedTable<String, String> byValue(StreamsBuilder builder) {
        return strings(builder).groupBy((key, value) -> KeyValue.pair(value, key), Grouped.as("by-value"));
    }
}
