//! Our packet filter table in the kernel, over netlink: no program is needed on the host.
//!
//! Always: changes of one call are one transaction of the kernel, all or nothing, unless they are too many for one
//! message; then each part leaves a table that works.

mod expressions;

use std::io;

use netlink_packet_core::{Emitable as _, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook as HookAttribute, HookNumber, InetHookNumber,
    ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetDescription,
    SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use super::netfilter;
use super::ruleset::{Change, Hook, Rule, Ruleset, SetKey, SetKind};
use expressions::{NF_ACCEPT, expressions, goto, key_of};

/// Bytes of one transaction; the kernel's default send buffer holds about 200 kB.
const TRANSACTION_BYTES_MAX: usize = 96 << 10;
/// Elements that rules may put into one set; a pod network has a thousand addresses, clients of a Service may be more.
const DYNAMIC_SET_MAX: u32 = 65_536;

/// One table of the kernel's packet filter.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    /// What is in the kernel; `None` when that is not known.
    applied: Option<Ruleset>,
    /// Whether it was taken away: a change that was still waiting must not bring it back.
    removed: bool,
}

impl Table {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            applied: None,
            removed: false,
        }
    }

    /// Makes the table equal `wanted`. Blocks for milliseconds. After an error everything is written anew next time.
    pub(crate) fn apply(&mut self, wanted: Ruleset) -> io::Result<()> {
        if self.removed {
            return Ok(());
        }
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

    /// Takes the table away for good.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.applied = None;
        self.removed = true;
        let mut transaction = Transaction::new(&self.name);
        transaction.remove_table();
        transaction.commit()
    }
}

/// Whether a request failed because the kernel has no nf_tables, and so no table of anybody.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(libc::EPROTONOSUPPORT)
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
        netfilter::send_batch(messages)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::ruleset::{Chain, Protocol, Set};
    use super::*;

    /// Some thousand Services change at once after a start: one transaction, which is larger than a socket's buffer.
    #[test]
    fn a_table_of_many_services_is_taken() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        crate::sys::process::unshare(rustix::thread::UnshareFlags::NEWNET)
            .expect("a network of this thread's own");
        let mut wanted = Ruleset::default();
        wanted.chains.insert("service".to_owned(), Chain::default());
        let mut dispatch = Set::new(SetKind::AddressDispatch);
        for number in 0..20_000 {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + number);
            let key = SetKey::Address(address, Protocol::Tcp, 80);
            dispatch.elements.insert(key, Some("service".to_owned()));
        }
        let mut without = wanted.clone();
        wanted.sets.insert("dispatch".to_owned(), dispatch);
        without
            .sets
            .insert("dispatch".to_owned(), Set::new(SetKind::AddressDispatch));
        let mut table = Table::new("kinglet-test".to_owned());
        table.apply(wanted.clone()).expect("all of it");
        table.apply(without).expect("all elements gone");
        table.apply(wanted).expect("all of it once more");
    }
}
