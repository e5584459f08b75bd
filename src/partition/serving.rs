//! A partition as the feeder of replicas: which nodes it accepts, what they may be sent, how much
//! log they may pin.
//!
//! Invariants:
//! 1. A node that has heard of a higher epoch than its own feeds no replica, and leads no more.
//! 2. Confirmations count on the link they came on, and links end with the epoch and the history
//!    they were begun in.
//! 3. What replicas pin is capped ([`Partition::pinned_max_bytes`]): beyond it the link of the
//!    replica that is furthest behind ends. Writers never wait for a replica.
//!
//! Not here: the state machine of a link (`replication/replica_sender.rs`).

use crate::lsm::Snapshot;
use crate::replication::frame::{Frame, PROTOCOL_MIN, RefusalCode};
use crate::replication::{
    Intent, LinkError, LinkId, PeerHello, PeerState, Rejection, Relation, ReplicaSender,
    SenderSource, SyncState, is_data_sent_to_surveyor, relation, whole_address,
};
use crate::seeded_bugs::SeededBug;
use crate::storage::{Lineage, Role};

use super::claims::is_higher_epoch;
use super::replicas::{REPLICAS_MAX, Replica, ReplicaStats};
use super::roles::EPOCH_LEAP_MAX;
use super::state::Partition;

/// Snapshots on their way at a time: each costs the loop its share of every turn.
const SNAPSHOTS_MAX: usize = 4;

/// Log that replicas may pin, however little data there is.
const PINNED_MIN_BYTES: usize = 64 * 1024 * 1024;

/// … and as a part of the data, if that is more.
const PINNED_DATA_SHARE: usize = 4;

/// The host of a socket's address.
pub(super) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(host, _)| host)
}

