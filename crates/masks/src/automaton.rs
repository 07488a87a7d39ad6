//! Finds many values at once, byte by byte, as described by Aho and Corasick.
//!
//! Written here, because masking a stream needs the state itself: its depth says how many of the last bytes may be the beginning of a
//! value. Takes about 21 bytes of memory for each byte of the values.

use std::collections::VecDeque;

use zeroize::Zeroize as _;

/// The state in which no value has begun.
pub(crate) const ROOT: u32 = 0;

/// A state: the longest end of the text so far that is the beginning of a value.
struct Node {
    /// Where its edges begin.
    first: u32,
    /// How many edges it has.
    count: u16,
    /// The state of the next shorter end of the text that is the beginning of a value.
    shorter: u32,
    /// Length of the beginning.
    depth: u32,
    /// Length of the longest value that ends here; 0: none does.
    longest: u32,
}

pub(crate) struct Automaton {
    nodes: Vec<Node>,
    /// The byte of each edge, in ascending order within each state, and the state that it leads to.
    bytes: Vec<u8>,
    targets: Vec<u32>,
    /// The edges of the root, for every byte.
    root: Box<[u32; 256]>,
}

impl Drop for Automaton {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Automaton {
    /// An automaton for these values, none of which is empty.
    pub(crate) fn new(mut values: Vec<&[u8]>) -> Self {
        values.sort_unstable();
        values.dedup();
        let mut children: Vec<Vec<(u8, u32)>> = vec![Vec::new()];
        let mut ends = vec![false];
        for value in values {
            let mut at = ROOT as usize;
            for byte in value {
                // The values are sorted: an edge that exists is the last one.
                at = match children[at].last() {
                    Some((last, target)) if last == byte => *target as usize,
                    _ => {
                        let new = children.len();
                        children[at].push((*byte, u32::try_from(new).unwrap_or(ROOT)));
                        children.push(Vec::new());
                        ends.push(false);
                        new
                    }
                };
            }
            ends[at] = true;
        }
        Self::link(&mut children, &ends)
    }

    /// Finds the shorter state of each state, from the shallowest on.
    fn link(children: &mut [Vec<(u8, u32)>], ends: &[bool]) -> Self {
        let edges = children.iter().map(Vec::len).sum();
        let mut automaton = Self {
            nodes: Vec::with_capacity(children.len()),
            bytes: Vec::with_capacity(edges),
            targets: Vec::with_capacity(edges),
            root: Box::new([ROOT; 256]),
        };
        for edges in children.iter_mut() {
            let first = u32::try_from(automaton.bytes.len()).unwrap_or(u32::MAX);
            let count = u16::try_from(edges.len()).unwrap_or(256);
            automaton.nodes.push(Node { first, count, shorter: ROOT, depth: 0, longest: 0 });
            automaton.bytes.extend(edges.iter().map(|(byte, _)| *byte));
            automaton.targets.extend(edges.iter().map(|(_, target)| *target));
            edges.iter_mut().for_each(|(byte, _)| *byte = 0);
        }
        for (byte, target) in automaton.edges(ROOT) {
            automaton.root[usize::from(byte)] = target;
        }
        let mut queue = VecDeque::from([ROOT]);
        while let Some(state) = queue.pop_front() {
            for (byte, target) in automaton.edges(state) {
                let shorter = match state {
                    ROOT => ROOT,
                    _ => automaton.next(automaton.nodes[state as usize].shorter, byte),
                };
                let depth = automaton.nodes[state as usize].depth + 1;
                let inherited = automaton.nodes[shorter as usize].longest;
                let node = &mut automaton.nodes[target as usize];
                (node.shorter, node.depth) = (shorter, depth);
                node.longest = if ends[target as usize] { depth } else { inherited };
                queue.push_back(target);
            }
        }
        automaton
    }

    fn edges(&self, state: u32) -> Vec<(u8, u32)> {
        let node = &self.nodes[state as usize];
        let range = node.first as usize..node.first as usize + usize::from(node.count);
        self.bytes[range.clone()].iter().copied().zip(self.targets[range].iter().copied()).collect()
    }

    /// The state after one more byte.
    pub(crate) fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if state == ROOT {
                return self.root[usize::from(byte)];
            }
            let node = &self.nodes[state as usize];
            let range = node.first as usize..node.first as usize + usize::from(node.count);
            match self.bytes[range].binary_search(&byte) {
                Ok(at) => return self.targets[node.first as usize + at],
                Err(_) => state = node.shorter,
            }
        }
    }

    /// How many bytes at the beginning of a text begin no value.
    pub(crate) fn skip(&self, bytes: &[u8]) -> usize {
        bytes.iter().position(|byte| self.root[usize::from(*byte)] != ROOT).unwrap_or(bytes.len())
    }

    /// How many of the last bytes are the beginning of a value, or a whole one.
    pub(crate) fn depth(&self, state: u32) -> usize {
        self.nodes[state as usize].depth as usize
    }

    /// Length of the longest value that ends in this state; 0: none does.
    pub(crate) fn longest(&self, state: u32) -> usize {
        self.nodes[state as usize].longest as usize
    }
}
