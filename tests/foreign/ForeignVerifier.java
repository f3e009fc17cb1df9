import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Judges a run from outside, with Kafka's own clients: recomputes every balance from the input topic
 * and compares it with the read model.
 *
 * <p>What it demands: the group has committed past the last input record of every partition; no
 * transaction hangs on input, output, changelog or repartition topics (the last stable offset is the
 * high watermark); per account, the latest balance equals the recomputed one as a decimal and the
 * version is the last event's; versions rise strictly over <em>all</em> output records that are still
 * in the log; no account is missing, none invented; dead-letter topics are empty.
 */
public final class ForeignVerifier {
    static final String USAGE = """
        usage: ForeignVerifier --bootstrap HOST:PORT --group NAME [options]
          --group NAME      the group (application id) that must have caught up
          --input NAME      events (billing.account.events)
          --output NAME     the read model (billing.account.balances)
          --empty A,B       topics that must hold no record, where they exist (billing.account.dlq)
          --deadline-s N    how long to wait for the group and for open transactions (120)
          --accounts N      how many accounts there must be, 0 = as many as the input has (0)
          --events N        how many events the input must hold, 0 = any number (0)
        exit code: 0 everything holds, 1 it does not, 2 usage, 3 could not be checked""";

    private static final int DIFFERENCES_SHOWN = 10;
    private static final ObjectMapper JSON =
        new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    private final Admin admin;
    private final Options options;
    private final long deadline;
    private final Map<String, Account> expected = new HashMap<>();
    private final Map<String, Account> found = new HashMap<>();
    private final List<String> differences = new ArrayList<>();
    private long differencesTotal;

    private ForeignVerifier(Admin admin, Options options) {
        this.admin = admin;
        this.options = options;
        deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(options.number("deadline-s"));
    }

    public static void main(String[] args) {
        Options.run(USAGE, args, ForeignVerifier::verify);
    }

    /** Runs the check; returns the exit code. */
    static int verify(String[] args) throws Exception {
        Map<String, String> defaults = new LinkedHashMap<>();
        defaults.put("bootstrap", null);
        defaults.put("group", null);
        defaults.put("input", "billing.account.events");
        defaults.put("output", "billing.account.balances");
        defaults.put("empty", "billing.account.dlq");
        defaults.put("deadline-s", "120");
        defaults.put("accounts", "0");
        defaults.put("events", "0");
        Options options = new Options(args, defaults);
        Properties config = new Properties();
        config.put("bootstrap.servers", options.text("bootstrap"));
        try (Admin admin = Admin.create(config)) {
            return new ForeignVerifier(admin, options).run();
        }
    }

    private int run() throws Exception {
        String input = options.text("input");
        String output = options.text("output");
        Map<TopicPartition, Long> last = new HashMap<>();
        long events = read(input, record -> {
            last.put(new TopicPartition(record.topic(), record.partition()), record.offset());
            foldInput(record);
        });
        System.out.printf("input  %s: %d records, %d accounts%n", input, events, expected.size());
        if (!differences.isEmpty()) {
            return report("the input itself is not consistent, nothing was compared");
        }
        require(options.number("events"), events, "events in the input");
        require(options.number("accounts"), expected.size(), "accounts in the input");
        if (events == 0) {
            difference("the input is empty: nothing was checked");
        }

        waitForGroup(last);
        waitForOpenTransactions(transactionalTopics(input, output));
        long records = read(output, this::foldOutput);
        System.out.printf("output %s: %d records, %d accounts%n", output, records, found.size());
        compare();
        for (String topic : split(options.text("empty"))) {
            long held = existing(topic) ? read(topic, record -> { }) : 0;
            if (held != 0) {
                difference(topic + " holds " + held + " records, expected none");
            }
        }
        if (differencesTotal == 0) {
            System.out.printf("every balance of %d accounts equals the %d input events; versions rise strictly "
                + "over %d output records; no transaction hangs%n", expected.size(), events, records);
        }
        return report("the read model does not equal the input");
    }

    // --- folding --------------------------------------------------------------------------------

    /** An account as one side has it. */
    private static final class Account {
        BigDecimal balance = new BigDecimal("0.00");
        long version;
    }

