//! What the suite of lies is made of. The benchmark runs it too.

pub mod catalogue;
pub mod honest;
pub mod liar;
pub mod memory;
pub mod suite;
