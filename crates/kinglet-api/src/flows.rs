//! `flows.knative.dev`: Sequence and Parallel.

mod child;
mod parallel;
mod sequence;

pub use child::{ChannelState, ChildCondition, ObjectState};
pub use parallel::{BranchStatus, Parallel, ParallelBranch, ParallelSpec, ParallelStatus};
pub use sequence::{Sequence, SequenceSpec, SequenceStatus, SequenceStep};

/// API group of these kinds.
pub const GROUP: &str = "flows.knative.dev";
