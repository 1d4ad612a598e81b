//! What SQL files cannot say: the client crate, faults, processes, time.
