//! The subset of Python's pickle that a PyTorch state dict is written in.
//!
//! A pickle is a program. This reader runs only the part of it that builds dicts, tuples and tensors: any global
//! other than those in [`Global::of`] ends the reading with an error, before anything is called.
//!
//! burn-store has a reader too; it is not used because it fills short storages with zeros, ignores strides, and
//! passes over foreign calls in silence.

use std::collections::HashMap;

use burn::tensor::{BoolStore, DType};

/// A value on the pickle stack.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
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
    pub(crate) key: String,
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
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
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
    fn step(&mut self) -> Result<bool, String> {
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
                self.stack.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code) - 0x84).ok_or("the stack is empty")?;
                let items = self.stack.split_off(start);
                self.stack.push(Value::Tuple(items));
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
                _ => return Err("a global has no name".to_owned()),
            },
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            // The attributes of an OrderedDict (`_metadata`): nothing that a weight needs.
            b'b' => drop(self.pop()?),
            other => return Err(format!("pickle instruction 0x{other:02x} is not part of a state dict")),
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.input.len()).ok_or("the pickle ends too soon")?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A little-endian unsigned number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Result<u64, String> {
        let mut bytes = [0; 8];
        bytes.get_mut(..len).ok_or("a number is longer than 64 bits")?.copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn push_int(&mut self, len: usize) -> Result<(), String> {
        let value = self.number(len)?;
        // One and two bytes are unsigned, longer ones two's complement.
        let unused = 64 - 8 * len as u32;
        let signed = if len > 2 { ((value << unused) as i64) >> unused } else { value as i64 };
        self.stack.push(Value::Int(signed));
        Ok(())
    }

    fn push_text(&mut self, len_bytes: usize) -> Result<(), String> {
        let len = usize::try_from(self.number(len_bytes)?).map_err(|e| e.to_string())?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|e| e.to_string())?;
        self.stack.push(Value::Text(text.to_owned()));
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("the pickle ends too soon")?;
        self.at += len + 1;
        String::from_utf8(rest[..len].to_vec()).map_err(|e| e.to_string())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn top(&mut self) -> Result<&mut Value, String> {
        self.stack.last_mut().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or("there is no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, len: usize) -> Result<(), String> {
        let slot = self.number(len)? as u32;
        self.memorise(slot)
    }

    fn memorise(&mut self, slot: u32) -> Result<(), String> {
        let value = match self.top()? {
            // Containers are filled after they are remembered, and a state dict never refers back to one.
            Value::Dict(_) | Value::List(_) => Value::Mark,
            value => value.clone(),
        };
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Result<(), String> {
        let slot = self.number(len)? as u32;
        match self.memo.get(&slot) {
            Some(Value::Mark) => return Err("it refers back to a container, as no state dict does".to_owned()),
            Some(value) => self.stack.push(value.clone()),
            None => return Err(format!("memo slot {slot} is empty")),
        }
        Ok(())
    }

    fn append(&mut self, many: bool) -> Result<(), String> {
        let items = if many { self.pop_to_mark()? } else { vec![self.pop()?] };
        match self.top()? {
            Value::List(list) => list.extend(items),
            _ => return Err("an item is appended to something that is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, many: bool) -> Result<(), String> {
        let items = if many {
            self.pop_to_mark()?
        } else {
            let value = self.pop()?;
            vec![self.pop()?, value]
        };
        let Value::Dict(dict) = self.top()? else {
            return Err("an item is set on something that is no dict".to_owned());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = Global::of(module, name).ok_or_else(|| {
            format!("its pickle calls `{module}.{name}`, which rebuilds no tensor; nothing of it was run")
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// `('storage', type, key, device, length)` becomes a [`Storage`].
    fn persistent(&mut self) -> Result<(), String> {
        let Value::Tuple(id) = self.pop()? else { return Err("a persistent id is no tuple".to_owned()) };
        match &id[..] {
            [
                Value::Text(kind),
                Value::Global(Global::StorageType(dtype)),
                Value::Text(key),
                _,
                Value::Int(len),
                ..,
            ] if kind == "storage" => {
                let storage = Storage { dtype: *dtype, key: key.clone(), len: size(*len)? };
                self.stack.push(Value::Storage(storage));
                Ok(())
            }
            _ => Err("a persistent id names no storage".to_owned()),
        }
    }

    fn reduce(&mut self) -> Result<(), String> {
        let (Value::Tuple(arguments), Value::Global(global)) = (self.pop()?, self.pop()?) else {
            return Err("something that is no function is called".to_owned());
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
            _ => return Err(format!("{global:?} is called with arguments that it does not take")),
        };
        self.stack.push(value);
        Ok(())
    }
}

fn size(value: i64) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("{value} is no size"))
}

fn sizes(value: &Value) -> Result<Vec<usize>, String> {
    let Value::Tuple(items) = value else { return Err("a shape is no tuple".to_owned()) };
    items
        .iter()
        .map(|item| match item {
            Value::Int(value) => size(*value),
            other => Err(format!("{other:?} is no size")),
        })
        .collect()
}
