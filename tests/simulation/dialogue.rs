//! The replication dialogue as text: scripts of steps, each with the frames and the states that
//! result, in `dialogues/`.
//!
//! A line that begins with `>` is a step; the lines below it are what comes of it. The test
//! compares them literally; with `DB_NODE_TEST_REWRITE=1` it writes them anew, to be read in the
//! diff. Nodes are memory-only and named `n1`, `n2` …; histories are named `A`, `B` … as they
//! appear. Everything on the way is delivered at once, whole and in order, and time passes only
//! with `pass`.
//!
//! ```text
//! > start n1                    a node that waits for an order
//! > order n1 leads in 1         an order: n1 leads in epoch 1
//! > order n2 follows n1 in 1    an order: n2 follows n1 in epoch 1
//! > set n1 key value            a write
//! > fill n1 2000                as many writes of 100 bytes
//! > run                         the nodes connect and talk until nothing is left to say
//! > pass 1000                   so many milliseconds pass, then as `run`
//! > cut                         all connections are lost
//! > stop n1                     the process ends; its data is gone
//! > send n1 garbage             a stranger connects and sends bytes that are no frame
//! > show                        where each node stands
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use db_node::config::{self, Invocation};
use db_node::lsm::NewValue;
use db_node::node::Node;
use db_node::partition::{Assignment, Conditions};
use db_node::replication::frame::{DATA_MAX_BYTES, Frame, FrameReader};
use db_node::replication::{DialFailure, Link, LinkError, LinkId};
use db_node::storage::{HistoryId, IdGenerator, Lineage, Role};

/// One end of a connection; with no node, a stranger.
struct End {
    name: String,
    id: LinkId,
    link: Option<Link>,
    /// What came and was not taken yet.
    input: Vec<u8>,
    /// Of what it sends.
    reader: FrameReader,
}

#[derive(Default)]
struct Stage {
    now_ms: u64,
    nodes: BTreeMap<String, Node>,
    connections: Vec<[End; 2]>,
    histories: Vec<HistoryId>,
    link_count: usize,
    start_count: u8,
    /// What has come of the present step.
    lines: String,
}

fn address(name: &str) -> String {
    format!("http://{name}:1")
}

