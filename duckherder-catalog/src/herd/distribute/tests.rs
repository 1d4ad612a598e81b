//! Rules one by one, and random plans against one node.

mod random;
mod rules;
mod simulation;
