//! The trace context that a call brings along.

use tonic::metadata::MetadataMap;

use errand_task::TraceParent;

/// The metadata of the trace context.
const METADATA: &str = "traceparent";

/// The trace context in a call's metadata; none if there is none, several, or an invalid one: tracing must not fail a call that did not ask
/// for it.
pub(super) fn inherited(metadata: &MetadataMap) -> Option<TraceParent> {
    let mut values = metadata.get_all(METADATA).iter();
    let (value, another) = (values.next()?, values.next());
    value.to_str().ok().filter(|_| another.is_none()).and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn only_one_valid_trace_context_is_taken() {
        const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut metadata = MetadataMap::new();
        assert_eq!(inherited(&metadata), None);
        metadata.insert(METADATA, "00-nonsense".parse().unwrap());
        assert_eq!(inherited(&metadata), None);
        metadata.insert(METADATA, VALID.parse().unwrap());
        assert_eq!(inherited(&metadata).unwrap().as_str(), VALID);
        metadata.append(METADATA, VALID.parse().unwrap());
        assert_eq!(inherited(&metadata), None);
    }
}
