//! The stack machine that a pickle is a program for.

use std::{collections::HashMap, rc::Rc};

use super::{Global, PickleError, Storage, Tensor, Value};

/// The deepest nesting of containers; a state dict has three levels.
const MAX_DEPTH: usize = 6;

/// The most dimensions of a tensor; a weight has up to four.
const MAX_RANK: usize = 8;

/// The most values that a pickle may make; a state dict of ten thousand tensors makes some 300,000.
const MAX_VALUES: usize = 4 << 20;

/// The most values that a pickle may remember; a state dict of ten thousand tensors remembers some 100,000.
const MAX_MEMO: usize = 1 << 20;

/// Runs the pickle in `bytes` and returns what it builds.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let mut machine = Machine { input: bytes, at: 0, stack: Vec::new(), memo: HashMap::new() };
    let mut steps = 0;
    while machine.step()? {
        steps += 1;
        if steps > MAX_VALUES || machine.memo.len() > MAX_MEMO {
            return Err(PickleError::Foreign("its pickle has more parts than any state dict".to_owned()));
        }
    }
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
            // These are the attributes of an OrderedDict (`_metadata`), which no weight needs.
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
        // Numbers of one and two bytes are unsigned, longer ones are in two's complement.
        let unused = 64 - 8 * len as u32;
        let signed = if len > 2 { ((value << unused) as i64) >> unused } else { value as i64 };
        self.stack.push(Value::Int(signed));
        Ok(())
    }

    fn push_text(&mut self, len_bytes: usize) -> Result<(), PickleError> {
        let len = usize::try_from(self.number(len_bytes)?).map_err(|_| "a text in it is too long")?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a text in it is not in UTF-8")?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Result<Rc<str>, PickleError> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("the pickle ends too soon")?;
        self.at += len + 1;
        Ok(std::str::from_utf8(&rest[..len]).map_err(|_| "a name in it is not in UTF-8")?.into())
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
            // A state dict refers back to names and types, and to a tensor that it has under two names. Containers are
            // not copied: they are filled after they are remembered, and copies of copies would let a small file fill
            // the memory.
            value @ (Value::Text(_) | Value::Global(_) | Value::Tensor(_)) => value.clone(),
            _ => Value::Mark,
        };
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Result<(), PickleError> {
        let slot = self.number(len)? as u32;
        match self.memo.get(&slot) {
            Some(Value::Mark) => return Err("it refers back to something other than a name or a tensor".into()),
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
        if items.iter().step_by(2).any(|key| !matches!(key, Value::Text(_))) {
            return Err(PickleError::Foreign("its pickle has a dict with keys that are no text".to_owned()));
        }
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

    /// Turns `('storage', type, key, device, length)` into a [`Storage`].
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
                self.stack.push(Value::Storage(storage.into()));
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
                let (storage, offset) = (storage.clone(), size(*offset)?);
                Value::Tensor(Rc::new(Tensor { storage, offset, shape: sizes(shape)?, strides: sizes(strides)? }))
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            _ => return Err(format!("{global:?} is called with arguments that it does not take").into()),
        };
        self.stack.push(value);
        Ok(())
    }
}

/// Refuses containers that are nested too deeply: they would overflow the stack when they are dropped.
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
    if items.len() > MAX_RANK {
        return Err(format!("a tensor has {} dimensions; up to {MAX_RANK} are read", items.len()).into());
    }
    items
        .iter()
        .map(|item| match item {
            Value::Int(value) => size(*value),
            other => Err(format!("{other:?} is no size").into()),
        })
        .collect()
}
