import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.ValueJoinerWithKey;

/** Windowed joins of two streams. */
final class StreamJoinCases {
    private static final ValueJoinerWithKey<String, String, String, String> JOINER =
            (key, left, right) -> key + ":" + left + "+" + right;

    private StreamJoinCases() {}

    static void addTo(Suite suite) {
        suite.add("stream-stream-join", "KStream.join", input(),
                builder -> left(builder).join(right(builder), JOINER, noGrace(), named("joined")).to("out"));
        suite.add("stream-stream-left-join", "KStream.leftJoin", input(),
                builder -> left(builder).leftJoin(right(builder), JOINER, noGrace(), named("joined")).to("out"));
        suite.add("stream-stream-outer-join", "KStream.outerJoin", input(),
                builder -> left(builder).outerJoin(right(builder), JOINER, noGrace(), named("joined")).to("out"));
        suite.add("stream-stream-join-grace", "KStream.join", input(),
                builder -> left(builder).join(right(builder), JOINER, grace(1500, 4000), named("joined")).to("out"));
        // The windows are longer than any record is late: see the case after these two.
        suite.add("stream-stream-left-join-grace", "KStream.leftJoin", longer(),
                builder -> left(builder).leftJoin(right(builder), JOINER, grace(10_001, 3000), named("joined"))
                        .to("out"));
        suite.add("stream-stream-outer-join-grace", "KStream.outerJoin", longer(),
                builder -> left(builder).outerJoin(right(builder), JOINER, grace(10_001, 3000), named("joined"))
                        .to("out"));
        suite.add("stream-stream-left-join-late-in-grace", "KStream.leftJoin", Input.script()
                        .pipe("in", "b", "1", 10_000)
                        .pipe("in", "a", "2", 8000)
                        .pipe("other", "a", "3", 8200)
                        .pipe("in", "b", "4", 20_000),
                builder -> left(builder).leftJoin(right(builder), JOINER, grace(1000, 5000), named("joined"))
                        .to("out"));
        suite.add("stream-stream-join-asymmetric", "KStream.join", input(),
                builder -> left(builder).join(right(builder), JOINER, asymmetric(400, 2000), named("joined"))
                        .to("out"));
        suite.add("stream-stream-left-join-asymmetric", "KStream.leftJoin", input(),
                builder -> left(builder).leftJoin(right(builder), JOINER, asymmetric(2000, 300), named("joined"))
                        .to("out"));
        suite.add("stream-stream-outer-join-asymmetric", "KStream.outerJoin", input(),
                builder -> left(builder).outerJoin(right(builder), JOINER, asymmetric(300, 2000), named("joined"))
                        .to("out"));
        suite.add("stream-stream-outer-join-only-after", "KStream.outerJoin", input(),
                builder -> left(builder).outerJoin(right(builder), JOINER, asymmetric(0, 1500), named("joined"))
                        .to("out"));
        suite.add("stream-stream-outer-join-apart", "KStream.outerJoin", input(),
                builder -> left(builder).outerJoin(right(builder), JOINER, asymmetric(-300, 2500), named("joined"))
                        .to("out"));
        suite.add("stream-stream-join-same-time", "KStream.join", input(),
                builder -> left(builder).join(right(builder), JOINER, grace(0, 2000), named("joined")).to("out"));
        suite.add("stream-stream-self-join", "KStream.join", Input.random(120).nullKeys().tombstones(), builder -> {
            KStream<String, String> stream = left(builder);
            stream.join(stream, JOINER, asymmetric(500, 900), named("joined")).to("out");
        });
        suite.add("stream-stream-self-outer-join", "KStream.outerJoin", Input.random(120).nullKeys().tombstones(),
                builder -> {
                    KStream<String, String> stream = left(builder);
                    stream.outerJoin(stream.filter((key, value) -> value == null || value.compareTo("5") < 0), JOINER,
                            noGrace(), named("joined")).to("out");
                });
        suite.add("stream-stream-join-repartitioned", "KStream.join", input().values("a", "b", "c"),
                builder -> left(builder).selectKey((key, value) -> value)
                        .join(right(builder).selectKey((key, value) -> value), JOINER, noGrace(), named("joined"))
                        .to("out"));
        suite.add("stream-stream-outer-join-repartitioned", "KStream.outerJoin", input().values("a", "b", "c"),
                builder -> left(builder).selectKey((key, value) -> value)
                        .outerJoin(right(builder), JOINER, noGrace(), named("joined")).to("out"));
        suite.add("stream-stream-join-chained", "KStream.outerJoin",
                Input.random(200).topics("in", "other", "third").keys("a", "b").nullKeys().tombstones(),
                builder -> left(builder).leftJoin(right(builder), JOINER, noGrace(), named("first"))
                        .outerJoin(builder.stream("third"), JOINER, noGrace(), named("second")).to("out"));
    }

    private static Input input() {
        return Input.random(200).topics("in", "other").keys("a", "b", "c").nullKeys().tombstones();
    }

    private static Input longer() {
        return Input.random(500).topics("in", "other").keys("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k")
                .nullKeys().tombstones();
    }

    private static JoinWindows noGrace() {
        return JoinWindows.ofTimeDifferenceWithNoGrace(Duration.ofMillis(1500));
    }

    private static JoinWindows grace(long difference, long grace) {
        return JoinWindows.ofTimeDifferenceAndGrace(Duration.ofMillis(difference), Duration.ofMillis(grace));
    }

    private static JoinWindows asymmetric(long before, long after) {
        return JoinWindows.ofTimeDifferenceWithNoGrace(Duration.ofMillis(after)).before(Duration.ofMillis(before));
    }

    private static StreamJoined<String, String, String> named(String name) {
        return StreamJoined.with(Serdes.String(), Serdes.String(), Serdes.String()).withName(name).withStoreName(name);
    }

    private static KStream<String, String> left(StreamsBuilder builder) {
        return builder.stream("in");
    }

    private static KStream<String, String> right(StreamsBuilder builder) {
        return builder.stream("other");
    }
}
