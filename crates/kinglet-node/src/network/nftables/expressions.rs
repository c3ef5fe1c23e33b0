//! The kernel's form of our matches, actions and keys: data only.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload,
    Register, Verdict, VerdictAttribute,
};

use crate::network::ruleset::{Expression, Interface, SetKey, Subnet};

pub(super) const NF_ACCEPT: u32 = 1;
const NF_DROP: u32 = 0;
/// Bytes of an interface's name in a register.
const INTERFACE_NAME_BYTES: usize = 16;

/// A key as the registers hold it: each part fills whole words.
pub(super) fn key_of(key: SetKey) -> Vec<u8> {
    let port_bytes = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    };
    match key {
        SetKey::Pair(source, destination) => [source.octets(), destination.octets()].concat(),
        SetKey::Address(address, protocol, port) => [
            address.octets(),
            [protocol.number(), 0, 0, 0],
            port_bytes(port),
        ]
        .concat(),
        SetKey::Port(protocol, port) => [[protocol.number(), 0, 0, 0], port_bytes(port)].concat(),
    }
}

/// Going on in a chain.
pub(super) fn goto(chain: &str) -> DataAttribute {
    DataAttribute::Verdict(vec![
        VerdictAttribute::Code(Verdict::Goto),
        VerdictAttribute::Chain(chain.to_owned()),
    ])
}

/// The kernel's expressions for one of ours.
pub(super) fn expressions(expression: &Expression) -> Vec<Expressions> {
    match expression {
        Expression::From(interface) => interface_is(MetaKey::Iifname, interface),
        Expression::To(interface) => interface_is(MetaKey::Oifname, interface),
        Expression::SourceIn(network) => address_in(SOURCE_OFFSET, *network, Operator::Equal),
        Expression::DestinationIn(network) => {
            address_in(DESTINATION_OFFSET, *network, Operator::Equal)
        }
        Expression::DestinationNotIn(network) => {
            address_in(DESTINATION_OFFSET, *network, Operator::NotEqual)
        }
        Expression::DestinationIsLocal => vec![destination_type(), equals(&2_u32.to_ne_bytes())],
        Expression::OriginalDestination(address) => {
            vec![conntrack(20, Some(0)), equals(&address.octets())]
        }
        Expression::OriginalDirection => vec![conntrack(1, None), equals(&[0])],
        // `IPS_DST_NAT`.
        Expression::Translated => conntrack_bit(2, 1 << 5),
        Expression::Protocol(protocol) => {
            vec![transport_protocol(), equals(&[protocol.number()])]
        }
        Expression::DestinationPort(port) => vec![
            destination_port(Register::Reg32_00),
            equals(&port.to_be_bytes()),
        ],
        Expression::EchoRequest => vec![
            transport_protocol(),
            equals(&[1]),
            payload(TRANSPORT, 0, 1, Register::Reg32_00),
            equals(&[8]),
        ],
        Expression::OneIn(count) => vec![random(*count), equals(&0_u32.to_ne_bytes())],
        Expression::SourceInSet(_)
        | Expression::PairInSet(_)
        | Expression::DispatchAddress(_)
        | Expression::DispatchPort(_)
        | Expression::RememberSource(_) => of_set(expression),
        Expression::TranslateDestination(_)
        | Expression::Masquerade
        | Expression::Accept
        | Expression::Drop
        | Expression::RejectWithReset
        | Expression::RejectUnreachable
        | Expression::Goto(_) => action(expression),
    }
}

/// What looks into a set or a map, or adds to a set.
fn of_set(expression: &Expression) -> Vec<Expressions> {
    match expression {
        Expression::SourceInSet(set) => vec![source(), lookup(set, None)],
        Expression::PairInSet(set) => vec![
            payload(NETWORK, SOURCE_OFFSET, 8, Register::Reg32_00),
            lookup(set, None),
        ],
        Expression::DispatchAddress(map) => vec![
            payload(NETWORK, DESTINATION_OFFSET, 4, Register::Reg32_00),
            meta(MetaKey::L4Proto, Register::Reg32_01),
            destination_port(Register::Reg32_02),
            lookup(map, Some(Register::Verdict)),
        ],
        Expression::DispatchPort(map) => vec![
            transport_protocol(),
            destination_port(Register::Reg32_01),
            lookup(map, Some(Register::Verdict)),
        ],
        Expression::RememberSource(set) => vec![source(), update(set)],
        _ => Vec::new(),
    }
}