impl Stage {
    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        match words[..] {
            ["start", name] => self.start(name),
            ["order", name, "leads", "in", epoch] => self.order(name, None, epoch),
            ["order", name, "follows", leader, "in", epoch] => {
                self.order(name, Some(leader), epoch);
            }
            ["set", name, key, value] => self.set(name, key, value),
            ["fill", name, count] => self.fill(name, count.parse().expect("a number")),
            ["run"] => self.run(),
            ["pass", ms] => {
                self.now_ms += ms.parse::<u64>().expect("a number");
                self.run();
            }
            ["cut"] => {
                while !self.connections.is_empty() {
                    self.close(0, "the connection was lost");
                }
            }
            ["stop", name] => {
                self.nodes.remove(name);
                while let Some(at) = self.connection_of(name) {
                    self.close(at, "the connection was lost");
                }
            }
            ["send", name, text] => {
                let stranger = self.end("stranger", None);
                let mut end = self.end(name, Some(Link::accepted("stranger".to_owned(), 0)));
                end.input.extend_from_slice(text.repeat(4).as_bytes());
                self.connections.push([stranger, end]);
                self.run();
            }
            ["show"] => self.show(),
            _ => panic!("no such step: {step}"),
        }
    }

    fn start(&mut self, name: &str) {
        self.start_count += 1;
        let arguments = [
            "--await-assignment",
            "--memtable-bytes=64KiB",
            "--wal-retain-bytes=0",
            &format!("--advertise={}", address(name)),
        ];
        let Ok(Invocation::Run(config)) = config::parse(arguments.iter().map(Into::into), |_| None)
        else {
            panic!("a configuration");
        };
        let mut node = Node::new(*config, 1, IdGenerator::new([self.start_count; 16]));
        node.set_time_ms(self.now_ms);
        self.nodes.insert(name.to_owned(), node);
    }

    fn order(&mut self, name: &str, leader: Option<&str>, epoch: &str) {
        let assignment = Assignment {
            role: leader.map_or(Role::Leader, |_| Role::Replica),
            epoch: Some(epoch.parse().expect("an epoch")),
            leader: leader.map(address),
            peers: Vec::new(),
        };
        let node = self.nodes.get_mut(name).expect("a node");
        if let Err(refusal) = node.assign(0, assignment) {
            let _ = writeln!(self.lines, "{name} refuses: {refusal:?}");
        }
    }

    fn set(&mut self, name: &str, key: &str, value: &str) {
        let node = self.nodes.get_mut(name).expect("a node");
        let partition = node.partition(0).expect("it has a role");
        let value = NewValue::Inline(value.as_bytes());
        let set = partition.set(key.as_bytes(), value, None, &Conditions::default());
        set.expect("no conditions");
    }

    /// Writes so much that the log no longer has the first records.
    fn fill(&mut self, name: &str, count: usize) {
        for number in 0..count {
            self.set(name, &format!("key-{number}"), &"v".repeat(100));
            let node = self.nodes.get_mut(name).expect("a node");
            node.maintain(1 << 20);
        }
    }

    fn end(&mut self, name: &str, link: Option<Link>) -> End {
        self.link_count += 1;
        End {
            name: name.to_owned(),
            id: LinkId(self.link_count),
            link,
            input: Vec::new(),
            reader: FrameReader::new(DATA_MAX_BYTES),
        }
    }

    fn connection_of(&self, name: &str) -> Option<usize> {
        let has = |ends: &[End; 2]| ends.iter().any(|end| end.name == name);
        self.connections.iter().position(has)
    }

    fn run(&mut self) {
        for round in 0.. {
            assert!(round < 1_000, "they never stop talking: {}", self.lines);
            for node in self.nodes.values_mut() {
                node.set_time_ms(self.now_ms);
                node.maintain(1 << 20);
            }
            let has_dialled = self.dial();
            let mut has_moved = false;
            let mut at = 0;
            while at < self.connections.len() {
                match self.talk(at) {
                    Ok(moved) => {
                        has_moved |= moved;
                        at += 1;
                    }
                    Err(reason) => self.close(at, &reason),
                }
            }
            if !has_dialled && !has_moved {
                return;
            }
        }
    }

    fn dial(&mut self) -> bool {
        let mut has_dialled = false;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            let node = self.nodes.get_mut(&name).expect("of the list");
            let Some(dial) = node.take_dial(self.now_ms) else {
                continue;
            };
            has_dialled = true;
            let other = dial
                .leader
                .trim_start_matches("http://")
                .trim_end_matches(":1");
            if !self.nodes.contains_key(other) {
                let node = self.nodes.get_mut(&name).expect("of the list");
                node.on_unreachable(&dial, DialFailure::new("it is not there"), self.now_ms);
                let _ = writeln!(self.lines, "{name} does not reach {other}");
                continue;
            }
            let mut end = self.end(&name, None);
            let mut accepting = self.end(other, Some(Link::accepted(address(&name), self.now_ms)));
            let node = self.nodes.get_mut(&name).expect("of the list");
            end.link = node.connected(end.id, &dial, self.now_ms, &mut accepting.input);
            let _ = writeln!(self.lines, "{name} connects to {other}");
            let lines = self.decode(&mut end, &accepting.name, &accepting.input);
            self.lines.push_str(&lines);
            self.connections.push([end, accepting]);
        }
        has_dialled
    }

    /// Lets both ends of a connection send and take; the reason if one of them ends it.
    fn talk(&mut self, at: usize) -> Result<bool, String> {
        let mut has_moved = false;
        for side in 0..2 {
            let mut ends = self.connections.swap_remove(at);
            let outcome = self.talk_from(&mut ends, side);
            self.connections.push(ends);
            let last = self.connections.len() - 1;
            self.connections.swap(at, last);
            has_moved |= outcome?;
        }
        Ok(has_moved)
    }

    fn talk_from(&mut self, ends: &mut [End; 2], side: usize) -> Result<bool, String> {
        let (from, to) = match ends {
            [a, b] if side == 0 => (a, b),
            [a, b] => (b, a),
        };
        let Some(link) = &mut from.link else {
            return Ok(false);
        };
        let node = self.nodes.get_mut(&from.name).expect("it is connected");
        let (mut out, input) = (Vec::new(), std::mem::take(&mut from.input));
        let mut rest = &input[..];
        let mut outcome = Ok(());
        if !rest.is_empty() && node.wants_input(link) {
            outcome = node.receive(from.id, link, &mut rest, self.now_ms, &mut out);
        }
        from.input = rest.to_vec();
        let has_taken = from.input.len() < input.len();
        if outcome.is_ok() {
            outcome = node.fill(link, 1 << 20, self.now_ms, &mut out);
        }
        let lines = self.decode(from, &to.name, &out);
        self.lines.push_str(&lines);
        to.input.extend_from_slice(&out);
        match outcome {
            Ok(()) => Ok(has_taken || !out.is_empty()),
            Err(ended) => Err(format!("{} ends the connection: {ended}", from.name)),
        }
    }

    /// Both ends forget a connection, once each has read what the other said last.
    fn close(&mut self, at: usize, reason: &str) {
        let _ = writeln!(self.lines, "{reason}");
        let ends = self.connections.remove(at);
        for mut end in ends {
            let (Some(node), Some(mut link)) = (self.nodes.get_mut(&end.name), end.link.take())
            else {
                continue;
            };
            let mut ended = None;
            if !end.input.is_empty() && !reason.starts_with(&end.name) {
                let (mut input, mut out) = (&end.input[..], Vec::new());
                let outcome = node.receive(end.id, &mut link, &mut input, self.now_ms, &mut out);
                ended = outcome.err();
            }
            if let Some(ended) = &ended {
                let _ = writeln!(self.lines, "{} has read: {ended}", end.name);
            }
            let ended = ended.unwrap_or_else(|| LinkError::Lost(reason.to_owned()));
            node.close_link(link, &ended, self.now_ms);
        }
    }

    /// The frames in what one end sends, a line each.
    fn decode(&mut self, from: &mut End, to: &str, mut bytes: &[u8]) -> String {
        let mut lines = String::new();
        while let Some(frame) = from.reader.next(&mut bytes).expect("a node sends frames") {
            let text = self.describe(&frame);
            let _ = writeln!(lines, "{} -> {to}  {text}", from.name);
        }
        lines
    }

    fn describe(&mut self, frame: &Frame<'_>) -> String {
        match frame {
            Frame::Hello(hello) => format!(
                "hello: protocol {}, partition {}, epoch {}, version {} of {}",
                hello.protocol_version,
                hello.partition,
                hello.epoch,
                hello.position.version,
                self.history(hello.history)
            ),
            Frame::PeerState(state) => format!(
                "state: {:?}, epoch {} (ordered {}), data of epoch {} (ordered {}), version {} of \
                 {}, leader {:?}",
                state.intent,
                state.epoch,
                state.ordered_epoch,
                state.data_epoch,
                state.data_ordered_epoch,
                state.last_version,
                self.lineage(&state.lineage),
                state.address
            ),
            Frame::Continue(start) => format!(
                "continue: epoch {}, version {} of {}",
                start.epoch,
                start.last_version,
                self.lineage(&start.lineage)
            ),
            Frame::SnapshotStart(start) => format!(
                "snapshot: epoch {}, version {} of {}",
                start.epoch,
                start.version,
                self.lineage(&start.lineage)
            ),
            Frame::SnapshotData(_) => "snapshot data".to_owned(),
            Frame::Records(bytes) => format!("records: {}", records(bytes)),
            Frame::Ack(ack) => format!(
                "ack: applied {}, durable {}",
                ack.applied_version, ack.durable_version
            ),
            Frame::Heartbeat(beat) => {
                format!(
                    "heartbeat: version {}, {} ms",
                    beat.last_version, beat.time_ms
                )
            }
            Frame::Beat(number) => format!("beat: {number}"),
            Frame::Grant(number) => format!("grant: {number}"),
            Frame::Refusal(refusal) => format!("refusal: {:?}: {}", refusal.code, refusal.text),
        }
    }

    fn lineage(&mut self, lineage: &Lineage) -> String {
        let mut text = self.history(lineage.history());
        for past in lineage.past() {
            let _ = write!(
                text,
                ", {} up to {}",
                self.history(past.history),
                past.end_version
            );
        }
        text
    }

    /// A letter for each history, in the order of their appearance.
    fn history(&mut self, history: HistoryId) -> String {
        let known = self.histories.iter().position(|known| *known == history);
        let index = known.unwrap_or_else(|| {
            self.histories.push(history);
            self.histories.len() - 1
        });
        char::from(b'A' + u8::try_from(index).expect("few histories")).to_string()
    }

    fn show(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            let node = self.nodes.get_mut(&name).expect("of the list");
            let Ok(partition) = node.partition(0) else {
                let _ = writeln!(self.lines, "{name}: no role");
                continue;
            };
            let (state, epoch) = (partition.state_name(), partition.roles().meta().epoch);
            let version = partition.lsm().last_version();
            let in_sync = if partition.is_in_sync() {
                "in sync"
            } else {
                "not in sync"
            };
            let replica_count = partition.replica_stats(self.now_ms).count();
            let lineage = partition.lineage().clone();
            let lineage = self.lineage(&lineage);
            let _ = writeln!(
                self.lines,
                "{name}: {state}, epoch {epoch}, version {version} of {lineage}, {in_sync}, \
                 replicas: {replica_count}"
            );
        }
    }
}

