import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Another system that owns accounts: writes consistent {@code BalanceChanged} v1 events with Kafka's
 * own producer. Versions run from 1, balances from 0.00, there is no {@code AccountCreated}.
 *
 * <p>Everything but the times follows from the seed. Every account gets at least one event when there
 * are enough events. Accounts with an even number carry the record headers of the event contract,
 * the others none: a reader must not depend on them.
 */
public final class ForeignWriter {
    static final String USAGE = """
        usage: ForeignWriter --bootstrap HOST:PORT [options]
          --topic NAME      where to write (billing.account.events)
          --events N        how many events (1000000)
          --accounts N      over how many accounts (100000)
          --prefix TEXT     account ids are this and a number (foreign-)
          --seed N          decides everything but the times (the clock)
          --rate N          events per second at most, 0 = as fast as possible (0)
          --progress N      print `progress <events sent>` every so many events (10000)""";

    private static final DateTimeFormatter RFC3339_MS =
        DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'").withZone(ZoneOffset.UTC);

    private ForeignWriter() {
    }

    public static void main(String[] args) {
        Options.run(USAGE, args, ForeignWriter::write);
    }

    private static int write(String[] args) throws Exception {
        Map<String, String> defaults = new LinkedHashMap<>();
        defaults.put("bootstrap", null);
        defaults.put("topic", "billing.account.events");
        defaults.put("events", "1000000");
        defaults.put("accounts", "100000");
        defaults.put("prefix", "foreign-");
        defaults.put("seed", Long.toString(System.nanoTime() & 0xffffffL));
        defaults.put("rate", "0");
        defaults.put("progress", "10000");
        Options options = new Options(args, defaults);
        int events = Math.toIntExact(options.number("events"));
        int accounts = Math.toIntExact(options.number("accounts"));
        if (events < 1 || accounts < 1) {
            throw new Options.Misuse("--events and --accounts must be positive");
        }
        long seed = options.number("seed");
        System.out.printf("writing %d events for %d accounts to %s, --seed %d%n",
            events, accounts, options.text("topic"), seed);

        Random random = new Random(seed);
        int[] schedule = schedule(events, accounts, random);
        Ledger ledger = new Ledger(accounts, options.text("prefix"), random);
        AtomicReference<Exception> failure = new AtomicReference<>();
        long began = System.nanoTime();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config(options.text("bootstrap")),
                new StringSerializer(), new StringSerializer())) {
            long rate = options.number("rate");
            long progress = Math.max(1, options.number("progress"));
            for (int i = 0; i < events && failure.get() == null; i++) {
                pace(rate, i, began);
                producer.send(ledger.next(options.text("topic"), schedule[i]), (metadata, error) -> {
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
                if ((i + 1) % progress == 0) {
                    System.out.println("progress " + (i + 1));
                    System.out.flush();
                }
            }
            producer.flush();
        }
        if (failure.get() != null) {
            System.err.println("error: a write failed, the input is incomplete: " + failure.get());
            return 1;
        }
        double seconds = (System.nanoTime() - began) / 1e9;
        System.out.printf("wrote %d events for %d accounts in %.1f s (%.0f/s), --seed %d%n",
            events, Math.min(accounts, events), seconds, events / seconds, seed);
        return 0;
    }

    private static Properties config(String bootstrap) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("client.id", "foreign-writer");
        config.put("acks", "all");
        config.put("enable.idempotence", "true");
        config.put("linger.ms", "5");
        config.put("batch.size", "65536");
        config.put("compression.type", "lz4");
        return config;
    }

    /** Which account each event belongs to: each at least once, the rest at random, shuffled. */
    private static int[] schedule(int events, int accounts, Random random) {
        int[] schedule = new int[events];
        for (int i = 0; i < events; i++) {
            schedule[i] = i < accounts ? i : random.nextInt(accounts);
        }
        for (int i = events - 1; i > 0; i--) {
            int j = random.nextInt(i + 1);
            int swapped = schedule[i];
            schedule[i] = schedule[j];
            schedule[j] = swapped;
        }
        return schedule;
    }

    /** Waits until event {@code i} is due. */
    private static void pace(long rate, int i, long began)
            throws InterruptedException {
        if (rate <= 0 || i % 64 != 0) {
            return;
        }
        long due = began + (long) (i * (1e9 / rate));
        long ahead = due - System.nanoTime();
        if (ahead > 1_000_000L) {
            Thread.sleep(ahead / 1_000_000L);
        }
    }

    /** The balances as the other system has them, in cents: never a floating-point number. */
    private static final class Ledger {
        private static final String[] REASONS = {"Topup", "Purchase", "Refund", "Fee", "Payout \"cash\""};

        private final String prefix;
        private final Random random;
        private final long[] cents;
        private final int[] versions;
        private final long[] last;

        Ledger(int accounts, String prefix, Random random) {
            this.prefix = prefix;
            this.random = random;
            cents = new long[accounts];
            versions = new int[accounts];
            last = new long[accounts];
        }

        ProducerRecord<String, String> next(String topic, int account) {
            long before = cents[account];
            // A debit only of what is there; amounts from 0.01 to 10000.00.
            boolean debit = before > 0 && random.nextInt(100) < 45;
            long amount = debit ? 1 + (long) (random.nextDouble() * before) : 1 + random.nextInt(1_000_000);
            amount = Math.min(amount, debit ? before : amount);
            long after = debit ? before - amount : before + amount;
            int version = ++versions[account];
            // The clock may step back; the times of one account do not.
            long now = Math.max(System.currentTimeMillis(), last[account]);
            cents[account] = after;
            last[account] = now;

            String id = prefix + account;
            String timestamp = RFC3339_MS.format(Instant.ofEpochMilli(now));
            String correlation = "corr-" + uuid();
            StringBuilder json = new StringBuilder(512)
                .append("{\"eventId\":\"evt-").append(uuid())
                .append("\",\"eventType\":\"BalanceChanged\",\"aggregateId\":\"").append(id)
                .append("\",\"aggregateType\":\"Account\",\"aggregateVersion\":").append(version)
                .append(",\"timestamp\":\"").append(timestamp)
                .append("\",\"correlationId\":\"").append(correlation)
                .append("\",\"metadata\":{\"actorId\":\"batch\",\"actorType\":\"system\",\"source\":\"ledger\"},")
                .append("\"data\":{\"previousBalance\":\"").append(decimal(before))
                .append("\",\"newBalance\":\"").append(decimal(after))
                .append("\",\"changeAmount\":\"").append(decimal(amount))
                .append("\",\"changeType\":\"").append(debit ? "DEBIT" : "CREDIT")
                .append("\",\"signedAmount\":\"").append(decimal(debit ? -amount : amount))
                .append("\",\"reason\":\"").append(REASONS[random.nextInt(REASONS.length)].replace("\"", "\\\""))
                .append('"');
            if (random.nextBoolean()) {
                json.append(",\"transactionId\":\"tx-").append(uuid()).append('"');
            }
            json.append("}}");

            ProducerRecord<String, String> record =
                new ProducerRecord<>(topic, null, now, id, json.toString());
            if (account % 2 == 0) {
                Headers headers = record.headers();
                headers.add("eventType", bytes("BalanceChanged"));
                headers.add("aggregateVersion", bytes(Integer.toString(version)));
                headers.add("correlationId", bytes(correlation));
                headers.add("timestamp", bytes(timestamp));
            }
            return record;
        }

        private UUID uuid() {
            return new UUID(random.nextLong() & ~0xf000L | 0x4000L,
                random.nextLong() & 0x3fffffffffffffffL | 0x8000000000000000L);
        }

        private static byte[] bytes(String text) {
            return text.getBytes(StandardCharsets.UTF_8);
        }

        private static String decimal(long cents) {
            long positive = Math.abs(cents);
            long fraction = positive % 100;
            return (cents < 0 ? "-" : "") + positive / 100 + (fraction < 10 ? ".0" : ".") + fraction;
        }
    }
}
