//! What the library logs, for tests that wait for a line of it.

use super::PATIENCE;
use log::{LevelFilter, Log, Metadata, Record};
use std::sync::{LazyLock, Once};
use tokio::sync::watch::Sender;

static LINES: LazyLock<Sender<Vec<String>>> = LazyLock::new(|| Sender::new(Vec::new()));

struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.send_modify(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Keeps warnings from here on, for all tests.
pub(crate) fn keep() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        log::set_logger(&Lines).expect("nobody else keeps the log");
        log::set_max_level(LevelFilter::Warn);
    });
}

/// Waits for a line with all of these texts.
pub(crate) async fn until_logged(texts: &[&str]) {
    let is_it = |line: &String| texts.iter().all(|text| line.contains(text));
    let mut lines = LINES.subscribe();
    let logged = lines.wait_for(|lines| lines.iter().any(is_it));
    let logged = tokio::time::timeout(PATIENCE, logged).await;
    logged
        .unwrap_or_else(|_| panic!("no line has {texts:?}: {:#?}", *LINES.borrow()))
        .expect("the log is kept");
}
