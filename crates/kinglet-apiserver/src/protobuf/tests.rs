//! Bytes that client-go's serializer wrote, beside the JSON that Go's encoder wrote of the same objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// `KIND BASE64 JSON` a line.
fn vectors() -> impl Iterator<Item = (&'static str, Vec<u8>, Value)> {
    include_str!("vectors.txt").lines().map(|line| {
        let mut parts = line.splitn(3, ' ');
        let kind = parts.next().unwrap();
        let bytes = STANDARD.decode(parts.next().unwrap()).unwrap();
        (
            kind,
            bytes,
            serde_json::from_str(parts.next().unwrap()).unwrap(),
        )
    })
}

/// Go writes null where a list is absent or a time is zero; protobuf cannot tell an empty list from none.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_nothing);
            fields
                .retain(|_, v| !v.is_null() && v.as_array().is_none_or(|items| !items.is_empty()));
        }
        Value::Array(items) => items.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

#[test]
fn what_client_go_writes_reads_as_what_go_prints() {
    for (kind, bytes, mut expected) in vectors() {
        let mut read = decode(&bytes).unwrap_or_else(|error| panic!("{kind}: {error}"));
        without_nothing(&mut expected);
        without_nothing(&mut read);
        assert_eq!(read, expected, "{kind}");
    }
}

#[test]
fn other_bytes_are_refused_in_words() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Prefix));
    let error = decode(b"k8s\0\x0a\x0a\x0a\x02v1\x12\x04None").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no kind \"None\" is registered for version \"v1\""
    );
    let error = decode(b"k8s\0\x0a\x07\x0a\x02v1\x12").unwrap_err();
    assert_eq!(error.to_string(), "unexpected EOF at runtime.Unknown");
    // Pod with metadata that claims more bytes than there are.
    let error = decode(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x0a\x05").unwrap_err();
    assert_eq!(error.to_string(), "unexpected EOF at core/v1.Pod");
    // metadata.name as a number.
    let error = decode(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x04\x0a\x02\x08\x05").unwrap_err();
    assert_eq!(
        error.to_string(),
        "wrong wireType, expected bytes at meta/v1.ObjectMeta.name"
    );
}

#[test]
fn json_in_an_envelope_is_json() {
    let mut bytes = b"k8s\0\x12\x07{\"a\":1}".to_vec();
    bytes.extend_from_slice(b"\x22\x10application/json");
    assert_eq!(decode(&bytes).unwrap(), json!({"a": 1}));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(which in 0usize..20, cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let (_, mut bytes, _) = vectors().nth(which).unwrap();
        for (at, byte) in cuts {
            let at = at.index(bytes.len());
            if byte == 0 { bytes.truncate(at.max(1)) } else { bytes[at] = byte }
        }
        let _ = decode(&bytes);
    }
}
