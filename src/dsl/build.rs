//! From a drawing to a topology: checks, sub-topologies, how to make their tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::assembly::{Assembly, Called, SourceFactory, StoreFactory};
use super::builder::Draft;
use crate::state::StateError;
use crate::topology::{
    Graph, NodeId, NodeKind, StoreId, SubTopology, TaskEnv, TaskTopology, Topology,
    TopologyDescription, TopologyErrors,
};

/// Makes a topology of a draft, or says everything that is wrong with it.
pub(crate) fn build(draft: Draft) -> Result<Topology, TopologyErrors> {
    let Draft {
        graph,
        mut sources,
        mut stores,
        ..
    } = draft;
    let mistakes = graph.check();
    if !mistakes.is_empty() {
        return Err(TopologyErrors::new(mistakes));
    }
    let names: Arc<[Arc<str>]> = graph
        .nodes
        .iter()
        .map(|node| Arc::from(node.name.as_str()))
        .collect();
    let mut sub_topologies = Vec::new();
    let mut globals = Vec::new();
    let mut descriptions = Vec::new();
    for (id, nodes) in (0..).zip(graph.components()) {
        let store_ids = graph.stores_of(&nodes);
        let plan = TaskPlan {
            names: Arc::clone(&names),
            sources: nodes
                .iter()
                .filter_map(|node| sources.remove(node))
                .collect(),
            stores: store_ids
                .iter()
                .filter_map(|id| stores.remove_entry(id))
                .collect(),
            processors: processors(&graph, &nodes),
        };
        assert!(
            plan.stores.len() == store_ids.len(),
            "every store has a factory"
        );
        let of_kind = if graph.is_global(&nodes) {
            &mut globals
        } else {
            &mut sub_topologies
        };
        of_kind.push(SubTopology {
            id,
            sources: graph.source_specs(&nodes),
            sinks: graph.sink_topics(&nodes),
            stores: store_ids
                .iter()
                .filter_map(|id| graph.stores.get(id.0).cloned())
                .collect(),
            instantiate: Box::new(move |env| plan.instantiate(env)),
        });
        descriptions.push(graph.describe(id, &nodes, &store_ids));
    }
    let mut topics = graph.declared;
    for name in graph.mentioned {
        topics.entry(name).or_default();
    }
    let description = TopologyDescription::new(descriptions);
    Ok(Topology::new(
        sub_topologies,
        globals,
        topics,
        graph.repartitions,
        description,
    ))
}

/// Ids rise from parents to children, so this is a topological order.
fn processors(graph: &Graph, nodes: &BTreeSet<NodeId>) -> HashMap<NodeId, usize> {
    let is_processor = |id: &&NodeId| {
        let node = graph.nodes.get(id.0);
        node.is_some_and(|node| matches!(node.kind, NodeKind::Operator { processor: true }))
    };
    nodes
        .iter()
        .filter(is_processor)
        .enumerate()
        .map(|(index, id)| (*id, index))
        .collect()
}

/// How the tasks of a sub-topology are made.
struct TaskPlan {
    names: Arc<[Arc<str>]>,
    sources: Vec<SourceFactory>,
    /// In the order of `SubTopology::stores`.
    stores: Vec<(StoreId, StoreFactory)>,
    processors: HashMap<NodeId, usize>,
}

impl TaskPlan {
    fn instantiate(&self, env: &mut TaskEnv) -> Result<TaskTopology, StateError> {
        let cache_bytes = env.cache_bytes / self.stores.len().max(1);
        let mut stores = BTreeMap::new();
        for (id, factory) in &self.stores {
            stores.insert(*id, factory(env, cache_bytes)?);
        }
        let mut assembly = Assembly::new(env, &self.names, &stores, &self.processors);
        let sources = self
            .sources
            .iter()
            .map(|source| source(&mut assembly))
            .collect::<Result<_, _>>()?;
        let Called {
            processors,
            holding,
        } = assembly.into_called();
        Ok(TaskTopology {
            sources,
            stores: stores
                .into_values()
                .map(|instance| instance.store)
                .collect(),
            processors,
            holding,
        })
    }
}
