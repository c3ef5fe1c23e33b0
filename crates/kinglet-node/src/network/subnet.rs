//! Which network the pods of a data directory have: beside all routes of this machine.

use std::net::Ipv4Addr;

use super::ruleset::Subnet;
use super::{NetworkError, system};
use crate::names::{HostNames, SUBNET_BITS, overlap};

/// The host's address in a pod network.
pub(super) fn gateway_of(subnet: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet) + 1)
}

/// The pod network of a data directory: its first choice that overlaps no route of this machine, nor the instance's own
/// Service addresses, to which the packet filter lets nothing through. The bridge of an earlier life does not count.
pub(super) fn free_subnet(
    names: &HostNames,
    services: Option<Subnet>,
) -> Result<Ipv4Addr, NetworkError> {
    let routes = std::fs::read_to_string("/proc/net/route")
        .map_err(system("reading the routes of this machine"))?;
    let mut taken = routes_in(&routes, &names.bridge());
    taken.extend(services.map(|range| (range.address, range.bits)));
    first_beside(names, &taken)
}

fn first_beside(names: &HostNames, taken: &[(Ipv4Addr, u8)]) -> Result<Ipv4Addr, NetworkError> {
    names
        .subnets()
        .find(|subnet| {
            taken
                .iter()
                .all(|other| !overlap((*subnet, SUBNET_BITS), *other))
        })
        .ok_or(NetworkError::NoSubnet)
}

/// Networks in the text of `/proc/net/route` but the default route.
pub(super) fn routes_in(text: &str, own_bridge: &str) -> Vec<(Ipv4Addr, u8)> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
        let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        let bits = u8::try_from(mask.leading_ones()).ok()?;
        (fields[0] != own_bridge && bits > 0).then_some((Ipv4Addr::from(destination), bits))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn pods_and_services_share_no_address() {
        let names = HostNames::new(Path::new("/data/node"));
        let first = names.subnets().next().expect("a first choice");
        let [a, b, ..] = first.octets();
        let services = Subnet::new(Ipv4Addr::new(a, b, 0, 0), 16);
        let chosen = free_subnet(&names, Some(services)).expect("another");
        assert!(
            !overlap((chosen, SUBNET_BITS), (services.address, services.bits)),
            "{chosen}"
        );
    }

    #[test]
    fn routes_that_count() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
kb12345678\t00588C0A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(
                routes_in(text, "kb12345678"),
                vec![(Ipv4Addr::new(10, 0, 2, 0), 24)]
            );
            assert_eq!(
                routes_in(text, "other")[1],
                (Ipv4Addr::new(10, 140, 88, 0), 22)
            );
        }
    }
}
