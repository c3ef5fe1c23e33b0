//! 50 Triggers against five events, 250 verdicts: what an unmodified Knative delivered (2026-11-21, retry 0, binary mode).

/// Attributes and extensions of each event; the values are texts, as in binary mode.
pub(super) const EVENTS: [(&str, &[(&str, &str)]); 5] = [
    (
        "created",
        &[
            ("id", "1"),
            ("type", "com.foo.created"),
            ("source", "/a/b"),
            ("region", "eu"),
            ("num", "7"),
            ("flag", "true"),
        ],
    ),
    (
        "deleted",
        &[
            ("id", "2"),
            ("type", "com.foo.deleted"),
            ("source", "/c"),
            ("region", "us"),
            ("num", "3"),
            ("flag", "false"),
        ],
    ),
    (
        "bare",
        &[("id", "3"), ("type", "org.bar.created"), ("source", "/z")],
    ),
    (
        "odd",
        &[
            ("id", "4"),
            ("type", "COM.FOO.CREATED"),
            ("source", "/a/b/c"),
            ("region", "EU"),
            ("num", "x"),
            ("flag", "TRUE"),
        ],
    ),
    (
        "ten",
        &[
            ("id", "5"),
            ("type", "com.f%o.created"),
            ("source", "x:y"),
            ("region", "eu"),
            ("num", "10"),
            ("flag", "1"),
            ("subject", "s"),
            ("time", "2021-05-05T05:05:05Z"),
            ("dataschema", "http://s"),
        ],
    ),
];

