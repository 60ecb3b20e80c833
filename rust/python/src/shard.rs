//! `plan_shards`: which tensor goes into which shard, planned by the engine.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use windlass_core::shard::{self, Item, Rule};

#[pyfunction]
pub(crate) fn plan_shards(
    py: Python<'_>,
    items: Vec<(u64, Option<u64>)>,
    max_size: u64,
    rule: &str,
) -> PyResult<(Vec<Vec<usize>>, u128)> {
    let rule = parse_rule(rule)?;
    let plan = py.detach(|| {
        let items: Vec<_> = items.into_iter().map(item).collect();
        shard::plan_shards(&items, max_size, rule)
    });
    Ok((plan.shards, plan.total))
}

fn item((size, storage): (u64, Option<u64>)) -> Item {
    Item { size, storage }
}

fn parse_rule(rule: &str) -> PyResult<Rule> {
    match rule {
        "hub" => Ok(Rule::Hub),
        "shard_checkpoint" => Ok(Rule::ShardCheckpoint),
        other => Err(PyValueError::new_err(format!(
            "rule should be \"hub\" or \"shard_checkpoint\", found {other:?}"
        ))),
    }
}
