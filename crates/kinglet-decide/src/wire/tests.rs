//! Golden bytes of Knative both ways, what is skipped, what is refused, and any bytes at all.

use super::*;
use proptest::prelude::*;

const QUEUE: &str = "0a1868656c6c6f2d30303030312d6465706c6f796d656e742d78110000000000000440\
                     19000000000000e03f21000000000000084029000000000000f03f310000000000802840";
const ACTIVATOR: &str = "0a390a0764656661756c74120b68656c6c6f2d30303030311a21\
                         0a0d616374697661746f722d61626311000000000000f03f21000000000000f03f";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn queue_stat() -> Stat {
    Stat {
        average_concurrent_requests: 2.5,
        average_proxied_concurrent_requests: 0.5,
        request_count: 3.0,
        proxied_request_count: 1.0,
        process_uptime: 12.25,
        in_flight: None,
    }
}

fn first_request() -> WireStat {
    WireStat {
        revision: Key::new("default", "hello-00001"),
        pod: "activator-abc".into(),
        stat: Stat {
            average_concurrent_requests: 1.0,
            request_count: 1.0,
            ..Stat::default()
        },
    }
}

fn encode(all: &[WireStat]) -> Vec<u8> {
    encode_stats(all.iter().map(|one| (&one.revision, &*one.pod, &one.stat)))
}

#[test]
fn a_queue_proxy_writes_and_is_read_as_knative() {
    let golden = bytes(QUEUE);
    assert_eq!(
        encode_stat("hello-00001-deployment-x", &queue_stat()),
        golden
    );
    let (pod, stat) = decode_stat(&golden).unwrap();
    assert_eq!((&*pod, stat), ("hello-00001-deployment-x", queue_stat()));
}

#[test]
fn an_activator_writes_and_is_read_as_knative() {
    let golden = bytes(ACTIVATOR);
    assert_eq!(encode(&[first_request()]), golden);
    let read = decode_stats(&golden).unwrap();
    assert_eq!((read.stats, read.ignored), (vec![first_request()], 0));
    let two = [golden.clone(), golden].concat();
    assert_eq!(decode_stats(&two).unwrap().stats.len(), 2);
}

#[test]
fn nothing_is_a_message_too() {
    assert_eq!(encode_stat("", &Stat::default()), b"");
    assert_eq!(decode_stat(b"").unwrap(), ("".into(), Stat::default()));
    assert_eq!(decode_stats(b"").unwrap(), WireStats::default());
    // Zeros are left out, but that there is a `stat` is said.
    let idle = WireStat {
        stat: Stat::default(),
        ..first_request()
    };
    assert_eq!(
        decode_stats(&encode(std::slice::from_ref(&idle)))
            .unwrap()
            .stats,
        [idle]
    );
}

#[test]
fn a_long_name_still_fits_into_what_is_read() {
    assert!(encode_stat(&"x".repeat(253), &queue_stat()).len() <= STAT_BYTES_MAX);
}

#[test]
fn unknown_fields_are_skipped() {
    let rows = [
        ("the sender's time", "38f0d5a9b206"),
        ("a number", "f80101"),
        ("four bytes", "fd0101020304"),
        ("eight bytes", "f9010102030405060708"),
        ("bytes", "fa0103616263"),
        ("a group", "fb010801fc01"),
        ("a group in a group", "fb01f301f401fc01"),
        ("a known number with another type", "1001"),
        ("the largest number of a field", "f8ffffff0f01"),
    ];
    for (what, more) in rows {
        let message = [bytes(QUEUE), bytes(more)].concat();
        assert_eq!(decode_stat(&message).unwrap().1, queue_stat(), "{what}");
        let message = [bytes(more), bytes(QUEUE)].concat();
        assert_eq!(
            decode_stat(&message).unwrap().1,
            queue_stat(),
            "{what}, before"
        );
        let message = [bytes(more), bytes(ACTIVATOR)].concat();
        let read = decode_stats(&message);
        assert_eq!(read.unwrap().stats, [first_request()], "{what}, in a batch");
    }
}

