//! Query parameters of a handshake, in the form that events contain.

use std::collections::BTreeMap;

use serde::Serialize;

/// Decoded query parameters of a handshake. `query_string_parameters` has the last value of a repeated
/// parameter.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryParameters {
    query_string_parameters: BTreeMap<String, String>,
    multi_value_query_string_parameters: BTreeMap<String, Vec<String>>,
}

impl QueryParameters {
    /// Returns the last value of the parameter `name`.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.query_string_parameters.get(name).map(String::as_str)
    }

    /// Decodes `query`. Returns `None` if the query has no parameters; the event then has neither parameter
    /// map.
    pub(super) fn decode(query: Option<&str>) -> Option<Self> {
        let mut single = BTreeMap::new();
        let mut multi: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query?.as_bytes()) {
            multi.entry(name.clone().into_owned()).or_default().push(value.clone().into_owned());
            single.insert(name.into_owned(), value.into_owned());
        }
        (!single.is_empty())
            .then_some(Self { query_string_parameters: single, multi_value_query_string_parameters: multi })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_decoded_and_the_single_value_map_keeps_the_last_value_of_a_parameter() {
        let decoded =
            QueryParameters::decode(Some("token=a%20b%3D&x=1&x=2&empty&plus=a+b&bad=%ff%zz")).unwrap();
        assert_eq!(decoded.query_string_parameters["token"], "a b=");
        assert_eq!(decoded.query_string_parameters["x"], "2");
        assert_eq!(decoded.multi_value_query_string_parameters["x"], ["1", "2"]);
        assert_eq!(decoded.query_string_parameters["empty"], "");
        assert_eq!(decoded.query_string_parameters["plus"], "a b");
        assert_eq!(decoded.query_string_parameters["bad"], "\u{fffd}%zz");
        assert!(QueryParameters::decode(None).is_none());
        assert!(QueryParameters::decode(Some("")).is_none());
    }
}