/// What happens to a packet that matched.
fn action(expression: &Expression) -> Vec<Expressions> {
    match expression {
        Expression::TranslateDestination(to) => vec![
            immediate(Register::Reg32_00, &to.ip().octets()),
            immediate(Register::Reg32_01, &to.port().to_be_bytes()),
            // `NFT_NAT_DNAT` for IPv4, address and port from the registers.
            other("nat", &[(1, 1), (2, 2), (3, REG32_00), (5, REG32_00 + 1)]),
        ],
        Expression::Masquerade => vec![other("masq", &[])],
        Expression::Accept => vec![verdict(Verdict::Other(NF_ACCEPT))],
        Expression::Drop => vec![verdict(Verdict::Other(NF_DROP))],
        Expression::RejectWithReset => vec![other("reject", &[(1, 1)])],
        Expression::RejectUnreachable => vec![reject_port_unreachable()],
        Expression::Goto(chain) => vec![Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(goto(chain)),
        ])],
        _ => Vec::new(),
    }
}

/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
const TRANSPORT: u32 = 2;
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
/// `NFT_REG32_00`, the first of sixteen words.
const REG32_00: u32 = 8;

fn payload(base: u32, offset: u32, length: u32, register: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn source() -> Expressions {
    payload(NETWORK, SOURCE_OFFSET, 4, Register::Reg32_00)
}

fn destination_port(register: Register) -> Expressions {
    payload(TRANSPORT, 2, 2, register)
}

fn meta(key: MetaKey, register: Register) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register)])
}

fn transport_protocol() -> Expressions {
    meta(MetaKey::L4Proto, Register::Reg32_00)
}

fn compare(operator: Operator, data: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg32_00),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(data.to_vec())),
    ])
}

fn equals(data: &[u8]) -> Expressions {
    compare(Operator::Equal, data)
}

fn masked(mask: &[u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg32_00),
        Bitwise::DestinationRegister(Register::Reg32_00),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

fn address_in(offset: u32, network: Subnet, operator: Operator) -> Vec<Expressions> {
    let mut out = vec![payload(NETWORK, offset, 4, Register::Reg32_00)];
    if network.bits < 32 {
        out.push(masked(&network.mask().to_be_bytes()));
    }
    let prefix = u32::from(network.address) & network.mask();
    out.push(compare(operator, &prefix.to_be_bytes()));
    out
}

fn interface_is(key: MetaKey, interface: &Interface) -> Vec<Expressions> {
    let comparison = match interface {
        Interface::NotNamed(name) => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(INTERFACE_NAME_BYTES, 0);
            compare(Operator::NotEqual, &bytes)
        }
        Interface::Prefix(prefix) => equals(prefix.as_bytes()),
        Interface::NotPrefix(prefix) => compare(Operator::NotEqual, prefix.as_bytes()),
    };
    vec![meta(key, Register::Reg32_00), comparison]
}

fn lookup(set: &str, to: Option<Register>) -> Expressions {
    let mut attributes = vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg32_00),
    ];
    attributes.extend(to.map(Lookup::DestinationRegister));
    Expressions::Lookup(attributes)
}

fn immediate(register: Register, data: &[u8]) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(data.to_vec())),
    ])
}

fn verdict(verdict: Verdict) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            verdict,
        )])),
    ])
}

/// An expression that the message crate has no type for, of numbers.
fn other(name: &str, numbers: &[(u16, u32)]) -> Expressions {
    let attributes = numbers.iter().map(|(kind, value)| number(*kind, *value));
    named(name, attributes.collect())
}

fn named(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// `ct`: one property of the connection, of one direction where there are two.
fn conntrack(key: u32, direction: Option<u8>) -> Expressions {
    let mut attributes = vec![number(1, REG32_00), number(2, key)];
    attributes.extend(direction.map(|direction| DefaultNla::new(3, vec![direction])));
    named("ct", attributes)
}

fn conntrack_bit(key: u32, bit: u32) -> Vec<Expressions> {
    vec![
        conntrack(key, None),
        masked(&bit.to_ne_bytes()),
        compare(Operator::NotEqual, &[0; 4]),
    ]
}

/// `fib`: what kind of address the destination is to the routing table.
fn destination_type() -> Expressions {
    other("fib", &[(1, REG32_00), (2, 3), (3, 2)])
}

/// `numgen`: a random number below a bound.
fn random(below: u32) -> Expressions {
    other("numgen", &[(1, REG32_00), (2, below), (3, 1)])
}

fn reject_port_unreachable() -> Expressions {
    named("reject", vec![number(1, 0), DefaultNla::new(2, vec![3])])
}

/// `dynset`: puts the source into a set, or renews its time there.
fn update(set: &str) -> Expressions {
    let name = DefaultNla::new(1, [set.as_bytes(), &[0]].concat());
    named("dynset", vec![name, number(3, 1), number(4, REG32_00)])
}
