//! (gossip)
