//! Evening out what the nodes of a cluster have: an order begins as much of the plan as may be
//! under way at a time, and the same order again goes on once that is done.
//!
//! Copies are moved first, then leaders. Nothing moves by itself.
//!
//! Not here: the plan (`balance.rs`), how a move is carried out (`moves.rs`).

use std::collections::VecDeque;

use super::balance::{Plan, PlannedMove};
use super::etcd::Request;
use super::moves::{CopyMove, MoveRefusal};
use super::operations::OperationEnd;
use super::state::Cluster;

/// Configurations that one order changes at most.
const BEGUN_MAX: usize = 32;

/// A copy, or the leader, of a partition goes from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceMove {
    /// The partition.
    pub partition: u32,
    /// The node that gives it up.
    pub from: String,
    /// The node that gets it.
    pub to: String,
    /// Whether it is begun.
    pub is_begun: bool,
}

/// What has to move until all nodes have as much as any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebalance {
    /// Copies.
    pub copies: Vec<BalanceMove>,
    /// Leaders.
    pub leaders: Vec<BalanceMove>,
    /// Partitions with a move under way, or with a copy that is not in sync, or with a
    /// configuration that cannot be read.
    pub under_way_count: usize,
    /// The operation that begins what is begun; none: nothing is.
    pub operation: Option<u64>,
}

impl Cluster {
    /// Plans what has to move, and begins a part of it unless this is only to be told.
    pub fn begin_rebalance(
        &mut self,
        is_dry_run: bool,
        now_ms: u64,
    ) -> Result<Rebalance, MoveRefusal> {
        if !self.registered.is_read {
            return Err(MoveRefusal::Unknown);
        }
        if self.operations.is_writing() && !is_dry_run {
            return Err(MoveRefusal::Changing);
        }
        let mut plan = Plan::of(self);
        plan.fill();
        let named = |planned: &PlannedMove| BalanceMove {
            partition: planned.partition,
            from: plan.nodes[planned.from].name.clone(),
            to: plan.nodes[planned.to].name.clone(),
            is_begun: false,
        };
        let mut rebalance = Rebalance {
            copies: plan.copies.iter().map(named).collect(),
            leaders: plan.leaders.iter().map(named).collect(),
            under_way_count: plan.fixed_count() + self.registered.unreadable.len(),
            operation: None,
        };
        let mut requests = VecDeque::new();
        if !is_dry_run {
            self.begin_copies(&mut plan, &mut rebalance, &mut requests);
            // Where leaders belong is known once the copies are there.
            if rebalance.copies.is_empty() {
                self.begin_leaders(&mut rebalance, &mut requests);
            }
        }
        if !requests.is_empty() {
            log::info!(
                "by order, {} moves of copies or leaders are begun",
                requests.len()
            );
            self.wake_at_ms = 0;
            let end = OperationEnd::Changed;
            rebalance.operation = Some(self.operations.write(requests, end, now_ms));
        }
        Ok(rebalance)
    }

    /// Begins what the nodes can take and give now.
    fn begin_copies(
        &self,
        plan: &mut Plan,
        rebalance: &mut Rebalance,
        requests: &mut VecDeque<Request>,
    ) {
        let mut begun: Vec<u32> = Vec::new();
        for (planned, told) in plan.copies.iter().zip(&mut rebalance.copies) {
            let is_busy = plan.nodes[planned.from].is_giving || plan.nodes[planned.to].is_taking;
            let is_full = requests.len() >= BEGUN_MAX;
            if is_busy || is_full || begun.contains(&planned.partition) {
                continue;
            }
            let order = CopyMove {
                partition: planned.partition,
                from: Some(told.from.clone()),
                to: Some(told.to.clone()),
            };
            let Ok(mut proposal) = self.moved(&order) else {
                continue;
            };
            if planned.is_of_leader {
                proposal.next_leader = Some(told.to.clone());
            }
            requests.push_back(self.config_request(planned.partition, &proposal));
            plan.nodes[planned.from].is_giving = true;
            plan.nodes[planned.to].is_taking = true;
            begun.push(planned.partition);
            told.is_begun = true;
        }
    }

    fn begin_leaders(&self, rebalance: &mut Rebalance, requests: &mut VecDeque<Request>) {
        for told in rebalance.leaders.iter_mut().take(BEGUN_MAX) {
            let Some((_, config)) = self.registered.configs.get(&told.partition) else {
                continue;
            };
            let mut proposal = config.clone();
            proposal.next_leader = Some(told.to.clone());
            requests.push_back(self.config_request(told.partition, &proposal));
            told.is_begun = true;
        }
    }
}
