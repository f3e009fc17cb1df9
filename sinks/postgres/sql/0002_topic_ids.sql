-- Which creation of the topic the offset is of, in hexadecimal digits; null where nobody knows yet. The
-- offsets of one say nothing of another of the same name.
ALTER TABLE millstream_offsets ADD COLUMN IF NOT EXISTS topic_id text;
