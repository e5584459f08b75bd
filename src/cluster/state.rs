//! A node of a cluster: what it has read from etcd, its members, and what etcd is asked next.
//!
//! Etcd is asked one thing at a time. All keys of the cluster are read when they may have changed,
//! and every [`RANGE_MS`]; what a watch tells is only a hint to do so. A request without an answer
//! may have been carried out, or may still be.
//!
//! Not here: what a configuration makes of a partition (`member.rs`), bytes and sockets (`etcd/`,
//! `reactor/`), making and removing partitions (`node/`).

use std::collections::BTreeMap;

use crate::config::WhenAllLost;
use crate::partition::Partition;
use crate::replication::frame::{PROTOCOL_MIN, PROTOCOL_VERSION};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CopyId, IdGenerator};

use super::config::{ClusterValue, CopyRecord, Key, NodeValue, PartitionConfig, prefix_of};
use super::contact::Contact;
use super::etcd::{Answer, KeyValue, Outcome, Request};
use super::member::{Member, MemberState, promise_ms};
use super::operations::{InitByItself, Operations};
use super::registered::Registered;
use super::rules::{held_by, is_lost, other_with};
use super::surroundings::Surroundings;

/// Copies that are registered in one request: etcd takes 128 operations.
const COPIES_PER_REQUEST: usize = 64;

/// Everything is read at least so often.
const RANGE_MS: u64 = 5_000;

/// From one read to the next one that a watch is the reason for.
const HINT_GAP_MS: u64 = 20;

/// After a failure, time until etcd is asked again.
const RETRY_MS: u64 = 100;

/// What a node has to be told to be one of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name: the same after each restart, and no other node's.
    pub node: String,
    /// The node's HTTP address.
    pub url: String,
    /// Where it runs; empty: not told.
    pub zone: String,
    /// The lease that it counts on when it leads.
    pub lease_ms: u64,
    /// Copies that have to be in sync for writes, its own included.
    pub min_in_sync: usize,
}

/// What the request that etcd has is about.
#[derive(Clone, Debug)]
enum Purpose {
    Range,
    Change(u32),
    RegisterNode(NodeValue),
    RegisterCopies(Vec<(u32, CopyRecord)>),
    ForgetCopy(u32),
    /// A step of the operation with this number.
    Operation(u64),
}

#[derive(Debug)]
struct Outstanding {
    ticket: u64,
    purpose: Purpose,
    asked_at_ms: u64,
}

/// This process of the node.
#[derive(Debug)]
struct Process {
    started_at_ms: Option<u64>,
    id: String,
    /// The revision of etcd that had it registered last; 0: it was not.
    revision: u64,
    /// Where another process is that has registered as the same node since.
    successor: Option<String>,
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) options: ClusterOptions,
    pub(super) ids: IdGenerator,
    pub(super) members: BTreeMap<u32, Member>,
    pub(super) operations: Operations,
    pub(super) init_by_itself: Option<InitByItself>,
    pub(super) registered: Registered,
    outstanding: Option<Outstanding>,
    last_ticket: u64,
    /// The member that asked last.
    last_asked: u32,
    range_at_ms: u64,
    retry_at_ms: u64,
    /// Nothing is to be asked before the next step, or the next range.
    has_asked_all: bool,
    contact: Contact,
    process: Process,
    pub(super) wake_at_ms: u64,
    pub(super) is_draining: bool,
}

impl Cluster {
    /// A node that has read nothing yet. `ids`: a source of random numbers of its own.
    pub fn new(options: ClusterOptions, mut ids: IdGenerator) -> Self {
        let process = Process {
            started_at_ms: None,
            id: CopyId(ids.draw()).to_string(),
            revision: 0,
            successor: None,
        };
        Self {
            options,
            ids,
            members: BTreeMap::new(),
            operations: Operations::default(),
            init_by_itself: None,
            registered: Registered::default(),
            outstanding: None,
            last_ticket: 0,
            last_asked: 0,
            range_at_ms: 0,
            retry_at_ms: 0,
            has_asked_all: false,
            contact: Contact::default(),
            process,
            wake_at_ms: 0,
            is_draining: false,
        }
    }

    /// What all of its keys begin with.
    pub(super) fn prefix(&self) -> String {
        prefix_of(&self.options.cluster)
    }

