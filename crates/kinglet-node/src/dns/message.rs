//! DNS questions and answers as bytes.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, CNAME, OPT, PTR, RData, SOA, SRV};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::zone::Target;

/// Clients may ask again this soon: endpoints change within milliseconds.
const TTL_SECONDS: u32 = 5;
/// Answers in one message, however large it may be.
const ANSWERS_MAX: usize = 1024;
/// Names of addresses are below this one.
pub(crate) const REVERSE_ZONE: &str = "in-addr.arpa";
/// A datagram to who says nothing about sizes (RFC 1035), and the most that passes every network unbroken.
const DATAGRAM_BYTES: std::ops::RangeInclusive<u16> = 512..=1232;

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
    Srv,
    Ptr,
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
        QTYPE::TYPE(TYPE::SRV) => Kind::Srv,
        QTYPE::TYPE(TYPE::PTR) => Kind::Ptr,
        _ => Kind::Other,
    };
    Some(Question {
        name: question.qname.to_string(),
        kind,
    })
}

/// What to say.
pub(crate) enum Reply<'a> {
    /// Addresses of the kind that was asked for, behind an alias if there is one; `zone` answers for there being none.
    Addresses {
        found: &'a [IpAddr],
        alias: Option<&'a str>,
        zone: &'a str,
    },
    /// Ports on other names.
    Targets { found: &'a [Target], zone: &'a str },
    /// Names of an address.
    Names(&'a [String]),
    /// No such name in our zone.
    Missing(&'a str),
    /// We could not find out.
    Failed,
}

/// The reply to a query that [`question`] could read. What does not fit a datagram is cut off and says so: who wants all comes
/// back by a connection, and who does not has as much as there is room for.
pub(crate) fn reply(query: &[u8], reply: &Reply<'_>, by_connection: bool) -> Option<Vec<u8>> {
    let asked = Packet::parse(query).ok()?;
    let whole = build(&asked, reply, None)?;
    if by_connection {
        return Some(whole);
    }
    let accepted = asked.opt().map_or(0, |opt| opt.udp_packet_size);
    let room = accepted.clamp(*DATAGRAM_BYTES.start(), *DATAGRAM_BYTES.end());
    if whole.len() <= usize::from(room) {
        return Some(whole);
    }
    // An answer has at least twelve bytes.
    let (mut fits, mut too_many) = (0, usize::from(room) / 12);
    let mut best = build(&asked, reply, Some(0))?;
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        let tried = build(&asked, reply, Some(middle))?;
        if tried.len() <= usize::from(room) {
            (fits, best) = (middle, tried);
        } else {
            too_many = middle;
        }
    }
    Some(best)
}

/// A reply with all its records, or cut off after so many answers.
fn build(asked: &Packet<'_>, reply: &Reply<'_>, answers_max: Option<usize>) -> Option<Vec<u8>> {
    let question = asked.questions.first()?;
    let mut packet = Packet::new_reply(asked.id());
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if asked.opt().is_some() {
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: *DATAGRAM_BYTES.end(),
            version: 0,
        });
    }
    let zone = match reply {
        Reply::Addresses { zone, .. } | Reply::Targets { zone, .. } | Reply::Missing(zone) => zone,
        Reply::Names(_) => REVERSE_ZONE,
        Reply::Failed => "",
    };
    if matches!(reply, Reply::Failed) {
        *packet.rcode_mut() = RCODE::ServerFailure;
    } else {
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        packet.answers = answers(question, reply, asked.id())?;
        if packet.answers.is_empty() {
            packet.name_servers.push(authority(zone)?);
        }
    }
    if matches!(reply, Reply::Missing(_)) {
        *packet.rcode_mut() = RCODE::NameError;
    }
    if let Some(most) = answers_max {
        packet.set_flags(PacketFlag::TRUNCATION);
        packet.answers.truncate(most);
    }
    packet.questions.push(question.clone());
    packet.build_bytes_vec_compressed().ok()
}

/// The records that answer a question. Several addresses begin with another one each time, by the number of the query, which
/// clients choose at random: most take the first.
fn answers<'a>(
    question: &simple_dns::Question<'a>,
    reply: &Reply<'a>,
    id: u16,
) -> Option<Vec<ResourceRecord<'a>>> {
    let mut owner = question.qname.clone();
    let mut out = Vec::new();
    let mut found: Vec<RData<'a>> = match reply {
        Reply::Addresses { found, alias, .. } => {
            if let Some(alias) = alias {
                let target = Name::new(alias).ok()?;
                out.push(record(owner, RData::CNAME(CNAME(target.clone()))));
                owner = target;
            }
            let all = found.iter();
            all.filter_map(|address| address_data(*address, question.qtype))
                .collect()
        }
        Reply::Targets { found, .. } => found.iter().map(service_data).collect::<Option<_>>()?,
        Reply::Names(found) => {
            let names = found.iter().map(|name| Name::new(name).ok());
            names
                .map(|name| Some(RData::PTR(PTR(name?))))
                .collect::<Option<_>>()?
        }
        Reply::Missing(_) | Reply::Failed => Vec::new(),
    };
    if !found.is_empty() {
        let first = usize::from(id) % found.len();
        found.rotate_left(first);
    }
    found.truncate(ANSWERS_MAX);
    out.extend(found.into_iter().map(|data| record(owner.clone(), data)));
    Some(out)
}

