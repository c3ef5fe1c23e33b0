//! Writes docs/fields.md to standard output.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

fn main() {
    print!("{}", kinglet_apiserver::field_support::page());
}
