//! What a store keeps of a task's secrets: encrypted texts, which it cannot read.

/// The encrypted secrets of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealedSecrets {
    /// What the launch needs. Removed with the first change of the task that says that the command was started, or ended.
    pub launch: Option<Vec<u8>>,
    /// The values that are masked.
    pub values: Option<Vec<u8>>,
    /// Whether the values outlive the task's end. Otherwise they are removed with the change that ends the task, or if output is still to be
    /// retained then, as soon as it is.
    pub keep_values: bool,
}

impl SealedSecrets {
    /// Bytes of both texts.
    pub fn len(&self) -> usize {
        [&self.launch, &self.values].into_iter().flatten().map(Vec::len).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
