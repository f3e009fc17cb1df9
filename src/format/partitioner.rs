//! Kafka's default partitioner for keyed records: murmur2, as the Java client computes it.
//!
//! librdkafka's own default is CRC32, so a record written by it and one written by Java would land
//! in different partitions; everything here partitions with this function instead.

/// Returns the murmur2 hash of `data`, bit for bit `org.apache.kafka.common.utils.Utils.murmur2`.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java's length is an i32; no record is longer than that.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys are shorter than 4 GiB"
    )]
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Returns the partition of `key` among `partitions`: `toPositive(murmur2(key)) % partitions`.
///
/// # Panics
/// When `partitions` is not positive: no topic has fewer than one.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff).cast_signed() % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn murmur2_equals_kafkas_java_implementation() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_signed(), expected, "key {key:?}");
        }
    }

    #[test]
    fn the_partition_is_the_positive_remainder() {
        // toPositive clears the sign bit; it is not an absolute value.
        assert_eq!(
            partition_for_key(b"21", 7),
            (-973_932_308 & 0x7fff_ffff) % 7
        );
        assert_eq!(partition_for_key(b"abc", 7), 479_470_107 % 7);
        assert_eq!(partition_for_key(b"", 1), 0);
    }
}
