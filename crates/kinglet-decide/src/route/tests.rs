//! What the table promises: who matches, in which order, and how evenly.

#![expect(
    clippy::cast_precision_loss,
    reason = "counts of a test are far below 2^52"
)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn split(percent: u8, service: &str) -> Split {
    let target = Target {
        namespace: "ns".into(),
        service: service.into(),
        port: 80,
    };
    Split {
        percent,
        target,
        append_headers: vec![("X-Split".into(), service.into())],
    }
}

fn path(prefix: &str, splits: Vec<Split>) -> PathRule {
    PathRule {
        path: (!prefix.is_empty()).then(|| prefix.into()),
        splits,
        ..PathRule::default()
    }
}

fn rule(host: &str, visibility: Visibility, paths: Vec<PathRule>) -> IngressRule {
    IngressRule {
        certificates: Vec::new(),
        ingress: Key::new("ns", "one"),
        hosts: vec![host.into()],
        visibility,
        http_option: HttpOption::Enabled,
        probe_hash: "abc".into(),
        paths,
    }
}

fn service<'t>(
    table: &'t RouteTable,
    visibility: Visibility,
    host: &str,
    path: &str,
) -> Result<&'t str, NoRoute> {
    table
        .find(visibility, host, path, |_| None)
        .map(|found| found.choice.target.service.as_str())
}

#[test]
fn hosts_match_whatever_case_port_or_final_dot() {
    let table = RouteTable::build(
        1,
        vec![rule(
            "Hello.Example.com",
            Visibility::External,
            vec![path("", vec![split(100, "a")])],
        )],
    );
    for host in [
        "hello.example.com",
        "HELLO.example.COM",
        "hello.example.com:8080",
        "hello.example.com.",
        "hello.example.com.:80",
    ] {
        assert_eq!(
            service(&table, Visibility::External, host, "/"),
            Ok("a"),
            "{host}"
        );
    }
    for host in [
        "",
        "other.example.com",
        "hello.example.com.evil",
        "xhello.example.com",
        &"a".repeat(9000),
        &"A".repeat(9000),
    ] {
        assert_eq!(
            service(&table, Visibility::External, host, "/"),
            Err(NoRoute::Host),
            "{host}"
        );
    }
}

#[test]
fn longest_prefix_then_most_headers_then_first() {
    let tagged = |values: &[(&str, &str)], name: &str| PathRule {
        headers: values
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        ..path("", vec![split(100, name)])
    };
    let paths = vec![
        path("", vec![split(100, "default")]),
        path("/foo", vec![split(100, "foo")]),
        path("/foo/bar", vec![split(100, "bar")]),
        tagged(&[("X-Tag", "one")], "one"),
        tagged(&[("X-Tag", "one"), ("X-More", "yes")], "both"),
    ];
    let table = RouteTable::build(1, vec![rule("h", Visibility::External, paths)]);
    let find = |path: &str, headers: &[(&str, &str)]| {
        let found = table.find(Visibility::External, "h", path, |name| {
            headers
                .iter()
                .find(|(given, _)| *given == name)
                .map(|(_, value)| value.as_bytes())
        });
        found.expect("a default path").choice.target.service.clone()
    };
    assert_eq!(find("/foo/bar/baz", &[]), "bar");
    assert_eq!(find("/foo/ba", &[]), "foo");
    assert_eq!(find("/", &[]), "default");
    assert_eq!(find("/", &[("x-tag", "one")]), "one");
    assert_eq!(find("/", &[("x-tag", "two")]), "default");
    assert_eq!(find("/", &[("x-tag", "")]), "default");
    assert_eq!(find("/", &[("x-tag", "one"), ("x-more", "yes")]), "both");
    assert_eq!(find("/foo", &[("x-tag", "one")]), "foo");
}