    /// What it was told.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// The nodes that have registered.
    pub fn nodes(&self) -> &BTreeMap<String, NodeValue> {
        &self.registered.nodes
    }

    /// What all nodes have in common, once it is known.
    pub fn value(&self) -> Option<&ClusterValue> {
        self.registered.common.as_ref()
    }

    /// The same, as it was read last: it stays where etcd has it no more.
    pub(super) fn last_value(&self) -> Option<&ClusterValue> {
        self.registered.last_common.as_ref()
    }

    /// Over how many partitions keys are spread, once it is known.
    pub fn partition_count(&self) -> Option<u32> {
        self.last_value().map(|value| value.partitions)
    }

    /// A partition, as etcd has it.
    pub fn member(&self, id: u32) -> Option<&Member> {
        self.members.get(&id)
    }

    /// All partitions of the cluster.
    pub fn members(&self) -> &BTreeMap<u32, Member> {
        &self.members
    }

    /// The revision of etcd as of the last read; 0: it was not read.
    pub fn revision(&self) -> u64 {
        self.registered.revision
    }

    /// The revision of what `GET /cluster/map` tells: it grows whenever that may have changed, and
    /// is the same for all nodes. 0: etcd was not read.
    pub fn map_revision(&self) -> u64 {
        self.registered.map_revision
    }

    /// The HTTP address of the node that leads a partition, as the configuration says: none where
    /// that is this node, or not known.
    pub fn leader_url(&self, id: u32) -> Option<&str> {
        let leader = &self.members.get(&id)?.config()?.leader;
        let node = self.nodes().get(leader);
        node.filter(|_| *leader != self.options.node)
            .map(|node| &node.url[..])
    }

    /// The address of this node where the configuration says that it leads a partition.
    pub fn own_url(&self, id: u32) -> Option<&str> {
        let config = self.members.get(&id)?.config()?;
        (config.leader == self.options.node).then_some(&self.options.url[..])
    }

    /// What a partition does.
    pub fn state_of(&self, partition: &Partition, now_ms: u64) -> MemberState {
        let member = self.members.get(&partition.id());
        let in_office = member.is_some_and(Member::is_in_office);
        if self.is_unreadable(partition.id()) && !in_office {
            return MemberState::Unreadable;
        }
        member.map_or(MemberState::Unknown, |member| {
            member.state(partition, now_ms)
        })
    }

    /// Whether there is a configuration that cannot be read.
    pub fn has_unreadable(&self) -> bool {
        !self.registered.unreadable.is_empty()
    }

    /// Whether the configuration of a partition cannot be read.
    pub fn is_unreadable(&self, id: u32) -> bool {
        self.registered.unreadable.contains_key(&id)
    }

