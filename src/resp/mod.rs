//! (resp)
