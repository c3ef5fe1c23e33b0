//! The `format`s of text and numbers that are checked; others are ignored, as Kubernetes does.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

/// A checked format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    DateTime,
    Date,
    Duration,
    Byte,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Hostname,
    Email,
    Uuid,
    Uri,
    Int32,
    Int64,
}

impl Format {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "datetime" => Self::DateTime,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "byte" => Self::Byte,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "hostname" => Self::Hostname,
            "email" => Self::Email,
            "uuid" => Self::Uuid,
            "uri" => Self::Uri,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DateTime => "date-time",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::Byte => "byte",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Hostname => "hostname",
            Self::Email => "email",
            Self::Uuid => "uuid",
            Self::Uri => "uri",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        }
    }

    /// Is a text of this format?
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Self::DateTime => text.parse::<jiff::Timestamp>().is_ok(),
            Self::Date => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
            Self::Duration => is_duration(text),
            Self::Byte => base64::engine::general_purpose::STANDARD
                .decode(text)
                .is_ok(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => {
                let parts: Vec<&str> = text.split([':', '-']).collect();
                matches!(parts.len(), 6 | 8)
                    && parts
                        .iter()
                        .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
            }
            Self::Hostname => {
                let part = |p: &str| {
                    !p.is_empty()
                        && p.len() <= 63
                        && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                        && !p.starts_with('-')
                        && !p.ends_with('-')
                };
                text.len() <= 255 && text.trim_end_matches('.').split('.').all(part)
            }
            Self::Email => text.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && !host.is_empty() && !host.contains('@')
            }),
            Self::Uuid => {
                let bare: String = text.chars().filter(|c| *c != '-').collect();
                bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit())
            }
            Self::Uri => {
                text.starts_with('/')
                    || text.split_once(':').is_some_and(|(scheme, _)| {
                        !scheme.is_empty()
                            && scheme
                                .bytes()
                                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                    })
            }
            Self::Int32 | Self::Int64 => true,
        }
    }
}

/// What Go's `time.ParseDuration` takes.
pub(super) fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let number = &rest[..digits];
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[digits..];
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .iter()
            .filter(|u| rest.starts_with(**u))
            .max_by_key(|u| u.len())
        else {
            return false;
        };
        rest = &rest[unit.len()..];
    }
    true
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(bits) = bits.parse::<u8>() else {
        return false;
    };
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32)
        || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}
