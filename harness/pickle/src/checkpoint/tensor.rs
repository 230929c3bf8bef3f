use super::ElementType;
use super::error::TensorFault;
use crate::shown;
use crate::value::{Global, Node, Object, Pickle, Value};

/// A tensor as the pickle describes it; nothing here is yet held against the file.
#[derive(Clone, Debug)]
pub(super) struct Described<'a> {
    pub storage: StorageRef<'a>,
    pub element: ElementType,
    /// First element, counted from the storage's first.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements, one a dimension.
    pub strides: Vec<usize>,
}

/// A storage as the pickle refers to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageRef<'a> {
    pub key: &'a str,
    /// `None`: the storage is of bytes.
    pub element: Option<ElementType>,
    /// Its length in elements.
    pub count: usize,
    /// A part of it: first element and length. Files of before 1.0 have these.
    pub view: Option<(usize, usize)>,
}

/// PyTorch's own limit.
const MOST_DIMENSIONS: usize = 64;

type Result<T> = std::result::Result<T, TensorFault>;

/// The tensor that `value` stands for; `None` where it stands for something else.
pub(super) fn describe<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Result<Described<'a>>> {
    let object = pickle.object(value)?;
    if !rebuilds(object.class) {
        return None;
    }
    Some(call(object).and_then(|(class, args)| rebuild(pickle, class, args)))
}

/// What a call calls, and its arguments; nothing may have been done to its result.
fn call<'a>(object: &Object<'a>) -> Result<(Global<'a>, Value<'a>)> {
    if object.state.is_some() || !object.items.is_empty() || !object.pairs.is_empty() {
        return Err(TensorFault::Metadata);
    }
    Ok((object.class, Value::Node(object.args)))
}

fn rebuilds(class: Global) -> bool {
    matches!(class.module, "torch._utils" | "torch._tensor") && class.name.starts_with("_rebuild")
}

/// Follows one rebuilding function, through those that wrap another, to the storage.
fn rebuild<'a>(
    pickle: &Pickle<'a>,
    mut class: Global<'a>,
    mut args: Value<'a>,
) -> Result<Described<'a>> {
    loop {
        let list = Arguments { pickle, list: pickle.tuple(args).unwrap_or_default() };
        match class.name {
            "_rebuild_tensor" => return dense(&list, None),
            "_rebuild_tensor_v2" => {
                list.no_metadata(6)?;
                return dense(&list, None);
            }
            "_rebuild_tensor_v3" => {
                list.no_metadata(7)?;
                let name = list.global(6, "element type")?;
                let element = Some(name).filter(|g| g.module == "torch");
                let element = element.and_then(|g| ElementType::from_name(g.name));
                return dense(&list, Some(element.ok_or_else(|| not_a_type(name))?));
            }
            // A parameter is the tensor it wraps.
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
                let inner = list.at(0, "parameter")?;
                let object = pickle.object(inner).filter(|o| rebuilds(o.class));
                let object =
                    object.ok_or_else(|| list.wrong("parameter", "a tensor", Some(inner)))?;
                (class, args) = call(object)?;
            }
            // A tensor with attributes of its own: the function that makes it, its class, arguments.
            "_rebuild_from_type_v2" => {
                let function = list.global(0, "function")?;
                let kind = list.global(1, "class")?;
                if !rebuilds(function) {
                    return Err(TensorFault::Function(full_name(function)));
                }
                if !matches!(kind.name, "Tensor" | "Parameter") {
                    return Err(TensorFault::Function(full_name(kind)));
                }
                (class, args) = (function, list.at(2, "arguments")?);
            }
            _ => return Err(TensorFault::Function(full_name(class))),
        }
    }
}

fn full_name(global: Global) -> String {
    shown(&format!("{}.{}", global.module, global.name))
}

fn not_a_type(global: Global) -> TensorFault {
    TensorFault::Type(full_name(global))
}

/// Storage, offset, sizes and strides, the first four arguments of every function.
fn dense<'a>(args: &Arguments<'_, 'a>, element: Option<ElementType>) -> Result<Described<'a>> {
    let storage = args.storage()?;
    let element = match (element, storage.element) {
        (Some(element), _) | (None, Some(element)) => element,
        (None, None) => return Err(TensorFault::Type("an untyped storage".to_owned())),
    };
    let offset = args.size(args.at(1, "offset")?, "offset")?;
    let shape = args.sizes(2, "size")?;
    let strides = args.sizes(3, "stride")?;
    if shape.len() != strides.len() {
        let (sizes, strides) = (shape.len(), strides.len());
        return Err(TensorFault::Dimensions { sizes, strides, most: MOST_DIMENSIONS });
    }
    Ok(Described { storage, element, offset, shape, strides })
}

