//! What old clients look for, and what would make them refuse the whole document.

use super::*;

#[test]
fn what_version_2_cannot_say_is_anything() {
    for (schema, expected) in [
        (
            json!({"type": "string", "nullable": true, "description": "d"}),
            json!({"description": "d"}),
        ),
        (
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true}),
            json!({"x-kubernetes-int-or-string": true}),
        ),
        (
            json!({"type": "array"}),
            json!({"type": "array", "items": {}}),
        ),
        (
            json!({"description": "m", "allOf": [{"$ref": "#/components/schemas/a.B"}]}),
            json!({"description": "m", "$ref": "#/definitions/a.B"}),
        ),
        (
            json!({"properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}),
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}),
        ),
    ] {
        assert_eq!(simple(&schema, 0), expected);
    }
}

#[test]
fn a_reference_to_nothing_is_opened() {
    let mut document = Document::default();
    document.define(
        "x.A",
        &json!({"type": "object", "properties": {"b": {"$ref": "#/components/schemas/x.B"}}}),
    );
    let document = document.finish();
    assert_eq!(document["definitions"]["x.A"]["properties"]["b"], json!({}));
}

#[test]
fn the_protobuf_form_is_gnostics() {
    let document = json!({"swagger": "2.0", "info": {"title": "K", "version": "1"}, "paths": {},
        "definitions": {"A": {"type": "object", "required": ["b"], "x-y": 1}}});
    let bytes = encode(&document);
    let expected: &[u8] = &[
        0x0a, 3, b'2', b'.', b'0', // swagger
        0x12, 6, 0x0a, 1, b'K', 0x12, 1, b'1', // info
        0x42, 0, // paths
        0x4a, 36, 0x0a, 34, 0x0a, 1, b'A', 0x12, 29, // definitions: A
        0x9a, 1, 1, b'b', // required
        0xb2, 1, 8, 0x0a, 6, b'o', b'b', b'j', b'e', b'c', b't', // type
        0xfa, 1, 11, 0x0a, 3, b'x', b'-', b'y', 0x12, 4, 0x12, 2, b'1', b'\n', // extension
    ];
    assert_eq!(bytes, expected);
}
