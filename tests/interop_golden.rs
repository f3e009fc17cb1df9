//! What Kafka Streams 4.3.1 wrote on a real broker, read with millstream's formats: no broker needed.
//!
//! `tests/interop/golden/kafka-streams.jsonl` is the first phase of `interop_kafka`, which makes it anew:
//! `MILLSTREAM_INTEROP_GOLDEN=1 scripts/test kafka`.

#[path = "interop/bytes.rs"]
mod bytes;
#[path = "interop/expected.rs"]
mod expected;
#[path = "interop/topology.rs"]
mod topology;

use bytes::Capture;
use expected::{Expected, phase, times};

const GOLDEN: &str = include_str!("interop/golden/kafka-streams.jsonl");

#[test]
fn what_kafka_streams_wrote_reads_as_what_it_computed() {
    let capture = Capture::from_lines(GOLDEN);
    let phases = [phase(capture.base, 0)];
    capture.verify(&Expected::of(&phases));
    let words = phases.iter().flatten().filter(|it| it.topic == "words");
    capture.verify_repartition(words.count());
    capture.verify_offsets(&times(capture.base, &phases));
    capture.verify_offset_bytes();
    assert_eq!(capture.to_lines(), GOLDEN);
}
