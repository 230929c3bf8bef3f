use std::collections::HashMap;

use crate::error::{Fault, LimitKind, PickleError};
use crate::input::Input;
use crate::opcode as op;
use crate::shown;
use crate::value::{Global, Id, Node, Object, Pickle, Value, kind};

/// The classes and functions a pickle may name: modules, each with its names.
pub type AllowList<'l> = &'l [(&'l str, &'l [&'l str])];

/// What reading one pickle may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that values, stack and memo may hold. While a list grows, up to three times as much may
    /// be allocated. Text and bytes count as their reference alone: they stay in the input.
    pub memory: usize,
    /// Containers, globals and objects.
    pub objects: usize,
    /// Memo entries.
    pub memo: usize,
    /// Containers within containers.
    pub depth: usize,
}

impl Default for Limits {
    /// Far beyond any checkpoint (a 5B encoder with optimizer state needs about 5 MiB), far below
    /// what would disturb a machine.
    fn default() -> Self {
        Self { memory: 48 << 20, objects: 1 << 20, memo: 1 << 20, depth: 64 }
    }
}

const VALUE: usize = size_of::<Value>();
const NODE: usize = size_of::<Node>();
const OBJECT: usize = size_of::<Object>();
/// A hash map's entry with its share of free slots and of the control bytes.
const MEMO: usize = 2 * (size_of::<(u32, Value)>() + 1);

/// Reads the pickle at the start of `input`; returns it and its length in bytes.
///
/// Nothing is called or imported: see [`Object`].
///
/// # Errors
/// [`PickleError`] for anything but one whole pickle of protocol 2 to 5 within `limits` whose
/// globals are all on one of the lists of `allowed`.
pub fn read<'a>(
    input: &'a [u8],
    allowed: &[AllowList<'_>],
    limits: &Limits,
) -> Result<(Pickle<'a>, usize), PickleError> {
    let mut machine = Machine {
        input: Input { bytes: input, at: 0 },
        allowed,
        limits,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        held: 0,
    };
    let mut offset = 0;
    let mut run = || -> Result<Value<'a>, Fault> {
        loop {
            offset = machine.input.at;
            let opcode = machine.input.byte()?;
            if opcode == op::STOP {
                return machine.stop();
            }
            machine.step(opcode)?;
        }
    };
    let outcome = run();
    let pickle = outcome.and_then(|root| {
        let pickle = Pickle { nodes: std::mem::take(&mut machine.nodes), root };
        pickle.check_depth(limits.depth)?;
        Ok(pickle)
    });
    match pickle {
        Ok(pickle) => Ok((pickle, machine.input.at)),
        Err(fault) => Err(PickleError { offset, fault }),
    }
}

struct Machine<'a, 'l> {
    input: Input<'a>,
    allowed: &'l [AllowList<'l>],
    limits: &'l Limits,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at which groups were begun.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
    /// Bytes of nodes and memo.
    held: usize,
}

