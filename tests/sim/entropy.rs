//! Random bytes by seed: the operating system's source, as every library asks it, answers a thread
//! that runs a simulation with bytes of its seed.
//!
//! Keys of hash tables, TLS and QUIC draw from it, and what they draw shows in the order and the sizes
//! of what is sent. The program's own `getrandom` and `syscall` come before those of the C library.

#![expect(unsafe_code, reason = "functions of the C library are put in place of its own")]

use std::cell::Cell;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread's entropy follows from a seed.
pub(crate) fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// The next number of this thread (`SplitMix64`, Steele et al. 2014); `None` where no seed was given.
fn next() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// Fills the buffer from the seed; `false` where this thread has none.
fn fill(buffer: &mut [u8]) -> bool {
    for chunk in buffer.chunks_mut(8) {
        let Some(number) = next() else { return false };
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
    STATE.get().is_some()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod interposed {
    use std::ffi::{c_int, c_long, c_uint, c_void};

    const GETRANDOM: c_long = 318;

    unsafe extern "C" {
        fn __errno_location() -> *mut c_int;
    }

    /// Makes the call that the C library would make.
    ///
    /// # Safety
    ///
    /// As the call itself.
    unsafe fn call(number: c_long, args: [c_long; 6]) -> c_long {
        let result: c_long;
        // SAFETY: the registers are those of the kernel's convention; the caller answers for the call.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") args[0],
                in("rsi") args[1],
                in("rdx") args[2],
                in("r10") args[3],
                in("r8") args[4],
                in("r9") args[5],
                out("rcx") _,
                out("r11") _,
            );
        }
        if (-4095..0).contains(&result) {
            // SAFETY: the C library gives the address of this thread's error number.
            unsafe { *__errno_location() = c_int::try_from(-result).unwrap_or(c_int::MAX) };
            return -1;
        }
        result
    }

    /// # Safety
    ///
    /// As `getrandom(2)`: `buffer` has room for `length` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
        if !buffer.is_null() {
            // SAFETY: by this function's contract.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
            if super::fill(bytes) {
                return isize::try_from(length).unwrap_or(isize::MAX);
            }
        }
        let length = c_long::try_from(length).unwrap_or(c_long::MAX);
        let args = [buffer as c_long, length, c_long::from(flags), 0, 0, 0];
        // SAFETY: by this function's contract.
        let result = unsafe { call(GETRANDOM, args) };
        isize::try_from(result).unwrap_or(-1)
    }

    /// # Safety
    ///
    /// As `syscall(2)`. All of its arguments are taken: who passes fewer leaves registers as they are.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn syscall(
        number: c_long,
        first: c_long,
        second: c_long,
        third: c_long,
        fourth: c_long,
        fifth: c_long,
        sixth: c_long,
    ) -> c_long {
        if number == GETRANDOM {
            let (buffer, length) = (first as *mut c_void, usize::try_from(second).unwrap_or(0));
            // SAFETY: by this function's contract.
            let filled = unsafe { getrandom(buffer, length, c_uint::try_from(third).unwrap_or(0)) };
            return c_long::try_from(filled).unwrap_or(-1);
        }
        // SAFETY: by this function's contract.
        unsafe { call(number, [first, second, third, fourth, fifth, sixth]) }
    }
}

/// Each library that asks for entropy is told the same by the same seed, and other things by another.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn entropy_follows_from_the_seed() {
    use std::hash::BuildHasher;

    use ring::rand::SecureRandom;

    let draw = |with: u64| {
        let drawing = std::thread::spawn(move || {
            seed(with);
            let (mut of_ring, mut of_rand) = ([0; 16], [0; 16]);
            ring::rand::SystemRandom::new().fill(&mut of_ring).expect("there is entropy");
            rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut of_rand)
                .expect("there is entropy");
            let of_std = std::collections::hash_map::RandomState::new().hash_one(1);
            (of_ring, of_rand, of_std)
        });
        drawing.join().expect("no panic")
    };
    let (one, other) = (draw(1), draw(2));
    assert_eq!(one, draw(1));
    assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2);
}
