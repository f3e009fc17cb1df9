import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/** Aggregations of streams. */
final class AggregationCases {
    private AggregationCases() {}

    static void addTo(Suite suite) {
        suite.add("count", "KGroupedStream.count", Input.random(80).nullKeys().tombstones(),
                builder -> byKey(builder).count(Materialized.as("store"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("count-by-value", "KStream.groupBy", Input.random(80).nullKeys(),
                builder -> StatelessCases.strings(builder)
                        .groupBy((key, value) -> value, Grouped.as("by-value"))
                        .count(Materialized.as("store"))
                        .toStream().to("out", Produced.with(Serdes.String(), Serdes.Long())));
        suite.add("reduce", "KGroupedStream.reduce", Input.random(80).nullKeys().tombstones(),
                builder -> byKey(builder)
                        .reduce((left, right) -> right.equals("9") ? null : left + right, Materialized.as("store"))
                        .toStream().to("out"));
        suite.add("aggregate", "KGroupedStream.aggregate", Input.random(80).nullKeys().tombstones(),
                builder -> byKey(builder)
                        .aggregate(() -> "", (key, value, text) -> value.equals("9") ? null : text + value,
                                Materialized.as("store"))
                        .toStream().to("out"));
        suite.add("cogroup", "KGroupedStream.cogroup", Input.random(80).topics("in", "more").nullKeys().tombstones(),
                builder -> byKey(builder)
                        .<String>cogroup((key, value, text) -> text + "(" + value + ")")
                        .cogroup(builder.<String, String>stream("more").groupByKey(),
                                (key, value, text) -> value.equals("9") ? null : text + "[" + value + "]")
                        .aggregate(() -> "", Materialized.as("store"))
                        .toStream().to("out"));
    }

    private static KGroupedStream<String, String> byKey(StreamsBuilder builder) {
        return StatelessCases.strings(builder).groupByKey();
    }
}
