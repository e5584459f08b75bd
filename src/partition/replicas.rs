//! The replicas of a partition: which may be fed, what they have confirmed, what they pin.
//!
//! Invariants:
//! 1. A node that has heard of a higher epoch than its own feeds no replica, and leads no more.
//! 2. Confirmations count in the connection they came on, and connections end with the epoch and
//!    the history they were begun in.
//! 3. What replicas pin is capped ([`Partition::pinned_max_bytes`]): beyond it the one that is
//!    furthest behind is let go. Writers never wait for a replica.

use std::collections::VecDeque;

use crate::lsm::Snapshot;
use crate::replication::frame::{Frame, PROTOCOL_MIN, RefusalCode};
use crate::replication::{
    Intent, LinkError, NodeId, PeerHello, PeerState, Relation, ReplicaSender, SenderSource,
    SenderStats, SyncState, UNHEARD_MS, is_feed_expected, relation, whole_address,
};
use crate::seeded_bugs::SeededBug;
use crate::storage::{Lineage, Role};

use super::roles::EPOCH_LEAP_MAX;
use super::{LinkId, Partition};

/// Replicas of one partition at a time.
const FOLLOWERS_MAX: usize = 32;

/// Snapshots on their way at a time: each costs the loop its share of every turn.
const SNAPSHOTS_MAX: usize = 4;

/// Log that replicas may pin, however little data there is.
const PINNED_MIN_BYTES: usize = 64 * 1024 * 1024;

/// … and as a part of the data, if that is more.
const PINNED_DATA_SHARE: usize = 4;

/// A replica is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub code: RefusalCode,
    /// The same with the way out.
    pub text: String,
}

fn turned(code: RefusalCode, text: impl Into<String>) -> Rejection {
    Rejection {
        code,
        text: text.into(),
    }
}

/// Figures about one replica.
#[derive(Clone, Debug)]
pub struct ReplicaStats {
    /// Its address.
    pub address: String,
    /// The replica's node.
    pub node_id: NodeId,
    /// How far it is.
    pub feed: SenderStats,
}

/// The replicas of a partition.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    feeds: Vec<Replica>,
    /// Replicas whose connections have ended, and when; the last ones.
    lost: VecDeque<(NodeId, u64)>,
}

#[derive(Debug)]
pub(super) struct Replica {
    link: LinkId,
    address: String,
    /// Where it serves HTTP, if it has told.
    http_address: String,
    feed: ReplicaSender,
}

impl Replicas {
    pub(super) fn get(&mut self, link: LinkId) -> Option<&mut ReplicaSender> {
        self.feeds
            .iter_mut()
            .find(|follower| follower.link == link)
            .map(|follower| &mut follower.feed)
    }

    /// What is behind this version must stay in the log.
    pub(super) fn needed_version(&self) -> u64 {
        self.feeds
            .iter()
            .map(|follower| follower.feed.needed_version())
            .min()
            .unwrap_or(u64::MAX)
    }

    /// The version that so many of them hold.
    pub(super) fn acked_version(&self, count: usize) -> u64 {
        let Some(rank) = count.checked_sub(1) else {
            return u64::MAX;
        };
        let mut versions: Vec<u64> = self
            .feeds
            .iter()
            .map(|follower| follower.feed.acked().durable_version)
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.get(rank).copied().unwrap_or(0)
    }

    /// Replicas that are connected and were heard within two heartbeats.
    pub(super) fn heard_count(&self, now_ms: u64) -> usize {
        self.heard(now_ms).count()
    }

    fn heard(&self, now_ms: u64) -> impl Iterator<Item = NodeId> {
        let is_heard = move |follower: &&Replica| {
            let feed = &follower.feed;
            feed.is_fed() && feed.silent_ms(now_ms) < UNHEARD_MS
        };
        let heard = self.feeds.iter().filter(is_heard);
        heard.map(|follower| follower.feed.node_id())
    }

