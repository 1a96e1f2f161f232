//! PLAIN in memory, for replays of history. The store reads the same windows as three running sums.

use crate::regression::model::{Mark, Measurement, Tolerance, Window};

/// The last window and the baseline before it, over events that come one by one.
#[derive(Debug, Clone)]
pub struct Rolling {
    tolerance: Tolerance,
    window_events: i64,
    baseline_events: i64,
    min_events: i64,
    /// The mark of event `n` is at `n` modulo the length: one mark for each event of the two windows, and one before
    /// them.
    marks: Vec<Mark>,
    now: Mark,
}

impl Rolling {
    /// The windows before the first event. Windows of less than 1 event get 1.
    #[must_use]
    pub fn new(tolerance: Tolerance, window_events: i64, baseline_events: i64, min_events: i64) -> Self {
        let (window_events, baseline_events) = (window_events.max(1), baseline_events.max(1));
        let length = usize::try_from(window_events.saturating_add(baseline_events)).unwrap_or(usize::MAX - 1) + 1;
        Self {
            tolerance,
            window_events,
            baseline_events,
            min_events,
            marks: vec![Mark::default(); length],
            now: Mark::default(),
        }
    }

    /// Takes the next event. Returns whether the wire trips.
    #[inline]
    pub fn step(&mut self, measurement: Measurement) -> bool {
        self.now.events += 1;
        // The series itself is refused before its sum overflows.
        self.now.sum = self.now.sum.plus(measurement.addend()).unwrap_or(self.now.sum);
        let at = self.place(self.now.events);
        self.marks[at] = self.now;
        let (baseline, recent) = self.windows();
        baseline.events >= self.min_events
            && recent.events >= self.min_events
            && self.tolerance.reaches(baseline, recent)
    }

    /// The baseline and the window after it.
    #[must_use]
    pub fn windows(&self) -> (Window, Window) {
        let high = (self.now.events - self.window_events).max(0);
        let low = (high - self.baseline_events).max(0);
        let (low, high) = (self.mark(low), self.mark(high));
        (Window::between(low, high), Window::between(high, self.now))
    }

    fn mark(&self, events: i64) -> Mark {
        if events == 0 { Mark::default() } else { self.marks[self.place(events)] }
    }

    fn place(&self, events: i64) -> usize {
        usize::try_from(events).unwrap_or_default() % self.marks.len()
    }
}
