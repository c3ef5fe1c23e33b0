//! Templates as ConfigMaps and request logs have them.

use super::Template;
use super::escape::js_escape;
use serde_json::json;

#[test]
fn js_escapes_as_go_does() {
    for (text, escaped) in [
        ("/a?b=c&d", "/a?b\\u003Dc\\u0026d"),
        ("<\"'\\>", "\\u003C\\\"\\'\\\\\\u003E"),
        ("a\nb", "a\\u000Ab"),
        ("\u{fc}", "\u{fc}"),
    ] {
        assert_eq!(js_escape(text), escaped);
    }
}

#[test]
fn what_config_maps_use() {
    let data = json!({
        "Name": "hello", "Namespace": "default", "Domain": "example.com",
        "Annotations": {"sub": "mysub"}, "Labels": {},
    });
    for (text, want) in [
        (
            "{{.Name}}.{{.Namespace}}.{{.Domain}}",
            "hello.default.example.com",
        ),
        ("{{ .Name }}-x", "hello-x"),
        (
            "{{.Name}}.{{ index .Annotations \"sub\"}}.{{.Domain}}",
            "hello.mysub.example.com",
        ),
        (
            "{{if index .Labels \"a\"}}a{{else if eq .Namespace \"default\"}}b{{else}}c{{end}}",
            "b",
        ),
        ("{{- if (and .Name (ne .Name \"x\")) -}} y {{- end}}", "y"),
        ("plain", "plain"),
        ("{{.Name | len}}", "5"),
        (
            "{{9007199254740993}} {{-1}} {{1.0}}",
            "9007199254740993 -1 1",
        ),
    ] {
        assert_eq!(
            Template::parse("t", text).unwrap().render(&data).unwrap(),
            want,
            "{text}"
        );
    }
}

#[test]
fn what_request_logs_use() {
    let data = json!({
        "Request": {"Header": {"X-A": ["one", "two"]}, "URL": {"String": "/a?b=1", "Path": "/a"}, "Method": "GET"},
        "Response": {"Code": 503, "Latency": 0.012345, "Size": 7},
    });
    for (text, want) in [
        ("{{.Request.Header.Get \"x-a\"}}", "one"),
        ("{{js (.Request.Header.Get \"X-A\")}}", "one"),
        ("{{.Request.Header.Get \"X-B\"}}", ""),
        ("{{if ge .Response.Code 500}}bad{{end}}", "bad"),
        ("{{if lt .Response.Code 500}}good{{else}}bad{{end}}", "bad"),
        (
            "{{printf \"%.3f|%d|%5s|%-5s|%03d|%q|%%\" .Response.Latency .Response.Code \"a\" \"b\" .Response.Size \"c\"}}",
            "0.012|503|    a|b    |007|\"c\"|%",
        ),
        ("{{printf \"%d %s\" \"x\"}}", "%!d(x) %!s(MISSING)"),
        ("{{printf \"%v\" 1 2}}", "1%!(EXTRA 2)"),
        ("{{.Request.URL}} {{.Request.URL.Path}}", "/a?b=1 /a"),
        ("{{println 1 \"a\"}}", "1 a\n"),
        ("{{html \"<a&'\"}}", "&lt;a&amp;&#39;"),
        ("{{urlquery \"a b/ü\"}}", "a+b%2F%C3%BC"),
    ] {
        assert_eq!(
            Template::parse("t", text).unwrap().render(&data).unwrap(),
            want,
            "{text}"
        );
    }
    let mixed = Template::parse("t", "{{if lt .Response.Code \"x\"}}{{end}}").unwrap();
    assert_eq!(
        mixed.render(&data).unwrap_err(),
        "template: t: incompatible types for comparison"
    );
}

#[test]
fn mistakes() {
    for (text, want) in [
        ("{{.Bad", "template: t:1: unclosed action"),
        ("a\n{{", "template: t:2: unclosed action"),
        (
            "{{bogus .A}}",
            "template: t:1: function \"bogus\" not defined",
        ),
        ("{{}}", "template: t:1: missing value for command"),
        ("{{if .A}}", "template: t:1: unexpected EOF"),
        ("{{end}}", "template: t:1: unexpected {{end}}"),
        (
            "{{9223372036854775808}}",
            "template: t:1: integer overflow: \"9223372036854775808\"",
        ),
        ("{{1x}}", "template: t:1: bad number syntax: \"1x\""),
        ("{{inf}}", "template: t:1: function \"inf\" not defined"),
    ] {
        assert_eq!(Template::parse("t", text).unwrap_err(), want, "{text}");
    }
    let unknown = Template::parse("t", "{{.Nope}}")
        .unwrap()
        .render(&json!({}))
        .unwrap_err();
    assert_eq!(unknown, "template: t: can't evaluate field Nope");
}