    /// The same with those whose connection has ended since: they are likely to be back at once.
    pub(super) fn recent_count(&self, now_ms: u64) -> usize {
        let is_recent = |(node_id, at_ms): &&(NodeId, u64)| {
            now_ms.saturating_sub(*at_ms) < UNHEARD_MS
                && self.heard(now_ms).all(|heard| heard != *node_id)
        };
        self.heard_count(now_ms) + self.lost.iter().filter(is_recent).count()
    }

    /// A connection has ended.
    fn forget(&mut self, link: LinkId, now_ms: u64) {
        let Some(at) = self.feeds.iter().position(|follower| follower.link == link) else {
            return;
        };
        let Replica { feed, .. } = self.feeds.remove(at);
        if feed.is_fed() && feed.silent_ms(now_ms) < UNHEARD_MS {
            let node_id = feed.node_id();
            self.lost.retain(|(lost, _)| *lost != node_id);
            if self.lost.len() == FOLLOWERS_MAX {
                self.lost.pop_front();
            }
            self.lost.push_back((node_id, now_ms));
        }
    }

    /// Whether there is a node that follows.
    pub(super) fn is_fed(&self) -> bool {
        self.feeds.iter().any(|follower| follower.feed.is_fed())
    }

    /// Where those that follow serve HTTP.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.feeds.iter().map(|follower| &follower.http_address)
    }

    /// Connections on which states can be told.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> {
        let tells = |follower: &&Replica| follower.feed.protocol() > PROTOCOL_MIN;
        self.feeds
            .iter()
            .filter(tells)
            .map(|follower| follower.link)
    }

    /// Ends all connections: the next call for one finds it gone.
    pub(super) fn clear(&mut self) {
        self.feeds.clear();
        self.lost.clear();
    }

    /// Ends all connections but one.
    pub(super) fn clear_but(&mut self, link: LinkId) {
        self.feeds.retain(|follower| follower.link == link);
        self.lost.clear();
    }

    fn snapshot_count(&self) -> usize {
        self.feeds
            .iter()
            .filter(|follower| follower.feed.snapshot().is_some())
            .count()
    }
}

/// The host of a socket's address.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(host, _)| host)
}

/// The connection is no longer one of this partition's.
fn gone() -> LinkError {
    LinkError("the role of this node has changed".to_owned())
}

impl Partition {
    /// A node says hello from an address; the answer goes to `out`.
    pub fn greet(
        &mut self,
        link: LinkId,
        address: &str,
        hello: &PeerHello,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        self.check_hello(hello)?;
        let http_address = hello.state.as_ref().map_or("", |state| &state.address);
        let http_address = whole_address(http_address, host_of(address));
        self.remember_peer(&http_address);
        let is_claim = matches!(hello.intent(), Intent::Claim | Intent::OrderedClaim);
        // What answers a claim comes once it is on disk.
        if hello.protocol > PROTOCOL_MIN && !is_claim {
            Frame::PeerState(self.own_state(Intent::Tell)).encode(out);
        }
        let feed = match hello.intent() {
            Intent::Survey if self.is_feed_expected(hello) => {
                self.retain_log();
                self.begin_feed(address, hello, now_ms, out)?
            }
            Intent::Follow => {
                self.retain_log();
                self.begin_feed(address, hello, now_ms, out)?
            }
            _ => ReplicaSender::idle(hello, now_ms),
        };
        self.replicas.feeds.push(Replica {
            link,
            address: address.to_owned(),
            http_address,
            feed,
        });
        self.keep_log();
        match &hello.state {
            Some(state) if is_claim => self
                .receive_peer_state(link, state.clone())
                .map_err(|ended| turned(RefusalCode::Epoch, ended.0)),
            _ => Ok(()),
        }
    }

