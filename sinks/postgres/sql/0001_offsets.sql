-- What sinks keep beside their rows. `sink` is `<application_id>-<sink>`.

-- One row for each sink; a rebuild raises its generation.
CREATE TABLE millstream_sinks (
    sink text PRIMARY KEY,
    generation bigint NOT NULL
);

-- How far each partition is in the tables. Written in the transaction of the rows, where the offset
-- that was there before is the fence.
CREATE TABLE millstream_offsets (
    sink text NOT NULL REFERENCES millstream_sinks,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    generation bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, partition)
);

-- Which sink fills a table: one only, for a rebuild empties it.
CREATE TABLE millstream_tables (
    table_name text PRIMARY KEY,
    sink text NOT NULL REFERENCES millstream_sinks
);
