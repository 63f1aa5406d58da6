//! The `chickadee` program.

fn main() {}