    /// Whether a node that surveys this one lacks what is here.
    fn is_feed_expected(&self, hello: &PeerHello) -> bool {
        let Some(state) = &hello.state else {
            return false;
        };
        let meta = self.roles.meta();
        let related = relation(
            (&state.lineage, hello.position.version),
            (&meta.lineage, self.lsm.last_version()),
        );
        is_feed_expected(related, state.data_ordered_epoch, meta.data_ordered_epoch)
    }

    fn begin_feed(
        &mut self,
        address: &str,
        hello: &PeerHello,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<ReplicaSender, Rejection> {
        let reason = match self.common_version(hello) {
            Ok(()) => {
                if let Some(feed) = ReplicaSender::from_log(hello, &self.source(now_ms), out) {
                    return Ok(feed);
                }
                if self.lsm.log_behind(hello.position.version).is_some() {
                    let text = "this replica has another record of the same version and history: \
                                empty it, or lead by it";
                    return Err(turned(RefusalCode::Ahead, text));
                }
                "the log no longer has what it lacks"
            }
            Err(reason) => reason,
        };
        if self.replicas.snapshot_count() >= SNAPSHOTS_MAX {
            return Err(turned(
                RefusalCode::Busy,
                format!("{SNAPSHOTS_MAX} snapshots are being sent: try again"),
            ));
        }
        let snapshot = self.shared_snapshot();
        self.snapshot_stats.sent_count += 1;
        let version = snapshot.version();
        log::info!(
            "partition {}: {address} gets a snapshot of version {version}: {reason}",
            self.id
        );
        ReplicaSender::from_snapshot(hello, snapshot, &self.source(now_ms), out)
            .ok_or_else(|| turned(RefusalCode::Busy, "the log has moved on: try again"))
    }

    fn check_hello(&mut self, hello: &PeerHello) -> Result<(), Rejection> {
        if hello.node_id == self.options.node_id {
            return Err(turned(
                RefusalCode::NotLeader,
                "this is the same node: name another as the leader",
            ));
        }
        if hello.intent() == Intent::Follow {
            self.check_follower(hello)?;
        }
        if !self.roles.is_settled() {
            return Err(turned(
                RefusalCode::Busy,
                "the role of this node is changing: try again",
            ));
        }
        if self.replicas.feeds.len() >= FOLLOWERS_MAX {
            return Err(turned(
                RefusalCode::Busy,
                format!("{FOLLOWERS_MAX} replicas are fed: follow one of them"),
            ));
        }
        Ok(())
    }

    /// Whether this node may be followed by one that says hello.
    fn check_follower(&mut self, hello: &PeerHello) -> Result<(), Rejection> {
        let epoch = self.roles.meta().epoch;
        if hello.epoch > epoch && !SeededBug::EpochNotHeard.is_on() {
            return Err(self.hear_epoch(hello));
        }
        if hello.epoch == epoch && self.has_made_way() && !self.roles.is_taking_over() {
            // That node knows the epoch in which this one made way, and was told to follow this one
            // all the same.
            self.hear_from_replica(hello);
            let text = "this node takes over as the leader: try again";
            return Err(turned(RefusalCode::Busy, text));
        }
        match self.roles.role() {
            Role::Leader if self.is_behind(hello) => {
                self.fetch_from_peers();
                let text =
                    "this node lacks what the replica holds, and fetches it first: try again";
                return Err(turned(RefusalCode::Busy, text));
            }
            Role::Leader => {}
            Role::Replica if self.roles.is_taking_over() => {
                let text = "this node takes over as the leader: try again";
                return Err(turned(RefusalCode::Busy, text));
            }
            Role::Replica if self.follows(hello) => {
                let text = "that node is the leader of this one: assign one of them as the leader";
                return Err(turned(RefusalCode::NotLeader, text));
            }
            Role::Replica if self.leader_link.sync() == SyncState::InSync => {}
            Role::Replica => {
                return Err(turned(
                    RefusalCode::Busy,
                    "this replica is not in sync itself: try again",
                ));
            }
            Role::Unassigned => {
                return Err(turned(
                    RefusalCode::NotLeader,
                    "this node has no role yet: assign one",
                ));
            }
        }
        let last_version = self.lsm.last_version();
        if hello.history == self.history() && hello.position.version > last_version {
            let text = format!(
                "this replica is at version {} and this node at {last_version} of the same \
                 history: make that node the leader",
                hello.position.version
            );
            return Err(turned(RefusalCode::Ahead, text));
        }
        Ok(())
    }

    /// Whether this node is a replica of the one that says hello: two that follow each other would
    /// both look in sync, and neither would hear of a write.
    fn follows(&self, hello: &PeerHello) -> bool {
        let state = hello.state.as_ref();
        let leader = self.roles.meta().leader.as_ref();
        state.is_some_and(|state| Some(&state.address) == leader)
    }

    /// Whether a controller told this node to lead, and a node that wants to follow it holds all
    /// that it holds, and more.
    fn is_behind(&mut self, hello: &PeerHello) -> bool {
        let Some(state) = &hello.state else {
            return false;
        };
        let own = (&self.roles.meta().lineage, self.lsm.last_version());
        let is_behind = self.is_told_to_lead
            && relation(own, (&state.lineage, state.last_version)) == Relation::Newer;
        if is_behind {
            self.remember_peer(&state.address);
        }
        is_behind
    }

    /// A node that wants to follow this one knows of a higher epoch.
    fn hear_epoch(&mut self, hello: &PeerHello) -> Rejection {
        let epoch = self.roles.meta().epoch;
        if hello.epoch - epoch > EPOCH_LEAP_MAX {
            let text = format!(
                "epoch {} is not believed: it is more than {EPOCH_LEAP_MAX} above {epoch}",
                hello.epoch
            );
            return turned(RefusalCode::Epoch, text);
        }
        let is_believed = match &hello.state {
            Some(state) => self.is_believed(&state.lineage, state.last_version),
            None => self.is_believed(&Lineage::new(hello.history), hello.position.version),
        };
        if !is_believed {
            let text = format!(
                "epoch {} is not believed: the data of this node and of that one have nothing in \
                 common",
                hello.epoch
            );
            return turned(RefusalCode::Epoch, text);
        }
        if let Some(state) = &hello.state {
            self.remember_peer(&state.address);
        }
        self.hear_from_replica(hello);
        let text = format!(
            "epoch {} has begun, and this node knew of {epoch}: try again, or assign it anew",
            hello.epoch
        );
        turned(RefusalCode::Epoch, text)
    }

    /// Whether the replica has nothing but what is here too, so far as histories tell; else why it
    /// needs a snapshot.
    fn common_version(&self, hello: &PeerHello) -> Result<(), &'static str> {
        let version = hello.position.version;
        if version == 0 {
            return Ok(());
        }
        if let Some(state) = &hello.state {
            let own = (&self.roles.meta().lineage, self.lsm.last_version());
            if relation(own, (&state.lineage, version)) == Relation::Covered {
                return Ok(());
            }
        }
        match self
            .roles
            .meta()
            .lineage
            .common_version(hello.history, version)
        {
            Some(common) if common == version && version <= self.lsm.last_version() => Ok(()),
            Some(_) => Err("its history has parted from this one"),
            None => Err("it holds another history"),
        }
    }

