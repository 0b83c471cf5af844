//! End-to-end tests of Dormouse; see `tests/`.
