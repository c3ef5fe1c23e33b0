//! Kubernetes quantities and label selectors, once for every crate that needs them: pure.
//!
//! [`Quantity`] has the semantics of Go's `resource.Quantity`: exact sums and comparison, canonical text.
//! [`LabelSelector`] reads the text form (`app in (a, b),!old`) and the structured one (`matchLabels`, `matchExpressions`).
//! Absent: Kubernetes types, JSON; callers hand over strings.

#![warn(missing_docs)]

mod quantity;
mod selector;
pub mod syntax;

pub use quantity::{NOT_A_QUANTITY, Quantity};
pub use selector::{LabelSelector, Operator, Requirement};
