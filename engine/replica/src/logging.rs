//! The log on standard error. A pipe or terminal that nobody reads blocks its writer, so one thread does all the
//! writing. All other threads hand their lines to that thread and never wait. When too many lines wait, further
//! lines are dropped and counted.

use isonomy_tuning::environment::is_empty;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// What is logged unless RUST_LOG says otherwise.
const FILTER: &str = "warn,isonomy=info";
/// The most lines that may wait to be written: some hundred KiB, as much as a process logs in its worst seconds.
const LINES_MAX: usize = 1024;
/// How long a process that ends waits until its last lines are written.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);
/// The time between two attempts to hand over the last lines.
const LAST_WORDS_RETRY: Duration = Duration::from_millis(5);

/// A message to the writing thread.
enum Said {
    Line(Vec<u8>),
    /// Everything before was written.
    Mark(SyncSender<()>),
}

struct Voice {
    said: SyncSender<Said>,
    /// Lines that nobody will read, since the start.
    dropped: AtomicU64,
}

/// The channel to the writing thread, which exists from `speak_apart` on.
static VOICE: OnceLock<Voice> = OnceLock::new();

/// Sets the logger up. A command writes its lines by itself.
pub(crate) fn start() {
    let target = env_logger::Target::Pipe(Box::new(LineSink));
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(FILTER));
    if is_empty("RUST_LOG") {
        logger.parse_filters(FILTER);
    }
    logger.target(target).init();
}

/// From here on a thread of its own writes, as a replica needs it; the text of a panic, too.
pub(crate) fn speak_apart() -> std::io::Result<()> {
    let (said, heard) = sync_channel(LINES_MAX);
    std::thread::Builder::new().name("log".into()).spawn(move || write_all(&heard))?;
    let voice = Voice { said, dropped: AtomicU64::new(0) };
    assert!(VOICE.set(voice).is_ok(), "a process speaks apart once");
    std::panic::set_hook(Box::new(on_panic));
    Ok(())
}

/// Logs a line, if there is room for it.
pub(crate) fn say(text: &str) {
    put(format!("{text}\n").into_bytes());
}

/// Logs why the process ends, and gives the writing thread some time to write the reason.
pub(crate) fn say_last(text: &str) {
    let Some(voice) = VOICE.get() else { return say(text) };
    let end = Instant::now() + LAST_WORDS_PATIENCE;
    let (written, is_written) = sync_channel(1);
    let left = leave(voice, Said::Line(format!("{text}\n").into_bytes()), end);
    if left && leave(voice, Said::Mark(written), end) {
        // A reader that does not read loses the line.
        let _ = is_written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Lines that nobody will read, since the start.
pub(crate) fn dropped() -> u64 {
    VOICE.get().map_or(0, |voice| voice.dropped.load(Ordering::Relaxed))
}

fn put(line: Vec<u8>) {
    let Some(voice) = VOICE.get() else {
        // A command has nothing better to do than to wait for its reader; one that has gone is no failure.
        let _ = std::io::stderr().write_all(&line);
        return;
    };
    if voice.said.try_send(Said::Line(line)).is_err() {
        voice.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hands a message to the writing thread. Returns whether there was room in time.
fn leave(voice: &Voice, mut said: Said, end: Instant) -> bool {
    loop {
        match voice.said.try_send(said) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if Instant::now() < end => said = back,
            Err(_) => return false,
        }
        std::thread::sleep(LAST_WORDS_RETRY);
    }
}

/// The writing thread.
fn write_all(heard: &Receiver<Said>) {
    let mut told = 0;
    while let Ok(said) = heard.recv() {
        match said {
            Said::Line(line) => {
                told = tell_dropped(told);
                if !write_to_end(&line) {
                    count_dropped();
                }
            }
            Said::Mark(written) => {
                // The process may have stopped waiting for the flush.
                let _ = written.try_send(());
            }
        }
    }
}

/// Says how many lines were dropped since `told` of them had been; how many were told now.
fn tell_dropped(told: u64) -> u64 {
    let dropped = dropped();
    if dropped == told {
        return told;
    }
    let text = format!(
        "isonomy: {} lines were dropped here, because standard error was not read fast enough; read it \
         faster\n",
        dropped - told
    );
    if write_to_end(text.as_bytes()) { dropped } else { told }
}

fn count_dropped() {
    if let Some(voice) = VOICE.get() {
        voice.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes to standard error without the lock of the standard library's handle, which this thread would
/// hold for as long as nobody reads. False: nobody can read it any more.
fn write_to_end(mut line: &[u8]) -> bool {
    while !line.is_empty() {
        match rustix::io::write(std::io::stderr(), line) {
            Ok(0) => return false,
            Ok(count) => line = &line[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(LAST_WORDS_RETRY),
            Err(_) => return false,
        }
    }
    true
}

/// A broken invariant: the process aborts when this returns.
fn on_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let mut text = format!("thread '{}' {info}", thread.name().unwrap_or("unnamed"));
    if backtrace.status() == BacktraceStatus::Captured {
        text += &format!("\nstack backtrace:\n{backtrace}");
    }
    say_last(&text);
}

/// Where the logger writes; it hands over a whole line at a time.
struct LineSink;

impl Write for LineSink {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