    /// A snapshot for a replica: one that is on its way to another, if the log goes on behind it.
    fn shared_snapshot(&mut self) -> Snapshot {
        let shared = self
            .replicas
            .feeds
            .iter()
            .rev()
            .find_map(|follower| follower.feed.snapshot());
        match shared.filter(|snapshot| self.lsm.log_behind(snapshot.version()).is_some()) {
            Some(snapshot) => snapshot.clone(),
            None => self.lsm.snapshot(),
        }
    }

    fn source(&mut self, now_ms: u64) -> SenderSource<'_> {
        let is_early = SeededBug::SendBeforeSync.is_on();
        SenderSource {
            released_version: if is_early {
                u64::MAX
            } else {
                self.released_version()
            },
            // That of its data: what a replica has only heard of gives its data no more weight.
            epoch: self.roles.meta().data_epoch,
            lineage: &self.roles.meta().lineage,
            is_settled: self.roles.is_settled(),
            lsm: &mut self.lsm,
            now_ms,
        }
    }

    /// A replica says something.
    pub fn receive_from_replica(
        &mut self,
        link: LinkId,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<(), LinkError> {
        loop {
            let feed = self.replicas.get(link).ok_or_else(gone)?;
            let confirmed = feed.needed_version();
            let told = feed.receive(input, now_ms)?;
            if feed.needed_version() != confirmed {
                self.keep_log();
            }
            match told {
                Some(state) => self.receive_peer_state(link, state)?,
                None => return Ok(()),
            }
        }
    }

    /// A node that is connected tells where it stands.
    fn receive_peer_state(&mut self, link: LinkId, mut state: PeerState) -> Result<(), LinkError> {
        let found = self
            .replicas
            .feeds
            .iter()
            .find(|follower| follower.link == link);
        let address = found.map_or("", |follower| &follower.address);
        state.address = whole_address(&state.address, host_of(address));
        self.receive_state(link, &state)
    }

    /// Appends what a replica is to be sent next, about `budget` bytes.
    pub fn feed_replica(
        &mut self,
        link: LinkId,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let needed_version = self.replicas.needed_version();
        let max_bytes = self.pinned_max_bytes();
        // Log of memtables is there anyway, however large they are.
        let is_too_much =
            self.lsm.log_bytes() > max_bytes && self.lsm.flushed_log_bytes() > max_bytes;
        let mut feeds = std::mem::take(&mut self.replicas.feeds);
        let source = self.source(now_ms);
        let outcome = match feeds.iter_mut().find(|follower| follower.link == link) {
            None => Err(gone()),
            Some(Replica { feed, .. })
                if is_too_much && feed.needed_version() == needed_version =>
            {
                Err(LinkError(
                    "the replica pins more log than is kept for one: it starts over".to_owned(),
                ))
            }
            Some(Replica { feed, .. }) => feed.fill(&source, budget, out),
        };
        self.replicas.feeds = feeds;
        outcome
    }

    /// Log that replicas may pin. With large values a whole memtable can be one segment, which goes
    /// when its last record is confirmed: so much comes on top.
    fn pinned_max_bytes(&self) -> usize {
        let log_bytes = PINNED_MIN_BYTES.max(self.options.wal_retain_bytes * 2);
        log_bytes.max(self.lsm.data_bytes() / PINNED_DATA_SHARE)
            + self.options.engine.memtable_bytes
    }

    /// Whether there is something to send to a replica, and when to look again at the latest.
    pub fn feed_state(&mut self, link: LinkId, now_ms: u64) -> Option<(bool, u64)> {
        let feeds = std::mem::take(&mut self.replicas.feeds);
        let source = self.source(now_ms);
        let feed = feeds
            .iter()
            .find(|follower| follower.link == link)
            .map(|follower| &follower.feed);
        let state = feed.map(|feed| (feed.has_more(&source), feed.wake_at_ms()));
        self.replicas.feeds = feeds;
        state
    }

    /// A connection to a replica has ended.
    pub fn forget_replica(&mut self, link: LinkId, now_ms: u64) {
        self.replicas.forget(link, now_ms);
        self.keep_log();
    }

    /// Figures about all replicas.
    pub fn replica_stats(&self, now_ms: u64) -> impl Iterator<Item = ReplicaStats> {
        let stats = move |follower: &Replica| ReplicaStats {
            address: follower.address.clone(),
            node_id: follower.feed.node_id(),
            feed: follower.feed.stats(now_ms),
        };
        self.replicas.feeds.iter().map(stats)
    }
}
