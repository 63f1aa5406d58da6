//! (wire)
pub mod frame;
pub mod hello;
pub mod member;
