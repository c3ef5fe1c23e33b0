//! Which addresses Services of a data directory have.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use super::ruleset::Subnet;
use super::subnet::routes_in;
use super::{NetworkError, system};
use crate::names::{HostNames, overlap};

/// Keeps the choice: addresses of Services are in objects, so they outlive the process.
const RECORD: &str = "service-range";
/// What every data directory had before the choice was kept.
const FORMER: [u8; 2] = [10, 96];
const BITS: u8 = 16;

/// A /16 of Service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange([u8; 2]);

impl ServiceRange {
    /// The first two bytes of all its addresses.
    pub fn network(self) -> [u8; 2] {
        self.0
    }

    /// The first address, which the Service `kubernetes` has.
    pub fn first(self) -> Ipv4Addr {
        let [a, b] = self.0;
        Ipv4Addr::new(a, b, 0, 1)
    }

    pub(super) fn subnet(self) -> Subnet {
        let [a, b] = self.0;
        Subnet::new(Ipv4Addr::new(a, b, 0, 0), BITS)
    }
}

/// The Service addresses of a data directory. At the first start they are chosen so that they overlap nothing that this
/// machine has a route to, each directory beginning elsewhere; then they stay. Assumes that the caller holds the
/// directory's lock.
pub fn service_range(data_dir: &Path, has_objects: bool) -> Result<ServiceRange, NetworkError> {
    let record = data_dir.join(RECORD);
    match std::fs::read_to_string(&record) {
        Ok(text) => return parse(&text).map_err(system("reading the range of Service addresses")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system("reading the range of Service addresses")(error));
        }
        Err(_) => {}
    }
    let range = if has_objects {
        ServiceRange(FORMER)
    } else {
        choose(&HostNames::new(&crate::canonical(data_dir)))?
    };
    std::fs::write(&record, format!("{}\n", range.subnet()))
        .map_err(system("keeping the range of Service addresses"))?;
    Ok(range)
}

fn choose(names: &HostNames) -> Result<ServiceRange, NetworkError> {
    let routes = std::fs::read_to_string("/proc/net/route")
        .map_err(system("reading the routes of this machine"))?;
    let taken = routes_in(&routes, &names.bridge());
    names
        .service_ranges()
        .find(|range| taken.iter().all(|other| !overlap((*range, BITS), *other)))
        .map(|range| {
            let [a, b, ..] = range.octets();
            ServiceRange([a, b])
        })
        .ok_or(NetworkError::NoServiceRange)
}

fn parse(text: &str) -> io::Result<ServiceRange> {
    let address = text.trim().strip_suffix("/16");
    let address = address.and_then(|address| address.parse::<Ipv4Addr>().ok());
    let Some([a, b, 0, 0]) = address.map(|address| address.octets()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{text:?} is not a network like 10.96.0.0/16"),
        ));
    };
    Ok(ServiceRange([a, b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_kept() {
        let data = kinglet_testkit::instance::scratch("service-range");
        std::fs::create_dir_all(&data).expect("a directory");
        let first = service_range(&data, false).expect("a range");
        assert_eq!(service_range(&data, true).expect("the same"), first);
        std::fs::write(data.join(RECORD), "10.96.0.0/12\n").expect("written");
        assert!(service_range(&data, false).is_err());
        std::fs::remove_file(data.join(RECORD)).expect("removed");
        let former = service_range(&data, true).expect("a range");
        std::fs::remove_dir_all(&data).expect("removed");
        assert_eq!(former.first(), Ipv4Addr::new(10, 96, 0, 1));
    }

    #[test]
    fn directories_begin_elsewhere() {
        let first = |path: &str| HostNames::new(Path::new(path)).service_ranges().next();
        let all: std::collections::HashSet<_> =
            (0..16).map(|n| first(&format!("/data/{n}"))).collect();
        assert!(all.len() > 8, "{all:?}");
    }
}
