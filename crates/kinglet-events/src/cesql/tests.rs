//! Conformance tables: every operator, cast, function and error.

use proptest::prelude::*;

use super::*;
use crate::event::{Attribute, Event, ExtensionName, Value};

/// Type `com.example.created`, source `/a/b`, extensions of each type.
fn event() -> Event {
    let mut event = Event::new("1", "/a/b", "com.example.created").unwrap();
    event.set(Attribute::Subject, "sub").unwrap();
    event.set(Attribute::Time, "2021-05-05T05:05:05Z").unwrap();
    for (name, value) in [
        ("text", Value::from("abc")),
        ("num", Value::from("7")),
        ("empty", Value::from("")),
        ("int", Value::Integer(42)),
        ("flag", Value::Boolean(true)),
        ("word", Value::from("TRUE")),
        ("a1b2", Value::from("digits")),
        ("1st", Value::from("first")),
    ] {
        event
            .set_extension(ExtensionName::parse(name).unwrap(), value)
            .unwrap();
    }
    event
}

fn evaluate(text: &str) -> Outcome {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let outcome = expression.evaluate(&event());
    let is_true = outcome.error.is_none() && outcome.value == CesqlValue::Boolean(true);
    assert_eq!(expression.matches(&event()), is_true, "{text}");
    outcome
}