    /// The node stops: it stands no more, and its copies leave the sets of those in sync.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.wake_at_ms = 0;
    }

    /// Whether the node stops.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Something under the prefix may have changed: it is read at once, or so long after the last
    /// time that it was.
    pub fn on_hint(&mut self) {
        let soon_ms = self.contact.ranged_at_ms + HINT_GAP_MS;
        self.range_at_ms = self.range_at_ms.min(soon_ms);
        self.wake_at_ms = self.wake_at_ms.min(soon_ms);
    }

    /// When [`step`](Self::step) is to be called next.
    pub fn wake_at_ms(&self) -> u64 {
        self.wake_at_ms
    }

    /// Something has happened that members are to look at.
    pub fn wake(&mut self) {
        self.wake_at_ms = 0;
    }

    /// Partitions that this node is to have, and does not.
    pub fn missing<'c>(&'c self, partitions: &'c [Partition]) -> impl Iterator<Item = u32> + 'c {
        let members = self.members.iter();
        let is_here = |id: u32| partitions.binary_search_by_key(&id, Partition::id).is_ok();
        let is_missing = move |(id, member): &(&u32, &Member)| {
            let config = member.config();
            config.is_some_and(|config| config.has_replica(&self.options.node)) && !is_here(**id)
        };
        members.filter(is_missing).map(|(id, _)| *id)
    }

    /// Partitions of which this node's copy is to go, each with the epoch that says so.
    pub fn unwanted<'c>(
        &'c self,
        partitions: &'c [Partition],
        now_ms: u64,
    ) -> impl Iterator<Item = (u32, u64)> + 'c {
        let ids = partitions.iter().map(Partition::id);
        ids.filter_map(move |id| {
            let member = self.members.get(&id)?;
            Some((id, member.removal_epoch(now_ms)?))
        })
    }

    /// This node's copy of a partition is gone.
    pub fn on_removed(&mut self, id: u32) {
        if let Some(member) = self.members.get_mut(&id) {
            member.on_removed();
        }
    }

    /// Does what is due. `now_ms` was read after all that this node has taken in so far.
    pub fn step(&mut self, now_ms: u64, partitions: &mut [Partition]) {
        let started_at_ms = *self.process.started_at_ms.get_or_insert(now_ms);
        let random = u64::from_le_bytes(self.ids.draw()[..8].try_into().unwrap_or_default());
        self.wake_at_ms = u64::MAX;
        self.has_asked_all = false;
        for partition in &mut *partitions {
            let id = partition.id();
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            let config = member.config();
            if let Some(config) = config.filter(|_| !partition.is_in_cluster()) {
                partition.join_cluster(started_at_ms + promise_ms(config.lease_ms));
            }
            let moment = Moment {
                started_at_ms,
                is_draining: self.is_draining,
                contact: self.contact,
                random,
            };
            let around = around(&self.options, &self.registered, id, moment);
            member.step(now_ms, &around, partition);
            let wake_at_ms = member.wake_at_ms(now_ms, self.options.lease_ms);
            self.wake_at_ms = self.wake_at_ms.min(wake_at_ms);
        }
        self.step_init(now_ms);
        self.step_operations(now_ms, partitions);
        self.step_forgetting(now_ms, partitions);
        let is_wanted = self.members.values().any(Member::wants_range);
        if is_wanted {
            self.range_at_ms = 0;
        }
        // One that is due is asked for now, or once etcd can be asked again.
        let next_range_ms = self.range_at_ms.max(self.retry_at_ms);
        if next_range_ms > now_ms {
            self.wake_at_ms = self.wake_at_ms.min(next_range_ms);
        }
    }

    /// What to ask etcd next, with the ticket of the outcome; none while it is asked something, or
    /// if there is nothing.
    pub fn take_request(
        &mut self,
        now_ms: u64,
        partitions: &[Partition],
    ) -> Option<(u64, Request)> {
        // Called in every turn of the loop.
        let is_quiet = self.has_asked_all && now_ms < self.range_at_ms;
        if self.outstanding.is_some() || is_quiet || now_ms < self.retry_at_ms {
            return None;
        }
        if self.successor().is_some() {
            return None;
        }
        let next = self.next_request(now_ms, partitions);
        self.has_asked_all = next.is_none();
        let (purpose, request) = next?;
        self.last_ticket += 1;
        self.outstanding = Some(Outstanding {
            ticket: self.last_ticket,
            purpose,
            asked_at_ms: now_ms,
        });
        Some((self.last_ticket, request))
    }

    fn next_request(
        &mut self,
        now_ms: u64,
        partitions: &[Partition],
    ) -> Option<(Purpose, Request)> {
        let is_read = self.registered.is_read && now_ms < self.range_at_ms;
        if is_read && !self.is_registered() && !self.operations.is_deregistering() {
            return Some(self.registration(partitions));
        }
        if let Some((number, request)) = self.operations.next_request() {
            return Some((Purpose::Operation(number), request));
        }
        // Members in turn, the one behind the last first.
        let last = self.last_asked;
        let waiting = |(_, member): &(&u32, &Member)| member.has_change();
        let mut later = self.members.range(last.saturating_add(1)..);
        let next = later.find(waiting);
        let next = next.or_else(|| self.members.iter().find(waiting));
        let next = next.map(|(id, _)| *id);
        let prefix = self.prefix();
        if let Some(id) = next
            && let Some(asked) = self
                .members
                .get_mut(&id)
                .and_then(|own| own.take_change(now_ms))
        {
            self.last_asked = id;
            let key = Key::Config(id).in_cluster(&prefix);
            let compares = if SeededBug::NoCompare.is_on() {
                Vec::new()
            } else {
                vec![(key.clone(), asked.revision)]
            };
            let request = Request::Write {
                compares,
                puts: vec![(key, asked.proposal.encode())],
                deletes: Vec::new(),
            };
            return Some((Purpose::Change(id), request));
        }
        if now_ms >= self.range_at_ms {
            self.range_at_ms = now_ms + RANGE_MS;
            self.contact.ranged_at_ms = now_ms;
            for (id, member) in &mut self.members {
                let at = partitions.binary_search_by_key(id, Partition::id);
                member.on_range_begins(now_ms, at.ok().map(|at| &partitions[at]));
            }
            return Some((Purpose::Range, Request::Range { prefix }));
        }
        let registration = self.copy_registrations(partitions);
        registration.or_else(|| self.stale_registration(partitions))
    }

    fn registration(&self, partitions: &[Partition]) -> (Purpose, Request) {
        let key = Key::Node(&self.options.node).in_cluster(&self.prefix());
        let (url, zone) = (self.options.url.clone(), self.options.zone.clone());
        let mut value = NodeValue::new(url, zone, [PROTOCOL_MIN, PROTOCOL_VERSION]);
        value.is_leaving = self.is_forgetting();
        value.has_data = partitions.iter().any(|own| own.lsm().last_version() > 0);
        value.process.clone_from(&self.process.id);
        let revision = self.registered.node_revision(&self.options.node);
        // A late request of an earlier process must not undo what a later one has written.
        let request = Request::Write {
            compares: vec![(key.clone(), revision)],
            puts: vec![(key, value.encode())],
            deletes: Vec::new(),
        };
        (Purpose::RegisterNode(value), request)
    }

    /// Whether etcd has this process of the node, as it is.
    fn is_registered(&self) -> bool {
        let own = self.nodes().get(&self.options.node);
        let is_leaving = self.is_forgetting();
        own.is_some_and(|own| own.process == self.process.id && own.is_leaving == is_leaving)
    }

    /// Looks whether this is still the process of its node: of two the later one is.
    fn note_process(&mut self) {
        let Some(node) = self.registered.nodes.get(&self.options.node) else {
            return;
        };
        let revision = self.process.revision;
        if node.process == self.process.id {
            self.process.revision = node.revision;
        } else if revision == 0 && node.url != self.options.url {
            log::warn!(
                "{} was registered at {} before: a process that still runs there as this node ends",
                self.options.node,
                node.url
            );
        } else if revision > 0 && node.revision > revision {
            // Not one of before, in an etcd that was restored.
            self.process.successor = Some(node.url.clone());
        }
    }

    /// The address of another process that has registered as the same node since: this one is to
    /// end.
    pub fn successor(&self) -> Option<&str> {
        self.process.successor.as_deref()
    }

    /// Registers copies that etcd does not have, or has as others.
    fn copy_registrations(&self, partitions: &[Partition]) -> Option<(Purpose, Request)> {
        let unknown = partitions.iter().filter_map(|own| self.unregistered(own));
        let records: Vec<(u32, CopyRecord)> = unknown.take(COPIES_PER_REQUEST).collect();
        if records.is_empty() {
            return None;
        }
        let (prefix, node) = (self.prefix(), &self.options.node);
        let key_of = |id: &u32| Key::Copy(*id, node).in_cluster(&prefix);
        // Not where another process has registered its copy since: a late request of an earlier
        // one must not undo it.
        let compares = records.iter().map(|(id, own)| (key_of(id), own.revision));
        let puts = records.iter().map(|(id, own)| (key_of(id), own.encode()));
        let request = Request::Write {
            compares: compares.collect(),
            puts: puts.collect(),
            deletes: Vec::new(),
        };
        Some((Purpose::RegisterCopies(records), request))
    }

    /// What to register of a copy that etcd does not have, or has as another, or without a doubt;
    /// or with other data, once all copies in sync are gone for good.
    fn unregistered(&self, partition: &Partition) -> Option<(u32, CopyRecord)> {
        let id = partition.id();
        let known = self
            .registered
            .copies
            .get(&id)
            .and_then(|of| of.get(&self.options.node));
        let member = self.members.get(&id);
        let doubts = member.map_or(0, Member::doubted_epoch);
        let (copy, doubted) = known.map_or((CopyId::NONE, 0), |own| (own.copy, own.doubts));
        let held = held_by(partition);
        let registered = known.map(|own| (own.epoch, own.version));
        let counts = member.is_some_and(Member::is_lost) && registered != Some(held);
        let is_known = copy == partition.copy() && doubted >= doubts && !counts;
        let is_due = partition.is_in_cluster() || doubts > 0;
        if is_known || !is_due || self.owner_of(partition).is_some() {
            return None;
        }
        let record = CopyRecord {
            copy: partition.copy(),
            epoch: held.0,
            version: held.1,
            doubts: doubts.max(doubted),
            revision: known.map_or(0, |record| record.revision),
        };
        Some((id, record))
    }

    /// Another node that has registered the copy of this one: its data was copied.
    pub fn owner_of(&self, partition: &Partition) -> Option<&str> {
        let copies = self.registered.copies.get(&partition.id())?;
        other_with(copies, &self.options.node, partition.copy())
    }

    /// Deletes what tells of a copy that is gone, and not to be made again.
    fn stale_registration(&self, partitions: &[Partition]) -> Option<(Purpose, Request)> {
        let own = &self.options.node;
        let is_stale = |(id, of): &(&u32, &BTreeMap<String, CopyRecord>)| {
            let config = self.members.get(id).and_then(Member::config);
            let is_here = partitions.binary_search_by_key(*id, Partition::id).is_ok();
            let is_wanted = config.is_none_or(|config| config.has_replica(own));
            of.contains_key(own) && !is_here && !is_wanted
        };
        let (id, _) = self.registered.copies.iter().find(is_stale)?;
        let request = Request::Write {
            compares: Vec::new(),
            puts: Vec::new(),
            deletes: vec![Key::Copy(*id, own).in_cluster(&self.prefix())],
        };
        Some((Purpose::ForgetCopy(*id), request))
    }

    /// Etcd has answered, or has not.
    pub fn on_outcome(&mut self, now_ms: u64, outcome: Outcome, partitions: &mut [Partition]) {
        let is_expected = |asked: &mut Outstanding| {
            asked.ticket == outcome.ticket || SeededBug::AnswerOfAnotherRequest.is_on()
        };
        let Some(asked) = self.outstanding.take_if(is_expected) else {
            return;
        };
        self.wake_at_ms = 0;
        if let Purpose::Operation(number) = asked.purpose {
            let answer = outcome.result.as_ref().ok();
            let written = self.operations.on_outcome(number, answer, now_ms);
            if let (Some(request), Some(Answer::Written { revision })) = (written, answer) {
                self.on_operation_written(&request, *revision);
            }
            self.range_at_ms = 0;
        }
        let Ok(answer) = outcome.result else {
            self.retry_at_ms = now_ms + RETRY_MS;
            self.range_at_ms = 0;
            if let Purpose::Change(id) = asked.purpose
                && let Some(member) = self.members.get_mut(&id)
            {
                member.on_unknown();
            }
            return;
        };
        self.contact.on_answer(now_ms);
        self.on_answer(now_ms, asked, answer, partitions);
    }

    fn on_answer(
        &mut self,
        now_ms: u64,
        asked: Outstanding,
        answer: Answer,
        partitions: &mut [Partition],
    ) {
        match (asked.purpose, answer) {
            (
                Purpose::Range,
                Answer::Range {
                    cluster_id,
                    revision,
                    values,
                },
            ) => {
                let read = (values, cluster_id, revision);
                self.on_range(asked.asked_at_ms, read, partitions);
            }
            (Purpose::Change(id), Answer::Written { revision }) => {
                self.with_member(id, partitions, |member, around, partition| {
                    member.on_changed(revision, now_ms, around, partition);
                });
                if let Some(config) = self.members.get(&id).and_then(Member::config) {
                    let configs = &mut self.registered.configs;
                    configs.insert(id, (revision, config.clone()));
                }
            }
            (Purpose::Change(id), Answer::Refused { current, .. }) => {
                let asked_at_ms = asked.asked_at_ms;
                self.with_member(id, partitions, |member, around, partition| {
                    member.on_not_changed();
                    for KeyValue {
                        mod_revision,
                        value,
                        ..
                    } in current
                    {
                        if let Ok(config) = PartitionConfig::decode(&value) {
                            member.on_config(mod_revision, config, asked_at_ms, around, partition);
                        }
                    }
                });
                self.range_at_ms = 0;
            }
            (Purpose::ForgetCopy(id), Answer::Written { .. }) => {
                let copies = self.registered.copies.get_mut(&id);
                copies.map(|of| of.remove(&self.options.node));
            }
            (Purpose::RegisterNode(mut value), Answer::Written { revision }) => {
                value.revision = revision;
                let nodes = &mut self.registered.nodes;
                nodes.insert(self.options.node.clone(), value);
                self.note_process();
            }
            (Purpose::RegisterCopies(records), Answer::Written { revision }) => {
                for (id, record) in records {
                    let record = CopyRecord { revision, ..record };
                    let copies = self.registered.copies.entry(id).or_default();
                    copies.insert(self.options.node.clone(), record);
                }
            }
            (Purpose::RegisterNode(_) | Purpose::RegisterCopies(_), Answer::Refused { .. }) => {
                self.range_at_ms = 0;
            }
            _ => {}
        }
    }

    /// All keys of the cluster.
    fn on_range(
        &mut self,
        asked_at_ms: u64,
        read: (Vec<KeyValue>, u64, u64),
        partitions: &mut [Partition],
    ) {
        let epoch_of = |id: u32| {
            let at = partitions.binary_search_by_key(&id, Partition::id);
            at.map_or(0, |at| partitions[at].roles().meta().epoch)
        };
        let (prefix, before) = (self.prefix(), &mut self.registered);
        let read = Registered::read(before, &prefix, read, epoch_of);
        let configs = read.configs.clone();
        if let Some(loss) = read.loss(&self.registered) {
            log::error!("etcd was restored from a backup, or made anew: {loss}");
            self.process.revision = 0;
            for (id, (_, config)) in &configs {
                if let Some(member) = self.members.get_mut(id) {
                    member.on_other_etcd(config);
                }
            }
        }
        self.registered = read;
        self.note_process();
        self.on_configs(asked_at_ms, configs, partitions);
    }

    fn on_configs(
        &mut self,
        asked_at_ms: u64,
        configs: BTreeMap<u32, (u64, PartitionConfig)>,
        partitions: &mut [Partition],
    ) {
        let missing = self.members.keys().copied();
        let missing: Vec<u32> = missing.filter(|id| !configs.contains_key(id)).collect();
        for id in missing {
            let is_unreadable = self.is_unreadable(id);
            self.with_member(id, partitions, |member, _, partition| {
                if is_unreadable {
                    member.on_config_unreadable();
                } else {
                    member.on_config_missing(partition);
                }
            });
        }
        for (id, (revision, config)) in configs {
            let member = self.members.entry(id).or_default();
            if partitions.binary_search_by_key(&id, Partition::id).is_err() {
                member.on_config_elsewhere(revision, config, asked_at_ms);
                continue;
            }
            self.with_member(id, partitions, |member, around, partition| {
                // Of one answer: a copy in sync was registered before.
                let is_lost = is_lost(&config, around.copies);
                member.on_registered(revision, is_lost, asked_at_ms, partition.id());
                member.on_config(revision, config, asked_at_ms, around, partition);
            });
        }
    }

    fn with_member(
        &mut self,
        id: u32,
        partitions: &mut [Partition],
        act: impl FnOnce(&mut Member, &Surroundings<'_>, &mut Partition),
    ) {
        let Ok(at) = partitions.binary_search_by_key(&id, Partition::id) else {
            return;
        };
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let moment = Moment {
            started_at_ms: self.process.started_at_ms.unwrap_or(0),
            is_draining: self.is_draining,
            contact: self.contact,
            random: 0,
        };
        let around = around(&self.options, &self.registered, id, moment);
        act(member, &around, &mut partitions[at]);
    }
}

/// What changes from step to step.
#[derive(Clone, Copy)]
struct Moment {
    started_at_ms: u64,
    is_draining: bool,
    contact: Contact,
    random: u64,
}

static NO_COPIES: BTreeMap<String, CopyRecord> = BTreeMap::new();

fn around<'a>(
    options: &'a ClusterOptions,
    registered: &'a Registered,
    id: u32,
    moment: Moment,
) -> Surroundings<'a> {
    Surroundings {
        node: &options.node,
        lease_ms: options.lease_ms,
        when_all_lost: registered
            .common
            .as_ref()
            .map_or(WhenAllLost::Wait, |common| common.when_all_lost),
        min_in_sync: options.min_in_sync,
        started_at_ms: moment.started_at_ms,
        is_draining: moment.is_draining,
        contact: moment.contact,
        random: moment.random,
        nodes: &registered.nodes,
        copies: registered.copies.get(&id).unwrap_or(&NO_COPIES),
    }
}
