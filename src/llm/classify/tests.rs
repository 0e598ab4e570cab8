//! Statuses, codes and times to classes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::{HeaderMap, StatusCode};

use super::*;

fn classified(status: u16, headers: &[(&'static str, &str)], body: &str) -> Classified {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    let error = ProviderError::from_http_response(status, body).with_response_headers(Some(map));
    let scrubber = Scrubber::default();
    let reporter = Reporter { model: "a/b", scrubber: &scrubber, now: Timestamp(1_445_412_000_000) };
    reporter.classify(&error.into())
}

fn name(error: &LlmError) -> String {
    format!("{error:?}").split('(').next().unwrap().to_owned()
}

#[test]
fn a_status_or_a_code_decides() {
    let cases = [
        (401, "", "Unauthorized"),
        (402, "", "Unauthorized"),
        (403, "{}", "Unauthorized"),
        (404, "<html>", "UnknownModel"),
        (400, "a 500 error, a timeout and max_tokens are only words", "Rejected"),
        (422, "", "Rejected"),
        (408, "", "Overloaded"),
        (409, "", "Overloaded"),
        (429, "", "RateLimited"),
        (429, r#"{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}"#, "Unauthorized"),
        (500, "", "Overloaded"),
        (503, "", "Overloaded"),
        (529, "", "Overloaded"),
        (413, "", "TooLong"),
        (400, r#"{"error":{"code":"context_length_exceeded"}}"#, "TooLong"),
        (400, r#"{"error":{"type":"exceed_context_size_error","code":400}}"#, "TooLong"),
        (400, r#"{"error":{"message":"prompt is too long: 2 > 1"}}"#, "TooLong"),
        (500, r#"{"error":{"message":"prompt is too long: 2 > 1"}}"#, "Overloaded"),
        (400, r#"{"error":{"message":"the prompt is too long for my taste"}}"#, "Rejected"),
        (400, r#"{"error":{"code":"content_policy_violation"}}"#, "Filtered"),
        (200, r#"{"error":{"code":429,"message":"upstream"}}"#, "RateLimited"),
        (200, r#"{"error":{"type":"authentication_error"}}"#, "Unauthorized"),
        (200, r#"{"error":{"type":"rate_limit_error"}}"#, "RateLimited"),
        (200, r#"{"error":{"type":"not_found_error"}}"#, "UnknownModel"),
        (200, r#"{"error":{"type":"invalid_request_error"}}"#, "Rejected"),
        (200, r#"{"error":{"type":"api_error"}}"#, "Overloaded"),
        (302, "", "Rejected"),
    ];
    for (status, body, wanted) in cases {
        assert_eq!(name(&classified(status, &[], body).error), wanted, "{status} {body}");
    }
}

#[test]
fn a_message_is_one_short_line_without_the_envelope() {
    let failed = classified(400, &[], r#"{"error":{"message":"first\nsecond  line"}}"#);
    assert_eq!(failed.error.failure().unwrap().to_string(), "a/b (HTTP 400): first second line");
    let failed = classified(500, &[], &"words and words ".repeat(1000));
    assert!(failed.error.failure().unwrap().detail.len() <= DETAIL_BYTES_MAX);
    // The cut must not leave half a key that no longer looks like one.
    let long = format!("{} sk-abcdefghijklmnop", "x".repeat(DETAIL_BYTES_MAX - 12));
    let detail = classified(500, &[], &long).error.failure().unwrap().detail.clone();
    assert!(!detail.contains("abc") && detail.contains("[hid"), "{detail}");
}

#[test]
fn the_wished_wait_is_seconds_a_date_or_milliseconds() {
    let wait = |headers: &[(&'static str, &str)]| classified(429, headers, "").retry_after;
    assert_eq!(wait(&[]), None);
    assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
    assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
    assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    assert_eq!(wait(&[("retry-after", date)]), Some(Duration::from_secs(480)));
    for nonsense in ["soon", "-1", "NaN", "1e300", ""] {
        assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
    }
}
