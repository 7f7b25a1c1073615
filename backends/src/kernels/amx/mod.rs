//! The matrix unit (AMX) of Intel's server processors: `tdpbf16ps` multiplies 16×32 by 32×16 bf16 numbers at once,
//! summed in f32.

pub(super) mod attend;
pub(super) mod exact;
mod line;
mod parts;
pub(super) mod received;
pub(super) mod rounded;
mod terms;
mod transpose;
mod unit;
