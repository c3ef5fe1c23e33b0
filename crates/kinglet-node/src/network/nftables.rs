//! Our packet filter table in the kernel, over netlink: no program is needed on the host.
//!
//! Always: changes of one call are one transaction of the kernel, all or nothing, unless they are too many for one
//! message; then each part leaves a table that works.

use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook as HookAttribute,
    HookNumber, Immediate, InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage,
    Operator, Payload, Register, RuleAttribute, RuleMessage, SetAttribute, SetDescription,
    SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::ruleset::{Change, Expression, Hook, Interface, Rule, Ruleset, SetKey, SetKind, Subnet};

/// Bytes of one transaction; the kernel's default send buffer holds about 200 kB.
const TRANSACTION_BYTES_MAX: usize = 96 << 10;
/// Elements that rules may put into one set; a pod network has a thousand addresses, clients of a Service may be more.
const DYNAMIC_SET_MAX: u32 = 65_536;
/// `NFNL_SUBSYS_NFTABLES`, which a batch names.
const SUBSYSTEM: u16 = 10;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// Bytes of an interface's name in a register.
const INTERFACE_NAME_BYTES: usize = 16;

/// One table of the kernel's packet filter.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    /// What is in the kernel; `None` when that is not known.
    applied: Option<Ruleset>,
}

impl Table {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            applied: None,
        }
    }

    /// Makes the table equal `wanted`. Blocks for milliseconds. After an error everything is written anew next time.
    pub(crate) fn apply(&mut self, wanted: Ruleset) -> io::Result<()> {
        let known = self.applied.take();
        let mut transaction = Transaction::new(&self.name);
        if known.is_none() {
            transaction.replace_table();
        }
        let before = known.unwrap_or_default();
        for change in wanted.changes_from(&before) {
            transaction.change(&change)?;
        }
        transaction.commit()?;
        self.applied = Some(wanted);
        Ok(())
    }

    /// Takes the table away.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.applied = None;
        let mut transaction = Transaction::new(&self.name);
        transaction.remove_table();
        transaction.commit()
    }
}

/// Messages that the kernel takes together.
struct Transaction<'a> {
    table: &'a str,
    messages: Vec<(NfTablesMessage, u16)>,
    bytes: usize,
}

