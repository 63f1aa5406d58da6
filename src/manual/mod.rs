//! The manual, beside the code so that both change together.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}

#[doc = include_str!("settings.md")]
pub mod settings {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}
