//! What a stream that came to no end had said of its tokens: Rig gives that with a whole answer only.

use serde_json::Value;

use super::classify::TOKENS_MAX;
use crate::billing::Tokens;

/// Names under which the wire formats report tokens. In a text of the answer the quotes are escaped.
const REPORTS: [&str; 2] = ["\"usage\"", "\"usageMetadata\""];

/// The last word on each count in the bytes of a stream.
pub(super) fn tokens_in(stream: &[u8]) -> Tokens {
    let text = String::from_utf8_lossy(stream);
    let mut places: Vec<usize> =
        REPORTS.iter().flat_map(|name| text.match_indices(name).map(|(at, name)| at + name.len())).collect();
    places.sort_unstable();
    let mut tokens = Tokens::default();
    for place in places {
        let Some(value) = text[place..].trim_start().strip_prefix(':') else { continue };
        let report = serde_json::Deserializer::from_str(value).into_iter::<Value>().next();
        let Some(Ok(report)) = report.filter(|report| report.as_ref().is_ok_and(Value::is_object)) else {
            continue;
        };
        let news = tokens_of(&report);
        tokens = Tokens {
            input: news.input.or(tokens.input),
            output: news.output.or(tokens.output),
            cache_read: news.cache_read.or(tokens.cache_read),
            cache_write: news.cache_write.or(tokens.cache_write),
            reasoning: news.reasoning.or(tokens.reasoning),
        };
    }
    tokens
}

/// By the names of all formats, as Rig reads them: input with what was read from a cache, output with thoughts.
fn tokens_of(report: &Value) -> Tokens {
    let first = |places: &[&str]| {
        let found = places.iter().find_map(|place| report.pointer(place)?.as_u64());
        found.filter(|count| *count <= TOKENS_MAX)
    };
    let cache_write = first(&["/cache_creation_input_tokens"]);
    let beside = first(&["/cache_read_input_tokens"]);
    let within = first(&[
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/cachedContentTokenCount",
    ]);
    let thoughts = first(&["/thoughtsTokenCount"]);
    let input = first(&["/prompt_tokens", "/input_tokens", "/promptTokenCount"]);
    let output = first(&["/completion_tokens", "/output_tokens", "/candidatesTokenCount"]);
    Tokens {
        // Anthropic counts the two of the cache beside the input.
        input: input.map(|input| input + beside.unwrap_or(0) + cache_write.unwrap_or(0)),
        output: output.map(|output| output + thoughts.unwrap_or(0)),
        cache_read: beside.or(within),
        cache_write,
        reasoning: thoughts.or(first(&[
            "/completion_tokens_details/reasoning_tokens",
            "/output_tokens_details/reasoning_tokens",
        ])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read_and_the_last_word_counts() {
        let cases = [
            (
                r#"data: {"type":"message_start","message":{"usage":{"input_tokens":10,"cache_creation_input_tokens":4,
                "cache_read_input_tokens":6,"output_tokens":1}}}
                data: {"type":"message_delta","usage":{"output_tokens":9}}"#,
                [Some(20), Some(9), Some(6), Some(4), None],
            ),
            (
                r#"data: {"choices":[],"usage":null}
                data: {"usage": {"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":7},
                "completion_tokens_details":{"reasoning_tokens":2}}}"#,
                [Some(10), Some(4), Some(7), None, Some(2)],
            ),
            (
                r#"{"response":{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":3},"output_tokens":5}}}"#,
                [Some(10), Some(5), Some(3), None, None],
            ),
            (
                r#"{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3}}
                {"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":5,"thoughtsTokenCount":2}}"#,
                [Some(8), Some(7), None, None, Some(2)],
            ),
            (r#"{"delta":"\"usage\":{\"input_tokens\":5}"}"#, [None; 5]),
            (r#"{"usage":{"input_tokens":99999999999,"output_tokens":-1}}"#, [None; 5]),
            (r#"{"usage":{"input_tokens":5,"outp"#, [None; 5]),
            ("\"usage\"", [None; 5]),
            ("", [None; 5]),
        ];
        for (stream, expected) in cases {
            let Tokens { input, output, cache_read, cache_write, reasoning } = tokens_in(stream.as_bytes());
            assert_eq!([input, output, cache_read, cache_write, reasoning], expected, "{stream}");
        }
    }
}
