import java.util.LinkedHashMap;
import java.util.Map;

/** Command-line options of the foreign clients: {@code --name value}, each with a default or required. */
final class Options {
    /** The command line was wrong: exit code 2, with the message and the usage. */
    static final class Misuse extends RuntimeException {
        private static final long serialVersionUID = 1L;

        Misuse(String message) {
            super(message);
        }
    }

    private final Map<String, String> values = new LinkedHashMap<>();

    /** @param defaults every known option; a null value means that it is required */
    Options(String[] args, Map<String, String> defaults) {
        values.putAll(defaults);
        for (int i = 0; i < args.length; i += 2) {
            String name = args[i].startsWith("--") ? args[i].substring(2) : args[i];
            if (!args[i].startsWith("--") || !defaults.containsKey(name)) {
                throw new Misuse("unknown option " + args[i]);
            }
            if (i + 1 == args.length) {
                throw new Misuse("--" + name + " needs a value");
            }
            values.put(name, args[i + 1]);
        }
        values.forEach((name, value) -> {
            if (value == null) {
                throw new Misuse("--" + name + " is required");
            }
        });
    }

    String text(String name) {
        return values.get(name);
    }

    long number(String name) {
        try {
            return Long.parseLong(values.get(name));
        } catch (NumberFormatException e) {
            throw new Misuse("--" + name + " takes a whole number, not " + values.get(name));
        }
    }

    /** Runs a program and turns its outcome into the exit code. */
    static void run(String usage, String[] args, Program program) {
        int code;
        if (args.length > 0 && (args[0].equals("--help") || args[0].equals("-h"))) {
            System.out.println(usage);
            code = 0;
        } else {
            try {
                code = program.run(args);
            } catch (Misuse e) {
                System.err.println("error: " + e.getMessage() + "\n" + usage);
                code = 2;
            } catch (Exception e) {
                System.err.println("error: " + e);
                e.printStackTrace();
                code = 3;
            }
        }
        System.out.flush();
        System.exit(code);
    }

    /** What a client does; returns its exit code. */
    interface Program {
        int run(String[] args) throws Exception;
    }
}
