//! Refusals, as statuses of gRPC with details (google.rpc.ErrorInfo and RetryInfo).

use super::proto::{self, Reason};
use crate::problem::{Problem, Refusal};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of the reasons.
const DOMAIN: &str = "isonomy";

/// What a kind of refusal is by gRPC. Kinds of wrong requests that only HTTP tells apart are wrong fields.
fn meaning(problem: Problem) -> (Code, Reason) {
    match problem {
        Problem::BadJson | Problem::BadField | Problem::BadHeader | Problem::BadQuery | Problem::BadBody => {
            (Code::InvalidArgument, Reason::BadField)
        }
        Problem::NoSuchPath | Problem::WrongMethod | Problem::WrongType => {
            (Code::InvalidArgument, Reason::BadField)
        }
        Problem::NoDecision => (Code::NotFound, Reason::NoDecision),
        Problem::NotPublished => (Code::FailedPrecondition, Reason::NotPublished),
        Problem::SlowSender => (Code::Aborted, Reason::SlowSender),
        Problem::OtherContents => (Code::AlreadyExists, Reason::OtherContents),
        Problem::TooLarge => (Code::InvalidArgument, Reason::TooLarge),
        Problem::Overloaded => (Code::ResourceExhausted, Reason::Overloaded),
        Problem::WrongRelease => (Code::Internal, Reason::WrongRelease),
        Problem::Unavailable => (Code::Unavailable, Reason::Unavailable),
        Problem::NoQuorum => (Code::Unavailable, Reason::NoQuorum),
        Problem::UnknownOutcome => (Code::DeadlineExceeded, Reason::UnknownOutcome),
        Problem::NoAnswer => (Code::DeadlineExceeded, Reason::NoAnswer),
    }
}

impl Refusal {
    /// The reason, and what to do. What HTTP calls Retry-After is called RetryInfo here.
    fn message(&self) -> String {
        let advice = self.problem.facts().advice.replace("Retry-After", "RetryInfo");
        format!("{}; {advice}", self.why)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let (code, reason) = meaning(refusal.problem);
        let mut details = details(reason);
        if refusal.retry_after.is_some() {
            details.set_retry_info(refusal.retry_after);
        }
        Status::with_error_details(code, refusal.message(), details)
    }
}

impl From<Refusal> for proto::Refusal {
    fn from(refusal: Refusal) -> proto::Refusal {
        let (code, reason) = meaning(refusal.problem);
        let after = refusal.retry_after.unwrap_or_default().as_millis();
        proto::Refusal {
            reason: reason.into(),
            code: code.into(),
            message: refusal.message(),
            retry_after_ms: after.try_into().unwrap_or(u32::MAX),
        }
    }
}

/// Decisions that cannot be read, for this reason.
pub(super) fn unreadable(why: String) -> Status {
    Status::with_error_details(Code::DataLoss, why, details(Reason::Unreadable))
}

fn details(reason: Reason) -> ErrorDetails {
    let name = reason.as_str_name().trim_start_matches("REASON_");
    ErrorDetails::with_error_info(name, DOMAIN, HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_kind_has_the_reason_of_its_name_or_is_a_wrong_field() {
        for problem in Problem::all() {
            let status = Status::from(problem.because("it"));
            let info = status.get_error_details().error_info().cloned().unwrap();
            let name = problem.facts().name.to_uppercase().replace('-', "_");
            assert!(info.reason == name || info.reason == "BAD_FIELD", "{name}: {}", info.reason);
            assert_eq!(info.domain, DOMAIN);
            assert!(status.message().starts_with("it; "), "{}", status.message());
            assert!(status.get_error_details().retry_info().is_none());
        }
    }

    #[test]
    fn a_time_to_wait_is_told_exactly() {
        let refusal = Problem::Overloaded.for_now(Duration::from_millis(1200), "all is busy");
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(1200)));
        assert!(status.message().ends_with("after the time that RetryInfo names"), "{}", status.message());
        let told = proto::Refusal::from(refusal);
        assert_eq!((told.retry_after_ms, told.code), (1200, Code::ResourceExhausted.into()));
        assert_eq!(told.reason(), Reason::Overloaded);
    }
}
