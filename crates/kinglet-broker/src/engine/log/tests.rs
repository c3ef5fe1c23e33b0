//! The log on a disk that fails at every point, and with the system's.

mod engine;
mod laws;
