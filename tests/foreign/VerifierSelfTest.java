import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A check that cannot fail proves nothing: gives {@link ForeignVerifier} one sound run and one run for
 * each fault that it must find, on topics of their own.
 */
public final class VerifierSelfTest {
    private static final String USAGE = "usage: VerifierSelfTest --bootstrap HOST:PORT";

    /** What is wrong with a run. */
    private enum Fault {
        NONE, WRONG_BALANCE, BALANCE_OF_OTHER_SCALE, NUMBER_INSTEAD_OF_STRING, MISSING_ACCOUNT,
        INVENTED_ACCOUNT, MISSING_LAST_VERSION, DUPLICATE_OUTPUT, VERSION_FALLS, ABORTED_OUTPUT,
        HANGING_TRANSACTION, HANGING_CHANGELOG, GROUP_BEHIND, NO_COMMITTED_OFFSET, DEAD_LETTER,
        INCONSISTENT_INPUT;

        /** Whether the run is sound all the same. */
        boolean sound() {
            return this == NONE || this == BALANCE_OF_OTHER_SCALE || this == ABORTED_OUTPUT;
        }
    }

    private final String bootstrap;
    private final Admin admin;
    private final KafkaProducer<String, String> plain;

    private VerifierSelfTest(String bootstrap) {
        this.bootstrap = bootstrap;
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        admin = Admin.create(config);
        plain = producer(null);
    }

    public static void main(String[] args) {
        Options.run(USAGE, args, VerifierSelfTest::run);
    }

    private static int run(String[] args) throws Exception {
        Map<String, String> defaults = new LinkedHashMap<>();
        defaults.put("bootstrap", null);
        VerifierSelfTest test = new VerifierSelfTest(new Options(args, defaults).text("bootstrap"));
        int passed = 0;
        List<Fault> wrong = new ArrayList<>();
        for (Fault fault : Fault.values()) {
            System.out.println("--- " + fault);
            int code = test.judge(fault);
            if (code == (fault.sound() ? 0 : 1)) {
                passed++;
            } else {
                wrong.add(fault);
                System.out.println("exit code " + code + ", expected " + (fault.sound() ? 0 : 1));
            }
        }
        System.out.println("misjudged: " + wrong);
        System.out.printf("%d passed, %d failed%n", passed, wrong.size());
        return wrong.isEmpty() ? 0 : 1;
    }

    private int judge(Fault fault) throws Exception {
        String run = "verifier-" + UUID.randomUUID().toString().substring(0, 8);
        String input = run + ".events";
        String output = run + ".balances";
        String letters = run + ".dlq";
        String changelog = run + "-balances-changelog";
        List<NewTopic> topics = new ArrayList<>();
        for (String topic : List.of(input, output, letters, changelog)) {
            topics.add(new NewTopic(topic, 1, (short) 1));
        }
        admin.createTopics(topics).all().get();

        event(input, "a", 1, "0.00", "10.00");
        event(input, "b", 1, "0.00", "0.10");
        event(input, "a", 2, "10.00", "7.25");
        event(input, "b", fault == Fault.INCONSISTENT_INPUT ? 3 : 2, "0.10", "0.30");
        plain.flush();

        KafkaProducer<String, String> transactional = producer(run + "-0");
        transactional.initTransactions();
        transactional.beginTransaction();
        writeOutput(transactional, output, fault);
        transactional.commitTransaction();
        if (fault == Fault.DEAD_LETTER) {
            plain.send(new ProducerRecord<>(letters, "a", "{}")).get();
        }
        if (fault == Fault.ABORTED_OUTPUT) {
            transactional.beginTransaction();
            row(transactional, output, "a", 3, "\"1000000.00\"");
            transactional.flush();
            transactional.abortTransaction();
        }
        boolean hangs = fault == Fault.HANGING_TRANSACTION || fault == Fault.HANGING_CHANGELOG;
        if (hangs) {
            transactional.beginTransaction();
            row(transactional, fault == Fault.HANGING_CHANGELOG ? changelog : output, "a", 3, "\"1.00\"");
            transactional.flush();
        }
        if (fault != Fault.NO_COMMITTED_OFFSET) {
            long offset = fault == Fault.GROUP_BEHIND ? 3 : 4;
            admin.alterConsumerGroupOffsets(run,
                Map.of(new TopicPartition(input, 0), new OffsetAndMetadata(offset))).all().get();
        }
        int code = ForeignVerifier.verify(new String[] {"--bootstrap", bootstrap, "--group", run,
            "--input", input, "--output", output, "--empty", letters, "--deadline-s", "2"});
        if (hangs) {
            transactional.abortTransaction();
        }
        transactional.close();
        return code;
    }

    private static void writeOutput(KafkaProducer<String, String> to, String output, Fault fault) {
        row(to, output, "a", 1, "\"10.00\"");
        if (fault != Fault.MISSING_ACCOUNT) {
            row(to, output, "b", 1, "\"0.10\"");
        }
        if (fault == Fault.DUPLICATE_OUTPUT) {
            row(to, output, "a", 1, "\"10.00\"");
        }
        String balance = switch (fault) {
            case WRONG_BALANCE -> "\"7.26\"";
            case BALANCE_OF_OTHER_SCALE -> "\"7.250\"";
            case NUMBER_INSTEAD_OF_STRING -> "7.25";
            default -> "\"7.25\"";
        };
        if (fault != Fault.MISSING_LAST_VERSION) {
            row(to, output, "a", 2, balance);
        }
        if (fault == Fault.VERSION_FALLS) {
            row(to, output, "a", 1, "\"10.00\"");
            row(to, output, "a", 2, balance);
        }
        if (fault != Fault.MISSING_ACCOUNT) {
            row(to, output, "b", 2, "\"0.30\"");
        }
        if (fault == Fault.INVENTED_ACCOUNT) {
            row(to, output, "c", 1, "\"1.00\"");
        }
    }

    private static void row(KafkaProducer<String, String> to, String topic, String id, int version, String balance) {
        to.send(new ProducerRecord<>(topic, id, "{\"accountId\":\"" + id + "\",\"balance\":" + balance
            + ",\"currency\":\"USD\",\"status\":\"ACTIVE\",\"version\":" + version + "}"));
    }

    private void event(String topic, String id, int version, String before, String after) {
        var change = new java.math.BigDecimal(after).subtract(new java.math.BigDecimal(before));
        plain.send(new ProducerRecord<>(topic, id, "{\"eventId\":\"evt-" + id + version
            + "\",\"eventType\":\"BalanceChanged\",\"aggregateId\":\"" + id
            + "\",\"aggregateType\":\"Account\",\"aggregateVersion\":" + version
            + ",\"data\":{\"previousBalance\":\"" + before + "\",\"newBalance\":\"" + after
            + "\",\"signedAmount\":\"" + change.toPlainString() + "\"}}"));
    }

    private KafkaProducer<String, String> producer(String transactionalId) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("acks", "all");
        if (transactionalId != null) {
            config.put("transactional.id", transactionalId);
        }
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }
}
