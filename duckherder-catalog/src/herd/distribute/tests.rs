//! Random plans against one node.

mod random;
mod simulation;
