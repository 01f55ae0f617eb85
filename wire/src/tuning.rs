//! The settings that a cluster changes while it runs, and how a replica stands to the fast path.
//!
//! Replicas may have different settings at any moment: the settings decide how long a replica waits and which of two
//! lawful ways it takes, and never what is decided.

use rkyv::{Archive, Deserialize, Serialize};

/// The most own instances that a replica may have unexecuted, whatever the settings say.
pub const WINDOW_MAX: u32 = 63;

/// The settings of the protocol that change at run time.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// How long a coordinator waits for the fast path when the slow path is possible, in microseconds.
    pub fast_path_us: u64,
    /// How long a message may have no answer before it is sent again, in microseconds.
    pub resend_us: u64,
    /// How long an instance may stay undecided before it is recovered, in microseconds; doubled at each try.
    pub recover_us: u64,
    /// How long an instance may stay undecided before it is recovered when its coordinator cannot be reached, in
    /// microseconds.
    pub suspect_us: u64,
    /// Whether coordinators wait for the fast path.
    pub path: PathMode,
    /// How long a fast quorum must be out of reach before a replica stops waiting for one, in microseconds.
    pub guardrail_us: u64,
    /// Whether a recovery that would abort an instance proposes what its coordinator could have proposed.
    pub rescue: bool,
    /// How many own instances a replica may have unexecuted before it proposes no more.
    pub window: u32,
}

impl Tuning {
    /// The settings where nobody has set any. The window hides two syncs and a round trip, and lets requests gather under
    /// load.
    pub const DEFAULT: Tuning = Tuning {
        fast_path_us: 10_000,
        resend_us: 200_000,
        recover_us: 500_000,
        suspect_us: 50_000,
        path: PathMode::Auto,
        guardrail_us: 5_000_000,
        rescue: false,
        window: 32,
    };
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning::DEFAULT
    }
}

/// Whether coordinators wait for the fast path.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathMode {
    /// They wait unless the guardrail says that a fast quorum cannot be formed.
    #[default]
    Auto,
    /// They wait, whatever the guardrail says.
    Fast,
    /// They never wait.
    Slow,
}

/// Why a fast quorum cannot be formed.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Too few replicas are reached.
    Unreached,
    /// The replicas are reached, and most waits for them are in vain.
    InVain,
}

/// Why a replica waits for the fast path, or does not.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathReason {
    /// Nothing speaks against waiting.
    #[default]
    Usual,
    /// The settings say so.
    Set,
    /// The replica judges that a fast quorum cannot be formed.
    Judged(Loss),
    /// Another replica judges so, and the members have agreed to follow.
    Agreed,
}

/// How a replica stands to the fast path.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathStatus {
    /// Whether the replica takes the slow path as soon as a slow quorum has answered.
    pub is_slow: bool,
    /// Why.
    pub reason: PathReason,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// The judgement of the replica itself, also where the settings overrule it.
    pub loss: Option<Loss>,
}
