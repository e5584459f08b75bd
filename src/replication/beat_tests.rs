//! Beats and grants: which links have them, what is sent when, and which grants count.

use super::frame::{Ack, Frame, FrameReader, Hello, Intent, PROTOCOL_VERSION, PeerState};
use super::{
    Handshake, LeaderReceiver, LinkError, LinkId, PeerHello, ReceiverEvent, ReplicaSender,
    SenderSource,
};
use crate::config::{self, Config, Invocation};
use crate::lsm::{LogPosition, Lsm, NewValue, Options};
use crate::storage::{CopyId, HistoryId, Lineage, PartitionMeta, Role};

const OPTIONS: Options = Options {
    memtable_bytes: 1 << 20,
    hash_seed: 1,
};

fn config() -> Config {
    match config::parse([], |_| None) {
        Ok(Invocation::Run(config)) => *config,
        _ => panic!("a configuration"),
    }
}

fn lineage() -> Lineage {
    Lineage::new(HistoryId([1; 16]))
}

fn leader() -> Lsm {
    let mut lsm = Lsm::new(OPTIONS);
    lsm.set(b"k", NewValue::Inline(b"v"), None);
    lsm
}

/// What a node without data says first.
fn hello(protocol_version: u16) -> Hello<'static> {
    Hello {
        protocol_version,
        partition: 0,
        copy: CopyId([7; 16]),
        epoch: 0,
        history: HistoryId([1; 16]),
        position: LogPosition::default(),
        token: b"",
    }
}

fn state() -> PeerState {
    PeerState {
        intent: Intent::Follow,
        epoch: 0,
        ordered_epoch: 0,
        data_epoch: 0,
        data_ordered_epoch: 0,
        last_version: 0,
        lineage: lineage(),
        address: String::new(),
    }
}

/// Two ends of a link.
struct Pair {
    leader: Lsm,
    lineage: Lineage,
    beat: Option<u64>,
    sender: ReplicaSender,
    replica: Lsm,
    meta: PartitionMeta,
    receiver: LeaderReceiver,
}

/// The two ends after the replica's hello, where it offers one protocol and the leader's newest is
/// another; and the leader's answer.
fn pair(offered: u16, newest: u16) -> (Pair, Vec<u8>) {
    let mut out = Vec::new();
    let receiver = LeaderReceiver::handshake(LinkId(1), hello(offered), state(), 0, &mut out);
    let mut peer = heard(&out).expect("a hello");
    peer.protocol = peer.protocol.min(newest);
    let (lsm, lineage, mut answer) = (leader(), lineage(), Vec::new());
    let source = source(&lsm, &lineage, None);
    let sender = ReplicaSender::from_log(LinkId(2), &peer, &source, 0, &mut answer);
    let pair = Pair {
        leader: lsm,
        lineage: lineage.clone(),
        beat: None,
        sender: sender.expect("the log has it all"),
        replica: Lsm::new(OPTIONS),
        meta: PartitionMeta::new(Role::Replica, lineage, CopyId([7; 16])),
        receiver,
    };
    (pair, answer)
}

fn source<'a>(lsm: &'a Lsm, lineage: &'a Lineage, beat: Option<u64>) -> SenderSource<'a> {
    SenderSource {
        lsm,
        lineage,
        epoch: 0,
        released_version: u64::MAX,
        is_settled: true,
        beat,
    }
}

/// What an accepting node makes of a peer's first bytes.
fn heard(bytes: &[u8]) -> Option<PeerHello> {
    let mut input = bytes;
    let mut handshake = Handshake::new("h:1".to_owned(), 0);
    let heard = handshake.receive(&mut input, &config()).expect("sound");
    assert!(
        input.is_empty(),
        "a state comes with protocol 2 and later ones"
    );
    heard
}

impl Pair {
    fn has_more(&self) -> bool {
        let source = source(&self.leader, &self.lineage, self.beat);
        self.sender.has_more(&source)
    }

    /// What the leader sends next.
    fn filled(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let source = source(&self.leader, &self.lineage, self.beat);
        let filled = self.sender.fill(&source, 1 << 16, 0, &mut out);
        filled.expect("sound");
        out
    }

    /// The numbers of the beats among what the replica is sent.
    fn deliver(&mut self, mut input: &[u8]) -> Result<Vec<u64>, LinkError> {
        let mut beats = Vec::new();
        loop {
            let target = (&mut self.replica, &self.meta);
            match self.receiver.receive(&mut input, target, OPTIONS, 0)? {
                Some(ReceiverEvent::Beat { number }) => beats.push(number),
                Some(_) => {}
                None => return Ok(beats),
            }
        }
    }