/// A storage from the tuple that a persistent reference holds.
pub(super) fn storage<'a>(pickle: &Pickle<'a>, reference: Value<'a>) -> Result<StorageRef<'a>> {
    let args = Arguments { pickle, list: pickle.tuple(reference).unwrap_or_default() };
    if args.text(0, "reference")? != "storage" {
        return Err(args.wrong("reference", "a storage", Some(reference)));
    }
    let class = args.global(1, "storage class")?;
    let element = match (class.module, class.name) {
        ("torch.storage", "UntypedStorage") => None,
        ("torch", name) => Some(ElementType::from_storage(name).ok_or_else(|| not_a_type(class))?),
        _ => return Err(not_a_type(class)),
    };
    let key = args.text(2, "storage key")?;
    let count = args.size(args.at(4, "storage length")?, "storage length")?;
    let view = match args.list.get(5) {
        None | Some(Value::None) => None,
        Some(view) => {
            let view = Arguments { pickle, list: pickle.tuple(*view).unwrap_or_default() };
            let offset = view.size(view.at(1, "view offset")?, "view offset")?;
            Some((offset, view.size(view.at(2, "view length")?, "view length")?))
        }
    };
    Ok(StorageRef { key, element, count, view })
}

struct Arguments<'p, 'a> {
    pickle: &'p Pickle<'a>,
    list: &'p [Value<'a>],
}

impl<'a> Arguments<'_, 'a> {
    fn wrong(
        &self,
        what: &'static str,
        expected: &'static str,
        value: Option<Value<'a>>,
    ) -> TensorFault {
        let found = value.map_or("nothing", |value| self.pickle.kind(value));
        TensorFault::Argument { what, expected, found }
    }

    fn at(&self, index: usize, what: &'static str) -> Result<Value<'a>> {
        let value = self.list.get(index).copied();
        value.ok_or_else(|| self.wrong(what, "an argument", None))
    }

    fn global(&self, index: usize, what: &'static str) -> Result<Global<'a>> {
        let value = self.at(index, what)?;
        let global = self.pickle.global(value);
        global.ok_or_else(|| self.wrong(what, "a class or function", Some(value)))
    }

    fn text(&self, index: usize, what: &'static str) -> Result<&'a str> {
        match self.at(index, what)? {
            Value::Str(text) => Ok(text),
            other => Err(self.wrong(what, "text", Some(other))),
        }
    }

    fn size(&self, value: Value<'a>, what: &'static str) -> Result<usize> {
        match value {
            Value::Int(value) => {
                usize::try_from(value).map_err(|_| TensorFault::Negative { what, value })
            }
            Value::Long(_) => Err(TensorFault::Overflow),
            other => Err(self.wrong(what, "an integer", Some(other))),
        }
    }

    fn sizes(&self, index: usize, what: &'static str) -> Result<Vec<usize>> {
        let value = self.at(index, what)?;
        let list = self.pickle.tuple(value);
        let list = list.ok_or_else(|| self.wrong(what, "a tuple", Some(value)))?;
        if list.len() > MOST_DIMENSIONS {
            let (sizes, most) = (list.len(), MOST_DIMENSIONS);
            return Err(TensorFault::Dimensions { sizes, strides: sizes, most });
        }
        list.iter().map(|size| self.size(*size, what)).collect()
    }

    fn storage(&self) -> Result<StorageRef<'a>> {
        let value = self.at(0, "storage")?;
        match self.pickle.node(value) {
            Some(Node::Persistent(reference)) => storage(self.pickle, *reference),
            _ => Err(self.wrong("storage", "a reference outside the pickle", Some(value))),
        }
    }

    /// Refuses marks such as "negative" or "conjugate", which change what the bytes mean.
    fn no_metadata(&self, index: usize) -> Result<()> {
        match self.list.get(index).copied() {
            None | Some(Value::None) => Ok(()),
            Some(value) if self.pickle.pairs(value).is_some_and(<[_]>::is_empty) => Ok(()),
            Some(_) => Err(TensorFault::Metadata),
        }
    }
}