#[test]
fn the_last_number_wins_and_messages_are_merged() {
    let twice = [bytes(QUEUE), bytes("110000000000000040")].concat();
    assert!((decode_stat(&twice).unwrap().1.average_concurrent_requests - 2.0).abs() < 1e-9);
    let parts = bytes("0a160a01611201621a0911000000000000f03f1a030a0170");
    let read = decode_stats(&parts).unwrap().stats;
    assert_eq!(read[0].revision, Key::new("a", "b"));
    assert_eq!(&*read[0].pod, "p");
    assert!((read[0].stat.average_concurrent_requests - 1.0).abs() < 1e-9);
}

#[test]
fn what_is_no_message_is_refused() {
    let deep = "fb01".repeat(40);
    let rows = [
        ("half a name", "0a1868", WireError::Truncated),
        ("half a double", "1100000000", WireError::Truncated),
        ("half a number", "38ff", WireError::Truncated),
        (
            "a length beyond everything",
            "0affffffffffffffffff01",
            WireError::Truncated,
        ),
        (
            "a number of 70 bits",
            "38ffffffffffffffffff7f",
            WireError::Malformed,
        ),
        ("field 0", "0001", WireError::Malformed),
        (
            "a field beyond the largest",
            "80808080100100",
            WireError::Malformed,
        ),
        ("type 6", "0e", WireError::Malformed),
        ("the end of no group", "fc01", WireError::Malformed),
        ("the end of another group", "fb01f401", WireError::Malformed),
        ("a group without an end", "fb01", WireError::Truncated),
        ("groups without end", &deep, WireError::TooDeep),
        ("a name that is not UTF-8", "0a02c328", WireError::NotUtf8),
    ];
    for (what, hex, error) in rows {
        assert_eq!(decode_stat(&bytes(hex)).unwrap_err(), error, "{what}");
    }
    assert_eq!(decode_stat(b"<html>").unwrap_err(), WireError::Malformed);
    let many = bytes("0a00").repeat(STATS_MAX + 1);
    assert_eq!(decode_stats(&many).unwrap_err(), WireError::TooMany);
    assert_eq!(decode_stats(&many[2..]).unwrap().ignored, STATS_MAX);
}

#[test]
fn what_cannot_be_counted_is_ignored_and_costs_no_other_entry() {
    let with = |change: fn(&mut WireStat)| {
        let mut one = first_request();
        change(&mut one);
        one
    };
    let rows = [
        with(|one| one.stat.average_concurrent_requests = f64::NAN),
        with(|one| one.stat.average_concurrent_requests = -1.0),
        with(|one| one.stat.request_count = f64::INFINITY),
        with(|one| one.stat.proxied_request_count = 1e300),
        with(|one| one.stat.average_proxied_concurrent_requests = f64::NEG_INFINITY),
        with(|one| one.stat.process_uptime = f64::NAN),
        with(|one| one.revision.name = "".into()),
        with(|one| one.revision.namespace = "".into()),
    ];
    for row in rows {
        let read = decode_stats(&encode(&[row.clone(), first_request()])).unwrap();
        assert_eq!(
            (read.stats, read.ignored),
            (vec![first_request()], 1),
            "{row:?}"
        );
        if row.revision == first_request().revision {
            let alone = decode_stat(&encode_stat("p", &row.stat));
            assert_eq!(alone.unwrap_err(), WireError::NotACount);
        }
    }
    // An entry without `stat`.
    assert_eq!(decode_stats(&bytes("0a060a0161120162")).unwrap().ignored, 1);
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_stat(&bytes);
        let _ = decode_stats(&bytes);
    }

    #[test]
    fn what_is_written_is_read(
        names in prop::collection::vec(("[a-z]{1,63}", "[a-z0-9-]{1,63}", "[a-z0-9.-]{0,253}"), 0..20),
        counts in prop::collection::vec(0.0..1e6_f64, 5),
    ) {
        let stat = Stat {
            average_concurrent_requests: counts[0],
            average_proxied_concurrent_requests: counts[1],
            request_count: counts[2],
            proxied_request_count: counts[3],
            process_uptime: counts[4],
            in_flight: None,
        };
        let all: Vec<WireStat> = names
            .into_iter()
            .map(|(namespace, name, pod)| WireStat { revision: Key::new(namespace, name), pod: pod.into(), stat })
            .collect();
        prop_assert_eq!(decode_stats(&encode(&all)).unwrap().stats, all);
    }
}
