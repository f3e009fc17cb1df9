import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Function;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.kstream.TableJoined;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.WindowStore;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;
import org.rocksdb.WriteBufferManager;

/**
 * Kafka Streams' side of the comparison: the topologies of benches/kafka-streams/workload.rs, byte for byte the same
 * output. Runs until its standard input ends, and says on its standard output when it begins to restore and when all
 * tasks run, in the words of benches/kafka-streams/words.rs.
 *
 * <p>Written as one who wants it fast would: JSON by Jackson's streaming parser, which passes over what a workload does
 * not need, and no object mapper; values written by hand.
 *
 * <p>Arguments: workload, bootstrap servers, application id, state directory, topics of input, users and output, then
 * settings of Kafka Streams as key=value.
 */
public final class KafkaStreamsSide {
    private static final JsonFactory JSON = new JsonFactory();
    private static final Duration MINUTE = Duration.ofMinutes(1);

    private KafkaStreamsSide() {}

    /** What a workload wants of an event. */
    private enum Part { TYPE, VERSION, SIGNED_AMOUNT, CHANGE_AMOUNT, CHANGE_TYPE, TRANSACTION, ACTOR }

    /** An event: the parts that were wanted. */
    private static final class Event {
        private String type;
        private long version;
        private BigDecimal signedAmount;
        private BigDecimal changeAmount;
        private String changeType;
        private String transaction;
        private String actor;

        private static Event parse(byte[] bytes, int wanted) {
            Event event = new Event();
            try (JsonParser json = JSON.createParser(bytes)) {
                if (json.nextToken() != JsonToken.START_OBJECT) {
                    throw new IllegalArgumentException("no JSON object");
                }
                event.fields(json, wanted);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return event;
        }

        private void fields(JsonParser json, int wanted) throws IOException {
            while (json.nextToken() != JsonToken.END_OBJECT) {
                String name = json.currentName();
                json.nextToken();
                switch (name) {
                    case "data", "metadata" -> fields(json, wanted);
                    case "eventType" -> { if (has(wanted, Part.TYPE)) type = json.getText(); }
                    case "aggregateVersion" -> { if (has(wanted, Part.VERSION)) version = json.getLongValue(); }
                    case "signedAmount" -> { if (has(wanted, Part.SIGNED_AMOUNT)) signedAmount = decimal(json); }
                    case "changeAmount" -> { if (has(wanted, Part.CHANGE_AMOUNT)) changeAmount = decimal(json); }
                    case "changeType" -> { if (has(wanted, Part.CHANGE_TYPE)) changeType = json.getText(); }
                    case "transactionId" -> { if (has(wanted, Part.TRANSACTION)) transaction = json.getText(); }
                    case "actorId" -> { if (has(wanted, Part.ACTOR)) actor = json.getText(); }
                    default -> json.skipChildren();
                }
            }
        }

        private static BigDecimal decimal(JsonParser json) throws IOException {
            return new BigDecimal(json.getTextCharacters(), json.getTextOffset(), json.getTextLength());
        }

        private static boolean has(int wanted, Part part) {
            return (wanted & 1 << part.ordinal()) != 0;
        }

        private static Serde<Event> serde(Part... parts) {
            int wanted = 0;
            for (Part part : parts) {
                wanted |= 1 << part.ordinal();
            }
            int mask = wanted;
            // Read only: nothing writes events.
            return Serdes.serdeFrom((topic, event) -> { throw new UnsupportedOperationException(); },
                    (topic, bytes) -> parse(bytes, mask));
        }
    }

    /** A value that is a number and a decimal, as JSON. */
    private record Total(long number, BigDecimal sum) {
        private static Serde<Total> serde(String number, String sum) {
            String start = "{\"" + number + "\":";
            String middle = ",\"" + sum + "\":\"";
            return Serdes.serdeFrom(
                    (topic, total) -> total == null ? null
                            : utf8(start + total.number + middle + total.sum.toPlainString() + "\"}"),
                    (topic, bytes) -> bytes == null ? null : parse(bytes));
        }

