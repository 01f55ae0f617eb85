//! One decision on its way to the hook, until it is answered.

use super::lanes::Over;
use super::{BadHook, CONCURRENCY_MAX, HookError, HookSettings, HookStatus, Refused, body};
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::decision::Decision;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderName, HeaderValue, Uri};
use ureq::tls::{RootCerts, TlsConfig};

/// How long a request that failed waits before it is tried again, first and at most. The time doubles with each try, and of
/// each a random part of up to a half is left out, so that requests that failed together do not come together again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that a hook may ask for by Retry-After.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: u64 = 1024;
/// The statuses of 4xx that pass: the request took too long, came too early, or came with too many others.
const PASSING: [u16; 3] = [408, 425, 429];

/// What has become of a decision.
pub(super) enum Posted {
    Taken,
    Skipped { status: u16, answer: String },
}

/// What has become of a request.
enum Outcome {
    Taken,
    /// It may go well next time, after so long at least.
    Failed {
        why: String,
        after: Duration,
    },
    /// It will not go well.
    Refused {
        status: u16,
        answer: String,
    },
}

pub(super) struct Poster {
    settings: HookSettings,
    client: ureq::Agent,
    status: Arc<HookStatus>,
}

impl Poster {
    pub(super) fn new(settings: HookSettings) -> Result<Poster, BadHook> {
        check(&settings)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let client = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(settings.timeout))
            .http_status_as_error(false)
            // A redirected POST would arrive as a GET.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("isonomy-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Poster { settings, client, status: Arc::default() })
    }

    pub(super) fn status(&self) -> Arc<HookStatus> {
        Arc::clone(&self.status)
    }

    pub(super) fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    /// Posts a decision until it is taken or refused for good.
    pub(super) fn post(
        &self,
        topic: TopicId,
        decision: &Decision,
        over: &Over<'_>,
    ) -> Result<Posted, HookError> {
        let (name, body) = (body::idempotency_key(topic, decision), body::json(decision));
        let mut pause = PAUSE_MIN;
        loop {
            if over.is_set() {
                return Err(HookError::Stopped);
            }
            match self.request(&name, &body) {
                Outcome::Taken => {
                    self.status.on_posted();
                    return Ok(Posted::Taken);
                }
                Outcome::Failed { why, after } => {
                    self.status.on_retry(format!("The hook has not taken decision {}: {why}", decision.id));
                    over.wait(pause.mul_f64(rand::rng().random_range(0.5..=1.0)).max(after));
                    pause = (2 * pause).min(PAUSE_MAX);
                }
                Outcome::Refused { status, answer } => return self.refused(decision, status, answer),
            }
        }
    }

    fn request(&self, name: &str, body: &str) -> Outcome {
        let mut request = self.client.post(&self.settings.url);
        for (header, value) in &self.settings.headers {
            request = request.header(header, value);
        }
        let request = request.header("Content-Type", "application/json").header("Idempotency-Key", name);
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Outcome::Failed { why: error.to_string(), after: Duration::ZERO },
        };
        let status = response.status().as_u16();
        // The answer is read to its end, so that the connection can be used again.
        let answer =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let answer = answer.unwrap_or_default().trim().to_owned();
        match status {
            200..300 => Outcome::Taken,
            300..500 if !PASSING.contains(&status) => Outcome::Refused { status, answer },
            _ => {
                let asked = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let after = asked.and_then(|text| retry_after(text, SystemTime::now())).unwrap_or_default();
                Outcome::Failed { why: format!("it has answered {status}: {answer}"), after }
            }
        }
    }

    fn refused(&self, decision: &Decision, status: u16, answer: String) -> Result<Posted, HookError> {
        let (id, key_seq) = (decision.id.to_string(), decision.key_seq);
        match self.settings.refused {
            Refused::Stop => Err(HookError::Refused { id, key_seq, status, answer }),
            Refused::Skip => {
                self.status.on_skipped(&format!(
                    "The hook has answered {status} to decision {id}: {answer}; it is skipped, and kept in the table skipped"
                ));
                Ok(Posted::Skipped { status, answer })
            }
        }
    }
}

fn check(settings: &HookSettings) -> Result<(), BadHook> {
    let uri: Option<Uri> = settings.url.parse().ok();
    let is_address = |uri: Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    if !uri.is_some_and(is_address) {
        return Err(BadHook::Url(settings.url.clone()));
    }
    if !(1..=CONCURRENCY_MAX).contains(&settings.concurrency) {
        return Err(BadHook::Concurrency(settings.concurrency));
    }
    if settings.timeout.is_zero() {
        return Err(BadHook::NoTime);
    }
    let is_header = |(name, value): &(&String, &String)| {
        name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
    };
    match settings.headers.iter().find(|header| !is_header(header)) {
        Some((name, _)) => Err(BadHook::Header(name.clone())),
        None => Ok(()),
    }
}

/// What Retry-After asks for, which is a number of seconds or a date, up to the longest pause.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let seconds = text.trim().parse().map(Duration::from_secs).ok();
    let date = || httpdate::parse_http_date(text.trim()).ok()?.duration_since(now).ok();
    seconds.or_else(date).map(|after| after.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let settings = || HookSettings { url: "http://host:80/hook".into(), ..HookSettings::default() };
        assert_eq!(check(&settings()), Ok(()));
        for url in ["", "host", "ftp://host", "http://", "/hook"] {
            let bad = HookSettings { url: url.into(), ..settings() };
            assert_eq!(check(&bad), Err(BadHook::Url(url.into())));
        }
        for concurrency in [0, CONCURRENCY_MAX + 1] {
            let bad = HookSettings { concurrency, ..settings() };
            assert_eq!(check(&bad), Err(BadHook::Concurrency(concurrency)));
        }
        let bad = HookSettings { timeout: Duration::ZERO, ..settings() };
        assert_eq!(check(&bad), Err(BadHook::NoTime));
        for (name, value) in [("a b", "c"), ("a", "b\nc")] {
            let bad = HookSettings { headers: [(name.into(), value.into())].into(), ..settings() };
            assert_eq!(check(&bad), Err(BadHook::Header(name.into())));
        }
        let secret =
            HookSettings { headers: [("Authorization".into(), "hidden".into())].into(), ..settings() };
        assert!(!format!("{secret:?}").contains("hidden"));
    }

    #[test]
    fn a_hook_may_ask_for_a_pause_in_seconds_or_until_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:50:00 GMT", Some(23)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", None),
            ("99999999", Some(3600)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
