//! What Kubernetes means by quantities, label selectors and pod specs, once for every crate that needs it: pure.
//!
//! [`Quantity`] has the semantics of Go's `resource.Quantity`: exact sums and comparison, canonical text.
//! [`LabelSelector`] reads the text form (`app in (a, b),!old`) and the structured one (`matchLabels`, `matchExpressions`).
//! [`pod`] has the defaults of a pod spec and when a Pod is ready; it works on JSON, through [`fields`].
//! Absent: Kubernetes types, clients, rules.

#![warn(missing_docs)]

pub mod fields;
pub mod pod;
mod quantity;
mod selector;
pub mod syntax;

pub use quantity::{NOT_A_QUANTITY, Quantity};
pub use selector::{LabelSelector, Operator, Requirement};
