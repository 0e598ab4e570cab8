//! Which segments are written anew as one, so that there are always few of them and each row is
//! written rarely.
//!
//! Segments have a class by their size: fewer than [`SMALLEST`] rows are class 0, and each further class is
//! four times the one before. As soon as all segments up to a class would together leave it, they are
//! merged. So each class has at most three segments, and a row is written once for each class.

use super::segment::View;

/// Fewer rows than this are written anew with every flush that brings more.
const SMALLEST: usize = 256;
/// What separates two classes.
const GROWTH: usize = 4;
/// One row in so many may be dead before a segment is written anew without them.
const DEAD_SHARE: usize = 4;

fn class(rows: usize) -> u32 {
    let (mut class, mut beyond) = (0, SMALLEST);
    while rows >= beyond {
        class += 1;
        beyond = beyond.saturating_mul(GROWTH);
    }
    class
}

/// What a flush writes: everything that is only in memory, and with it what is due and small.
pub(super) fn for_flush(views: &[View], rows_max: usize) -> Vec<u64> {
    let ours = || views.iter().filter(|view| !view.stale);
    let unsaved: Vec<&View> = ours().filter(|view| view.segment.mark.is_none()).collect();
    if unsaved.is_empty() {
        return vec![];
    }
    let mut ids: Vec<u64> = unsaved.iter().map(|view| view.segment.id).collect();
    let largest = unsaved.iter().map(|view| class(view.live)).max().unwrap_or(0);
    let highest = (0..=class(rows_max)).rev().find(|class| *class >= largest && due(views, *class, rows_max));
    if let Some(highest) = highest {
        let with = ours().filter(|view| class(view.live) <= highest && view.segment.mark.is_some());
        ids.extend(with.map(|view| view.segment.id));
    }
    ids
}

/// What else is worth writing anew.
pub(super) fn for_tidying(views: &[View]) -> Option<Vec<u64>> {
    let ours = || views.iter().filter(|view| !view.stale);
    let highest = class(ours().map(|view| view.live).sum());
    if let Some(highest) = (0..=highest).rev().find(|class| due(views, *class, usize::MAX)) {
        return Some(ours().filter(|view| class(view.live) <= highest).map(|view| view.segment.id).collect());
    }
    let decayed = |view: &&View| (view.segment.keys.len() - view.live) * DEAD_SHARE > view.segment.keys.len();
    ours().find(decayed).map(|view| vec![view.segment.id])
}

/// Whether all segments up to a class, at least two, would together leave it.
fn due(views: &[View], highest: u32, rows_max: usize) -> bool {
    let upto = || views.iter().filter(|view| !view.stale && class(view.live) <= highest);
    let rows: usize = upto().map(|view| view.live).sum();
    upto().count() >= 2 && rows <= rows_max && (class(rows) > highest || highest == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::mapped::Bytes;
    use super::super::segment::Segment;
    use super::super::segment_file::Mark;
    use super::*;

    fn view(id: u64, rows: usize, saved: bool) -> View {
        let mark = saved.then_some(Mark { rows, length: 0, checksum: 0 });
        let keys = (0..rows as u64).collect();
        View::new(Segment { id, keys, records: Bytes::Loaded(vec![]), sketches: None, mark })
    }

    fn merged(views: &mut Vec<View>, ids: &[u64], next: &mut u64) -> usize {
        let rows = views.iter().filter(|view| ids.contains(&view.segment.id)).map(|view| view.live).sum();
        views.retain(|view| !ids.contains(&view.segment.id));
        views.push(view(*next, rows, true));
        *next += 1;
        rows
    }

    #[test]
    fn there_are_few_segments_and_rows_are_written_rarely() {
        for flush in [7, 100, 1_000] {
            let (mut views, mut next, mut written, mut flushed) = (vec![], 0, 0, 0);
            for round in 0..(60_000 / flush) {
                views.push(view(next, flush, false));
                (next, flushed) = (next + 1, flushed + flush);
                let ids = for_flush(&views, 16_384);
                assert!(ids.contains(&(next - 1)));
                written += merged(&mut views, &ids, &mut next);
                if round % 5 == 0 {
                    while let Some(ids) = for_tidying(&views) {
                        written += merged(&mut views, &ids, &mut next);
                    }
                }
                assert!(views.len() <= 20, "{} segments", views.len());
            }
            let class_zero = SMALLEST.div_ceil(flush).min(40);
            assert!(written <= flushed * (8 + class_zero), "{} times", written / flushed);
            assert_eq!(views.iter().map(|view| view.live).sum::<usize>(), flushed);
        }
    }

    #[test]
    fn what_is_mostly_dead_is_written_anew_and_nothing_without_need() {
        let mut one = view(1, 1_000, true);
        assert_eq!(for_tidying(std::slice::from_ref(&one)), None);
        assert!((0..251).all(|key| one.kill(key)));
        assert_eq!(for_tidying(&[one]), Some(vec![1]));
        assert_eq!(for_tidying(&[view(1, 70_000, true), view(2, 300, true)]), None);
        assert!(for_flush(&[view(1, 70_000, true)], 16_384).is_empty());
    }
}
