import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/**
 * What is piped into a case: a script, or a random mix of everything that makes operators differ. The
 * seed is the case's name, so that a case's input changes only with its own definition.
 */
final class Input {
    /** One step: a record, or wall-clock time that passes. */
    sealed interface Step permits Pipe, Advance {}

    record Header(String key, String value) {}

    record Pipe(String topic, String key, String value, long timestamp, List<Header> headers) implements Step {}

    record Advance(long millis) implements Step {}

    private final List<Step> script = new ArrayList<>();
    private int records;
    private List<String> topics = List.of("in");
    private List<String> keys = List.of("a", "b", "c", "d");
    private List<String> values = List.of("0", "1", "2", "3", "4", "5", "6", "7", "8", "9");
    private boolean nullKeys;
    private boolean tombstones;
    private long step = 400;
    private long grid = 1;

    private Input() {}

    /** Random records: out of order, late, at equal times, duplicated, some with headers. */
    static Input random(int records) {
        Input input = new Input();
        input.records = records;
        return input;
    }

    static Input script() {
        return new Input();
    }

    Input topics(String... topics) {
        this.topics = List.of(topics);
        return this;
    }

    Input keys(String... keys) {
        this.keys = List.of(keys);
        return this;
    }

    Input values(String... values) {
        this.values = List.of(values);
        return this;
    }

    /** One record in eight has no key. */
    Input nullKeys() {
        nullKeys = true;
        return this;
    }

    /** One record in six has no value. */
    Input tombstones() {
        tombstones = true;
        return this;
    }

    /** Time moves on by up to this much between two records; lateness is up to 25 times it. */
    Input step(long millis) {
        step = millis;
        return this;
    }

    /** All times are multiples of this. */
    Input grid(long millis) {
        grid = millis;
        return this;
    }

    Input pipe(String topic, String key, String value, long timestamp) {
        script.add(new Pipe(topic, key, value, timestamp, List.of()));
        return this;
    }

    Input advance(long millis) {
        script.add(new Advance(millis));
        return this;
    }

    /** The random records, then the script. */
    List<Step> steps(long seed) {
        List<Step> steps = new ArrayList<>();
        Random random = new Random(seed);
        long time = 10_000 * Math.max(1, step / 100);
        Pipe last = null;
        for (int i = 0; i < records; i++) {
            if (last != null && random.nextInt(10) == 0) {
                steps.add(last);
                continue;
            }
            long timestamp = time;
            int kind = random.nextInt(20);
            if (kind < 4) {
                // At the time of the record before.
            } else if (kind < 7) {
                timestamp = Math.max(0, time - random.nextLong(step) - 1);
            } else if (kind < 8) {
                timestamp = Math.max(0, time - random.nextLong(25 * step) - 1);
            } else {
                time += random.nextLong(step) + 1;
                timestamp = time;
            }
            String topic = topics.get(random.nextInt(topics.size()));
            String key = nullKeys && random.nextInt(8) == 0 ? null : keys.get(random.nextInt(keys.size()));
            String value = tombstones && random.nextInt(6) == 0 ? null : values.get(random.nextInt(values.size()));
            List<Header> headers = new ArrayList<>();
            if (random.nextInt(3) == 0) {
                headers.add(new Header("n", Integer.toString(i)));
                if (random.nextInt(3) == 0) {
                    headers.add(new Header("n", null));
                }
            }
            last = new Pipe(topic, key, value, timestamp / grid * grid, headers);
            steps.add(last);
        }
        steps.addAll(script);
        return steps;
    }
}
