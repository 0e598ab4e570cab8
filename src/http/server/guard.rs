//! Who may ask: the bearer token, and the web pages that may not.

use std::net::IpAddr;

use subtle::{Choice, ConstantTimeEq};

use super::Request;

/// True when no token is set or the request carries it as `Authorization: Bearer …`. The time this
/// takes depends on what the client sent, not on the token or its length.
pub fn authorized(request: &Request<'_>, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let mut given = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("authorization"));
    let (Some(header), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, given)) = header.value.split_at_checked(b"Bearer ".len()) else { return false };
    if !scheme.eq_ignore_ascii_case(b"Bearer ") || token.is_empty() {
        return false;
    }
    same(given.trim_ascii(), token.as_bytes())
}

/// Walks over what was given, whatever the length of the token is.
fn same(given: &[u8], token: &[u8]) -> bool {
    let mut equal: Choice = given.len().ct_eq(&token.len());
    for (index, byte) in given.iter().enumerate() {
        equal &= byte.ct_eq(&token[index % token.len()]);
    }
    equal.into()
}

/// True when a browser sends this for a page that is not ours: another origin, or a name that was
/// made to point here. A server on the loopback address without a token must refuse such requests,
/// otherwise every web page that the owner opens could talk to the agent.
pub fn is_from_foreign_page(request: &Request<'_>) -> bool {
    let host = request.header("host").unwrap_or_default();
    let foreign_site =
        request.header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let foreign_origin = request.header("origin").is_some_and(|origin| {
        origin.split_once("://").is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host))
    });
    // Without a host there is no browser: all of them send one.
    foreign_site || foreign_origin || !(host.is_empty() || is_literal_host(host))
}

/// An address or `localhost`, with or without a port: what no name server can redirect.
fn is_literal_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;

    fn check(headers: &[(&str, &str)], question: impl Fn(&Request<'_>) -> bool) -> bool {
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let request = Request {
            method: "GET",
            path: "/",
            query: "",
            headers: &headers,
            body: &[],
            attempt: 0,
            expired: false,
        };
        question(&request)
    }

    #[test]
    fn only_the_whole_token_opens() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[("Authorization", "Bearer secret")], true),
            (&[("authorization", "bearer  secret ")], true),
            (&[("Authorization", "Bearer secre")], false),
            (&[("Authorization", "Bearer secretsecret")], false),
            (&[("Authorization", "Bearer Secret")], false),
            (&[("Authorization", "Bearer ")], false),
            (&[("Authorization", "Basic secret")], false),
            (&[("Authorization", "secret")], false),
            (&[], false),
            (&[("Authorization", "Bearer secret"), ("Authorization", "Bearer secret")], false),
        ];
        for (headers, expected) in cases {
            assert_eq!(
                check(headers, |request| authorized(request, Some("secret"))),
                *expected,
                "{headers:?}"
            );
        }
        assert!(check(&[], |request| authorized(request, None)));
        assert!(!check(&[("Authorization", "Bearer ")], |request| authorized(request, Some(""))));
    }

    #[test]
    fn a_page_from_elsewhere_is_recognised() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[("Host", "127.0.0.1:18789")], false),
            (&[("Host", "localhost")], false),
            (&[("Host", "[::1]:18789")], false),
            (&[("Host", "evil.example:18789")], true),
            (&[("Host", "[evil]")], true),
            (&[("Host", "localhost"), ("Origin", "http://localhost")], false),
            (&[("Host", "localhost"), ("Origin", "http://evil.example")], true),
            (&[("Host", "localhost"), ("Origin", "null")], true),
            (&[("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")], true),
            (&[("Host", "localhost"), ("Sec-Fetch-Site", "none")], false),
            (&[], false),
        ];
        for (headers, expected) in cases {
            assert_eq!(check(headers, is_from_foreign_page), *expected, "{headers:?}");
        }
    }
}
