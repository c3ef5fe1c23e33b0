//! Messages to the kernel's netfilter subsystems (nf_tables, connection tracking) over netlink, and its answers. Blocking.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES`, which a batch names.
const NF_TABLES: u16 = 10;
/// Bytes of a netlink message's header.
const HEADER_BYTES: usize = 16;

/// Sends messages to nf_tables as one transaction and waits for the kernel's answer.
pub(super) fn send_batch(messages: Vec<(NfTablesMessage, u16)>) -> io::Result<()> {
    let last = messages.len();
    let mut bytes = Vec::new();
    let batch = |message| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NF_TABLES);
        NetfilterMessage::new(header, NetfilterMessageInner::None(message))
    };
    append(&mut bytes, batch(ControlMessage::BatchBegin), 0, 0);
    for (number, (message, flags)) in (1..).zip(messages) {
        let acknowledge = if number == last { NLM_F_ACK } else { 0 };
        let sequence = u32::try_from(number).unwrap_or(u32::MAX);
        append(&mut bytes, ipv4(message), flags | acknowledge, sequence);
    }
    append(&mut bytes, batch(ControlMessage::BatchEnd), 0, 0);
    exchange(&bytes, u32::try_from(last).unwrap_or(u32::MAX))
}

/// Calls `each` with every tracked IPv4 connection of this network namespace.
pub(super) fn list_connections(mut each: impl FnMut(&[ConntrackAttribute])) -> io::Result<()> {
    let mut bytes = Vec::new();
    append(
        &mut bytes,
        ipv4(ConntrackMessage::Get(Vec::new())),
        NLM_F_DUMP,
        1,
    );
    let socket = open()?;
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in split(&answer) {
            // A connection of a protocol that cannot be read is nobody's business here.
            let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(message) else {
                continue;
            };
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => each(&attributes),
                _ => {}
            }
        }
    }
}

/// Forgets one tracked connection; one that is gone already is no error. `original` must name the connection: without it the
/// kernel would forget all.
pub(super) fn forget_connection(original: ConntrackAttribute) -> io::Result<()> {
    if !matches!(original, ConntrackAttribute::CtaTupleOrig(_)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    let message = ipv4(ConntrackMessage::Delete(vec![original]));
    append(&mut bytes, message, NLM_F_ACK, 1);
    match exchange(&bytes, 1) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn ipv4(message: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    NetfilterMessage::new(header, message)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// The messages of one datagram.
fn split(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = rest.first_chunk::<4>().copied().map(u32::from_ne_bytes)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = rest.get(..length).filter(|_| length >= HEADER_BYTES)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Sends messages and reads until the one of number `last` is answered. The kernel works while it is sent to, so the
/// answers are there afterwards.
fn exchange(bytes: &[u8], last: u32) -> io::Result<()> {
    let socket = open()?;
    // A transaction is one datagram, and the kernel takes none that is larger than the socket's buffer. Where this is not
    // allowed, sending says so.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, bytes.len());
    socket.send(bytes, 0)?;
    socket.set_non_blocking(true)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in split(&answer) {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(message)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let NetlinkPayload::Error(error) = &message.payload else {
                continue;
            };
            if error.code.is_some() {
                let number = message.header.sequence_number;
                let cause = error.to_io();
                return Err(io::Error::new(
                    cause.kind(),
                    format!("message {number} of {last}: {cause}"),
                ));
            }
            if message.header.sequence_number == last {
                return Ok(());
            }
        }
    }
}
