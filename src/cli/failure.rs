//! How a verb ends if not well, and the exit code of each ending.

/// Usage or settings.
pub(super) const USAGE: u8 = 2;

/// Why a verb did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not work, or what was looked at is unhealthy.
    Failed(String),
    /// As `Failed`, and everything was said already.
    Unhealthy,
    /// Wrong arguments or settings.
    Usage(String),
    /// No node answers there.
    Unreachable(String),
    /// It did not happen in time.
    TimedOut(String),
    /// A second signal of this number ended the program at once.
    Signal(u8),
}

impl Failure {
    /// The exit code.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Unhealthy => 1,
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => 3,
            Self::TimedOut(_) => 4,
            Self::Signal(number) => 128 + *number,
        }
    }

    /// What is said on stderr.
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::Unreachable(text)
            | Self::TimedOut(text) => Some(text),
            Self::Unhealthy | Self::Signal(_) => None,
        }
    }
}
