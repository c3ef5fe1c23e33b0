//! What becomes of headers.

use http::header::FORWARDED;

use super::*;

/// Peer, headers given, X-Forwarded-For made, Forwarded made.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

fn forwarded_header(peer: &str, given: &[(&'static str, &'static str)]) -> (String, String) {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let flags = HeaderFlags::of(&headers);
    forwarded(
        &mut headers,
        flags,
        &Origin::new(peer.parse().expect("an address"), false),
    );
    let text = |name: HeaderName| headers[name].to_str().expect("text").to_owned();
    (text(FORWARDED_FOR), text(FORWARDED))
}

#[test]
fn forwarded_follows_from_the_x_forwarded_headers() {
    let cases: &[Case] = &[
        ("10.0.0.1", &[], "10.0.0.1", "for=10.0.0.1;proto=http"),
        ("::1", &[], "::1", "for=\"[::1]\";proto=http"),
        (
            "::ffff:10.0.0.1",
            &[],
            "10.0.0.1",
            "for=10.0.0.1;proto=http",
        ),
        (
            "10.0.0.1",
            &[("x-forwarded-for", "1.2.3.4")],
            "1.2.3.4, 10.0.0.1",
            "for=1.2.3.4;proto=http, for=10.0.0.1",
        ),
        (
            "10.0.0.1",
            &[
                ("x-forwarded-for", "fe80::1, 5.6.7.8"),
                ("x-forwarded-for", "9.9.9.9"),
                ("x-forwarded-host", "h"),
            ],
            "fe80::1, 5.6.7.8, 9.9.9.9, 10.0.0.1",
            "for=\"[fe80::1]\";host=h;proto=http, for=5.6.7.8, for=9.9.9.9, for=10.0.0.1",
        ),
        (
            "10.0.0.1",
            &[("x-forwarded-proto", "https")],
            "10.0.0.1",
            "for=10.0.0.1;proto=https",
        ),
        ("10.0.0.1", &[("forwarded", "for=x")], "10.0.0.1", "for=x"),
    ];
    for (peer, given, chain, shim) in cases {
        assert_eq!(
            forwarded_header(peer, given),
            ((*chain).to_owned(), (*shim).to_owned()),
            "{peer} {given:?}"
        );
    }
}

#[test]
fn headers_of_one_hop_stay_behind() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "keep-alive, X-Mine"),
        // What a client may not have taken away, and a second header of the same name.
        ("connection", "Host, content-length, X-Other"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("host", "a"),
        ("content-length", "3"),
        ("keep-alive", "5"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("accept", "*/*"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let flags = HeaderFlags::of(&headers);
    strip_hop(&mut headers, flags, false);
    let mut left: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            ("accept", "*/*"),
            ("content-length", "3"),
            ("host", "a"),
            ("te", "trailers")
        ]
    );
}

#[test]
fn request_ids_differ_and_look_like_uuids() {
    let ids = RequestIds::new(7);
    let made: std::collections::HashSet<_> = (0..1000).map(|_| ids.next()).collect();
    assert_eq!(made.len(), 1000);
    for id in made {
        let id = id.to_str().expect("text").to_owned();
        assert_eq!(id.len(), 36);
        assert!(
            id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]),
            "{id}"
        );
    }
}