impl Partition {
    /// A node says hello from an address. The answer goes to `out`.
    pub fn accept(
        &mut self,
        link: LinkId,
        address: &str,
        hello: &PeerHello,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<ReplicaSender, Rejection> {
        self.check_hello(hello)?;
        let http_address = hello.state.as_ref().map_or("", |state| &state.address);
        let http_address = whole_address(http_address, host_of(address));
        self.known_peers.remember(&http_address);
        let is_claim = matches!(hello.intent(), Intent::Claim | Intent::OrderedClaim);
        // The answer to a claim comes once it is durable.
        if hello.protocol > PROTOCOL_MIN && !is_claim {
            Frame::PeerState(self.own_state(Intent::Report)).encode(out);
        }
        let is_fed = match hello.intent() {
            Intent::Follow => true,
            Intent::Survey => self.has_data_for(hello),
            _ => false,
        };
        let (mut sender, snapshot) = if is_fed {
            self.retain_log();
            self.begin_sender(link, address, hello, now_ms, out)?
        } else {
            (ReplicaSender::idle(link, hello, now_ms), None)
        };
        self.replicas.add(Replica {
            link,
            copy: hello.copy,
            protocol: hello.protocol,
            address: address.to_owned(),
            http_address,
            snapshot,
            facts: sender.facts,
        });
        self.keep_log();
        if let Some(state) = hello.state.as_ref().filter(|_| is_claim) {
            let answer = self
                .on_peer_state(link, state.clone())
                .map_err(|error| Rejection::new(RefusalCode::Epoch, error.to_string()))?;
            if let Some(answer) = answer {
                sender.report(answer);
            }
        }
        Ok(sender)
    }

    /// Whether a node that surveys this one lacks what is here.
    fn has_data_for(&self, hello: &PeerHello) -> bool {
        let Some(state) = &hello.state else {
            return false;
        };
        let meta = self.roles.meta();
        let related = relation(
            (&state.lineage, hello.position.version),
            (&meta.lineage, self.lsm.last_version()),
        );
        is_data_sent_to_surveyor(related, state.data_ordered_epoch, meta.data_ordered_epoch)
    }

    fn begin_sender(
        &mut self,
        link: LinkId,
        address: &str,
        hello: &PeerHello,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(ReplicaSender, Option<Snapshot>), Rejection> {
        let reason = match self.common_version(hello) {
            Ok(()) => {
                let source = self.sender_source();
                if let Some(sender) = ReplicaSender::from_log(link, hello, &source, now_ms, out) {
                    return Ok((sender, None));
                }
                if self.lsm.log_behind(hello.position.version).is_some() {
                    let text = "this replica has another record of the same version and history: \
                                empty it, or lead by it";
                    return Err(Rejection::new(RefusalCode::Ahead, text));
                }
                "the log no longer has what it lacks"
            }
            Err(reason) => reason,
        };
        if self.replicas.snapshots().count() >= SNAPSHOTS_MAX {
            return Err(Rejection::busy(format!(
                "{SNAPSHOTS_MAX} snapshots are being sent: try again"
            )));
        }
        let snapshot = self.shared_snapshot();
        self.snapshot_stats.sent_count += 1;
        log::info!(
            "partition {}: {address} gets a snapshot of version {}: {reason}",
            self.id,
            snapshot.version()
        );
        let source = self.sender_source();
        ReplicaSender::from_snapshot(link, hello, snapshot.clone(), &source, now_ms, out)
            .map(|sender| (sender, Some(snapshot)))
            .ok_or_else(|| Rejection::busy("the log has moved on: try again"))
    }

    fn check_hello(&mut self, hello: &PeerHello) -> Result<(), Rejection> {
        if hello.copy == self.roles.meta().copy {
            return Err(Rejection::not_leader(
                "that is this node itself: name another as the leader. If it is another node, one \
                 of the two has a copied data directory: start one of them with an empty one",
            ));
        }
        if hello.intent() == Intent::Follow {
            self.check_follower(hello)?;
        }
        if !self.roles.is_settled() {
            return Err(Rejection::busy(
                "the role of that node is changing: try again",
            ));
        }
        if self.replicas.is_full() {
            return Err(Rejection::busy(format!(
                "{REPLICAS_MAX} replicas are fed: follow one of them"
            )));
        }
        Ok(())
    }

    /// Whether the node that says hello may follow this one.
    fn check_follower(&mut self, hello: &PeerHello) -> Result<(), Rejection> {
        let epoch = self.roles.meta().epoch;
        if is_higher_epoch(hello.epoch, epoch) {
            return Err(self.on_higher_epoch(hello));
        }
        if hello.epoch == epoch && self.has_yielded() && !self.roles.is_taking_over() {
            // That node knows the epoch in which this one made way, and is to follow this one all
            // the same.
            self.on_epoch_of_replica(hello);
            return Err(Rejection::busy(
                "that node takes over as the leader: try again",
            ));
        }
        match self.roles.role() {
            Role::Leader if self.is_behind(hello) => {
                self.fetch_from_peers();
                return Err(Rejection::busy(
                    "that node lacks what this replica holds, and fetches it first: try again",
                ));
            }
            Role::Leader => {}
            Role::Replica if self.roles.is_taking_over() => {
                return Err(Rejection::busy(
                    "that node takes over as the leader: try again",
                ));
            }
            Role::Replica if self.is_in_cluster() => {
                return Err(Rejection::busy("that node does not lead yet: try again"));
            }
            Role::Replica if self.follows(hello) => {
                return Err(Rejection::not_leader(
                    "this node is the leader of that one: assign one of them as the leader",
                ));
            }
            Role::Replica if self.leader_link.sync == SyncState::InSync => {}
            Role::Replica => {
                return Err(Rejection::busy(
                    "that replica is not in sync itself: try again",
                ));
            }
            Role::Unassigned => {
                return Err(Rejection::not_leader(if self.is_in_cluster() {
                    "that node has no role yet: try again"
                } else {
                    "that node has no role yet: assign it one"
                }));
            }
        }
        let last_version = self.lsm.last_version();
        if hello.history == self.history() && hello.position.version > last_version {
            let text = format!(
                "this replica is at version {} and that node at {last_version} of the same \
                 history: make this node the leader",
                hello.position.version
            );
            return Err(Rejection::new(RefusalCode::Ahead, text));
        }
        Ok(())
    }

    /// Whether this node is a replica of the node that says hello: two nodes that follow each other
    /// would both look in sync, and neither would get a write.
    fn follows(&self, hello: &PeerHello) -> bool {
        let state = hello.state.as_ref();
        let leader = self.roles.meta().leader.as_ref();
        state.is_some_and(|state| Some(&state.address) == leader)
    }

    /// Whether a controller assigned this node the lead, and a node that wants to follow it holds
    /// all its data and more.
    fn is_behind(&mut self, hello: &PeerHello) -> bool {
        let Some(state) = &hello.state else {
            return false;
        };
        let own = (&self.roles.meta().lineage, self.lsm.last_version());
        let is_behind = self.leadership.is_ordered
            && relation(own, (&state.lineage, state.last_version)) == Relation::Newer;
        if is_behind {
            self.known_peers.remember(&state.address);
        }
        is_behind
    }

    /// A node that wants to follow this one knows of a higher epoch.
    fn on_higher_epoch(&mut self, hello: &PeerHello) -> Rejection {
        let epoch = self.roles.meta().epoch;
        if hello.epoch - epoch > EPOCH_LEAP_MAX {
            let text = format!(
                "epoch {} is not believed: it is more than {EPOCH_LEAP_MAX} above {epoch}",
                hello.epoch
            );
            return Rejection::new(RefusalCode::Epoch, text);
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
            return Rejection::new(RefusalCode::Epoch, text);
        }
        if let Some(state) = &hello.state {
            self.known_peers.remember(&state.address);
        }
        self.on_epoch_of_replica(hello);
        let way_out = if self.is_in_cluster() {
            "try again"
        } else {
            "try again, or assign it anew"
        };
        let text = format!(
            "epoch {} has begun, and that node knew of {epoch}: {way_out}",
            hello.epoch
        );
        Rejection::new(RefusalCode::Epoch, text)
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
        match self.lineage().common_version(hello.history, version) {
            Some(common) if common == version && version <= self.lsm.last_version() => Ok(()),
            Some(_) => Err("its history has parted from this one"),
            None => Err("it holds another history"),
        }
    }

    /// A snapshot for a replica: that of another replica, if the log still goes on behind it.
    fn shared_snapshot(&mut self) -> Snapshot {
        let has_log = |snapshot: &&Snapshot| self.lsm.log_behind(snapshot.version()).is_some();
        let newest = self.replicas.snapshots().next();
        match newest.filter(has_log).cloned() {
            Some(shared) => shared,
            None => self.lsm.snapshot(),
        }
    }

    fn sender_source(&self) -> SenderSource<'_> {
        SenderSource {
            released_version: self.sendable_version(),
            // The epoch of the data: a higher epoch that was only reported gives data no more
            // weight.
            epoch: self.roles.meta().data_epoch,
            lineage: &self.roles.meta().lineage,
            is_settled: self.roles.is_settled(),
            beat: self.newest_beat(),
            lsm: &self.lsm,
        }
    }

    /// The newest version that replicas may have: what this node's disk could still lose stays
    /// here.
    fn sendable_version(&self) -> u64 {
        if SeededBug::SendBeforeSync.is_on() {
            return u64::MAX;
        }
        self.released_version()
    }

    /// Whether replicas pin more log than they may. Log of memtables is there anyway, however large
    /// they are.
    fn is_too_much_pinned(&self) -> bool {
        let max_bytes = self.pinned_max_bytes();
        self.lsm.log_bytes() > max_bytes && self.lsm.flushed_log_bytes() > max_bytes
    }

    /// Log that replicas may pin. With large values a whole memtable can be one segment, which goes
    /// when its last record is confirmed: so much comes on top.
    fn pinned_max_bytes(&self) -> usize {
        let log_bytes = PINNED_MIN_BYTES.max(self.options.wal_retain_bytes * 2);
        log_bytes.max(self.lsm.data_bytes() / PINNED_DATA_SHARE)
            + self.options.engine.memtable_bytes
    }

    /// Statistics of all replicas.
    pub fn replica_stats(&self, now_ms: u64) -> impl Iterator<Item = ReplicaStats> {
        self.replicas.stats(now_ms)
    }

    /// The data to send to a replica. An error ends the link.
    pub(super) fn source(&self, link: LinkId) -> Result<SenderSource<'_>, LinkError> {
        let replica = self.replicas.get(link).ok_or(LinkError::RoleChanged)?;
        let is_last = replica.facts.needed_version() == self.replicas.needed_version();
        if is_last && self.is_too_much_pinned() {
            return Err(LinkError::TooFarBehind);
        }
        Ok(self.sender_source())
    }

