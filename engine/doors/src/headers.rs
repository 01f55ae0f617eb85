//! What header fields ask for: the type of the body, a deadline, and the name of the request.

use crate::limits::DEADLINE_MAX;
use crate::problem::{Problem, Refusal};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use std::time::Duration;

/// The field that names the longest time for an answer, in seconds, with up to three digits behind the point.
const REQUEST_TIMEOUT: &str = "request-timeout";

/// The value of a header field that may be given once.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let wrong = |why: &str| Problem::BadHeader.because(format!("{name} {why}"));
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong("is given more than once"));
    }
    first.to_str().map(|text| Some(text.trim())).map_err(|_| wrong("has bytes that are no visible ASCII"))
}

/// Checks that the body has one of these types. A browser sends none of them to a foreign site without asking first.
pub(crate) fn check_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Refusal> {
    let given = value(headers, CONTENT_TYPE.as_str())?.unwrap_or("nothing");
    let essence = given.split(';').next().unwrap_or_default().trim_end();
    if wanted.iter().any(|wanted| essence.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let wanted = wanted.join(" or ");
    Err(Problem::WrongType.because(format!("content-type is {given}, and {wanted} is expected")))
}

/// How long the sender wants to wait.
pub(crate) fn deadline(headers: &HeaderMap) -> Result<Duration, Refusal> {
    let Some(text) = value(headers, REQUEST_TIMEOUT)? else { return Ok(DEADLINE_MAX) };
    let deadline = seconds(text).filter(|deadline| !deadline.is_zero() && *deadline <= DEADLINE_MAX);
    deadline.ok_or_else(|| {
        let most = DEADLINE_MAX.as_secs();
        Problem::BadHeader.because(format!(
            "Request-Timeout is '{text}', and goes from 0.001 to {most} seconds, such as 2 or 0.25"
        ))
    })
}

/// Seconds with up to three digits behind the point.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 9) || !digits(part, 3) {
        return None;
    }
    let millis: u64 = format!("{part:0<3}").parse().ok()?;
    Some(Duration::from_millis(1000 * whole.parse::<u64>().ok()? + millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_deadline_is_seconds_with_up_to_three_digits_behind_the_point() {
        let of = |text| deadline(&headers(&[("request-timeout", text)]));
        assert_eq!(deadline(&headers(&[])), Ok(DEADLINE_MAX));
        for (text, millis) in [("2", 2000), ("0.25", 250), (" 0.001 ", 1), ("5.000", 5000), ("1.5", 1500)] {
            assert_eq!(of(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "0.000", "5.001", "1e3", "-1", "+1", "0.0001", ".5", "1.", "99999999999", "2s"]
        {
            assert_eq!(of(text).unwrap_err().problem, Problem::BadHeader, "{text}");
        }
        let twice = headers(&[("request-timeout", "1"), ("request-timeout", "2")]);
        assert!(deadline(&twice).unwrap_err().why.contains("more than once"));
    }

    #[test]
    fn a_type_may_have_parameters_and_must_be_named() {
        let of = |text| check_type(&headers(&[("content-type", text)]), &["application/json"]);
        for text in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert_eq!(of(text), Ok(()), "{text}");
        }
        for text in ["application/x-www-form-urlencoded", "text/plain", "application/jsonx", ""] {
            assert_eq!(of(text).unwrap_err().problem, Problem::WrongType, "{text}");
        }
        let none = check_type(&headers(&[]), &["application/json"]).unwrap_err();
        assert!(none.why.contains("content-type is nothing"), "{}", none.why);
    }
}
