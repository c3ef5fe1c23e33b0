//! What a hostile pod puts on its wire: other senders' addresses, router advertisements, packets for the host's loopback.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::attacker_frames::ADVERTISED;
use crate::engine::Bench;
use crate::escape::{ATTACK, with_attacker};

/// Nothing of the host changes its IPv6 configuration.
fn host_believes_the_router() -> bool {
    let hex: String = ADVERTISED.octets()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ["/proc/net/if_inet6", "/proc/net/ipv6_route"]
        .iter()
        .any(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains(&hex)))
}

/// Reads whole lines until one has the text.
async fn until_said(output: &mut (impl tokio::io::AsyncRead + Unpin), text: &str) -> String {
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while !(heard.contains(text) && heard.ends_with('\n')) {
        let read = tokio::time::timeout(Duration::from_secs(60), output.read(&mut buffer));
        let count = read
            .await
            .unwrap_or_else(|_| panic!("{text} did not come: {heard}"))
            .expect("read");
        assert!(count > 0, "{text} did not come: {heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    heard
}

pub(crate) async fn frames() {
    let mut bench = Bench::new("frames").await;
    let prefix = bench.names().link_prefix();
    let everywhere = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("socket");
    let loopback = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    let port_of = |socket: &UdpSocket| socket.local_addr().expect("address").port();
    let (open, closed) = (port_of(&everywhere), port_of(&loopback));
    let (sandbox, victim_sandbox) = (
        bench.engine.sandbox().await.expect("sandbox"),
        bench.engine.sandbox().await.expect("sandbox"),
    );
    let gateway = bench.engine.gateway();
    let victim_address = victim_sandbox.address();
    let listening = with_attacker(bench.container(&[ATTACK, "attack", "hear", "4711"]));
    let mut victim = bench
        .engine
        .start(&victim_sandbox, listening)
        .await
        .expect("start");
    until_said(&mut victim.stdout, "listening").await;
    // An address of the pod network that nobody has, and one far away.
    let neighbour = Ipv4Addr::from(u32::from(gateway) + 900);
    let mut argv: Vec<String> = [ATTACK, "attack", "frames", "router", "router"]
        .map(str::to_owned)
        .to_vec();
    for from in [
        gateway,
        neighbour,
        Ipv4Addr::LOCALHOST,
        victim_address,
        Ipv4Addr::new(192, 0, 2, 1),
    ] {
        argv.push(format!("{from}>{victim_address}:4711=spoofed {from}"));
    }
    // With the pod's own address, to the host's loopback and to its own ports on every address.
    let own = sandbox.address();
    for from in [own, Ipv4Addr::LOCALHOST] {
        argv.push(format!("{from}>127.0.0.1:{closed}=loopback"));
        argv.push(format!("{from}>127.0.0.1:{open}=loopback"));
        argv.push(format!("{from}>{gateway}:{open}=bridge"));
    }
    argv.push(format!("{own}>{victim_address}:4711=honest"));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut start = with_attacker(bench.container(&argv));
    start.process.filter_system_calls = false;
    let mut attacker = bench.engine.start(&sandbox, start).await.expect("start");
    let mut text = String::new();
    attacker
        .stdout
        .read_to_string(&mut text)
        .await
        .expect("text");
    assert!(!text.contains("error"), "the frames were sent: {text}");
    // The honest one comes last, on the same wire.
    assert_eq!(
        until_said(&mut victim.stdout, "honest").await,
        format!("{own} says honest\n"),
        "somebody else's address was believed"
    );
    for socket in [&everywhere, &loopback] {
        socket.set_nonblocking(true).expect("socket");
        let mut got = [0; 100];
        let outcome = socket.recv_from(&mut got).map(|(_, from)| from.ip());
        assert!(outcome.is_err(), "the host heard {outcome:?}");
    }
    // What is addressed to the host itself still comes through where it may.
    let control = UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)).expect("socket");
    control
        .send_to(b"x", (Ipv4Addr::LOCALHOST, closed))
        .expect("sent");
    loopback.set_nonblocking(false).expect("socket");
    loopback
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("socket");
    loopback
        .recv_from(&mut [0; 100])
        .expect("the host hears itself");
    assert!(
        !host_believes_the_router(),
        "the host has a router in a pod"
    );
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    assert!(
        !addresses.lines().any(|line| line
            .split_whitespace()
            .last()
            .is_some_and(|name| name.starts_with(&prefix))),
        "a pod's wire speaks IPv6, which nothing filters: {addresses}"
    );
    drop((attacker, victim, sandbox, victim_sandbox));
    bench.close().await;
}
