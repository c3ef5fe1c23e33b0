//! Who somebody is, and what they may do.

pub(crate) mod aggregation;
pub(crate) mod escalation;
pub(crate) mod signer;
pub(crate) mod tokens;

pub(crate) mod rights;
