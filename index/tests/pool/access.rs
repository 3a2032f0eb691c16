//! What the system is told of how a pool will be read, where nobody says so: by whether it fits memory.

use anchorite_index::pool::Access;

const GB: u64 = 1 << 30;

#[test]
fn pools_beyond_memory_are_read_at_random_and_others_as_the_system_likes() {
    let cases = [
        (GB, Some(2 * GB), Access::System),
        (2 * GB, Some(2 * GB), Access::System),
        (2 * GB + 1, Some(2 * GB), Access::Random),
        (180 * GB, Some(64 * GB), Access::Random),
        (1, Some(0), Access::Random),
        // Nobody knows: as before there was a choice.
        (180 * GB, None, Access::System),
    ];
    for (bytes, available, expected) in cases {
        assert_eq!(Access::fitting(bytes, available), expected, "{bytes} bytes, {available:?} left");
    }
}
