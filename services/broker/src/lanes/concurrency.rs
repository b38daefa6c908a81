//! How many deliveries may be in flight: one more after each round that went well, half as many when the sink struggles (AIMD).

use super::DeliveryId;

/// The fewest: one for events that failed, one for those that did not, so that neither waits for the other.
pub(super) const DELIVERIES_MIN: usize = 2;

/// How many deliveries may be in flight.
#[derive(Debug)]
pub(super) struct Concurrency {
    limit: usize,
    max: usize,
    /// Deliveries that went well since the limit changed.
    went_well: usize,
    /// The last delivery that was sent before the limit fell: what else was in flight then says nothing new.
    sent_before: Option<DeliveryId>,
}

impl Concurrency {
    /// Begins with as many as there may be at most.
    pub(super) fn new(max: usize) -> Self {
        Self { limit: max, max, went_well: 0, sent_before: None }
    }

    /// How many there may be now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// There may be other limits from now on.
    pub(super) fn tune(&mut self, max: usize) {
        self.max = max;
        self.limit = self.limit.min(max);
    }

    /// A delivery was taken.
    pub(super) fn went_well(&mut self) {
        self.went_well += 1;
        if self.went_well >= self.limit {
            self.went_well = 0;
            self.limit = (self.limit + 1).min(self.max);
        }
    }

    /// The sink had no room for the delivery `id`, or no answer in time; `last` is the last one that was sent.
    pub(super) fn struggles(&mut self, id: DeliveryId, last: DeliveryId) {
        if self.sent_before.is_some_and(|before| id <= before) {
            return;
        }
        self.sent_before = Some(last);
        self.went_well = 0;
        self.limit = (self.limit / 2).max(DELIVERIES_MIN.min(self.max));
    }

    /// The endpoint broke: whatever it could take before, it begins with few.
    pub(super) fn broke(&mut self) {
        self.went_well = 0;
        self.limit = DELIVERIES_MIN.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_one_a_round_and_falls_by_half_once_a_round() {
        let mut concurrency = Concurrency::new(8);
        assert_eq!(concurrency.limit(), 8);
        // Eight are in flight, and all of them meet a sink that struggles.
        (1..=8).for_each(|id| concurrency.struggles(DeliveryId(id), DeliveryId(8)));
        assert_eq!(concurrency.limit(), 4);
        concurrency.struggles(DeliveryId(9), DeliveryId(12));
        assert_eq!(concurrency.limit(), 2);
        concurrency.struggles(DeliveryId(13), DeliveryId(13));
        assert_eq!(concurrency.limit(), 2, "the healthy and the failing each keep one");
        for (went_well, limit) in [(2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 8)] {
            (0..went_well).for_each(|_| concurrency.went_well());
            assert_eq!(concurrency.limit(), limit);
        }
        concurrency.tune(3);
        assert_eq!(concurrency.limit(), 3);
        concurrency.broke();
        assert_eq!(concurrency.limit(), 2);
    }
}
