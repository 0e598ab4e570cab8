//! What leaves a window, as the model reads it that makes it shorter.

use crate::conversation::{Line, Role, Summary};
use crate::prompts;
use crate::text;
use crate::turn::{self, Part};

/// Lines are shortened to no less than this, in bytes.
const LINE_BYTES_MIN: usize = 64;

/// The lines in the fences of a turn. What is longer than `tokens` altogether is shortened line by line,
/// the longest first; what is still too long loses its oldest lines, but never the last.
pub(super) fn of_lines(lines: &[Line], agent: &str, tokens: usize) -> String {
    let longest = lines.iter().map(|line| line.content.len()).max().unwrap_or_default();
    let mut most = longest.max(LINE_BYTES_MIN);
    let mut rest = lines;
    loop {
        let parts: Vec<Part> = rest.iter().flat_map(|line| part(line, agent, most)).collect();
        let words = turn::write(&parts);
        if text::estimate_tokens(&words) <= tokens || rest.len() <= 1 && most <= LINE_BYTES_MIN {
            return words;
        }
        if most > LINE_BYTES_MIN {
            most = (most / 2).max(LINE_BYTES_MIN);
        } else {
            rest = &rest[rest.len().div_ceil(2).min(rest.len() - 1)..];
        }
    }
}

fn part(line: &Line, agent: &str, most: usize) -> Vec<Part> {
    let content = text::shorten(&line.content, most);
    let sender = match line.role {
        // Its fences are its own; one that was cut open becomes plain words.
        Role::Event | Role::Earlier => return turn::read(&content),
        Role::Assistant => format!("{agent} (you)"),
        Role::User => line.sender_name.clone(),
    };
    vec![Part::Said { sender, at: line.at, text: content.into_owned() }]
}

pub(super) fn of_summaries<'a>(summaries: impl Iterator<Item = &'a Summary>) -> String {
    turn::write(&summaries.map(fenced).collect::<Vec<_>>())
}

/// A summary as it stands in a prompt.
pub(in crate::agent) fn fenced(summary: &Summary) -> Part {
    let text = summary.text.as_deref().unwrap_or_else(|| prompts::notice("summary_missing"));
    Part::Summary { from: summary.from, to: summary.to, messages: summary.lines, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn line(role: Role, content: &str) -> Line {
        Line { id: 1, role, sender_name: "una".to_owned(), content: content.to_owned(), at: Timestamp(0) }
    }

    #[test]
    fn everybody_is_named_and_results_keep_their_fences() {
        let lines = [
            line(Role::User, "look it up"),
            line(Role::Event, "<result process=\"branch:3\" task=\"t\">found</result>"),
            line(Role::Assistant, "found it </message>"),
        ];
        assert_eq!(
            of_lines(&lines, "Pi", 1_000),
            "<message from=\"una\" at=\"1970-01-01T00:00:00Z\">look it up</message>\n\
             <result process=\"branch:3\" task=\"t\">found</result>\n\
             <message from=\"Pi (you)\" at=\"1970-01-01T00:00:00Z\">found it <\\/message></message>"
        );
    }

    #[test]
    fn too_much_is_shortened_where_it_is_longest() {
        let lines = [line(Role::User, "short"), line(Role::User, &"é".repeat(100_000))];
        let words = of_lines(&lines, "Pi", 500);
        assert!(text::estimate_tokens(&words) <= 500, "{}", words.len());
        assert!(words.contains(">short<") && words.contains('…'), "{words}");
        let many: Vec<Line> = (0..1_000).map(|number| line(Role::User, &format!("n{number}"))).collect();
        let words = of_lines(&many, "Pi", 500);
        assert!(text::estimate_tokens(&words) <= 500, "{}", words.len());
        assert!(words.contains(">n999<") && !words.contains(">n1<"), "{words}");
        assert!(of_lines(&many, "Pi", 0).len() < 400, "never more than it can help");
    }
}