/// Asserts values without errors.
fn values<V: Into<CesqlValue> + Copy>(table: &[(&str, V)]) {
    for (text, value) in table {
        let expected = Outcome {
            value: (*value).into(),
            error: None,
        };
        assert_eq!(evaluate(text), expected, "{text}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Error {
    Cast,
    Math,
    Attribute,
    Missing,
    Function,
}

/// Asserts an error, and the value beside it.
fn errors<V: Into<CesqlValue> + Copy>(table: &[(&str, Error, V)]) {
    for (text, error, value) in table {
        let outcome = evaluate(text);
        assert_eq!(outcome.value, (*value).into(), "{text}");
        let found = match outcome
            .error
            .unwrap_or_else(|| panic!("{text} has no error"))
        {
            CesqlError::Cast { .. } => Error::Cast,
            CesqlError::Math => Error::Math,
            CesqlError::MissingAttribute(_) => Error::Attribute,
            CesqlError::MissingFunction { .. } => Error::Missing,
            CesqlError::FunctionEvaluation(_) => Error::Function,
            CesqlError::TooMuchWork(_) => panic!("{text}"),
        };
        assert_eq!(found, *error, "{text}");
    }
}

#[test]
fn literals() {
    values(&[
        ("'abc'", "abc"),
        ("\"abc\"", "abc"),
        ("''", ""),
        ("'it\\'s'", "it's"),
        ("\"a\\\"b\"", "a\"b"),
        // Doubled quotes and other escapes stay as they are written.
        ("'a''b'", "a''b"),
        ("\"a\"\"b\"", "a\"\"b"),
        ("'a\\nb'", "a\\nb"),
        ("'a\\\"b'", "a\\\"b"),
        ("'a\"b'", "a\"b"),
        ("'é'", "é"),
    ]);
    values(&[
        ("0", 0),
        ("+5", 5),
        ("-5", -5),
        ("007", 7),
        ("2147483647", i32::MAX),
        ("-2147483648", i32::MIN),
    ]);
    values(&[
        ("TRUE", true),
        ("true", true),
        ("tRuE", true),
        ("FALSE", false),
        ("false", false),
    ]);
}

#[test]
fn attributes() {
    values(&[
        ("id", "1"),
        ("source", "/a/b"),
        ("type", "com.example.created"),
        ("TYPE", "com.example.created"),
        ("Type", "com.example.created"),
        ("subject", "sub"),
        ("specversion", "1.0"),
        ("time", "2021-05-05T05:05:05Z"),
        ("text", "abc"),
        ("a1b2", "digits"),
        ("1st", "first"),
        ("empty", ""),
    ]);
    values(&[("int", 42)]);
    values(&[("flag", true)]);
    errors(&[
        ("nothere", Error::Attribute, false),
        ("dataschema", Error::Attribute, false),
        // A name of version 0.3.
        ("schemaurl", Error::Attribute, false),
        ("nothere = 'x'", Error::Attribute, false),
    ]);
    errors(&[("nothere + 1", Error::Attribute, 0)]);
    errors(&[("UPPER(nothere)", Error::Attribute, "")]);
}

#[test]
fn exists() {
    values(&[
        ("EXISTS id", true),
        ("EXISTS source", true),
        ("EXISTS type", true),
        ("EXISTS specversion", true),
        ("EXISTS subject", true),
        ("exists time", true),
        ("EXISTS text", true),
        ("EXISTS empty", true),
        ("EXISTS dataschema", false),
        ("EXISTS nothere", false),
        ("NOT EXISTS nothere", true),
        ("EXISTS text AND text = 'abc'", true),
        ("EXISTS nothere AND nothere = 'x'", false),
    ]);
}

#[test]
fn comparisons_cast_left_to_right() {
    values(&[
        ("'a' = 'a'", true),
        ("'a' = 'b'", false),
        ("'a' != 'b'", true),
        ("'a' <> 'a'", false),
        ("1 = 1", true),
        ("1 = '1'", true),
        ("'1' = 1", true),
        ("1 = 'a'", false),
        ("TRUE = 'true'", true),
        ("TRUE = 'TRUE'", false),
        ("'TRUE' = TRUE", true),
        ("TRUE = 1", true),
        ("1 = TRUE", true),
        ("2 = TRUE", true),
        ("0 = FALSE", true),
        ("num = 7", true),
        ("num = '07'", false),
        ("int = '42'", true),
        ("'042' = int", true),
        ("1 < 2", true),
        ("2 < 1", false),
        ("1 <= 1", true),
        ("1 >= 2", false),
        ("3 > 2", true),
        ("'3' > '20'", false),
        ("TRUE > FALSE", true),
        ("1 < 2 = TRUE", true),
        ("1 = 1 = 1", true),
    ]);
    errors(&[
        ("'a' = 1", Error::Cast, false),
        ("'a' != 1", Error::Cast, false),
        ("'x' = TRUE", Error::Cast, false),
        ("'a' < 'b'", Error::Cast, false),
        ("1 < 'b'", Error::Cast, false),
    ]);
}

#[test]
fn arithmetic_wraps() {
    values(&[
        ("1 + 2", 3),
        ("5 - 7", -2),
        ("4 * 3", 12),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 % 3", 1),
        ("-7 % 3", -1),
        ("'4' * '3'", 12),
        ("TRUE + TRUE", 2),
        ("num + 1", 8),
        ("2147483647 + 1", i32::MIN),
        ("-2147483648 - 1", i32::MAX),
        ("2147483647 * 2", -2),
        ("-2147483648 / -1", i32::MIN),
        ("-2147483648 % -1", 0),
        ("-int", -42),
        ("- num", -7),
        ("- -2147483648", i32::MIN),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 2 - 3", 5),
        ("20 / 2 / 5", 2),
        ("-num + 10", 3),
    ]);
    errors(&[
        ("1 / 0", Error::Math, 0),
        ("1 % 0", Error::Math, 0),
        ("'a' + 1", Error::Cast, 0),
        ("-'a'", Error::Cast, 0),
    ]);
    errors(&[("1 / 0 = 0", Error::Math, false)]);
}

#[test]
fn logic_is_one_level_and_associates_to_the_right() {
    values(&[
        ("TRUE AND TRUE", true),
        ("TRUE AND FALSE", false),
        ("FALSE OR TRUE", true),
        ("FALSE OR FALSE", false),
        ("TRUE XOR TRUE", false),
        ("TRUE XOR FALSE", true),
        ("FALSE XOR FALSE", false),
        // false AND (true OR true)
        ("FALSE AND TRUE OR TRUE", false),
        ("(FALSE AND TRUE) OR TRUE", true),
        // true OR (false AND false)
        ("TRUE OR FALSE AND FALSE", true),
        // true XOR (true AND false)
        ("TRUE XOR TRUE AND FALSE", true),
        // true XOR (false XOR (true OR false))
        ("TRUE XOR FALSE XOR TRUE OR FALSE", false),
        ("'true' AND 1", true),
        ("0 OR 'FALSE'", false),
        ("NOT TRUE", false),
        ("NOT 'false'", true),
        ("NOT 0", true),
        ("NOT NOT TRUE", true),
        // Short circuits.
        ("FALSE AND nothere", false),
        ("TRUE OR nothere", true),
        ("TRUE OR 1 / 0 = 1", true),
        ("TRUE AND TRUE OR nothere", true),
    ]);
    // A text is no boolean until something asks for one.
    values(&[("word", "TRUE")]);
    errors(&[
        ("TRUE AND nothere", Error::Attribute, false),
        ("nothere OR TRUE", Error::Attribute, false),
        ("TRUE XOR nothere", Error::Attribute, false),
        ("FALSE XOR nothere", Error::Attribute, false),
        ("'x' AND TRUE", Error::Cast, false),
        ("NOT 'x'", Error::Cast, false),
    ]);
}

#[test]
fn prefixes_bind_tightest() {
    values(&[
        // (NOT 'false') = TRUE
        ("NOT 'false' = TRUE", true),
        // (NOT FALSE) AND FALSE
        ("NOT FALSE AND FALSE", false),
        ("NOT FALSE IN (TRUE)", true),
        ("-1 IN (1, -1)", true),
        ("NOT FALSE LIKE 'true'", true),
        // LIKE binds tighter than +, so 'b' LIKE is a boolean: 1 + true
        ("1 + '1' LIKE '1' = 2", true),
        ("1 + 1 IN (1) = 2", true),
        ("3 IN (1 + 2)", true),
    ]);
}

#[test]
fn in_casts_elements_to_the_value() {
    values(&[
        ("1 IN (1, 2)", true),
        ("3 IN (1, 2)", false),
        ("3 NOT IN (1, 2)", true),
        ("1 NOT IN (1, 2)", false),
        ("'a' IN ('a')", true),
        ("1 IN ('1')", true),
        ("'1' IN (1)", true),
        ("TRUE IN ('false', 'true')", true),
        ("num IN (7, 8)", true),
        ("type IN ('x', type)", true),
        ("1 IN (1, 'x')", true),
    ]);
    errors(&[
        ("1 IN ('x', 1)", Error::Cast, false),
        ("nothere IN (1)", Error::Attribute, false),
        ("1 IN (nothere)", Error::Attribute, false),
    ]);
}

#[test]
fn like() {
    values(&[
        ("'' LIKE ''", true),
        ("'a' LIKE ''", false),
        ("'' LIKE '%'", true),
        ("'' LIKE '_'", false),
        ("'abc' LIKE 'abc'", true),
        ("'abc' LIKE 'ab'", false),
        ("'abc' LIKE 'a%'", true),
        ("'abc' LIKE '%c'", true),
        ("'abc' LIKE '%b%'", true),
        ("'abc' LIKE 'a%c'", true),
        ("'abc' LIKE 'a_c'", true),
        ("'abc' LIKE '___'", true),
        ("'abc' LIKE '__'", false),
        ("'abc' LIKE 'A%'", false),
        ("'abc' NOT LIKE 'a%'", false),
        ("'abc' NOT LIKE 'x%'", true),
        ("'ab' LIKE 'ab%ab'", false),
        ("'abab' LIKE 'ab%ab'", true),
        ("'aXbXc' LIKE 'a%X_'", true),
        ("'a1b2c' LIKE '%_b_%'", true),
        ("'mississippi' LIKE '%iss%ip%'", true),
        ("'mississippi' LIKE '%iss%iss%iss%'", false),
        ("'a%b' LIKE 'a\\%b'", true),
        ("'axb' LIKE 'a\\%b'", false),
        ("'a_b' LIKE 'a\\_b'", true),
        ("'axb' LIKE 'a\\_b'", false),
        ("'a.b' LIKE 'a.b'", true),
        ("'axb' LIKE 'a.b'", false),
        ("'a\\b' LIKE 'a\\b'", true),
        // A byte each.
        ("'é' LIKE '_'", false),
        ("'é' LIKE '__'", true),
        ("12 LIKE '1_'", true),
        ("TRUE LIKE 't%'", true),
        ("'a%%b' LIKE '%%%'", true),
    ]);
    errors(&[("nothere LIKE '%'", Error::Attribute, false)]);
}

#[test]
fn casting_functions() {
    values(&[
        ("INT('7')", 7),
        ("INT('-7')", -7),
        ("INT('+7')", 7),
        ("INT(TRUE)", 1),
        ("INT(FALSE)", 0),
        ("INT(3)", 3),
        ("int('7')", 7),
    ]);
    values(&[
        ("BOOL('true')", true),
        ("BOOL('FALSE')", false),
        ("BOOL(2)", true),
        ("BOOL(0)", false),
        ("BOOL(TRUE)", true),
        ("IS_INT('7')", true),
        ("IS_INT('abc')", false),
        ("IS_INT('7.1')", false),
        ("IS_INT('2147483648')", false),
        ("IS_INT('')", false),
        ("IS_INT(' 7')", false),
        ("IS_INT(TRUE)", true),
        ("IS_INT(3)", true),
        ("is_int(3)", true),
        ("IS_BOOL('true')", true),
        ("IS_BOOL('True')", true),
        ("IS_BOOL('yes')", false),
        ("IS_BOOL(5)", true),
        ("IS_BOOL(TRUE)", true),
    ]);
    values(&[
        ("STRING(7)", "7"),
        ("STRING(-7)", "-7"),
        ("STRING(TRUE)", "true"),
        ("STRING('x')", "x"),
    ]);
    errors(&[
        ("INT('x')", Error::Cast, 0),
        ("INT(nothere)", Error::Attribute, 0),
    ]);
    errors(&[
        ("BOOL('x')", Error::Cast, false),
        ("IS_INT(nothere)", Error::Attribute, false),
    ]);
}

#[test]
fn integer_and_length_functions() {
    values(&[
        ("ABS(-3)", 3),
        ("ABS(3)", 3),
        ("ABS('-3')", 3),
        ("ABS(-2147483647)", i32::MAX),
        ("LENGTH('abc')", 3),
        ("LENGTH('')", 0),
        ("LENGTH('é')", 2),
        ("LENGTH(TRUE)", 4),
        ("LENGTH(123)", 3),
    ]);
    errors(&[
        ("ABS(-2147483648)", Error::Function, i32::MAX),
        ("ABS('x')", Error::Cast, 0),
        // Beside the error of a part stands the zero.
        ("1 + ABS(-2147483648)", Error::Function, 0),
    ]);
}

#[test]
fn text_functions() {
    values(&[
        ("CONCAT()", ""),
        ("CONCAT('a')", "a"),
        ("CONCAT('a', 1, TRUE)", "a1true"),
        ("CONCAT_WS(',')", ""),
        ("CONCAT_WS(',', 'a')", "a"),
        ("CONCAT_WS(', ', 'a', 'b', 3)", "a, b, 3"),
        ("LOWER('ABC')", "abc"),
        ("LOWER('ÄÖ')", "äö"),
        ("UPPER('abc')", "ABC"),
        ("UPPER('straße')", "STRAßE"),
        ("UPPER(TRUE)", "TRUE"),
        ("TRIM('  a b\t')", "a b"),
        ("TRIM('')", ""),
        ("TRIM(CONCAT(' ', 'x ', ' '))", "x"),
        ("LEFT('abc', 2)", "ab"),
        ("LEFT('abc', 0)", ""),
        ("LEFT('abc', 3)", "abc"),
        ("LEFT('abc', 10)", "abc"),
        ("RIGHT('abc', 2)", "bc"),
        ("RIGHT('abc', 0)", ""),
        ("RIGHT('abc', 10)", "abc"),
        ("LEFT(123, '2')", "12"),
        ("SUBSTRING('abcdef', 1)", "abcdef"),
        ("SUBSTRING('abcdef', 3)", "cdef"),
        ("SUBSTRING('abcdef', 6)", "f"),
        ("SUBSTRING('abcdef', 0)", ""),
        ("SUBSTRING('abcdef', -2)", "ef"),
        ("SUBSTRING('abcdef', -6)", "abcdef"),
        ("SUBSTRING('abcdef', 2, 3)", "bcd"),
        ("SUBSTRING('abcdef', 2, 0)", ""),
        ("SUBSTRING('abcdef', 5, 10)", "ef"),
        ("SUBSTRING('abcdef', -3, 2)", "de"),
        ("SUBSTRING('abcdef', 0, 2)", ""),
        ("LEFT(CONCAT('abc', 'def'), 4)", "abcd"),
    ]);
    errors(&[
        ("LEFT('abc', -1)", Error::Function, "abc"),
        ("RIGHT('abc', -1)", Error::Function, "abc"),
        ("UPPER(LEFT('abc', -1))", Error::Function, ""),
        ("LEFT('abc', 'x')", Error::Cast, ""),
        ("SUBSTRING('abc', 4)", Error::Function, ""),
        ("SUBSTRING('abc', -4)", Error::Function, ""),
        ("SUBSTRING('abc', -2147483648)", Error::Function, ""),
        ("SUBSTRING('abc', 1, -1)", Error::Function, ""),
        ("SUBSTRING('', 1)", Error::Function, ""),
        ("CONCAT('a', nothere)", Error::Attribute, ""),
    ]);
    // Cut in the middle of a character, as in Go.
    assert_eq!(
        evaluate("LEFT('é', 1)").value,
        CesqlValue::String(vec![0xc3])
    );
}

#[test]
fn functions_that_do_not_exist_are_missing_when_they_are_asked() {
    errors(&[
        ("FOO()", Error::Missing, false),
        ("FOO(1, 2)", Error::Missing, false),
        ("ABS()", Error::Missing, false),
        ("ABS(1, 2)", Error::Missing, false),
        ("LEFT('a')", Error::Missing, false),
        ("CONCAT_WS()", Error::Missing, false),
        (
            "KN_VERIFY_CORRELATION_ID('a', 'n', 'ns', 's', 0, 1)",
            Error::Missing,
            false,
        ),
    ]);
    values(&[("FALSE AND FOO()", false)]);
}

#[test]
fn correlation_ids_are_asked_of_their_owner() {
    let text = "KN_VERIFY_CORRELATION_ID(text, \"name\", \"ns\", \"request-reply-keys\", 1, 3)";
    let verify: VerifyCorrelation = Arc::new(|asked| {
        let expected = Correlation {
            id: "abc",
            name: "name",
            namespace: "ns",
            secret: "request-reply-keys",
            pod: (1, 3),
        };
        if asked.id == "broken" {
            return Err("no key".to_owned());
        }
        Ok(*asked == expected)
    });
    let expression = Expression::parse(text)
        .unwrap()
        .with_correlation(Some(verify));
    assert!(expression.matches(&event()));
    let mut other = event();
    other
        .set_extension(ExtensionName::parse("text").unwrap(), "broken".into())
        .unwrap();
    let error = CesqlError::FunctionEvaluation("no key".to_owned());
    assert_eq!(expression.evaluate(&other).error, Some(error));
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for (text, at) in [
        ("", 0),
        ("   ", 3),
        ("type =", 6),
        ("= 'a'", 0),
        ("type = 'a", 7),
        ("type = \"a", 7),
        ("type == 'a'", 6),
        ("type ! 'a'", 5),
        ("(type", 5),
        ("type)", 4),
        ("1-1", 1),
        ("a-1", 1),
        ("1 2", 2),
        ("2147483648", 0),
        ("-2147483649", 0),
        ("1.5", 1),
        ("a_b", 3),
        ("a1(b)", 2),
        ("A_B 1", 4),
        ("type LIKE", 9),
        ("type LIKE source", 10),
        ("type LIKE 5", 10),
        ("type IN", 7),
        ("type IN ()", 9),
        ("type IN ('a'", 12),
        ("type IN ('a',)", 13),
        ("ABS(1,)", 6),
        ("ABS(1", 5),
        ("EXISTS", 6),
        ("EXISTS 'a'", 7),
        ("EXISTS (a)", 7),
        ("NOT", 3),
        ("type NOT = 'a'", 5),
        ("type AND", 8),
        ("AND type", 0),
        ("type; drop", 4),
        ("type # x", 5),
        ("é", 0),
        ("a.b", 1),
        ("'a' 'b'", 4),
        ("TRUE FALSE", 5),
    ] {
        match Expression::parse(text) {
            Err(ParseError::Unexpected { at: found, .. }) => assert_eq!(found, at, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    let error = Expression::parse("type = = 'a'").unwrap_err();
    assert_eq!(
        error.to_string(),
        "at byte 7: expected an expression, found Symbol(Equal)"
    );
}

#[test]
fn expressions_are_bounded() {
    let long = format!("'{}'", "a".repeat(EXPRESSION_BYTES_MAX));
    assert!(matches!(
        Expression::parse(&long),
        Err(ParseError::TooLong { .. })
    ));
    for deep in [
        format!("{}1{}", "(".repeat(8_000), ")".repeat(8_000)),
        "NOT ".repeat(4_000) + "TRUE",
        "- ".repeat(8_000) + "1",
        "1 + ".repeat(4_000) + "1",
        "ABS(".repeat(3_000) + "1",
        format!("1{}", " IN (1)".repeat(2_000)),
        format!("type{}", " LIKE ''".repeat(2_000)),
        "1 IN (".repeat(2_000),
        "(".repeat(16_000),
    ] {
        let refused = Expression::parse(&deep);
        assert!(
            matches!(refused, Err(ParseError::TooDeep { .. })),
            "{refused:?}"
        );
    }
    // A chain is not deep.
    let chain = "FALSE OR ".repeat(1_800) + "TRUE";
    assert!(Expression::parse(&chain).unwrap().matches(&event()));
    let fits = format!("{}1{} = 1", "(".repeat(90), ")".repeat(90));
    assert!(Expression::parse(&fits).unwrap().matches(&event()));
}

#[test]
fn evaluations_are_bounded() {
    let mut large = event();
    let value = "a".repeat(60_000);
    large
        .set_extension(ExtensionName::parse("big").unwrap(), value.as_str().into())
        .unwrap();
    for text in [
        format!("big LIKE '%{}b%'", "_".repeat(10_000)),
        format!("LENGTH(CONCAT({}'')) > 0", "big, ".repeat(100)),
        format!(
            "LENGTH(CONCAT({0}, {0}, {0}, {0}, {0}))  > 0",
            "CONCAT(big, big, big, big)"
        ),
    ] {
        let outcome = Expression::parse(&text).unwrap().evaluate(&large);
        assert_eq!(
            outcome.error,
            Some(CesqlError::TooMuchWork(EVALUATION_BYTES_MAX)),
            "{text}"
        );
    }
    let ordinary = Expression::parse("big LIKE '%a%a%a%' AND big NOT LIKE '%b%'").unwrap();
    assert!(ordinary.matches(&large));
}

/// Expressions of the grammar, so that evaluation is reached.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("type".to_owned()),
        Just("num".to_owned()),
        Just("nothere".to_owned()),
        Just("flag".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|boolean| boolean.to_string()),
        "'[a-z%_\\\\]{0,6}x'",
        Just("EXISTS subject".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "=", "!=", "<>", "<", "<=", ">", ">=", "AND", "OR", "XOR",
        ]);
        let function = prop::sample::select(vec![
            "INT",
            "BOOL",
            "STRING",
            "IS_INT",
            "IS_BOOL",
            "ABS",
            "LENGTH",
            "CONCAT",
            "CONCAT_WS",
            "LOWER",
            "UPPER",
            "TRIM",
            "LEFT",
            "RIGHT",
            "SUBSTRING",
            "NONE",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|a| format!("NOT {a}")),
            inner.clone().prop_map(|a| format!("- {a}")),
            inner.clone().prop_map(|a| format!("({a} LIKE '%a_%')")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} NOT IN ({b}, {a}))")),
            (function, prop::collection::vec(inner, 1..4))
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_is_a_reason_to_panic(text in "\\PC{0,60}") {
        let _ = Expression::parse(&text).map(|expression| expression.evaluate(&event()));
    }

    #[test]
    fn no_row_of_tokens_is_a_reason_to_panic(words in prop::collection::vec(prop::sample::select(vec![
        "(", ")", ",", "NOT", "LIKE", "IN", "EXISTS", "AND", "OR", "XOR", "-", "+", "*", "/", "%", "=", "<", ">=",
        "type", "num", "1", "-1", "'a'", "TRUE", "ABS", "SUBSTRING", "LEFT", "CONCAT_WS",
    ]), 0..16)) {
        let _ = Expression::parse(&words.join(" ")).map(|expression| expression.evaluate(&event()));
    }

    #[test]
    fn every_expression_has_an_outcome(text in expressions()) {
        let expression = Expression::parse(&text).unwrap();
        let outcome = expression.evaluate(&event());
        let is_true = outcome.error.is_none() && outcome.value == CesqlValue::Boolean(true);
        prop_assert_eq!(expression.matches(&event()), is_true);
    }
}
