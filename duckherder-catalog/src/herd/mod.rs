//! A herd: where the rows of its tables are, and how a query is divided among the ducklings that hold them.
//!
//! [`placement`] says which worker holds which rows of a table. [`plan`] describes an optimized query plan in, and the
//! distributed plan out; [`distribute`] decides. [`query`] is what the executor is given. [`spread`] decides where the rows
//! of a new table go, and [`direct`] which worker a client may ask itself.

pub mod direct;
pub mod distribute;
pub mod placement;
pub mod plan;
pub mod query;
pub mod spread;