    private void foldInput(ConsumerRecord<String, String> record) {
        JsonNode event = parse(record);
        if (event == null) {
            return;
        }
        String id = event.path("aggregateId").asText();
        Account account = expected.computeIfAbsent(id, unseen -> new Account());
        long version = event.path("aggregateVersion").asLong();
        if (!id.equals(record.key()) || version != account.version + 1) {
            difference(where(record) + ": version " + version + " of " + id + " after " + account.version);
            return;
        }
        account.version = version;
        if (event.path("eventType").asText().equals("BalanceChanged")) {
            JsonNode data = event.path("data");
            account.balance = account.balance.add(decimal(record, data, "signedAmount"));
            if (account.balance.compareTo(decimal(record, data, "newBalance")) != 0) {
                difference(where(record) + ": newBalance of " + id + " is not the sum " + account.balance);
            }
        }
    }

    private void foldOutput(ConsumerRecord<String, String> record) {
        JsonNode row = parse(record);
        if (row == null) {
            return;
        }
        String id = row.path("accountId").asText();
        if (!id.equals(record.key())) {
            difference(where(record) + ": key " + record.key() + " but accountId " + id);
            return;
        }
        Account account = found.computeIfAbsent(id, unseen -> new Account());
        long version = row.path("version").asLong(-1);
        if (version <= account.version) {
            difference(where(record) + ": version " + version + " of " + id + " after " + account.version
                + " (duplicate or out of order)");
        }
        account.version = version;
        account.balance = decimal(record, row, "balance");
    }

    private void compare() {
        for (Map.Entry<String, Account> entry : new TreeMap<>(expected).entrySet()) {
            Account want = entry.getValue();
            Account have = found.get(entry.getKey());
            if (have == null) {
                difference(entry.getKey() + ": missing in the read model, expected " + show(want));
            } else if (have.balance.compareTo(want.balance) != 0 || have.version != want.version) {
                difference(entry.getKey() + ": found " + show(have) + ", expected " + show(want));
            }
        }
        for (String id : new TreeSet<>(found.keySet())) {
            if (!expected.containsKey(id)) {
                difference(id + ": in the read model, not in the input");
            }
        }
    }

    private JsonNode parse(ConsumerRecord<String, String> record) {
        try {
            if (record.key() != null && record.value() != null) {
                JsonNode node = JSON.readTree(record.value());
                if (node.isObject()) {
                    return node;
                }
            }
            difference(where(record) + ": no key, no value, or not a JSON object");
        } catch (JsonProcessingException e) {
            difference(where(record) + ": not JSON: " + e.getOriginalMessage());
        }
        return null;
    }

    /** Reads a decimal string. A JSON number is a difference: it would pass through a float. */
    private BigDecimal decimal(ConsumerRecord<String, String> record, JsonNode object, String field) {
        JsonNode value = object.path(field);
        try {
            if (value.isTextual()) {
                return new BigDecimal(value.textValue());
            }
        } catch (NumberFormatException e) {
            // Reported below, with the text.
        }
        difference(where(record) + ": " + field + " is not a decimal string but " + value);
        return BigDecimal.ZERO;
    }

    // --- the log --------------------------------------------------------------------------------