#[test]
fn private_hosts_exist_only_inside() {
    let table = RouteTable::build(
        1,
        vec![
            rule(
                "in",
                Visibility::ClusterLocal,
                vec![path("", vec![split(100, "a")])],
            ),
            rule(
                "out",
                Visibility::External,
                vec![path("/p", vec![split(100, "b")])],
            ),
        ],
    );
    assert_eq!(
        service(&table, Visibility::External, "in", "/"),
        Err(NoRoute::Host)
    );
    assert_eq!(
        service(&table, Visibility::ClusterLocal, "in", "/"),
        Ok("a")
    );
    assert_eq!(service(&table, Visibility::External, "out", "/p"), Ok("b"));
    assert_eq!(
        service(&table, Visibility::ClusterLocal, "out", "/p"),
        Ok("b")
    );
    assert_eq!(
        service(&table, Visibility::External, "out", "/"),
        Err(NoRoute::Path)
    );
    let mut hosts: Vec<_> = table.hosts().collect();
    hosts.sort_by_key(|(host, _)| *host);
    assert_eq!(
        hosts,
        [
            ("in", Visibility::ClusterLocal),
            ("out", Visibility::External)
        ]
    );
}

#[test]
fn split_headers_win_over_path_headers() {
    let mut with = path("", vec![split(100, "a")]);
    with.append_headers = vec![
        ("x-split".into(), "path".into()),
        ("X-Path".into(), "p".into()),
    ];
    let table = RouteTable::build(1, vec![rule("h", Visibility::External, vec![with])]);
    let found = table
        .find(Visibility::External, "h", "/", |_| None)
        .expect("routed");
    assert_eq!(
        found.choice.append_headers,
        [
            ("x-path".into(), "p".into()),
            ("x-split".into(), "a".into())
        ]
    );
}

#[test]
fn only_external_requests_are_redirected() {
    let mut redirected = rule(
        "h",
        Visibility::External,
        vec![path("", vec![split(100, "a")])],
    );
    redirected.http_option = HttpOption::Redirected;
    let table = RouteTable::build(1, vec![redirected]);
    assert!(
        table
            .find(Visibility::External, "h", "/", |_| None)
            .expect("routed")
            .redirect
    );
    assert!(
        !table
            .find(Visibility::ClusterLocal, "h", "/", |_| None)
            .expect("routed")
            .redirect
    );
}

#[test]
fn a_host_belongs_to_the_first_ingress() {
    let first = rule(
        "h",
        Visibility::External,
        vec![path("", vec![split(100, "a")])],
    );
    let mut second = rule(
        "H",
        Visibility::External,
        vec![path("/longer", vec![split(100, "b")])],
    );
    second.ingress = Key::new("ns", "two");
    let table = RouteTable::build(1, vec![first, second]);
    assert_eq!(
        service(&table, Visibility::External, "h", "/longer"),
        Ok("a")
    );
    assert_eq!(
        table.conflicts(),
        [Conflict {
            host: "h".into(),
            owner: Key::new("ns", "one"),
            rejected: Key::new("ns", "two")
        }]
    );
}

#[test]
fn nothing_goes_to_zero_percent() {
    let table = RouteTable::build(
        1,
        vec![rule(
            "h",
            Visibility::External,
            vec![path("", vec![split(0, "a"), split(100, "b")])],
        )],
    );
    assert!((0..300).all(|_| service(&table, Visibility::External, "h", "/") == Ok("b")));
    let none = RouteTable::build(
        1,
        vec![rule(
            "h",
            Visibility::External,
            vec![path("", vec![split(0, "a")])],
        )],
    );
    assert_eq!(
        service(&none, Visibility::External, "h", "/"),
        Err(NoRoute::Host)
    );
}

#[test]
fn alternating_requests_are_spread_too() {
    let spread = Spread::new(&[(0, 50), (1, 50)], 7).expect("weights");
    let mut pages = [0; 2];
    for _ in 0..1000 {
        pages[spread.next()] += 1;
        spread.next();
    }
    assert!((400..=600).contains(&pages[0]), "{pages:?}");
}

