//! What holds for every row of a registry, and for methods against plain transcriptions of their rules.

mod methods;
mod peers;
