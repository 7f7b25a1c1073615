//! The subset of Python's pickle that a PyTorch state dict is written in.
//!
//! A pickle is a program. This reader runs only the part of it that builds dicts, tuples and tensors: any global
//! other than those in [`Global::of`] ends the reading with an error, before anything is called.
//!
//! burn-store has a reader too. It is not used because it fills short storages with zeros, ignores strides, and skips
//! foreign calls in silence.

mod machine;

use std::rc::Rc;

use burn::tensor::{BoolStore, DType};
pub(crate) use machine::read;

/// The reason why a pickle is not read.
#[derive(Debug)]
pub(crate) enum PickleError {
    /// The pickle does something that no state dict does.
    Foreign(String),
    /// The bytes are no whole pickle.
    Malformed(String),
}

impl From<String> for PickleError {
    fn from(reason: String) -> Self {
        Self::Malformed(reason)
    }
}

impl From<&str> for PickleError {
    fn from(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

/// A value on the pickle stack.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
    Mark,
}

/// The callables that a state dict may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(DType),
}

impl Global {
    fn of(module: &str, name: &str) -> Option<Self> {
        let storage = |dtype| Some(Self::StorageType(dtype));
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "FloatStorage") => storage(DType::F32),
            ("torch", "HalfStorage") => storage(DType::F16),
            ("torch", "BFloat16Storage") => storage(DType::BF16),
            ("torch", "DoubleStorage") => storage(DType::F64),
            ("torch", "LongStorage") => storage(DType::I64),
            ("torch", "IntStorage") => storage(DType::I32),
            ("torch", "ShortStorage") => storage(DType::I16),
            ("torch", "CharStorage") => storage(DType::I8),
            ("torch", "ByteStorage") => storage(DType::U8),
            ("torch", "BoolStorage") => storage(DType::Bool(BoolStore::Native)),
            _ => None,
        }
    }
}

/// A sequence of numbers in its own file of the archive.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) dtype: DType,
    /// The name of the storage's file in the archive.
    pub(crate) key: Rc<str>,
    /// The number of elements.
    pub(crate) len: usize,
}

/// A view into a storage.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) storage: Rc<Storage>,
    /// The start of the view in the storage, in elements.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}
