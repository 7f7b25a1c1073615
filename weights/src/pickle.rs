//! The subset of Python's pickle that a PyTorch state dict is written in.
//!
//! A pickle is a program. This reader runs only the part of it that builds dicts, tuples and tensors: any global
//! other than those in [`Global::of`] ends the reading with an error, before anything is called.
//!
//! burn-store has a reader too; it is not used because it fills short storages with zeros, ignores strides, and
//! passes over foreign calls in silence.

use std::{collections::HashMap, rc::Rc};

use burn::tensor::{BoolStore, DType};

/// Why a pickle is not read.
#[derive(Debug)]
pub(crate) enum PickleError {
    /// It does something that no state dict does.
    Foreign(String),
    /// It is no whole pickle.
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

/// The deepest nesting of containers; a state dict has three levels.
const MAX_DEPTH: usize = 6;

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
    Storage(Storage),
    Tensor(Tensor),
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

/// A run of numbers in its own file of the archive.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) dtype: DType,
    /// The name of its file in the archive.
    pub(crate) key: Rc<str>,
    /// How many numbers it has.
    pub(crate) len: usize,
}

/// A view into a storage.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) storage: Storage,
    /// Where it starts, in elements.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// Runs the pickle in `bytes` and returns what it builds.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let mut machine = Machine { input: bytes, at: 0, stack: Vec::new(), memo: HashMap::new() };
    while machine.step()? {}
    machine.pop()
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; false after the last.
    fn step(&mut self) -> Result<bool, PickleError> {
        let code = self.byte()?;
        match code {
            b'.' => return Ok(false),
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Value::Mark),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'K' => self.push_int(1)?,
            b'M' => self.push_int(2)?,
            b'J' => self.push_int(4)?,
            0x8a => {
                let len = usize::from(self.byte()?);
                self.push_int(len)?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Float);
            }
            b'X' => self.push_text(4)?,
            0x8c => self.push_text(1)?,
            b')' => self.stack.push(Value::Tuple(Vec::new())),
            b']' => self.stack.push(Value::List(Vec::new())),
            b'}' => self.stack.push(Value::Dict(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items)?;
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code) - 0x84).ok_or("the stack is empty")?;
                let items = self.stack.split_off(start);
                self.push_tuple(items)?;
            }
            b'a' | b'e' => self.append(code == b'e')?,
            b's' | b'u' => self.set_items(code == b'u')?,
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => {
                let slot = u32::try_from(self.memo.len()).map_err(|_| "the memo is full")?;
                self.memorise(slot)?;
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(&module, &name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.push_global(&module, &name)?,
                _ => return Err("a global has no name".into()),
            },
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            // The attributes of an OrderedDict (`_metadata`): nothing that a weight needs.
            b'b' => drop(self.pop()?),
            other => {
                return Err(PickleError::Foreign(format!(
                    "its pickle has the instruction 0x{other:02x}, which no state dict needs; nothing of it was run"
                )));
            }
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.input.len()).ok_or("the pickle ends too soon")?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A little-endian unsigned number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Result<u64, PickleError> {
        let mut bytes = [0; 8];
        bytes.get_mut(..len).ok_or("a number is longer than 64 bits")?.copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn push_int(&mut self, len: usize) -> Result<(), PickleError> {
        let value = self.number(len)?;
        // One and two bytes are unsigned, longer ones two's complement.
        let unused = 64 - 8 * len as u32;
        let signed = if len > 2 { ((value << unused) as i64) >> unused } else { value as i64 };
        self.stack.push(Value::Int(signed));
        Ok(())
    }

    fn push_text(&mut self, len_bytes: usize) -> Result<(), PickleError> {
        let len = usize::try_from(self.number(len_bytes)?).map_err(|e| e.to_string())?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|e| e.to_string())?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Result<Rc<str>, PickleError> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("the pickle ends too soon")?;
        self.at += len + 1;
        Ok(std::str::from_utf8(&rest[..len]).map_err(|e| e.to_string())?.into())
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn top(&mut self) -> Result<&mut Value, PickleError> {
        self.stack.last_mut().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or("there is no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, len: usize) -> Result<(), PickleError> {
        let slot = self.number(len)? as u32;
        self.memorise(slot)
    }

    fn memorise(&mut self, slot: u32) -> Result<(), PickleError> {
        let value = match self.top()? {
            // A state dict refers back to names and types only. Containers are filled after they are remembered, and
            // copies of copies would let a small file fill the memory.
            value @ (Value::Text(_) | Value::Global(_)) => value.clone(),
            _ => Value::Mark,
        };
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Result<(), PickleError> {
        let slot = self.number(len)? as u32;
        match self.memo.get(&slot) {
            Some(Value::Mark) => return Err("it refers back to something other than a name".into()),
            Some(value) => self.stack.push(value.clone()),
            None => return Err(format!("memo slot {slot} is empty").into()),
        }
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value>) -> Result<(), PickleError> {
        check_depth(&items)?;
        self.stack.push(Value::Tuple(items));
        Ok(())
    }

    fn append(&mut self, many: bool) -> Result<(), PickleError> {
        let items = if many { self.pop_to_mark()? } else { vec![self.pop()?] };
        check_depth(&items)?;
        match self.top()? {
            Value::List(list) => list.extend(items),
            _ => return Err("an item is appended to something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, many: bool) -> Result<(), PickleError> {
        let items = if many {
            self.pop_to_mark()?
        } else {
            let value = self.pop()?;
            vec![self.pop()?, value]
        };
        check_depth(&items)?;
        let Value::Dict(dict) = self.top()? else {
            return Err("an item is set on something that is no dict".into());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = Global::of(module, name).ok_or_else(|| {
            PickleError::Foreign(format!(
                "its pickle calls `{module}.{name}`, which rebuilds no tensor; nothing of it was run"
            ))
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// `('storage', type, key, device, length)` becomes a [`Storage`].
    fn persistent(&mut self) -> Result<(), PickleError> {
        let Value::Tuple(id) = self.pop()? else { return Err("a persistent id is no tuple".into()) };
        match &id[..] {
            [
                Value::Text(kind),
                Value::Global(Global::StorageType(dtype)),
                Value::Text(key),
                _,
                Value::Int(len),
                ..,
            ] if &**kind == "storage" => {
                let storage = Storage { dtype: *dtype, key: key.clone(), len: size(*len)? };
                self.stack.push(Value::Storage(storage));
                Ok(())
            }
            _ => Err("a persistent id names no storage".into()),
        }
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (Value::Tuple(arguments), Value::Global(global)) = (self.pop()?, self.pop()?) else {
            return Err("something that is no function is called".into());
        };
        let value = match (global, &arguments[..]) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::RebuildTensor, [Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                Value::Tensor(Tensor {
                    storage: storage.clone(),
                    offset: size(*offset)?,
                    shape: sizes(shape)?,
                    strides: sizes(strides)?,
                })
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            _ => return Err(format!("{global:?} is called with arguments that it does not take").into()),
        };
        self.stack.push(value);
        Ok(())
    }
}

/// Refuses containers in containers in containers …, which would overflow the stack when they are dropped.
fn check_depth(items: &[Value]) -> Result<(), PickleError> {
    if items.iter().any(|item| is_deeper(item, MAX_DEPTH - 1)) {
        return Err(PickleError::Foreign(format!("its pickle nests containers more than {MAX_DEPTH} deep")));
    }
    Ok(())
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let inside = |items: &[Value]| items.iter().any(|item| levels == 0 || is_deeper(item, levels - 1));
    match value {
        Value::Tuple(items) | Value::List(items) => inside(items),
        Value::Dict(items) => items.iter().any(|(_, item)| levels == 0 || is_deeper(item, levels - 1)),
        _ => false,
    }
}

fn size(value: i64) -> Result<usize, PickleError> {
    usize::try_from(value).map_err(|_| format!("{value} is no size").into())
}

fn sizes(value: &Value) -> Result<Vec<usize>, PickleError> {
    let Value::Tuple(items) = value else { return Err("a shape is no tuple".into()) };
    items
        .iter()
        .map(|item| match item {
            Value::Int(value) => size(*value),
            other => Err(format!("{other:?} is no size").into()),
        })
        .collect()
}
