import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;

/** The cases, by name. */
final class Suite {
    /**
     * @param operator what the case is about, as the parity table names it
     * @param build    draws the topology
     */
    record Case(String name, String operator, Input input, java.util.function.Supplier<Topology> build) {}

    private final Map<String, Case> cases = new LinkedHashMap<>();

    /** Adds a case drawn with the DSL. Input topics are those of {@code input}; every other topic is an output. */
    void add(String name, String operator, Input input, Consumer<StreamsBuilder> draw) {
        addTopology(name, operator, input, () -> {
            StreamsBuilder builder = new StreamsBuilder();
            draw.accept(builder);
            return builder.build();
        });
    }

    /** Adds a case whose topology is made by hand. */
    void addTopology(String name, String operator, Input input, java.util.function.Supplier<Topology> build) {
        if (cases.put(name, new Case(name, operator, input, build)) != null) {
            throw new IllegalArgumentException("two cases are called " + name);
        }
    }

    Iterable<Case> cases() {
        return cases.values();
    }
}
