//! A packet filter table as data: what it holds, how it reads, and how one becomes another. Pure.
//!
//! [`Ruleset::changes_from`] gives the steps in an order that the kernel accepts: nothing is referred to before it is
//! there, and nothing goes while something refers to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// An IPv4 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnet {
    pub(crate) address: Ipv4Addr,
    pub(crate) bits: u8,
}

impl Subnet {
    pub(crate) const fn new(address: Ipv4Addr, bits: u8) -> Self {
        Self { address, bits }
    }

    pub(crate) const fn one(address: Ipv4Addr) -> Self {
        Self { address, bits: 32 }
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address) & self.mask()
    }

    /// The mask of the prefix.
    pub(crate) fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A transport protocol that Services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol of a Service's port.
    pub(crate) fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// IANA's number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Which interface a packet came in by or leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    NotNamed(&'static str),
    /// Its name begins so.
    Prefix(String),
    NotPrefix(String),
}

/// One match or action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    From(Interface),
    To(Interface),
    SourceIn(Subnet),
    DestinationIn(Subnet),
    DestinationNotIn(Subnet),
    /// The destination is an address of this machine.
    DestinationIsLocal,
    /// Where the connection was made to, before translation.
    OriginalDestination(Ipv4Addr),
    /// The packet goes the way of the connection's first.
    OriginalDirection,
    /// The destination was translated.
    Translated,
    Protocol(Protocol),
    DestinationPort(u16),
    EchoRequest,
    SourceInSet(String),
    /// Source and destination, as a pair.
    PairInSet(&'static str),
    /// Goes on in the chain that a map names for destination, protocol and port.
    DispatchAddress(&'static str),
    /// Goes on in the chain that a map names for protocol and port.
    DispatchPort(&'static str),
    /// One packet in so many, at random.
    OneIn(u32),
    /// Puts the source into a set, for as long as the set says.
    RememberSource(String),
    TranslateDestination(SocketAddrV4),
    Masquerade,
    Accept,
    Drop,
    RejectWithReset,
    RejectUnreachable,
    Goto(String),
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface =
            |f: &mut fmt::Formatter<'_>, word: &str, interface: &Interface| match interface {
                Interface::NotNamed(name) => write!(f, "{word} != {name}"),
                Interface::Prefix(prefix) => write!(f, "{word} {prefix}*"),
                Interface::NotPrefix(prefix) => write!(f, "{word} != {prefix}*"),
            };
        match self {
            Self::From(which) => interface(f, "iifname", which),
            Self::To(which) => interface(f, "oifname", which),
            Self::SourceIn(network) => write!(f, "ip saddr {network}"),
            Self::DestinationIn(network) => write!(f, "ip daddr {network}"),
            Self::DestinationNotIn(network) => write!(f, "ip daddr != {network}"),
            Self::DestinationIsLocal => write!(f, "fib daddr type local"),
            Self::OriginalDestination(address) => write!(f, "ct original ip daddr {address}"),
            Self::OriginalDirection => write!(f, "ct direction original"),
            Self::Translated => write!(f, "ct status dnat"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::DestinationPort(port) => write!(f, "th dport {port}"),
            Self::EchoRequest => write!(f, "icmp type echo-request"),
            Self::SourceInSet(set) => write!(f, "ip saddr @{set}"),
            Self::PairInSet(set) => write!(f, "ip saddr . ip daddr @{set}"),
            Self::DispatchAddress(map) => {
                write!(f, "ip daddr . meta l4proto . th dport vmap @{map}")
            }
            Self::DispatchPort(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Self::OneIn(count) => write!(f, "numgen random mod {count} 0"),
            Self::RememberSource(set) => write!(f, "update @{set} {{ ip saddr }}"),
            Self::TranslateDestination(to) => write!(f, "dnat to {to}"),
            Self::Masquerade => write!(f, "masquerade"),
            Self::Accept => write!(f, "accept"),
            Self::Drop => write!(f, "drop"),
            Self::RejectWithReset => write!(f, "reject with tcp reset"),
            Self::RejectUnreachable => write!(f, "reject"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// Matches that must all hold, and what is then done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Vec<Expression>);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, expression) in self.0.iter().enumerate() {
            write!(f, "{}{expression}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// Where packets enter a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    NatPrerouting,
    NatOutput,
    NatPostrouting,
    FilterInput,
    FilterForward,
    FilterOutput,
}

/// Rules in order; entered by a hook or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// Pairs of addresses.
    Pairs,
    /// Destination, protocol, port -> chain.
    AddressDispatch,
    /// Protocol, port -> chain.
    PortDispatch,
    /// Sources that rules put in, each for so many seconds.
    RememberedSources(u32),
}

/// An element's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SetKey {
    Pair(Ipv4Addr, Ipv4Addr),
    Address(Ipv4Addr, Protocol, u16),
    Port(Protocol, u16),
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(source, destination) => write!(f, "{source} . {destination}"),
            Self::Address(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
            Self::Port(protocol, port) => write!(f, "{protocol} . {port}"),
        }
    }
}

/// A set, or a map from its keys to chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) kind: SetKind,
    /// Key -> the chain it leads to, where the set is a map.
    pub(crate) elements: BTreeMap<SetKey, Option<String>>,
}

impl Set {
    pub(crate) fn new(kind: SetKind) -> Self {
        Self {
            kind,
            elements: BTreeMap::new(),
        }
    }
}

/// Everything in our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
}

/// One step from one ruleset to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    AddSet(&'a str, SetKind),
    AddChain(&'a str, Option<Hook>),
    /// Replaces all rules of a chain.
    SetRules(&'a str, &'a [Rule]),
    RemoveElement(&'a str, SetKey),
    AddElement(&'a str, SetKey, Option<&'a str>),
    RemoveChain(&'a str),
    RemoveSet(&'a str),
}

impl Ruleset {
    /// A rule at the end of a chain.
    pub(crate) fn add_rule(&mut self, chain: &str, rule: impl IntoIterator<Item = Expression>) {
        let chain = self.chains.entry(chain.to_owned()).or_default();
        chain.rules.push(Rule(rule.into_iter().collect()));
    }

    /// The steps that make `old` equal to this.
    pub(crate) fn changes_from<'a>(&'a self, old: &'a Self) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        // A set or chain of another shape is another one: it would have to go first, and only names that never change
        // their shape are used.
        for (name, set) in &self.sets {
            if !old.sets.contains_key(name) {
                changes.push(Change::AddSet(name, set.kind));
            }
        }
        for (name, chain) in &self.chains {
            if !old.chains.contains_key(name) {
                changes.push(Change::AddChain(name, chain.hook));
            }
        }
        for (name, chain) in &self.chains {
            let before = old.chains.get(name).map_or(&[][..], |chain| &chain.rules);
            if before != chain.rules {
                changes.push(Change::SetRules(name, &chain.rules));
            }
        }
        self.element_changes(old, &mut changes);
        let gone: BTreeSet<&String> = old
            .chains
            .keys()
            .filter(|name| !self.chains.contains_key(*name))
            .collect();
        changes.extend(gone.iter().map(|name| Change::SetRules(name, &[])));
        changes.extend(gone.iter().map(|name| Change::RemoveChain(name)));
        for name in old.sets.keys() {
            if !self.sets.contains_key(name) {
                changes.push(Change::RemoveSet(name));
            }
        }
        changes
    }

    fn element_changes<'a>(&'a self, old: &'a Self, changes: &mut Vec<Change<'a>>) {
        let none = BTreeMap::new();
        for (name, set) in &self.sets {
            let before = old.sets.get(name).map_or(&none, |set| &set.elements);
            for (key, target) in before {
                if set.elements.get(key) != Some(target) {
                    changes.push(Change::RemoveElement(name, *key));
                }
            }
            for (key, target) in &set.elements {
                if before.get(key) != Some(target) {
                    changes.push(Change::AddElement(name, *key, target.as_deref()));
                }
            }
        }
    }
}

impl fmt::Display for Ruleset {
    /// As `nft list` would show it, roughly; for tests and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, set) in &self.sets {
            for (key, target) in &set.elements {
                match target {
                    Some(target) => writeln!(f, "@{name}: {key} : goto {target}")?,
                    None => writeln!(f, "@{name}: {key}")?,
                }
            }
        }
        for (name, chain) in &self.chains {
            for rule in &chain.rules {
                writeln!(f, "{name}: {rule}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(endpoints: &[u8]) -> Ruleset {
        let mut out = Ruleset::default();
        let mut services = Set::new(SetKind::AddressDispatch);
        if !endpoints.is_empty() {
            let key = SetKey::Address(Ipv4Addr::new(10, 9, 0, 1), Protocol::Tcp, 80);
            services.elements.insert(key, Some("svc".to_owned()));
        }
        out.sets.insert("services".to_owned(), services);
        for last in endpoints {
            let to = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, *last), 8080);
            out.add_rule("svc", [Expression::TranslateDestination(to)]);
        }
        out
    }

    #[test]
    fn steps_come_in_an_order_that_holds() {
        let (empty, one, two) = (ruleset(&[]), ruleset(&[1]), ruleset(&[1, 2]));
        let key = SetKey::Address(Ipv4Addr::new(10, 9, 0, 1), Protocol::Tcp, 80);
        assert_eq!(
            one.changes_from(&empty),
            [
                Change::AddChain("svc", None),
                Change::SetRules("svc", &one.chains["svc"].rules),
                Change::AddElement("services", key, Some("svc")),
            ]
        );
        assert_eq!(
            two.changes_from(&one),
            [Change::SetRules("svc", &two.chains["svc"].rules)]
        );
        assert_eq!(
            empty.changes_from(&two),
            [
                Change::RemoveElement("services", key),
                Change::SetRules("svc", &[]),
                Change::RemoveChain("svc"),
            ]
        );
        assert!(two.changes_from(&two).is_empty());
    }

    #[test]
    fn prefixes_have_masks() {
        for (bits, mask) in [(0, 0), (8, 0xff00_0000), (22, 0xffff_fc00), (32, u32::MAX)] {
            assert_eq!(
                Subnet::new(Ipv4Addr::UNSPECIFIED, bits).mask(),
                mask,
                "{bits}"
            );
        }
    }
}
