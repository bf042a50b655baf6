//! Prefs, profiles, derived agent state, wanted state and its difference, health.
#![forbid(unsafe_code)]
