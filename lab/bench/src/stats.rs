//! Medians and ranges.

use serde::{Deserialize, Serialize};

/// Several values of one measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// Of values in any order; all zero for none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        Self {
            count: values.len(),
            min: *min,
            median: percentile(&values, 50),
            p99: percentile(&values, 99),
            max: *max,
        }
    }
}

/// The smallest value that at least `percent` of the sorted values do not exceed; of an even number of values the
/// median is the mean of the two in the middle.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if percent == 50 && sorted.len().is_multiple_of(2) {
        let upper = sorted.len() / 2;
        return (place(upper.saturating_sub(1)) + place(upper)) / 2.0;
    }
    place((sorted.len() * percent).div_ceil(100).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_percentile_are_of_the_sorted_values() {
        let odd = Summary::of([5.0, 1.0, 3.0]);
        assert_eq!((odd.count, odd.min, odd.median, odd.p99, odd.max), (3, 1.0, 3.0, 5.0, 5.0));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Summary::of((1..=200).map(f64::from)).p99, 198.0);
        assert_eq!(Summary::of([]), Summary::default());
    }
}