    /** Reads a topic, read committed, up to the end it has now; returns the number of records. */
    private long read(String topic, Consumer<ConsumerRecord<String, String>> each) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", options.text("bootstrap"));
        config.put("isolation.level", "read_committed");
        config.put("enable.auto.commit", "false");
        config.put("max.poll.records", "10000");
        config.put("fetch.max.bytes", "67108864");
        config.put("max.partition.fetch.bytes", "33554432");
        long count = 0;
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = partitions(List.of(topic));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long progressed = System.nanoTime();
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                long before = count;
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    // A record behind the end was written meanwhile: not part of this reading.
                    if (record.offset() < ends.get(new TopicPartition(topic, record.partition()))) {
                        each.accept(record);
                        count++;
                    }
                }
                if (count > before) {
                    progressed = System.nanoTime();
                } else if (System.nanoTime() - progressed > TimeUnit.SECONDS.toNanos(30)) {
                    throw new IllegalStateException("no record of " + topic + " for 30 s, ends are " + ends);
                }
            }
        }
        return count;
    }

    private List<TopicPartition> partitions(Collection<String> topics) throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        for (TopicDescription topic : admin.describeTopics(topics).allTopicNames().get().values()) {
            topic.partitions().forEach(p -> partitions.add(new TopicPartition(topic.name(), p.partition())));
        }
        return partitions;
    }

    private boolean existing(String topic) throws Exception {
        return admin.listTopics().names().get().contains(topic);
    }

    private void waitForGroup(Map<TopicPartition, Long> last) throws Exception {
        String group = options.text("group");
        while (true) {
            Map<TopicPartition, OffsetAndMetadata> committed =
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            Map<TopicPartition, String> behind = new HashMap<>();
            last.forEach((partition, offset) -> {
                OffsetAndMetadata at = committed.get(partition);
                if (at == null || at.offset() <= offset) {
                    behind.put(partition, (at == null ? "none" : at.offset()) + " of " + (offset + 1));
                }
            });
            if (behind.isEmpty()) {
                System.out.println("group " + group + " has committed every input record");
                return;
            }
            if (System.nanoTime() > deadline) {
                difference("group " + group + " has not caught up, committed: " + behind);
                return;
            }
            Thread.sleep(100);
        }
    }

    private Set<String> transactionalTopics(String input, String output) throws Exception {
        String group = options.text("group") + "-";
        Set<String> topics = admin.listTopics().names().get().stream()
            .filter(name -> name.startsWith(group)
                && (name.endsWith("-changelog") || name.endsWith("-repartition")))
            .collect(Collectors.toCollection(TreeSet::new));
        System.out.println("internal topics: " + topics);
        topics.add(input);
        topics.add(output);
        return topics;
    }

    /** An open transaction holds the last stable offset below the high watermark; none may stay open. */
    private void waitForOpenTransactions(Set<String> topics) throws Exception {
        List<TopicPartition> partitions = partitions(topics);
        while (true) {
            // ORDER: the watermark first: all that lay below it must be stable by the second answer.
            // The other way round a transaction that begins and ends in between looks open.
            Map<TopicPartition, Long> ends = ends(partitions, IsolationLevel.READ_UNCOMMITTED);
            Map<TopicPartition, Long> stable = ends(partitions, IsolationLevel.READ_COMMITTED);
            Map<TopicPartition, String> open = new HashMap<>();
            ends.forEach((partition, end) -> {
                if (stable.get(partition) < end) {
                    open.put(partition, stable.get(partition) + " of " + end);
                }
            });
            if (open.isEmpty()) {
                System.out.println("no open transaction on " + partitions.size() + " partitions");
                return;
            }
            if (System.nanoTime() > deadline) {
                difference("transactions hang, last stable offset: " + open);
                return;
            }
            Thread.sleep(100);
        }
    }

    private Map<TopicPartition, Long> ends(List<TopicPartition> partitions, IsolationLevel isolation)
            throws Exception {
        Map<TopicPartition, OffsetSpec> latest =
            partitions.stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()));
        Map<TopicPartition, Long> ends = new HashMap<>();
        admin.listOffsets(latest, new ListOffsetsOptions(isolation)).all().get()
            .forEach((partition, result) -> ends.put(partition, result.offset()));
        return ends;
    }

    // --- the verdict ----------------------------------------------------------------------------

    private void require(long wanted, long actual, String what) {
        if (wanted != 0 && wanted != actual) {
            difference(actual + " " + what + ", expected " + wanted);
        }
    }

    private void difference(String text) {
        differencesTotal++;
        if (differences.size() < DIFFERENCES_SHOWN) {
            differences.add(text);
        }
    }

    private int report(String verdict) {
        if (differencesTotal == 0) {
            return 0;
        }
        System.out.printf("FAILED: %s; %d differences, the first:%n", verdict, differencesTotal);
        differences.forEach(text -> System.out.println("  " + text));
        return 1;
    }

    private static List<String> split(String list) {
        return Arrays.stream(list.split(",")).filter(part -> !part.isBlank()).toList();
    }

    private static String where(ConsumerRecord<String, String> record) {
        return record.topic() + "-" + record.partition() + "@" + record.offset();
    }

    private static String show(Account account) {
        return account.balance.toPlainString() + " at version " + account.version;
    }
}