#[test]
fn many_threads_share_one_turn() {
    let spread = Spread::new(&[(0, 20), (1, 80), (2, 0)], 3).expect("weights");
    let counts = std::sync::Mutex::new([0u32; 3]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut own = [0u32; 3];
                (0..250).for_each(|_| own[spread.next()] += 1);
                let mut all = counts.lock().expect("no panic while counting");
                all.iter_mut().zip(own).for_each(|(all, own)| *all += own);
            });
        }
    });
    assert_eq!(
        *counts.lock().expect("no panic while counting"),
        [200, 800, 0]
    );
}

proptest! {
    #[test]
    fn every_run_of_requests_is_spread_by_weight(
        weights in proptest::collection::vec(0u8..=100, 1..6), seed: u32, skip in 0usize..300, run in 1usize..1500,
    ) {
        let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        let numbered: Vec<(usize, u8)> = weights.iter().copied().enumerate().collect();
        let Some(spread) = Spread::new(&numbered, seed) else { prop_assert_eq!(total, 0); return Ok(()); };
        (0..skip).for_each(|_| { spread.next(); });
        let mut counts: HashMap<usize, u32> = HashMap::new();
        (0..run).for_each(|_| *counts.entry(spread.next()).or_default() += 1);
        for (value, weight) in numbered {
            let got = f64::from(counts.get(&value).copied().unwrap_or(0));
            let want = run as f64 * f64::from(weight) / f64::from(total);
            prop_assert!(weight > 0 || got == 0.0);
            // Two rounds may be cut, each by at most a couple of turns per competitor.
            prop_assert!((got - want).abs() <= 2.0 * weights.len() as f64 + 2.0, "{} of {}: {} instead of {}", value, run, got, want);
        }
    }

    #[test]
    fn finding_never_panics(host in "\\PC{0,40}", path in "\\PC{0,20}") {
        let table = RouteTable::build(1, vec![rule("h", Visibility::External, vec![super::tests::path("/a", vec![split(100, "a")])])]);
        let _ = table.find(Visibility::External, &host, &path, |_| None);
    }
}

fn certificate(secret: &str) -> Arc<Certificate> {
    Arc::new(Certificate {
        secret: Key::new("ns", secret),
        chain_pem: b"chain"[..].into(),
        key_pem: b"PRIVATE"[..].into(),
    })
}

#[test]
fn certificates_belong_to_the_owner_of_a_host_and_to_listeners_that_serve_it() {
    let path = || vec![path("", vec![split(100, "one")])];
    let with = |mut rule: IngressRule, secrets: &[&str]| {
        rule.certificates = secrets.iter().map(|name| certificate(name)).collect();
        rule
    };
    let mut thief = with(
        rule("Public.test", Visibility::External, path()),
        &["stolen"],
    );
    thief.ingress = Key::new("other", "thief");
    let rules = vec![
        with(
            rule("public.test", Visibility::External, path()),
            &["a", "b"],
        ),
        with(rule("public.test", Visibility::External, path()), &["a"]),
        with(
            rule("private.test", Visibility::ClusterLocal, path()),
            &["c"],
        ),
        rule("plain.test", Visibility::External, path()),
        thief,
    ];
    let table = RouteTable::build(1, rules);
    let shown = |visibility| {
        let mut all: Vec<String> = table
            .certificates(visibility)
            .map(|(host, all)| {
                let names: Vec<&str> = all.iter().map(|one| &*one.secret.name).collect();
                format!("{host}: {}", names.join(" "))
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(shown(Visibility::External), ["public.test: a b"]);
    assert_eq!(
        shown(Visibility::ClusterLocal),
        ["private.test: c", "public.test: a b"]
    );
    let printed = format!("{table:?}");
    assert!(
        !printed.contains("PRIVATE") && printed.contains("ns/a"),
        "{printed}"
    );
}