        private static Total parse(byte[] bytes) {
            try (JsonParser json = JSON.createParser(bytes)) {
                json.nextToken();
                json.nextToken();
                json.nextToken();
                long number = json.getLongValue();
                json.nextToken();
                json.nextToken();
                return new Total(number, Event.decimal(json));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** A: the balance of each account. */
    private static void balances(StreamsBuilder builder, String input, String output) {
        Serde<Total> serde = Total.serde("version", "balance");
        builder.stream(input, Consumed.with(Serdes.String(), Event.serde(Part.TYPE, Part.VERSION, Part.SIGNED_AMOUNT)))
                .groupByKey()
                .aggregate(() -> new Total(0, BigDecimal.ZERO), KafkaStreamsSide::fold,
                        Materialized.<String, Total, KeyValueStore<Bytes, byte[]>>as("balances")
                                .withKeySerde(Serdes.String()).withValueSerde(serde))
                .toStream().to(output, Produced.with(Serdes.String(), serde));
    }

    private static Total fold(String account, Event event, Total before) {
        if (!event.type.equals("BalanceChanged")) {
            throw new IllegalArgumentException(account + ": " + event.type);
        }
        long version = before.number + 1;
        if (event.version != version) {
            throw new IllegalStateException(account + ": version " + event.version + " where " + version + " follows");
        }
        return new Total(version, before.sum.add(event.signedAmount));
    }

    /** B: credits only, three fields of them. */
    private static void credits(StreamsBuilder builder, String input, String output) {
        Function<Event, String> project = event -> "{\"transactionId\":\"" + event.transaction + "\",\"version\":"
                + event.version + ",\"amount\":\"" + event.changeAmount.toPlainString() + "\"}";
        builder.stream(input, Consumed.with(Serdes.String(),
                        Event.serde(Part.VERSION, Part.CHANGE_AMOUNT, Part.CHANGE_TYPE, Part.TRANSACTION)))
                .filter((account, event) -> event.changeType.equals("CREDIT"))
                .mapValues(project::apply)
                .to(output, Produced.with(Serdes.String(), Serdes.String()));
    }

    /** C: how much was moved on each account in each minute. */
    private static void turnover(StreamsBuilder builder, String input, String output) {
        Serde<Total> serde = Total.serde("count", "turnover");
        builder.stream(input, Consumed.with(Serdes.String(), Event.serde(Part.CHANGE_AMOUNT)))
                .groupByKey(Grouped.as("by-account"))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(MINUTE))
                .aggregate(() -> new Total(0, BigDecimal.ZERO),
                        (account, event, before) -> new Total(before.number + 1, before.sum.add(event.changeAmount)),
                        Materialized.<String, Total, WindowStore<Bytes, byte[]>>as("turnover")
                                .withKeySerde(Serdes.String()).withValueSerde(serde))
                .toStream()
                .to(output, Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, MINUTE.toMillis()), serde));
    }

    /** D: events by who caused them, with that user's name. */
    private static void named(StreamsBuilder builder, String input, String users, String output) {
        Serde<String> string = Serdes.String();
        KTable<String, String> names = builder.table(users, Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("users"));
        // What goes through the repartition topic is the projected text, not the event.
        builder.stream(input, Consumed.with(string, Event.serde(Part.VERSION, Part.SIGNED_AMOUNT, Part.ACTOR)))
                .map((account, event) -> org.apache.kafka.streams.KeyValue.pair(event.actor,
                        account + "|" + event.version + "|" + event.signedAmount.toPlainString()))
                .repartition(Repartitioned.with(string, string).withName("by-actor"))
                .leftJoin(names, (movement, name) -> movement + "|" + (name == null ? "" : name),
                        Joined.with(string, string, string, "named"))
                .to(output, Produced.with(string, string));
    }

