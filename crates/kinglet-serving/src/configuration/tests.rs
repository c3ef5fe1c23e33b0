//! Tables of what must be decided.
