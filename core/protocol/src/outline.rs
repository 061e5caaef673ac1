/// What can be known of a message without reading it whole: it may be cut off, nested without end, or no JSON.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Outline {
    /// The text under the outermost object's key `id`; of several the last, as JSON's readers have it.
    pub(super) id: Option<String>,
    /// How deep objects and arrays lie within one another.
    pub(super) depth: usize,
}

/// Where in the outermost object the reader is.
#[derive(Clone, Copy)]
enum Place {
    Key,
    Colon { of_id: bool },
    Value { of_id: bool },
}

impl Outline {
    /// Looks a text over once, without recursion, to the end of its first object or array.
    pub(super) fn of(text: &str) -> Self {
        let text = text.trim_start_matches([BYTE_ORDER_MARK, ' ', '\t', '\r', '\n']);
        let bytes = text.as_bytes();
        let in_object = bytes.first() == Some(&b'{');
        let mut outline = Self::default();
        let (mut open, mut place, mut at) = (0_usize, Place::Key, 0);
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
                place = match (place, byte) {
                    (place, b' ' | b'\t' | b'\r' | b'\n') => place,
                    (_, b',') => Place::Key,
                    (Place::Key, b'"') => Place::Colon { of_id: string().as_deref() == Some("id") },
                    (Place::Colon { of_id }, b':') => Place::Value { of_id },
                    (Place::Value { of_id: true }, _) => {
                        outline.id = string();
                        Place::Value { of_id: false }
                    }
                    (place, _) => place,
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

/// Where the string that begins at `start` has ended, unless it is cut off.
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
    fn the_id_is_the_outermost_objects_own() {
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
    fn what_is_no_text_under_the_key_is_no_id() {
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
    fn brackets_are_counted_however_many_and_in_strings_not_at_all() {
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
        fn of_what_is_json_the_outline_is_what_its_reader_says(value in value()) {
            let expected = Outline { id: value["id"].as_str().map(str::to_owned), depth: depth(&value) };
            prop_assert_eq!(Outline::of(&value.to_string()), expected);
        }

        #[test]
        fn an_id_that_was_whole_is_found_wherever_the_message_is_cut_off(
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
        fn no_text_makes_it_panic(text in r#"[\[\]{}":,\\idé \PC]{0,60}"#) {
            Outline::of(&text);
        }
    }
}
