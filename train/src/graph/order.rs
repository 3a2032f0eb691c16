//! Topological order. Stable: a list that is in order already stays as it is.

use std::collections::HashMap;

use super::Node;

/// Nodes that need their own result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?} needs its own result; the graph has a cycle")]
pub struct CycleError {
    /// A node of the cycle: its name, or its first output's where it has none.
    pub node: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Sorts `nodes` so that each comes after the nodes whose results it reads.
pub(super) fn sort(nodes: Vec<Node>) -> Result<Vec<Node>, CycleError> {
    let mut writer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        writer.extend(node.outputs.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), i)));
    }
    let reads = |i: usize| nodes[i].inputs.iter().filter_map(|name| writer.get(name.as_str()).copied());
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    for start in 0..nodes.len() {
        // A stack of our own: a chain of nodes is as long as the file wants, the thread's stack is not.
        let mut stack = vec![start];
        while let Some(&i) = stack.last() {
            if marks[i] != Mark::New {
                stack.pop();
                if marks[i] == Mark::Open {
                    marks[i] = Mark::Done;
                    order.push(i);
                }
                continue;
            }
            marks[i] = Mark::Open;
            for read in reads(i) {
                match marks[read] {
                    Mark::New => stack.push(read),
                    Mark::Open => return Err(CycleError { node: label(&nodes[i]) }),
                    Mark::Done => {}
                }
            }
        }
    }
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| nodes[i].take()).collect())
}

fn label(node: &Node) -> String {
    if node.name.is_empty() { node.outputs.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(reads: &[&str], writes: &str) -> Node {
        let names = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Node { inputs: names(reads), outputs: names(&[writes]), ..Node::default() }
    }

    fn writes(nodes: &[Node]) -> Vec<&str> {
        nodes.iter().map(|n| n.outputs[0].as_str()).collect()
    }

    #[test]
    fn nodes_come_after_what_they_read_and_otherwise_stay() {
        let sorted = sort(vec![node(&["b"], "c"), node(&["x"], "a"), node(&["a"], "b")]).unwrap();
        assert_eq!(writes(&sorted), ["a", "b", "c"]);
        let sorted = sort(vec![node(&["x"], "q"), node(&["x"], "p"), node(&["p", "q"], "o")]).unwrap();
        assert_eq!(writes(&sorted), ["q", "p", "o"]);
    }

    #[test]
    fn a_cycle_is_an_error_that_names_a_node() {
        assert!(sort(vec![node(&["b"], "a"), node(&["a"], "b")]).is_err());
        assert!(sort(vec![node(&["a"], "a")]).is_err());
    }

    #[test]
    fn a_very_long_chain_does_not_overflow_the_stack() {
        let names: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
        let chain: Vec<Node> = names.windows(2).rev().map(|w| node(&[&w[0]], &w[1])).collect();
        assert_eq!(sort(chain).unwrap().len(), 99_999);
    }
}
