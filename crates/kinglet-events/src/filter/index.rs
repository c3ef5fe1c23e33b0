//! The filters of all Triggers of a Broker, asked at once.
//!
//! A Trigger that asks for an exact attribute is found by the value in the event. Of several such conditions that one is
//! used that the fewest Triggers have been filed under, so the cost of an event grows with the Triggers that it nearly
//! matches, not with those there are. All other Triggers are asked one by one. What is found is asked in full: the index
//! leaves out, and never decides. Adding and removing a Trigger costs nothing for the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::condition::Lookup;
use super::{Filter, Node};
use crate::cesql::{CompareOperator, Expr, LogicOperator, Name};
use crate::event::{Attribute, Event};

/// An attribute that the index looks up: those that are text in every event, and extensions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Attribute(Attribute),
    Extension(Box<str>),
}

/// Attributes that are looked up; the others are the same in most events.
const INDEXED: [Attribute; 4] = [
    Attribute::Type,
    Attribute::Source,
    Attribute::Subject,
    Attribute::Id,
];

/// Values of which an attribute must have one.
type Values = BTreeSet<Box<[u8]>>;
/// Conditions that all hold for an event that passes.
type Required = BTreeMap<Key, Values>;

/// Triggers by value.
type ByValue = HashMap<Box<[u8]>, Vec<u32>>;

/// A filter, and the condition that it is filed under; none when it has no exact one.
#[derive(Clone, Debug)]
struct Filed {
    filter: Arc<Filter>,
    under: Option<(Key, Values)>,
}

/// Filters by slot, and where to look for them.
#[derive(Clone, Debug, Default)]
pub struct FilterIndex {
    slots: Vec<Option<Filed>>,
    free: Vec<u32>,
    /// By place in [`INDEXED`].
    attributes: [ByValue; INDEXED.len()],
    extensions: HashMap<Box<str>, ByValue>,
    /// Filters without an exact condition.
    others: Vec<u32>,
}

impl FilterIndex {
    /// An index over filters; their slots are their places in the list.
    pub fn new(filters: impl IntoIterator<Item = Arc<Filter>>) -> Self {
        let mut index = Self::default();
        for filter in filters {
            index.insert(filter);
        }
        index
    }

    /// Adds a filter, and says by which slot [`Self::matching`] names it.
    ///
    /// # Panics
    /// Beyond four thousand million filters.
    pub fn insert(&mut self, filter: Arc<Filter>) -> usize {
        let under = filter
            .required()
            .into_iter()
            .min_by_key(|(key, values)| self.filed_under(key, values));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("a slot takes more memory than there is")
        });
        match &under {
            None => self.others.push(slot),
            Some((key, values)) => {
                let by_value = self.by_value_mut(key);
                for value in values {
                    by_value.entry(value.clone()).or_default().push(slot);
                }
            }
        }
        self.slots[slot as usize] = Some(Filed { filter, under });
        slot as usize
    }

    /// Takes a filter out; its slot is given to another one later.
    pub fn remove(&mut self, slot: usize) -> Option<Arc<Filter>> {
        let Filed { filter, under } = self.slots.get_mut(slot)?.take()?;
        match under {
            None => self.others.retain(|other| *other as usize != slot),
            Some((key, values)) => {
                let by_value = self.by_value_mut(&key);
                for value in &values {
                    if let Some(slots) = by_value.get_mut(value) {
                        slots.retain(|other| *other as usize != slot);
                        if slots.is_empty() {
                            by_value.remove(value);
                        }
                    }
                }
                if let (true, Key::Extension(name)) = (by_value.is_empty(), &key) {
                    self.extensions.remove(name);
                }
            }
        }
        self.free.extend(u32::try_from(slot));
        Some(filter)
    }

    /// How many filters are found under these values.
    fn filed_under(&self, key: &Key, values: &Values) -> usize {
        let by_value = match key {
            Key::Attribute(attribute) => place(*attribute).map(|place| &self.attributes[place]),
            Key::Extension(name) => self.extensions.get(name),
        };
        let Some(by_value) = by_value else {
            return 0;
        };
        let filed = values.iter().filter_map(|value| by_value.get(value));
        filed.map(Vec::len).sum()
    }

    fn by_value_mut(&mut self, key: &Key) -> &mut ByValue {
        match key {
            Key::Extension(name) => self.extensions.entry(name.clone()).or_default(),
            Key::Attribute(attribute) => {
                let place = place(*attribute).expect("keys are made of these attributes only");
                &mut self.attributes[place]
            }
        }
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it keeps nothing of filters that were removed.
    #[cfg(test)]
    pub(super) fn files_nothing(&self) -> bool {
        self.others.is_empty()
            && self.extensions.is_empty()
            && self.attributes.iter().all(HashMap::is_empty)
    }

    /// Puts the slots of the filters that an event passes into `matching`, ascending.
    pub fn matching(&self, event: &Event, matching: &mut Vec<usize>) {
        matching.clear();
        for (attribute, by_value) in INDEXED.iter().zip(&self.attributes) {
            if let (false, Some(value)) = (by_value.is_empty(), event.attribute(*attribute)) {
                self.ask(by_value.get(value), event, matching);
            }
        }
        if !self.extensions.is_empty() {
            for extension in event.extensions() {
                if let Some(by_value) = self.extensions.get(extension.name()) {
                    let found = extension.value().with_text(|text| by_value.get(text));
                    self.ask(found, event, matching);
                }
            }
        }
        self.ask(Some(&self.others), event, matching);
        matching.sort_unstable();
    }

    fn ask(&self, candidates: Option<&Vec<u32>>, event: &Event, matching: &mut Vec<usize>) {
        let candidates = candidates.into_iter().flatten().map(|slot| *slot as usize);
        matching.extend(candidates.filter(|slot| {
            self.slots[*slot]
                .as_ref()
                .is_some_and(|filed| filed.filter.matches(event))
        }));
    }
}

