//! Two devices and a virtual clock.
