//! (wire)
pub mod frame;
pub mod hello;