fn place(attribute: Attribute) -> Option<usize> {
    INDEXED.iter().position(|indexed| *indexed == attribute)
}

fn is_indexed(attribute: Attribute) -> bool {
    place(attribute).is_some()
}

impl Filter {
    /// Exact conditions without which no event passes.
    fn required(&self) -> Required {
        self.root.as_ref().map(of_node).unwrap_or_default()
    }
}

fn of_node(node: &Node) -> Required {
    match node {
        Node::Exact(conditions) => conditions
            .iter()
            .filter_map(|condition| exact(&condition.lookup, &condition.value))
            .collect(),
        Node::Attributes(conditions) => conditions
            .iter()
            .filter(|condition| !condition.value.is_empty())
            .filter_map(|condition| exact(&condition.lookup, &condition.value))
            .collect(),
        Node::All(nodes) => nodes.iter().map(of_node).fold(Required::new(), both),
        Node::Any(nodes) => {
            let mut each = nodes.iter().map(of_node);
            let first = each.next().unwrap_or_default();
            each.fold(first, |known, next| either(next, known))
        }
        Node::Cesql(expression) => of_expression(expression.root()),
        Node::Prefix(_) | Node::Suffix(_) | Node::Not(_) => Required::new(),
    }
}

fn exact(lookup: &Lookup, value: &[u8]) -> Option<(Key, Values)> {
    let key = match lookup {
        Lookup::Attribute(attribute) if is_indexed(*attribute) => Key::Attribute(*attribute),
        Lookup::Extension(name) => Key::Extension(name.clone()),
        Lookup::Attribute(_) | Lookup::SpecVersion | Lookup::MediaType => return None,
    };
    Some((key, Values::from([value.into()])))
}

/// Conditions that hold when both do. Of two on the same attribute the shorter list is kept.
fn both(mut left: Required, right: Required) -> Required {
    for (key, values) in right {
        match left.get(&key) {
            Some(known) if known.len() <= values.len() => {}
            _ => {
                left.insert(key, values);
            }
        }
    }
    left
}

/// Conditions that hold when one of them does: on attributes that both name.
fn either(mut left: Required, mut right: Required) -> Required {
    right.retain(|key, values| match left.remove(key) {
        Some(others) => {
            values.extend(others);
            true
        }
        None => false,
    });
    right
}

/// What an expression needs to be true. An error is never true, so casts that fail need no thought.
fn of_expression(expression: &Expr) -> Required {
    match expression {
        Expr::Compare(CompareOperator::Equal, left, right) => match (&**left, &**right) {
            // The left side is cast to the type of the right: text forms are compared.
            (Expr::Attribute(name), Expr::Text(text)) => named(name, [text], true),
            // Here the text would be cast to the attribute's type, so only what is always text.
            (Expr::Text(text), Expr::Attribute(name)) => named(name, [text], false),
            _ => Required::new(),
        },
        Expr::In {
            value,
            set,
            negated: false,
        } => {
            let Expr::Attribute(name) = &**value else {
                return Required::new();
            };
            let texts: Option<Vec<&Box<[u8]>>> = set
                .iter()
                .map(|element| match element {
                    Expr::Text(text) => Some(text),
                    _ => None,
                })
                .collect();
            texts.map_or_else(Required::new, |texts| named(name, texts, false))
        }
        Expr::Logic { terms, last } => {
            let last = of_expression(last);
            terms
                .iter()
                .rev()
                .fold(last, |right, (term, operator)| match operator {
                    LogicOperator::And => both(of_expression(term), right),
                    LogicOperator::Or => either(of_expression(term), right),
                    LogicOperator::Xor => Required::new(),
                })
        }
        _ => Required::new(),
    }
}

fn named<'a>(
    name: &Name,
    texts: impl IntoIterator<Item = &'a Box<[u8]>>,
    extensions: bool,
) -> Required {
    let key = match name.attribute() {
        Some(attribute) if is_indexed(attribute) => Key::Attribute(attribute),
        None if extensions && is_extension(name.as_str()) => Key::Extension(name.as_str().into()),
        Some(_) | None => return Required::new(),
    };
    let values = texts.into_iter().cloned().collect();
    Required::from([(key, values)])
}

/// Names that are attributes in version 0.3 are no extensions there.
fn is_extension(name: &str) -> bool {
    matches!(Lookup::new(name), Lookup::Extension(_))
}
