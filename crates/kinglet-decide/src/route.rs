//! Host, path and headers to a split of targets, chosen evenly. Owned by the data plane's author.

/// An immutable routing table; swapped whole.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Grows with each table; the data plane acknowledges it.
    pub version: u64,
}
