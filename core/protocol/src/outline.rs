/// The id and the nesting depth of a message. The scan also works for text that is truncated, nested very deeply, or
/// not valid JSON.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Outline {
    /// String value of the key `id` of the outermost object. If the key occurs twice, its last value is used, as in
    /// JSON parsers.
    pub(super) id: Option<String>,
    /// Maximum nesting depth of objects and arrays in the text.
    pub(super) depth: usize,
}

/// The part of a key-value pair that the scanner expects next in the outermost object.
#[derive(Clone, Copy)]
enum Position {
    Key,
    Colon { is_id_key: bool },
    Value { is_id_key: bool },
}

impl Outline {
    /// Scans a text once, without recursion, to the end of its first object or array.
    pub(super) fn of(text: &str) -> Self {
        let text = text.trim_start_matches([BYTE_ORDER_MARK, ' ', '\t', '\r', '\n']);
        let bytes = text.as_bytes();
        let in_object = bytes.first() == Some(&b'{');
        let mut outline = Self::default();
        let (mut open, mut position, mut at) = (0_usize, Position::Key, 0);
        while let Some(&byte) = bytes.get(at) {
            let start = at;
            at = match byte {
                b'"' => match end_of_string(bytes, start) {
                    Some(end) => end,
                    None => break,
                },
                _ => start + 1,
            };
            if in_object && open == 1 {
                let string = || serde_json::from_str::<String>(text.get(start..at)?).ok();
                position = match (position, byte) {
                    (position, b' ' | b'\t' | b'\r' | b'\n') => position,
                    (_, b',') => Position::Key,
                    (Position::Key, b'"') => Position::Colon { is_id_key: string().as_deref() == Some("id") },
                    (Position::Colon { is_id_key }, b':') => Position::Value { is_id_key },
                    (Position::Value { is_id_key: true }, _) => {
                        outline.id = string();
                        Position::Value { is_id_key: false }
                    }
                    (position, _) => position,
                };
            }
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' if open <= 1 => break,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            outline.depth = outline.depth.max(open);
        }
        outline
    }
}

pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the index after the closing quote of the string that begins at `start`; `None` if the string is truncated.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id(text: &str) -> Option<String> {
        Outline::of(text).id
    }

    #[test]
    fn message_outline_contains_the_id_of_the_outermost_object() {
        for text in [
            r#"{"id":"r1"}"#,
            "\u{feff} \r\n\t{ \"id\" : \"r1\" }",
            r#"{"\u0069d":"\u0072\u0031"}"#,
            r#"{"payload":{"id":"r2"},"metadata":[{"id":"r3"}],"x":"\"id\":\"r4\"","id":"r1"}"#,
            r#"{"id":"r2","id":"r1"}"#,
            r#"{"id":"r1"}{"id":"r2"}"#,
            r#"{"id":"r1","payload":[1,2"#,
            r#"{"id":"r1","action":"ec"#,
            r#"{"id":"r1" "action":é}"#,
            r#"{"id":"r1",]"#,
        ] {
            assert_eq!(id(text).as_deref(), Some("r1"), "{text}");
        }
    }

    #[test]
    fn message_outline_ignores_an_id_that_is_not_a_top_level_string() {
        for text in [
            "",
            "r1",
            r#""id""#,
            r#"["id":"r1"]"#,
            r#"[{"id":"r1"}]"#,
            r#"{"a":{"id":"r1"}}"#,
            r#"{"a":"id","b":"r1"}"#,
            r#"{"id":"r1","id":7}"#,
            r#"{"id":["r1"]}"#,
            r#"{"id":é"r1"}"#,
            r#"{"id":"r1"#,
            r#"{"id":"r1\"#,
            r#"{"id":"\ud800"}"#,
            r#"{"id""#,
            r#"{"ID":"r1"}"#,
        ] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn message_outline_depth_ignores_brackets_in_strings() {
        assert_eq!(Outline::of("7").depth, 0);
        assert_eq!(Outline::of(r#"{"a":"[[[\"[","b":[{}]}"#).depth, 3);
        let deep = format!(r#"{{"payload":{}{},"id":"r1"}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(Outline::of(&deep), Outline { id: Some("r1".into()), depth: 50_001 });
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            r#"[\[\]{}",:\\a]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("(id|[a-z\"\\\\]{0,3})", inner, 0..4)
                    .prop_map(|entries| json!(entries)),
            ]
        })
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    proptest! {
        #[test]
        fn message_outline_of_valid_json_agrees_with_serde_json(value in value()) {
            let expected = Outline { id: value["id"].as_str().map(str::to_owned), depth: depth(&value) };
            prop_assert_eq!(Outline::of(&value.to_string()), expected);
        }

        #[test]
        fn message_outline_contains_the_complete_id_of_a_truncated_message(
            id in "\\PC{1,10}", rest in value(), cut in any::<proptest::sample::Index>(),
        ) {
            let head = format!(r#"{{"id":{},"#, json!(id));
            let text = format!(r#"{head}"payload":{rest}}}"#);
            let mut end = head.len() + cut.index(text.len() - head.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            prop_assert_eq!(Outline::of(&text[..end]).id, Some(id));
        }

        #[test]
        fn scan_for_the_message_outline_does_not_panic_on_arbitrary_text(text in r#"[\[\]{}":,\\idé \PC]{0,60}"#) {
            Outline::of(&text);
        }
    }
}