impl<'a> Transaction<'a> {
    fn new(table: &'a str) -> Self {
        Self {
            table,
            messages: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, message: NfTablesMessage, flags: u16) {
        self.bytes += message.buffer_len();
        self.messages.push((message, flags));
    }

    fn table_message(&self) -> TableMessage {
        TableMessage {
            attributes: vec![TableAttribute::Name(self.table.to_owned())],
        }
    }

    /// Adding first makes sure that there is something to delete.
    fn remove_table(&mut self) {
        self.push(
            NfTablesMessage::NewTable(self.table_message()),
            NLM_F_CREATE,
        );
        self.push(NfTablesMessage::DeleteTable(self.table_message()), 0);
    }

    fn replace_table(&mut self) {
        self.remove_table();
        self.push(
            NfTablesMessage::NewTable(self.table_message()),
            NLM_F_CREATE,
        );
    }

    fn change(&mut self, change: &Change<'_>) -> io::Result<()> {
        match change {
            Change::AddSet(name, kind) => self.add_set(name, *kind),
            Change::AddChain(name, hook) => self.add_chain(name, *hook),
            Change::SetRules(chain, rules) => {
                if self.bytes > TRANSACTION_BYTES_MAX {
                    self.commit()?;
                }
                self.set_rules(chain, rules);
            }
            Change::RemoveElement(set, key) => self.element(set, *key, None, false),
            Change::AddElement(set, key, target) => self.element(set, *key, *target, true),
            Change::RemoveChain(name) => {
                let attributes = vec![
                    ChainAttribute::Table(self.table.to_owned()),
                    ChainAttribute::Name((*name).to_owned()),
                ];
                self.push(NfTablesMessage::DeleteChain(ChainMessage { attributes }), 0);
            }
            Change::RemoveSet(name) => {
                let attributes = vec![
                    SetAttribute::Table(self.table.to_owned()),
                    SetAttribute::Name((*name).to_owned()),
                ];
                self.push(NfTablesMessage::DeleteSet(SetMessage { attributes }), 0);
            }
        }
        if self.bytes > 2 * TRANSACTION_BYTES_MAX {
            self.commit()?;
        }
        Ok(())
    }

    fn add_set(&mut self, name: &str, kind: SetKind) {
        let mut attributes = vec![
            SetAttribute::Table(self.table.to_owned()),
            SetAttribute::Name(name.to_owned()),
            SetAttribute::Id(1),
            // The type is for display only.
            SetAttribute::KeyType(0),
            SetAttribute::KeyLen(key_bytes(kind)),
        ];
        match kind {
            SetKind::Pairs => {}
            SetKind::AddressDispatch | SetKind::PortDispatch => {
                /// `NFT_DATA_VERDICT`.
                const VERDICT: u32 = 0xffff_ff00;
                attributes.extend([
                    SetAttribute::Flags(SetFlags::Map),
                    SetAttribute::DataType(VERDICT),
                    SetAttribute::DataLen(0),
                ]);
            }
            SetKind::RememberedSources(seconds) => {
                attributes.extend([
                    SetAttribute::Flags(SetFlags::Timeout | SetFlags::Eval),
                    SetAttribute::Timeout(u64::from(seconds) * 1000),
                    SetAttribute::Description(vec![SetDescription::Size(DYNAMIC_SET_MAX)]),
                ]);
            }
        }
        self.push(
            NfTablesMessage::NewSet(SetMessage { attributes }),
            NLM_F_CREATE,
        );
    }

    fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = vec![
            ChainAttribute::Table(self.table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
        ];
        if let Some(hook) = hook {
            let (type_, number, priority) = placement(hook);
            attributes.extend([
                ChainAttribute::Hook(vec![
                    HookAttribute::Number(HookNumber::Inet(number)),
                    HookAttribute::Priority(priority.cast_unsigned()),
                ]),
                ChainAttribute::Policy(NF_ACCEPT),
                ChainAttribute::Type(type_.to_owned()),
            ]);
        }
        self.push(
            NfTablesMessage::NewChain(ChainMessage { attributes }),
            NLM_F_CREATE,
        );
    }

    fn set_rules(&mut self, chain: &str, rules: &[Rule]) {
        let place = || {
            vec![
                RuleAttribute::Table(self.table.to_owned()),
                RuleAttribute::Chain(chain.to_owned()),
            ]
        };
        let mut messages = vec![(
            NfTablesMessage::DeleteRule(RuleMessage {
                attributes: place(),
            }),
            0,
        )];
        for rule in rules {
            let mut attributes = place();
            let expressions = rule.0.iter().flat_map(expressions).map(Into::into);
            attributes.push(RuleAttribute::Expressions(expressions.collect()));
            messages.push((
                NfTablesMessage::NewRule(RuleMessage { attributes }),
                NLM_F_CREATE | NLM_F_APPEND,
            ));
        }
        for (message, flags) in messages {
            self.push(message, flags);
        }
    }

    fn element(&mut self, set: &str, key: SetKey, target: Option<&str>, add: bool) {
        let mut element = vec![SetElementAttribute::Key(DataAttribute::Value(key_of(key)))];
        if let Some(chain) = target {
            element.push(SetElementAttribute::Data(goto(chain)));
        }
        let attributes = vec![
            SetElementList::Table(self.table.to_owned()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Elements(vec![ListAttribute::Element(element)]),
        ];
        let message = SetElementMessage { attributes };
        if add {
            self.push(NfTablesMessage::NewSetElement(message), NLM_F_CREATE);
        } else {
            self.push(NfTablesMessage::DeleteSetElement(message), 0);
        }
    }

    /// Sends what there is and waits for the kernel's answer.
    fn commit(&mut self) -> io::Result<()> {
        let messages = std::mem::take(&mut self.messages);
        self.bytes = 0;
        if messages.is_empty() {
            return Ok(());
        }
        let last = messages.len() - 1;
        let mut bytes = Vec::new();
        let batch = |message| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
            NetfilterMessage::new(header, NetfilterMessageInner::None(message))
        };
        append(&mut bytes, batch(ControlMessage::BatchBegin), 0, 0);
        for (index, (message, flags)) in messages.into_iter().enumerate() {
            let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
            let acknowledge = if index == last { NLM_F_ACK } else { 0 };
            let sequence = u32::try_from(index + 1).unwrap_or(u32::MAX);
            append(
                &mut bytes,
                NetfilterMessage::new(header, message),
                flags | acknowledge,
                sequence,
            );
        }
        append(&mut bytes, batch(ControlMessage::BatchEnd), 0, 0);
        exchange(&bytes, u32::try_from(last + 1).unwrap_or(u32::MAX))
    }
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

/// Sends a batch and reads until the message of number `last` is answered. The kernel works while it is sent to, so the
/// answers are there afterwards.
fn exchange(bytes: &[u8], last: u32) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(bytes, 0)?;
    socket.set_non_blocking(true)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while rest.len() >= 16 {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let NetlinkPayload::Error(error) = &message.payload {
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
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn placement(hook: Hook) -> (&'static str, InetHookNumber, i32) {
    // Kubernetes' and nft's own priorities: destination before filtering before source.
    match hook {
        Hook::NatPrerouting => ("nat", InetHookNumber::PreRouting, -100),
        Hook::NatOutput => ("nat", InetHookNumber::LocalOut, -100),
        Hook::NatPostrouting => ("nat", InetHookNumber::PostRouting, 100),
        Hook::FilterInput => ("filter", InetHookNumber::LocalIn, 0),
        Hook::FilterForward => ("filter", InetHookNumber::Forward, 0),
        Hook::FilterOutput => ("filter", InetHookNumber::LocalOut, 0),
    }
}

fn key_bytes(kind: SetKind) -> u32 {
    match kind {
        SetKind::Pairs | SetKind::PortDispatch => 8,
        SetKind::AddressDispatch => 12,
        SetKind::RememberedSources(_) => 4,
    }
}

/// A key as the registers hold it: each part fills whole words.
fn key_of(key: SetKey) -> Vec<u8> {
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

fn goto(chain: &str) -> DataAttribute {
    DataAttribute::Verdict(vec![
        VerdictAttribute::Code(Verdict::Goto),
        VerdictAttribute::Chain(chain.to_owned()),
    ])
}

/// The kernel's expressions for one of ours.
fn expressions(expression: &Expression) -> Vec<Expressions> {
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
        Expression::Protocol(protocol) => vec![
            meta(MetaKey::L4Proto, Register::Reg32_00),
            equals(&[protocol.number()]),
        ],
        Expression::DestinationPort(port) => vec![
            destination_port(Register::Reg32_00),
            equals(&port.to_be_bytes()),
        ],
        Expression::EchoRequest => vec![
            meta(MetaKey::L4Proto, Register::Reg32_00),
            equals(&[1]),
            payload(TRANSPORT, 0, 1, Register::Reg32_00),
            equals(&[8]),
        ],
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
            meta(MetaKey::L4Proto, Register::Reg32_00),
            destination_port(Register::Reg32_01),
            lookup(map, Some(Register::Verdict)),
        ],
        Expression::OneIn(count) => vec![random(*count), equals(&0_u32.to_ne_bytes())],
        Expression::RememberSource(set) => vec![source(), update(set)],
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
