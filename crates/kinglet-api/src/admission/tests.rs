//! Rows of admission: what goes in, what is stored, what is refused.
