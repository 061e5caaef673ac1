//! Merges `Globals.Function` into each function's properties, as SAM does.

use super::intrinsics::intrinsic;
use super::node::{Kind, Node};

/// Merges the global properties with a function's own properties. Mappings are merged, lists are concatenated
/// (global items first), and any other value of the function overrides the global value. An intrinsic
/// function counts as one value.
pub(super) fn merge(global: &Node, own: &Node) -> Node {
    if intrinsic(global).is_some() || intrinsic(own).is_some() {
        return own.clone();
    }
    let kind = match (&global.kind, &own.kind) {
        (Kind::Map(global), Kind::Map(own)) => {
            let mut merged = global.clone();
            for (key, value) in own {
                match merged.iter_mut().find(|(name, _)| name == key) {
                    Some((_, slot)) => *slot = merge(slot, value),
                    None => merged.push((key.clone(), value.clone())),
                }
            }
            Kind::Map(merged)
        }
        (Kind::List(global), Kind::List(own)) => Kind::List(global.iter().chain(own).cloned().collect()),
        _ => own.kind.clone(),
    };
    Node { place: own.place.clone(), kind }
}

#[cfg(test)]
mod tests {
    use super::super::node;
    use super::*;

    fn render(node: &Node) -> String {
        match &node.kind {
            Kind::Scalar(text) => text.clone(),
            Kind::List(items) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(",")),
            Kind::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}:{}", render(v))).collect();
                format!("{{{}}}", entries.join(","))
            }
            Kind::Null | Kind::StreamArn(_) => "-".to_owned(),
        }
    }

    #[test]
    fn global_maps_are_merged_lists_concatenated_and_other_values_overridden() {
        let root = node::parse(
            "global: {T: 1, L: [a], E: {V: {A: 1, B: 1}}, I: !Ref X, M: {A: 1}}\n\
             own: {L: [b], E: {V: {B: 2, C: 2}}, I: {A: 1}, M: [x], N: 3}\n",
        )
        .unwrap();
        let merged = merge(root.get("global").unwrap(), root.get("own").unwrap());
        assert_eq!(render(&merged), "{T:1,L:[a,b],E:{V:{A:1,B:2,C:2}},I:{A:1},M:[x],N:3}");
        assert_eq!(merged.get("T").unwrap().place.path, "global.T");
    }
}
