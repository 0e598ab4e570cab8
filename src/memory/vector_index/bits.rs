//! One bit for each row.

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn new(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)] }
    }

    pub(super) fn get(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// A row that is not there stays so.
    pub(super) fn set(&mut self, row: usize) {
        if let Some(word) = self.words.get_mut(row / 64) {
            *word |= 1 << (row % 64);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows that are set here and not in `before`.
    pub(super) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let new = self.words.iter().zip(&before.words).enumerate();
        new.flat_map(|(at, (now, before))| {
            let fresh = now & !before;
            (0..64).filter(move |bit| fresh >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// None when these are not the words for so many rows.
    pub(super) fn from_words(words: Vec<u64>, rows: usize) -> Option<Self> {
        let beyond = rows % 64;
        let clean = beyond == 0 || words.last().is_none_or(|last| last >> beyond == 0);
        (words.len() == rows.div_ceil(64) && clean).then_some(Self { words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_counted_and_compared() {
        let before = Bits::new(130);
        let mut bits = before.clone();
        for row in [0, 63, 64, 129, 500] {
            bits.set(row);
        }
        assert_eq!((bits.count(), bits.get(129), bits.get(128), bits.get(500)), (4, true, false, false));
        assert_eq!(bits.since(&before).collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(Bits::from_words(bits.words().to_vec(), 130), Some(bits.clone()));
        assert_eq!(Bits::from_words(bits.words().to_vec(), 129), None, "a bit beyond the rows");
        assert_eq!(Bits::from_words(vec![0], 130), None);
    }
}
