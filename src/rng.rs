//! The one source of randomness, seedable so that a simulated node repeats itself.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A node's randomness. Clones draw from the same stream.
#[derive(Clone, Debug)]
pub struct Randomness(Arc<Mutex<StdRng>>);

impl Randomness {
    /// Randomness that repeats itself for a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Randomness from the operating system.
    pub fn from_system() -> Self {
        let mut seed = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed)
            .expect("the operating system gives random bytes");
        Self(Arc::new(Mutex::new(StdRng::from_seed(seed))))
    }

    /// The next 64 random bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// A random number below `bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }
}
