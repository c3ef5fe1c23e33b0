//! DNS questions and answers as bytes.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, CNAME, RData, SOA};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// Clients may ask again this soon: endpoints change within milliseconds.
const TTL_SECONDS: u32 = 5;
/// Answers in one message; more would not fit a datagram.
const ADDRESSES_MAX: usize = 20;

/// The one question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    V4,
    V6,
    Other,
}

/// Reads a query; `None` for what is no ordinary one (it is forwarded or dropped).
pub(crate) fn question(query: &[u8]) -> Option<Question> {
    let packet = Packet::parse(query).ok()?;
    if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let kind = match question.qtype {
        QTYPE::TYPE(TYPE::A) => Kind::V4,
        QTYPE::TYPE(TYPE::AAAA) => Kind::V6,
        _ => Kind::Other,
    };
    Some(Question {
        name: question.qname.to_string(),
        kind,
    })
}

/// What to say.
pub(crate) enum Reply<'a> {
    /// Addresses of the kind that was asked for, behind an alias if there is one.
    Addresses(&'a [IpAddr], Option<&'a str>),
    /// No such name in our zone.
    Missing(&'a str),
    /// We could not find out.
    Failed,
}

/// The reply to a query that [`question`] could read.
pub(crate) fn reply(query: &[u8], reply: &Reply<'_>) -> Option<Vec<u8>> {
    let asked = Packet::parse(query).ok()?;
    let question = asked.questions.first()?;
    let mut packet = Packet::new_reply(asked.id());
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    match reply {
        Reply::Addresses(addresses, alias) => {
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
            let mut owner = question.qname.clone();
            if let Some(alias) = alias {
                let target = Name::new(alias).ok()?;
                packet.answers.push(ResourceRecord::new(
                    owner,
                    CLASS::IN,
                    TTL_SECONDS,
                    RData::CNAME(CNAME(target.clone())),
                ));
                owner = target;
            }
            for address in addresses.iter().take(ADDRESSES_MAX) {
                let data = match (address, question.qtype) {
                    (IpAddr::V4(address), QTYPE::TYPE(TYPE::A)) => RData::A(A {
                        address: u32::from(*address),
                    }),
                    (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA)) => RData::AAAA(AAAA {
                        address: u128::from(*address),
                    }),
                    _ => continue,
                };
                packet.answers.push(ResourceRecord::new(
                    owner.clone(),
                    CLASS::IN,
                    TTL_SECONDS,
                    data,
                ));
            }
        }
        Reply::Missing(domain) => {
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
            *packet.rcode_mut() = RCODE::NameError;
            let zone = Name::new(domain).ok()?;
            let authority = SOA {
                mname: zone.clone(),
                rname: zone.clone(),
                serial: 1,
                refresh: 5,
                retry: 5,
                expire: 5,
                minimum: TTL_SECONDS,
            };
            packet.name_servers.push(ResourceRecord::new(
                zone,
                CLASS::IN,
                TTL_SECONDS,
                RData::SOA(authority),
            ));
        }
        Reply::Failed => *packet.rcode_mut() = RCODE::ServerFailure,
    }
    packet.questions.push(question.clone());
    packet.build_bytes_vec_compressed().ok()
}

/// A query of our own.
pub(crate) fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let wanted = if kind == Kind::V6 {
        TYPE::AAAA
    } else {
        TYPE::A
    };
    packet.questions.push(simple_dns::Question::new(
        Name::new(name).ok()?,
        QTYPE::TYPE(wanted),
        simple_dns::QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec().ok()
}

/// The addresses in a reply.
pub(crate) fn addresses(reply: &[u8]) -> Vec<IpAddr> {
    let Ok(packet) = Packet::parse(reply) else {
        return Vec::new();
    };
    packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(found) => Some(IpAddr::V4(found.address.into())),
            RData::AAAA(found) => Some(IpAddr::V6(found.address.into())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_and_replies_round_trip() {
        let asked = query(7, "app.ns.svc.cluster.local", Kind::V4).expect("query");
        assert_eq!(
            question(&asked),
            Some(Question {
                name: "app.ns.svc.cluster.local".to_owned(),
                kind: Kind::V4
            })
        );
        let found = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let answer = reply(&asked, &Reply::Addresses(&found, None)).expect("reply");
        assert_eq!(addresses(&answer), found);
        assert_eq!(question(&answer), None, "a reply is no question");
        let aliased = reply(&asked, &Reply::Addresses(&found, Some("example.com"))).expect("reply");
        assert_eq!(addresses(&aliased), found);
        let missing = reply(&asked, &Reply::Missing("cluster.local")).expect("reply");
        assert_eq!(
            Packet::parse(&missing).expect("packet").rcode(),
            RCODE::NameError
        );
        let v6 = query(7, "app.ns.svc.cluster.local", Kind::V6).expect("query");
        assert!(addresses(&reply(&v6, &Reply::Addresses(&found, None)).expect("reply")).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_is_no_question_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if question(&bytes).is_some() {
                reply(&bytes, &Reply::Failed);
            }
            addresses(&bytes);
        }
    }
}