    /// Records what a link has sent and its replica has confirmed. An error ends the link.
    pub(super) fn record_sender(
        &mut self,
        sender: &ReplicaSender,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        let has_confirmed = self.replicas.record(sender.link, sender.facts);
        if has_confirmed.ok_or(LinkError::RoleChanged)? {
            self.keep_log();
        }
        if self.is_in_cluster() {
            self.note_acked();
            if let Some(replica) = self.replicas.get(sender.link) {
                self.note_grant(replica.copy, sender.facts, now_ms);
            }
        }
        Ok(())
    }

    /// The peer of a sender has sent its state; returns the answer to it.
    pub(super) fn on_peer_state(
        &mut self,
        link: LinkId,
        mut state: PeerState,
    ) -> Result<Option<PeerState>, LinkError> {
        let replica = self.replicas.get(link).ok_or(LinkError::RoleChanged)?;
        state.address = whole_address(&state.address, host_of(&replica.address));
        let answer = match state.intent {
            Intent::Claim | Intent::OrderedClaim => Some(self.on_claim(link, &state)?),
            Intent::Report => {
                self.on_leader_report(&state);
                None
            }
            Intent::Follow | Intent::Survey | Intent::Grant => {
                let problem = "the peer told its state out of its turn";
                return Err(LinkError::Protocol(problem));
            }
        };
        match self.replicas.get(link) {
            Some(_) => Ok(answer),
            None => Err(LinkError::RoleChanged),
        }
    }
}