    /** E: each account with its owner, whom its value names. */
    private static void owned(StreamsBuilder builder, String input, String users, String output) {
        Serde<String> string = Serdes.String();
        KTable<String, String> accounts = builder.table(input, Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("accounts"));
        KTable<String, String> owners = builder.table(users, Consumed.with(string, string),
                Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("owners"));
        Function<String, String> owner = account -> account.substring(0, account.indexOf('|'));
        accounts.join(owners, owner, (account, name) -> account + "|" + name, TableJoined.as("by-owner"),
                        Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("joined")
                                .withKeySerde(string).withValueSerde(string))
                .toStream().to(output, Produced.with(string, string));
    }

    /**
     * 40 MiB for the blocks, indexes, filters and memtables of all stores together, as Kafka's documentation has it
     * ("Memory Management"); half of it at most for memtables. Named by rocksdb.config.setter.
     */
    public static final class BoundedMemory implements RocksDBConfigSetter {
        private static final long TOTAL = 40L << 20;
        private static final Cache CACHE;
        private static final WriteBufferManager MEMTABLES;

        static {
            // The settings are parsed before any store has loaded it.
            RocksDB.loadLibrary();
            CACHE = new LRUCache(TOTAL);
            MEMTABLES = new WriteBufferManager(TOTAL / 2, CACHE);
        }

        @Override
        public void setConfig(String store, Options options, Map<String, Object> configs) {
            BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
            table.setBlockCache(CACHE);
            table.setCacheIndexAndFilterBlocks(true);
            table.setCacheIndexAndFilterBlocksWithHighPriority(true);
            table.setPinTopLevelIndexAndFilter(true);
            options.setWriteBufferManager(MEMTABLES);
            options.setTableFormatConfig(table);
        }

        @Override
        public void close(String store, Options options) {
            // Cache and manager are those of all stores.
        }
    }

    /** What the observer is told: that a restore has begun, and that all tasks run. */
    private static final class Teller implements StateRestoreListener, KafkaStreams.StateListener {
        private final AtomicBoolean hasBegun = new AtomicBoolean();
        private final LongAdder restored = new LongAdder();

        @Override
        public void onRestoreStart(TopicPartition changelog, String store, long from, long to) {
            if (from < to && !hasBegun.getAndSet(true)) {
                say("restoring");
            }
        }

        @Override
        public void onBatchRestored(TopicPartition changelog, String store, long to, long records) {
            restored.add(records);
        }

        @Override
        public void onRestoreEnd(TopicPartition changelog, String store, long records) {
            // Counted by batch.
        }

        @Override
        public void onChange(KafkaStreams.State now, KafkaStreams.State before) {
            if (now == KafkaStreams.State.RUNNING) {
                say("running " + restored.sum());
            }
        }

        private static void say(String word) {
            System.out.println("side: " + word);
            System.out.flush();
        }
    }

    private static Properties settings(String[] args) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[1]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        for (int at = 7; at < args.length; at++) {
            int equals = args[at].indexOf('=');
            settings.put(args[at].substring(0, equals), args[at].substring(equals + 1));
        }
        return settings;
    }

    public static void main(String[] args) throws IOException {
        Properties settings = settings(args);
        StreamsBuilder builder = new StreamsBuilder();
        switch (args[0]) {
            case "A", "F", "G", "H", "I", "J" -> balances(builder, args[4], args[6]);
            case "B" -> credits(builder, args[4], args[6]);
            case "C" -> turnover(builder, args[4], args[6]);
            case "D" -> named(builder, args[4], args[5], args[6]);
            case "E" -> owned(builder, args[4], args[5], args[6]);
            default -> throw new IllegalArgumentException("no workload " + args[0]);
        }
        try (KafkaStreams streams = new KafkaStreams(builder.build(settings), settings)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                // The observer reads this exit as a failure; closing from here would wait for itself.
                Runtime.getRuntime().halt(1);
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            Teller teller = new Teller();
            streams.setGlobalStateRestoreListener(teller);
            streams.setStateListener(teller);
            streams.start();
            while (System.in.read() >= 0) {
                // Only the end counts.
            }
            streams.close(Duration.ofSeconds(30));
        }
    }
}
