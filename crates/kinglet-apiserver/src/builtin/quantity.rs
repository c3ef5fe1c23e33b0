//! Quantities in objects: text, or a number as typed clients send one.

pub(crate) use kinglet_quantity::Quantity;
pub(crate) use kinglet_quantity::fields::quantity as of;
