//! Every name that the node puts on the host, derived from the data directory.
//!
//! Names of two directories are the same only if the first 32 bits of their SHA-256 digests are: then the lock on the record of
//! an instance ([`crate::instances`]) keeps the second from starting. So no start clears away what a neighbour uses.

use std::net::Ipv4Addr;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// What the host's ends of pods' links begin with, in every instance.
pub(crate) const LINK_PREFIX: &str = "kv";
/// What bridges begin with, in every instance.
pub(crate) const BRIDGE_PREFIX: &str = "kb";
/// Bits of a pod network: a /22 has room for a thousand pods.
pub(crate) const SUBNET_BITS: u8 = 22;

/// The names of one data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNames {
    hash: String,
    first_subnet: u32,
}

impl HostNames {
    /// Names for `data_dir`, which should be canonical.
    pub fn new(data_dir: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
        let hash = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let first_subnet = u32::from_be_bytes([digest[4], digest[5], digest[6], digest[7]]);
        Self { hash, first_subnet }
    }

    /// A number that is another one for most other data directories.
    pub(crate) fn number(&self) -> u32 {
        self.first_subnet
    }

    /// What is different in the names of another data directory.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The bridge that has the gateway's address.
    pub fn bridge(&self) -> String {
        format!("{BRIDGE_PREFIX}{}", self.hash)
    }

    /// What the host ends of all pod links begin with.
    pub fn link_prefix(&self) -> String {
        format!("{LINK_PREFIX}{}", self.hash)
    }

    /// The host end of one pod's link; interface names have at most 15 bytes.
    pub fn link(&self, number: u16) -> String {
        format!("{LINK_PREFIX}{}{number:x}", self.hash)
    }

    /// The cgroup above all containers.
    pub fn cgroup(&self) -> String {
        format!("kinglet-{}", self.hash)
    }

    /// The packet filter table.
    pub fn table(&self) -> String {
        format!("kinglet_{}", self.hash)
    }

    /// Networks for Service addresses in the order they are tried: /16 of the private ranges and of the one for
    /// carriers, each data directory from its own start.
    pub(crate) fn service_ranges(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        const COUNT: u32 = 256;
        let first = self.first_subnet.rotate_left(16) % COUNT;
        let private = (0..COUNT).map(move |step| (10 << 24) | (((first + step) % COUNT) << 16));
        let more = (16..32).map(|second: u32| (172 << 24) | (second << 16));
        let carrier = (64..128).map(|second: u32| (100 << 24) | (second << 16));
        private.chain(more).chain(carrier).map(Ipv4Addr::from)
    }

    /// Pod networks in the order they are tried: all /22 of 10.0.0.0/8, each data directory from its own start.
    pub fn subnets(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        const COUNT: u32 = 1 << (SUBNET_BITS - 8);
        let first = self.first_subnet % COUNT;
        (0..COUNT).map(move |step| {
            let index = (first + step) % COUNT;
            Ipv4Addr::from((10 << 24) | (index << (32 - SUBNET_BITS)))
        })
    }
}

/// Whether two networks share an address.
pub(crate) fn overlap(left: (Ipv4Addr, u8), right: (Ipv4Addr, u8)) -> bool {
    let bits = left.1.min(right.1);
    let mask = if bits == 0 {
        0
    } else {
        u32::MAX << (32 - bits)
    };
    u32::from(left.0) & mask == u32::from(right.0) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_directory_and_fit() {
        let (one, other) = (
            HostNames::new(Path::new("/var/lib/kinglet")),
            HostNames::new(Path::new("/tmp/other")),
        );
        assert_ne!(one, other);
        assert!(one.link(u16::MAX).len() <= 15 && one.bridge().len() <= 15);
        assert!(one.link(3).starts_with(&one.link_prefix()));
        let subnets: std::collections::HashSet<_> = one.subnets().collect();
        assert_eq!(subnets.len(), 1 << 14);
        assert!(
            subnets
                .iter()
                .all(|subnet| subnet.octets()[0] == 10 && subnet.octets()[3] == 0)
        );
    }

    #[test]
    fn overlap_looks_at_the_shorter_prefix() {
        let net = |text: &str, bits| (text.parse::<Ipv4Addr>().expect("address"), bits);
        assert!(overlap(net("10.1.0.0", 22), net("10.1.3.7", 32)));
        assert!(overlap(net("10.0.0.0", 8), net("10.200.0.0", 22)));
        assert!(!overlap(net("10.1.0.0", 22), net("10.1.4.0", 22)));
        assert!(overlap(net("0.0.0.0", 0), net("10.1.4.0", 22)));
    }
}
