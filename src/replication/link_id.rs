//! What names a link of a node.

/// A connection between this node and another. The reactor numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub usize);
