//! Sequence numbers, which wrap around (RFC 9293 §3.4).

/// A sequence number. Two of them can be compared if they are less than 2³¹ apart, as those of one connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// The number `len` bytes later. A length is never as long as the circle.
    pub(super) fn plus(self, len: usize) -> Self {
        Self(self.0.wrapping_add(u32::try_from(len).unwrap_or(0)))
    }

    /// The number in front of this one.
    pub(super) const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// How far this number is behind `earlier`; 0 if it is in front of it.
    pub(super) fn since(self, earlier: Self) -> usize {
        let distance = self.0.wrapping_sub(earlier.0);
        if distance < 1 << 31 { usize::try_from(distance).unwrap_or(0) } else { 0 }
    }

    pub(super) const fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) >= 1 << 31
    }

    pub(super) const fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }

    pub(super) const fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    pub(super) const fn min(self, other: Self) -> Self {
        if self.is_before(other) { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_around_the_circle() {
        for start in [0, 1, u32::MAX, u32::MAX - 5, 1 << 31] {
            let start = Seq(start);
            let later = start.plus(10);
            assert!(start.is_before(later) && later.is_after(start) && !start.is_before(start));
            assert_eq!((later.since(start), start.since(later)), (10, 0));
            assert_eq!((start.max(later), start.min(later)), (later, start));
            assert_eq!(later.plus(1).previous(), later);
        }
    }
}