impl<'a> Machine<'a, '_> {
    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        let name = op::name(opcode).ok_or(Fault::Unknown(opcode))?;
        match opcode {
            op::PROTO => match self.input.byte()? {
                2..=5 => Ok(()),
                other => Err(Fault::Protocol(other)),
            },
            // A frame only groups what follows; that it follows is all there is to check.
            op::FRAME => {
                let wanted = self.input.number::<8>()?;
                let left = self.input.left();
                if wanted > left as u64 { Err(Fault::Truncated { wanted, left }) } else { Ok(()) }
            }

            op::NONE => self.push(Value::None),
            op::NEWTRUE => self.push(Value::Bool(true)),
            op::NEWFALSE => self.push(Value::Bool(false)),
            op::BININT => {
                let int = self.input.number::<4>()? as u32 as i32;
                self.push(Value::Int(int.into()))
            }
            op::BININT1 => {
                let int = self.input.number::<1>()?;
                self.push(Value::Int(int as i64))
            }
            op::BININT2 => {
                let int = self.input.number::<2>()?;
                self.push(Value::Int(int as i64))
            }
            op::LONG1 => self.input.sized::<1>().map(long).and_then(|v| self.push(v)),
            op::LONG4 => self.input.sized::<4>().map(long).and_then(|v| self.push(v)),
            op::BINFLOAT => {
                let bits = self.input.array::<8>()?;
                self.push(Value::Float(f64::from_be_bytes(bits)))
            }
            op::SHORT_BINUNICODE => self.input.sized::<1>().and_then(|b| self.text(b)),
            op::BINUNICODE => self.input.sized::<4>().and_then(|b| self.text(b)),
            op::BINUNICODE8 => self.input.sized::<8>().and_then(|b| self.text(b)),
            op::SHORT_BINBYTES => self.input.sized::<1>().and_then(|b| self.push(Value::Bytes(b))),
            op::BINBYTES => self.input.sized::<4>().and_then(|b| self.push(Value::Bytes(b))),
            op::BINBYTES8 | op::BYTEARRAY8 => {
                self.input.sized::<8>().and_then(|b| self.push(Value::Bytes(b)))
            }
            op::SHORT_BINSTRING => self.input.sized::<1>().and_then(|b| self.push(string(b))),
            op::BINSTRING => self.input.sized::<4>().and_then(|b| self.push(string(b))),

            op::MARK => {
                self.room(2)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            op::POP => self.pop(name).map(|_| ()),
            op::POP_MARK => self.group(name).map(|_| ()),

            op::EMPTY_TUPLE => self.make(Node::Tuple(Vec::new())),
            op::TUPLE1 => self.tuple(name, 1),
            op::TUPLE2 => self.tuple(name, 2),
            op::TUPLE3 => self.tuple(name, 3),
            op::TUPLE => {
                let items = self.group(name)?;
                self.make(Node::Tuple(items))
            }
            op::EMPTY_LIST => self.make(Node::List(Vec::new())),
            op::EMPTY_DICT => self.make(Node::Dict(Vec::new())),
            op::EMPTY_SET => self.make(Node::Set(Vec::new())),
            op::FROZENSET => {
                let items = self.group(name)?;
                self.make(Node::FrozenSet(items))
            }
            op::APPEND => {
                let item = self.pop(name)?;
                self.append(name, &[item])
            }
            op::APPENDS | op::ADDITEMS => {
                let items = self.group(name)?;
                self.append(name, &items)
            }
            op::SETITEM => {
                let value = self.pop(name)?;
                let key = self.pop(name)?;
                self.set(name, &[key, value])
            }
            op::SETITEMS => {
                let items = self.group(name)?;
                self.set(name, &items)
            }

            op::GLOBAL => {
                let module = self.input.line()?;
                let attribute = self.input.line()?;
                self.global(module, attribute)
            }
            op::STACK_GLOBAL => {
                let attribute = self.pop_text(name)?;
                let module = self.pop_text(name)?;
                self.global(module, attribute)
            }
            op::REDUCE | op::NEWOBJ => self.call(name, None),
            op::NEWOBJ_EX => {
                let keywords = self.pop(name)?;
                let keywords =
                    self.expect(name, keywords, "a dict", |n| matches!(n, Node::Dict(_)))?;
                self.call(name, Some(keywords))
            }
            op::BUILD => {
                let state = self.pop(name)?;
                let target = self.top(name)?;
                let at =
                    self.expect(name, target, "an object", |n| matches!(n, Node::Object(_)))?;
                match &mut self.nodes[at.0 as usize] {
                    Node::Object(object) if object.state.is_none() => object.state = Some(state),
                    _ => return Err(self.operand(name, "an object without state", target)),
                }
                Ok(())
            }
            op::BINPERSID => {
                let reference = self.pop(name)?;
                self.make(Node::Persistent(reference))
            }

            op::BINPUT => self.input.number::<1>().and_then(|i| self.store(name, i as u32)),
            op::LONG_BINPUT => self.input.number::<4>().and_then(|i| self.store(name, i as u32)),
            op::MEMOIZE => self.store(name, self.memo.len() as u32),
            op::BINGET => self.input.number::<1>().and_then(|i| self.recall(i as u32)),
            op::LONG_BINGET => self.input.number::<4>().and_then(|i| self.recall(i as u32)),

            _ => Err(Fault::Refused(name)),
        }
    }

    fn stop(&mut self) -> Result<Value<'a>, Fault> {
        match (self.stack.as_slice(), self.marks.len()) {
            ([root], 0) => Ok(*root),
            (values, open) => Err(Fault::Ending(values.len() + open)),
        }
    }

    // Bounds.

    /// That `more` values fit on the stack.
    fn room(&self, more: usize) -> Result<(), Fault> {
        let live = (self.stack.len() + self.marks.len() + more).saturating_mul(VALUE);
        self.within(self.held.saturating_add(live), self.limits.memory, LimitKind::Memory)
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Fault> {
        self.held = self.held.saturating_add(bytes);
        self.room(0)
    }

    fn within(&self, needed: usize, limit: usize, kind: LimitKind) -> Result<(), Fault> {
        if needed > limit { Err(Fault::Limit { kind, limit }) } else { Ok(()) }
    }

    // The stack.

    fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        self.room(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        let text = str::from_utf8(bytes).map_err(|_| Fault::Utf8)?;
        self.push(Value::Str(text))
    }

    /// The top of the stack, within the group that is open.
    fn top(&self, opcode: &'static str) -> Result<Value<'a>, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..).and_then(<[Value]>::last);
        top.copied().ok_or(Fault::Underflow(opcode))
    }

    fn pop(&mut self, opcode: &'static str) -> Result<Value<'a>, Fault> {
        let top = self.top(opcode)?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_text(&mut self, opcode: &'static str) -> Result<&'a str, Fault> {
        match self.pop(opcode)? {
            Value::Str(text) => Ok(text),
            other => Err(self.operand(opcode, "text", other)),
        }
    }

    /// The values of the group that is open, which ends.
    fn group(&mut self, opcode: &'static str) -> Result<Vec<Value<'a>>, Fault> {
        let from = self.marks.pop().ok_or(Fault::NoMark(opcode))?;
        Ok(self.stack.split_off(from))
    }

    // Containers.

    fn make(&mut self, node: Node<'a>) -> Result<(), Fault> {
        let inner = match &node {
            Node::Tuple(items) | Node::FrozenSet(items) => items.len() * VALUE,
            Node::Object(_) => OBJECT,
            _ => 0,
        };
        self.hold(NODE + inner)?;
        self.within(self.nodes.len() + 1, self.limits.objects, LimitKind::Objects)?;
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| Fault::Limit { kind: LimitKind::Objects, limit: u32::MAX as usize })?;
        self.nodes.push(node);
        self.push(Value::Node(Id(id)))
    }

    fn tuple(&mut self, opcode: &'static str, length: usize) -> Result<(), Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(length).filter(|from| *from >= floor);
        let items = self.stack.split_off(from.ok_or(Fault::Underflow(opcode))?);
        self.make(Node::Tuple(items))
    }

    fn append(&mut self, opcode: &'static str, items: &[Value<'a>]) -> Result<(), Fault> {
        self.hold(items.len() * VALUE)?;
        let target = self.top(opcode)?;
        let sets = opcode == "ADDITEMS";
        let fits = |n: &Node| match n {
            Node::Set(_) => sets,
            Node::List(_) => !sets,
            Node::Object(_) => true,
            _ => false,
        };
        let at = self.expect(opcode, target, "what it adds to", fits)?;
        if let Node::List(held) | Node::Set(held) = &mut self.nodes[at.0 as usize] {
            held.extend_from_slice(items);
        } else if let Node::Object(object) = &mut self.nodes[at.0 as usize] {
            object.items.extend_from_slice(items);
        }
        Ok(())
    }

    fn set(&mut self, opcode: &'static str, items: &[Value<'a>]) -> Result<(), Fault> {
        self.hold(items.len() * VALUE)?;
        let target = self.top(opcode)?;
        let fits = |n: &Node| matches!(n, Node::Dict(_) | Node::Object(_));
        let at = self.expect(opcode, target, "a dict", fits)?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Fault::Unpaired);
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        match &mut self.nodes[at.0 as usize] {
            Node::Dict(held) => held.extend(pairs),
            Node::Object(object) => object.pairs.extend(pairs),
            _ => {}
        }
        Ok(())
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Fault> {
        let mut lists = self.allowed.iter().copied().flatten();
        let listed = lists.any(|(m, names)| *m == module && names.contains(&name));
        if !listed {
            return Err(Fault::Global { module: shown(module), name: shown(name) });
        }
        self.make(Node::Global(Global { module, name }))
    }

    /// Records a call of the global below the tuple of arguments on the stack.
    fn call(&mut self, opcode: &'static str, keywords: Option<Id>) -> Result<(), Fault> {
        let args = self.pop(opcode)?;
        let args = self.expect(opcode, args, "a tuple", |n| matches!(n, Node::Tuple(_)))?;
        let callee = self.pop(opcode)?;
        let id =
            self.expect(opcode, callee, "a class or function", |n| matches!(n, Node::Global(_)))?;
        let Node::Global(class) = self.nodes[id.0 as usize] else {
            return Err(self.operand(opcode, "a class or function", callee));
        };
        let (items, pairs) = (Vec::new(), Vec::new());
        let object = Object { class, args, keywords, state: None, items, pairs };
        self.make(Node::Object(Box::new(object)))
    }

    /// The value's place if it refers to a node that `fits`.
    fn expect(
        &self,
        opcode: &'static str,
        value: Value<'a>,
        expected: &'static str,
        fits: impl Fn(&Node) -> bool,
    ) -> Result<Id, Fault> {
        match value {
            Value::Node(id) if self.nodes.get(id.0 as usize).is_some_and(fits) => Ok(id),
            other => Err(self.operand(opcode, expected, other)),
        }
    }

    fn operand(&self, opcode: &'static str, expected: &'static str, found: Value<'a>) -> Fault {
        Fault::Operand { opcode, expected, found: kind(&self.nodes, found) }
    }

    // The memo.

    fn store(&mut self, opcode: &'static str, index: u32) -> Result<(), Fault> {
        let top = self.top(opcode)?;
        if self.memo.insert(index, top).is_none() {
            self.within(self.memo.len(), self.limits.memo, LimitKind::Memo)?;
            self.hold(MEMO)?;
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Fault> {
        let value = self.memo.get(&index).copied().ok_or(Fault::Memo(index))?;
        self.push(value)
    }
}

/// A two's complement, little-endian integer.
fn long(bytes: &[u8]) -> Value<'_> {
    let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        }
        None => Value::Long(bytes),
    }
}

/// A Python 2 string: text where it can be.
fn string(bytes: &[u8]) -> Value<'_> {
    str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str)
}
