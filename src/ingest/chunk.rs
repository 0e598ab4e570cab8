//! Cutting a text into chunks: whole lines, as many as fit. Chunks put together again are the text.

/// Where the first chunk of `text` ends, in bytes: behind the last line that ends within `max`
/// characters; in a longer line behind the last blank; without one behind the character. The rest of
/// the text when that is no longer. `text` may be the beginning of a longer one if it has more than
/// `max` characters.
pub(super) fn first_end(text: &str, max: usize) -> usize {
    let mut line = 0;
    let mut blank = 0;
    for (count, (at, character)) in text.char_indices().enumerate() {
        if count == max {
            return [line, blank].into_iter().find(|end| *end > 0).unwrap_or(at);
        }
        let end = at + character.len_utf8();
        if character == '\n' {
            line = end;
        } else if character.is_whitespace() {
            blank = end;
        }
    }
    text.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn chunks(text: &str, max: usize) -> Vec<&str> {
        let (mut found, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (chunk, left) = rest.split_at(first_end(rest, max));
            found.push(chunk);
            rest = left;
        }
        found
    }

    #[test]
    fn chunks_end_with_lines() {
        assert_eq!(chunks("one\ntwo\nthree\n", 8), ["one\ntwo\n", "three\n"]);
        assert_eq!(chunks("one\ntwo\nthree", 9), ["one\ntwo\n", "three"]);
        assert_eq!(chunks("one\r\ntwo\r\n", 6), ["one\r\n", "two\r\n"]);
        assert_eq!(chunks("", 5), Vec::<&str>::new());
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_behind_a_word_or_a_character() {
        assert_eq!(chunks("aa bb cc dd", 6), ["aa bb ", "cc dd"]);
        assert_eq!(chunks("漢字漢字漢", 2), ["漢字", "漢字", "漢"]);
        assert_eq!(chunks("a\nbbbbbbbb", 4), ["a\n", "bbbb", "bbbb"]);
    }

    /// SplitMix64.
    fn roll(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % below
    }

    #[test]
    fn chunks_put_together_are_the_text_and_none_is_too_long_or_needlessly_short() {
        const CHARACTERS: [char; 9] = ['a', 'b', ' ', '\n', '\r', 'é', '漢', '🦀', '\u{301}'];
        for seed in 0..3_000 {
            let mut state = seed;
            let length = roll(&mut state, 200);
            let kinds = 1 + roll(&mut state, CHARACTERS.len() as u64);
            let pick = |state: &mut u64| CHARACTERS[usize::try_from(roll(state, kinds)).unwrap()];
            let text: String = (0..length).map(|_| pick(&mut state)).collect();
            let max = 1 + usize::try_from(roll(&mut state, 40)).unwrap();
            let found = chunks(&text, max);
            assert_eq!(found.concat(), text, "seed {seed}");
            for (index, chunk) in found.iter().enumerate() {
                let characters = chunk.chars().count();
                assert!((1..=max).contains(&characters), "seed {seed}: {characters} of {max}");
                let is_last = index + 1 == found.len();
                // Nothing else makes a chunk end before it is full.
                assert!(
                    is_last || characters == max || chunk.ends_with(char::is_whitespace),
                    "seed {seed}: {chunk:?}"
                );
                if !is_last && chunk.contains('\n') {
                    assert!(chunk.ends_with('\n'), "seed {seed}: a line is cut in {chunk:?}");
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_a_longer_text_gives_the_same_chunk() {
        let text = "some words\nin lines\n".repeat(50);
        for max in 1..60 {
            let window: String = text.chars().take(max + 1).collect();
            assert_eq!(first_end(&window, max), first_end(&text, max), "{max}");
        }
    }
}