/// Name, `spec` of the Trigger, and to which events, in their order, it said yes.
pub(super) const TRIGGERS: [(&str, &str, [u8; 5]); 50] = [
    (
        "attr-two",
        r##"{"filter": {"attributes": {"type": "com.foo.created", "source": "/a/b"}}}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "attr-ext",
        r##"{"filter": {"attributes": {"region": "eu"}}}"##,
        [1, 0, 0, 0, 1],
    ),
    (
        "attr-missing-any",
        r##"{"filter": {"attributes": {"nothere": ""}}}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "empty-filter",
        r##"{"filter": {"attributes": {}}}"##,
        [1, 1, 1, 1, 1],
    ),
    ("no-filter", r##"{}"##, [1, 1, 1, 1, 1]),
    (
        "exact",
        r##"{"filters": [{"exact": {"type": "com.foo.created"}}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "prefix-two",
        r##"{"filters": [{"prefix": {"type": "com.foo", "source": "/z"}}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "suffix-ext",
        r##"{"filters": [{"suffix": {"region": "u"}}]}"##,
        [1, 0, 0, 0, 1],
    ),
    (
        "any",
        r##"{"filters": [{"any": [{"exact": {"region": "us"}}, {"exact": {"region": "eu"}}]}]}"##,
        [1, 1, 0, 0, 1],
    ),
    (
        "not-missing",
        r##"{"filters": [{"not": {"exact": {"nothere": "x"}}}]}"##,
        [1, 1, 1, 1, 1],
    ),
    (
        "nested",
        r##"{"filters": [{"all": [{"not": {"exact": {"region": "us"}}}, {"any": [{"suffix": {"type": "deleted"}}, {"cesql": "num > 5"}]}]}]}"##,
        [1, 0, 0, 0, 1],
    ),
    (
        "prefix-missing",
        r##"{"filters": [{"prefix": {"nothere": "x"}}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-00",
        r##"{"filters": [{"cesql": "type = 'com.foo.created'"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-01",
        r##"{"filters": [{"cesql": "type LIKE 'com.%.created'"}]}"##,
        [1, 0, 0, 0, 1],
    ),
    (
        "cesql-02",
        r##"{"filters": [{"cesql": "type LIKE 'com._oo.created'"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-03",
        r##"{"filters": [{"cesql": "type NOT LIKE '%deleted'"}]}"##,
        [1, 0, 1, 1, 1],
    ),
    (
        "cesql-04",
        r##"{"filters": [{"cesql": "source IN ('/a/b', '/c')"}]}"##,
        [1, 1, 0, 0, 0],
    ),
    (
        "cesql-07",
        r##"{"filters": [{"cesql": "NOT EXISTS region"}]}"##,
        [0, 0, 1, 0, 0],
    ),
    (
        "cesql-08",
        r##"{"filters": [{"cesql": "EXISTS subject AND subject != ''"}]}"##,
        [0, 0, 0, 0, 1],
    ),
    (
        "cesql-15",
        r##"{"filters": [{"cesql": "-num < 0"}]}"##,
        [1, 1, 0, 0, 1],
    ),
    (
        "cesql-16",
        r##"{"filters": [{"cesql": "flag"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-17",
        r##"{"filters": [{"cesql": "NOT flag"}]}"##,
        [0, 1, 0, 0, 0],
    ),
    (
        "cesql-19",
        r##"{"filters": [{"cesql": "flag = 'true'"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-20",
        r##"{"filters": [{"cesql": "region = 'eu' OR region = 'us'"}]}"##,
        [1, 1, 0, 0, 1],
    ),
    (
        "cesql-21",
        r##"{"filters": [{"cesql": "region = 'eu' XOR flag"}]}"##,
        [0, 0, 0, 1, 0],
    ),
    (
        "cesql-23",
        r##"{"filters": [{"cesql": "LENGTH(type) > 10"}]}"##,
        [1, 1, 1, 1, 1],
    ),
    (
        "cesql-26",
        r##"{"filters": [{"cesql": "LOWER(type) = type"}]}"##,
        [1, 1, 1, 0, 1],
    ),
    (
        "cesql-27",
        r##"{"filters": [{"cesql": "UPPER(region) = 'EU'"}]}"##,
        [1, 0, 0, 1, 1],
    ),
    (
        "cesql-28",
        r##"{"filters": [{"cesql": "TRIM('  eu ') = region"}]}"##,
        [1, 0, 0, 0, 1],
    ),
    (
        "cesql-29",
        r##"{"filters": [{"cesql": "LEFT(type, 3) = 'com'"}]}"##,
        [1, 1, 0, 0, 1],
    ),
    (
        "cesql-30",
        r##"{"filters": [{"cesql": "RIGHT(type, 7) = 'created'"}]}"##,
        [1, 0, 1, 0, 1],
    ),
    (
        "cesql-32",
        r##"{"filters": [{"cesql": "SUBSTRING(type, 5, 3) = 'foo'"}]}"##,
        [1, 1, 0, 0, 0],
    ),
    (
        "cesql-33",
        r##"{"filters": [{"cesql": "SUBSTRING(type, -7) = 'created'"}]}"##,
        [1, 0, 1, 0, 1],
    ),
    (
        "cesql-34",
        r##"{"filters": [{"cesql": "ABS(-3) = 3"}]}"##,
        [1, 1, 1, 1, 1],
    ),
    (
        "cesql-38",
        r##"{"filters": [{"cesql": "STRING(num) = '7'"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-40",
        r##"{"filters": [{"cesql": "IS_INT(num)"}]}"##,
        [1, 1, 0, 0, 1],
    ),
    (
        "cesql-41",
        r##"{"filters": [{"cesql": "IS_INT('abc')"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-42",
        r##"{"filters": [{"cesql": "nothere = 'x'"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-44",
        r##"{"filters": [{"cesql": "type = \"com.foo.created\""}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-45",
        r##"{"filters": [{"cesql": "'a' < 'b'"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-46",
        r##"{"filters": [{"cesql": "1 < 2 = TRUE"}]}"##,
        [1, 1, 1, 1, 1],
    ),
    (
        "cesql-48",
        r##"{"filters": [{"cesql": "FALSE"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-50",
        r##"{"filters": [{"cesql": "'true'"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-53",
        r##"{"filters": [{"cesql": "specversion = '1.0'"}]}"##,
        [1, 1, 1, 1, 1],
    ),
    (
        "cesql-55",
        r##"{"filters": [{"cesql": "dataschema = 'http://s'"}]}"##,
        [0, 0, 0, 0, 1],
    ),
    (
        "cesql-56",
        r##"{"filters": [{"cesql": "id = '1' AND source LIKE '/%'"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-58",
        r##"{"filters": [{"cesql": "num IN (7, 8)"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-59",
        r##"{"filters": [{"cesql": "num IN ('7')"}]}"##,
        [1, 0, 0, 0, 0],
    ),
    (
        "cesql-62",
        r##"{"filters": [{"cesql": "2147483647 + 1 > 0"}]}"##,
        [0, 0, 0, 0, 0],
    ),
    (
        "cesql-64",
        r##"{"filters": [{"cesql": "LENGTH('é') = 1"}]}"##,
        [0, 0, 0, 0, 0],
    ),
];