fn service_data(target: &Target) -> Option<RData<'_>> {
    Some(RData::SRV(SRV {
        priority: 0,
        weight: 100,
        port: target.port,
        target: Name::new(&target.host).ok()?,
    }))
}

fn record<'a>(owner: Name<'a>, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(owner, CLASS::IN, TTL_SECONDS, data)
}

fn address_data(address: IpAddr, wanted: QTYPE) -> Option<RData<'static>> {
    match (address, wanted) {
        (IpAddr::V4(address), QTYPE::TYPE(TYPE::A)) => Some(RData::A(A {
            address: u32::from(address),
        })),
        (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA)) => Some(RData::AAAA(AAAA {
            address: u128::from(address),
        })),
        _ => None,
    }
}

/// What says that there is nothing, and for how long that may be believed.
fn authority(zone: &str) -> Option<ResourceRecord<'_>> {
    let zone = Name::new(zone).ok()?;
    let authority = SOA {
        mname: zone.clone(),
        rname: zone.clone(),
        serial: 1,
        refresh: 5,
        retry: 5,
        expire: 5,
        minimum: TTL_SECONDS,
    };
    Some(record(zone, RData::SOA(authority)))
}

/// A query of our own.
pub(crate) fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let wanted = match kind {
        Kind::V6 => TYPE::AAAA,
        Kind::Srv => TYPE::SRV,
        Kind::Ptr => TYPE::PTR,
        Kind::V4 | Kind::Other => TYPE::A,
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
        let addresses_of = |alias| Reply::Addresses {
            found: &found,
            alias,
            zone: "cluster.local",
        };
        let answer = reply(&asked, &addresses_of(None), false).expect("reply");
        let turned = [found[1], found[0]];
        assert_eq!(
            addresses(&answer),
            turned,
            "the seventh query begins with the second"
        );
        assert_eq!(question(&answer), None, "a reply is no question");
        let aliased = reply(&asked, &addresses_of(Some("example.com")), false).expect("reply");
        assert_eq!(addresses(&aliased), turned);
        let missing = reply(&asked, &Reply::Missing("cluster.local"), false).expect("reply");
        assert_eq!(
            Packet::parse(&missing).expect("packet").rcode(),
            RCODE::NameError
        );
        let v6 = query(7, "app.ns.svc.cluster.local", Kind::V6).expect("query");
        let none = reply(&v6, &addresses_of(None), false).expect("reply");
        let none = Packet::parse(&none).expect("packet");
        assert_eq!((none.rcode(), none.answers.len()), (RCODE::NoError, 0));
        assert_eq!(none.name_servers.len(), 1, "so that it may be remembered");
    }

    #[test]
    fn what_does_not_fit_says_so() {
        let asked = query(7, "app.ns.svc.cluster.local", Kind::V4).expect("query");
        let found: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let many = Reply::Addresses {
            found: &found,
            alias: None,
            zone: "cluster.local",
        };
        let cut = reply(&asked, &many, false).expect("reply");
        assert!(cut.len() <= 512);
        let cut = Packet::parse(&cut).expect("packet");
        assert!(cut.has_flags(PacketFlag::TRUNCATION));
        // 16 bytes each behind a head and a question of 42.
        assert_eq!(cut.answers.len(), (512 - 42) / 16);
        let whole = reply(&asked, &many, true).expect("reply");
        assert_eq!(addresses(&whole).len(), 200);
    }

    #[test]
    fn addresses_have_names() {
        let asked = query(7, "7.0.9.10.in-addr.arpa", Kind::Ptr).expect("query");
        assert_eq!(question(&asked).expect("question").kind, Kind::Ptr);
        let found = ["app.ns.svc.cluster.local".to_owned()];
        let answer = reply(&asked, &Reply::Names(&found), false).expect("reply");
        let answer = Packet::parse(&answer).expect("packet");
        assert!(
            matches!(&answer.answers[0].rdata, RData::PTR(name) if name.0.to_string() == found[0])
        );
        let none = reply(&asked, &Reply::Missing(REVERSE_ZONE), false).expect("reply");
        let none = Packet::parse(&none).expect("packet");
        assert_eq!(none.rcode(), RCODE::NameError);
        assert_eq!(none.name_servers[0].name.to_string(), REVERSE_ZONE);
    }

    #[test]
    fn targets_are_srv_records() {
        let mut packet = Packet::parse(&[0; 12]).expect("a header").clone();
        packet.questions.push(simple_dns::Question::new(
            Name::new("_http._tcp.app.ns.svc.cluster.local").expect("name"),
            QTYPE::TYPE(TYPE::SRV),
            simple_dns::QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let asked = packet.build_bytes_vec().expect("bytes");
        assert_eq!(question(&asked).expect("question").kind, Kind::Srv);
        let found = [Target {
            host: "app.ns.svc.cluster.local".to_owned(),
            port: 80,
        }];
        let answer = Reply::Targets {
            found: &found,
            zone: "cluster.local",
        };
        let answer = reply(&asked, &answer, false).expect("reply");
        let answer = Packet::parse(&answer).expect("packet");
        assert!(
            matches!(&answer.answers[0].rdata, RData::SRV(srv) if srv.port == 80 && srv.target.to_string() == found[0].host)
        );
    }

    proptest! {
        #[test]
        fn garbage_is_no_question_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if question(&bytes).is_some() {
                reply(&bytes, &Reply::Failed, false);
            }
            addresses(&bytes);
        }
    }
}
