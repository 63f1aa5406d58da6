//! (membership)