    /// What the replica sends next goes to the leader.
    fn answer(&mut self) -> Result<(), LinkError> {
        let mut out = Vec::new();
        self.receiver.fill(Ack::default(), 0, &mut out)?;
        self.sender.receive(&mut &out[..], 0).map(drop)
    }
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn kinds(mut input: &[u8]) -> Vec<String> {
    let mut reader = FrameReader::new(1 << 16);
    let mut kinds = Vec::new();
    while let Some(frame) = reader.next(&mut input).expect("sound") {
        let text = format!("{frame:?}");
        kinds.push(text.split('(').next().expect("a name").to_owned());
    }
    kinds
}

#[test]
fn both_sides_speak_the_lower_protocol() {
    assert_eq!(PROTOCOL_VERSION, 3);
    for (offered, spoken) in [(1, 1), (2, 2), (3, 3), (4, 3), (u16::MAX, 3)] {
        let mut out = Vec::new();
        LeaderReceiver::handshake(LinkId(1), hello(offered), state(), 0, &mut out);
        let peer = heard(&out).expect("a hello");
        assert_eq!(peer.protocol, spoken, "a peer that offers {offered}");
        assert_eq!(peer.state.is_some(), spoken > 1);
    }
}

#[test]
fn beats_are_sent_and_granted_where_both_sides_know_them() {
    for (offered, newest) in [(3, 3), (3, 2), (3, 1), (2, 3), (1, 3)] {
        let (mut pair, answer) = pair(offered, newest);
        assert_eq!(pair.deliver(&answer), Ok(Vec::new()));
        let rest = pair.filled();
        assert_eq!(pair.deliver(&rest), Ok(Vec::new()));
        assert!(!pair.has_more());
        assert_eq!(pair.sender.facts.protocol, offered.min(newest));
        pair.beat = Some(5);
        let has_beats = offered.min(newest) == 3;
        assert_eq!(pair.has_more(), has_beats, "{offered} and {newest}");
        let sent = pair.filled();
        let expected = if has_beats { vec![5] } else { Vec::new() };
        assert_eq!(pair.deliver(&sent), Ok(expected));
        assert!(!pair.has_more() && pair.filled().is_empty());
    }
}

#[test]
fn a_beat_is_sent_once_and_before_data() {
    let (mut pair, answer) = pair(3, 3);
    pair.beat = Some(1);
    let sent = pair.filled();
    assert_eq!(kinds(&sent), ["Beat", "Heartbeat", "Records"]);
    assert_eq!(pair.deliver(&[answer, sent].concat()), Ok(vec![1]));
    // Numbers may be left out, and an older one is not sent behind a newer one.
    for (number, expected) in [(1, vec![]), (4, vec![4]), (3, vec![]), (5, vec![5])] {
        pair.beat = Some(number);
        assert_eq!(pair.has_more(), !expected.is_empty());
        let sent = pair.filled();
        assert_eq!(pair.deliver(&sent), Ok(expected));
    }
}

#[test]
fn grants_count_for_beats_that_were_sent_on_the_link() {
    let (mut pair, answer) = pair(3, 3);
    assert_eq!(pair.deliver(&answer), Ok(Vec::new()));
    for number in [5, 7, 9] {
        pair.beat = Some(number);
        let sent = pair.filled();
        assert_eq!(pair.deliver(&sent), Ok(vec![number]));
    }
    assert_eq!(pair.sender.facts.granted, None);
    assert!(!pair.receiver.has_more());
    pair.receiver.grant(7);
    pair.receiver.grant(5);
    assert!(pair.receiver.has_more(), "a grant waits for no time");
    assert_eq!(pair.answer(), Ok(()));
    assert_eq!(pair.sender.facts.granted, Some(7));
    assert!(!pair.receiver.has_more());
    let mut grant = |number| {
        let bytes = encoded(&Frame::Grant(number));
        let received = pair.sender.receive(&mut &bytes[..], 0);
        (received.is_ok(), pair.sender.facts.granted)
    };
    assert_eq!(grant(5), (true, Some(7)), "an older grant takes nothing");
    for number in [0, 6, 8, 10, u64::MAX] {
        assert_eq!(grant(number), (false, Some(7)), "{number} was never sent");
    }
    assert_eq!(grant(9), (true, Some(9)));
    // Of very many, the first are forgotten; a late grant of one of them ends no link.
    for number in 10..1_000 {
        pair.beat = Some(number);
        pair.filled();
    }
    let mut grant = |number| {
        let bytes = encoded(&Frame::Grant(number));
        pair.sender.receive(&mut &bytes[..], 0).is_ok()
    };
    assert!(grant(10) && grant(500) && grant(999) && !grant(1_000));
}

#[test]
fn beats_and_grants_out_of_turn_end_the_link() {
    let beat = encoded(&Frame::Beat(1));
    // Before the leader has answered.
    let (mut early, answer) = pair(3, 3);
    assert!(matches!(early.deliver(&beat), Err(LinkError::Protocol(_))));
    assert_eq!(
        pair(3, 3).0.deliver(&[&answer[..], &beat].concat()),
        Ok(vec![1])
    );
    // With protocols that have no beats.
    for offered in [1, 2] {
        let (mut pair, answer) = pair(offered, 3);
        let sent = [&answer[..], &beat].concat();
        assert!(matches!(pair.deliver(&sent), Err(LinkError::Protocol(_))));
        let grant = encoded(&Frame::Grant(1));
        let granted = pair.sender.receive(&mut &grant[..], 0);
        assert!(matches!(granted, Err(LinkError::Protocol(_))));
    }
    // From the wrong side.
    let (mut wrong, answer) = pair(3, 3);
    let grant = encoded(&Frame::Grant(1));
    assert!(wrong.deliver(&[answer, grant].concat()).is_err());
    assert!(wrong.sender.receive(&mut &beat[..], 0).is_err());
}

#[test]
fn a_peer_that_only_claims_gets_no_beats() {
    let mut out = Vec::new();
    LeaderReceiver::handshake(LinkId(1), hello(3), state(), 0, &mut out);
    let peer = heard(&out).expect("a hello");
    let (lsm, lineage) = (leader(), lineage());
    let sender = ReplicaSender::idle(LinkId(2), &peer, 0);
    assert!(!sender.has_more(&source(&lsm, &lineage, Some(1))));
}
