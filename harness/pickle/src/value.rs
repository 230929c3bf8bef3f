use crate::error::{Fault, LimitKind};

/// Where a container stands in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) u32);

/// One value. Text and bytes are borrowed from the pickle; a container is held by its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A larger integer: two's complement, little-endian.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// Text; a Python 2 string that is UTF-8, too.
    Str(&'a str),
    /// Bytes or a bytearray.
    Bytes(&'a [u8]),
    /// A container, a global or an object.
    Node(Id),
}

/// A class or function by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global<'a> {
    /// Module.
    pub module: &'a str,
    /// Name within it.
    pub name: &'a str,
}

/// The record of a call: what was to be called, with what, and what was then put into the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<'a> {
    /// What was to be called.
    pub class: Global<'a>,
    /// The tuple of its arguments.
    pub args: Id,
    /// The dict of its keyword arguments.
    pub keywords: Option<Id>,
    /// What `__setstate__` was to be given.
    pub state: Option<Value<'a>>,
    /// What was to be appended.
    pub items: Vec<Value<'a>>,
    /// What was to be set by key, in order.
    pub pairs: Vec<(Value<'a>, Value<'a>)>,
}

/// A value that holds others.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    /// A tuple.
    Tuple(Vec<Value<'a>>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A set, in the file's order.
    Set(Vec<Value<'a>>),
    /// A frozen set, in the file's order.
    FrozenSet(Vec<Value<'a>>),
    /// A dict, in order; a key that was set twice stands there twice.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A class or function.
    Global(Global<'a>),
    /// What a call would have made.
    Object(Box<Object<'a>>),
    /// A reference to something outside the pickle.
    Persistent(Value<'a>),
}

/// What a pickle holds: a tree without cycles, of bounded depth, whose parts may be shared.
#[derive(Clone, Debug)]
pub struct Pickle<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// The pickled value.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// What a value refers to; `None` for a plain one.
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(id) => self.nodes.get(id.0 as usize),
            _ => None,
        }
    }

    /// Every container, global and object of the pickle, in the order they were begun.
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// A tuple's elements.
    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// A list's elements.
    pub fn list(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dict, an `OrderedDict` that was made empty, or a `defaultdict`.
    pub fn pairs(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            Node::Object(object) => match (object.class.module, object.class.name) {
                ("collections", "OrderedDict")
                    if self.tuple(Value::Node(object.args)).is_some_and(<[_]>::is_empty) =>
                {
                    Some(&object.pairs)
                }
                ("collections", "defaultdict") => Some(&object.pairs),
                _ => None,
            },
            _ => None,
        }
    }

    /// A call's record.
    pub fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match self.node(value)? {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A class or function.
    pub fn global(&self, value: Value<'a>) -> Option<Global<'a>> {
        match self.node(value)? {
            Node::Global(global) => Some(*global),
            _ => None,
        }
    }

    /// The value under a text key of a dict, as [`Pickle::pairs`]; of a key set twice the last holds.
    pub fn get(&self, value: Value<'a>, key: &str) -> Option<Value<'a>> {
        let pairs = self.pairs(value)?.iter().rev();
        let mut under = pairs.filter(|(name, _)| matches!(name, Value::Str(name) if *name == key));
        under.next().map(|(_, value)| *value)
    }

    /// What to call a value in a message.
    pub fn kind(&self, value: Value<'a>) -> &'static str {
        kind(&self.nodes, value)
    }

    /// Refuses cycles and nesting beyond `limit`, so that whoever walks the tree need not.
    pub(crate) fn check_depth(&self, limit: usize) -> Result<(), Fault> {
        const NEW: u32 = 0;
        const OPEN: u32 = u32::MAX;
        let mut heights = vec![NEW; self.nodes.len()];
        let mut open = Vec::new();
        open.extend(id(self.root).map(|id| (id, false)));
        while let Some((at, children_done)) = open.pop() {
            let node = &self.nodes[at];
            if children_done {
                let mut below = 0;
                children(node, |child| below = below.max(heights[child]));
                if below as usize >= limit {
                    return Err(Fault::Limit { kind: LimitKind::Depth, limit });
                }
                heights[at] = below + 1;
            } else if heights[at] == OPEN {
                return Err(Fault::Cycle);
            } else if heights[at] == NEW {
                heights[at] = OPEN;
                open.push((at, true));
                children(node, |child| {
                    // An open child must be met again: it closes a cycle.
                    if matches!(heights[child], NEW | OPEN) {
                        open.push((child, false));
                    }
                });
            }
        }
        Ok(())
    }
}

fn id(value: Value) -> Option<usize> {
    match value {
        Value::Node(id) => Some(id.0 as usize),
        _ => None,
    }
}

/// Calls `visit` with the index of each node that `node` holds.
fn children(node: &Node, mut visit: impl FnMut(usize)) {
    let mut all = |values: &[Value]| values.iter().copied().filter_map(id).for_each(&mut visit);
    match node {
        Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => {
            all(items);
        }
        Node::Dict(pairs) => pairs.iter().for_each(|(key, value)| all(&[*key, *value])),
        Node::Global(_) => {}
        Node::Object(object) => {
            all(&[Value::Node(object.args)]);
            all(object.keywords.map(Value::Node).as_slice());
            all(object.state.as_slice());
            all(&object.items);
            object.pairs.iter().for_each(|(key, value)| all(&[*key, *value]));
        }
        Node::Persistent(value) => all(&[*value]),
    }
}

pub(crate) fn kind(nodes: &[Node], value: Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a bool",
        Value::Int(_) | Value::Long(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Str(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Node(id) => match nodes.get(id.0 as usize) {
            Some(Node::Tuple(_)) => "a tuple",
            Some(Node::List(_)) => "a list",
            Some(Node::Set(_) | Node::FrozenSet(_)) => "a set",
            Some(Node::Dict(_)) => "a dict",
            Some(Node::Global(_)) => "a class or function",
            Some(Node::Object(_)) => "an object",
            Some(Node::Persistent(_)) => "a reference outside the pickle",
            None => "nothing",
        },
    }
}
