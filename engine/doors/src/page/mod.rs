//! The status page at `/`: one file without anything from elsewhere, which asks `/v1/status` each second.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;

const PAGE: &str = include_str!("page.html");
/// What stands in the page for the number that lets its script and its style be used.
const NONCE: &str = "{{nonce}}";

pub(crate) async fn show() -> impl IntoResponse {
    // Nobody can guess it, so whatever else gets into the page is not run.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).expect("a policy is plain text");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, PAGE.replace(NONCE, &nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_takes_nothing_from_elsewhere_and_marks_all_that_it_runs() {
        let runs = PAGE.matches("<script").count() + PAGE.matches("<style").count();
        assert_eq!((runs, PAGE.matches(NONCE).count()), (2, 2));
        // The names of an XML language are no addresses.
        let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http://", "https://", "//cdn", "@import", "innerHTML", " style=", " onclick="] {
            assert!(!rest.contains(foreign), "{foreign}");
        }
    }

    #[tokio::test]
    async fn each_page_has_a_number_of_its_own() {
        let policy = || async {
            let answer = show().await.into_response();
            answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
        };
        let (one, other) = (policy().await, policy().await);
        assert!(one.starts_with("default-src 'none'; script-src 'nonce-") && one != other);
    }
}