/// The records in a piece of the log, by the layout in `src/lsm/log/record.rs`.
fn records(mut bytes: &[u8]) -> String {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<20>() {
        let value_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let key_len = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let [key, value] = [
            &bytes[20..20 + key_len],
            &bytes[20 + key_len..][..value_len],
        ]
        .map(String::from_utf8_lossy);
        let version = u64::from_le_bytes(*head[12..].first_chunk().expect("eight bytes"));
        found.push(format!("{version} {key}={value}"));
        bytes = &bytes[20 + key_len + value_len..];
    }
    assert!(bytes.is_empty(), "records are sent whole here");
    match &found[..] {
        [first, .., last] if found.len() > 4 => {
            format!("{} records, {first:.12} … {last:.12} …", found.len())
        }
        _ => found.join(", "),
    }
}

/// The script with what came of each step.
fn play(script: &str) -> String {
    let (mut stage, mut text) = (Stage::default(), String::new());
    for line in script.lines() {
        if line.is_empty() || line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        } else if let Some(step) = line.strip_prefix("> ") {
            stage.step(step);
            let _ = writeln!(
                text,
                "{line}\n{}",
                std::mem::take(&mut stage.lines).trim_end()
            );
            while text.ends_with("\n\n") {
                text.pop();
            }
        }
    }
    text
}

#[test]
fn dialogues_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/dialogues");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("an entry").path();
        let written = fs::read_to_string(&path).expect("text");
        let played = play(&written);
        if std::env::var_os("DB_NODE_TEST_REWRITE").is_some() {
            fs::write(&path, &played).expect("write the script");
        } else {
            let differs = written
                .lines()
                .zip(played.lines())
                .find(|(was, is)| was != is);
            assert!(
                written == played,
                "{}: other than written, first here: {differs:#?}\n\
                 DB_NODE_TEST_REWRITE=1 writes it anew\n{played}",
                path.display()
            );
        }
        count += 1;
    }
    assert!(count > 0, "no scripts");
}
