//! The first words of a node that has connected: its hello, and from protocol 2 on its state.
//!
//! Invariants:
//! 1. Nothing else of a peer counts before its hello was found good, the token included.
//! 2. A connection without a hello holds one buffer, for [`HELLO_MS`].
//!
//! Not here: whether the node is accepted as a replica (`partition/serving.rs`).

use crate::config::{Config, Token};
use crate::lsm::LogPosition;
use crate::storage::{CopyId, HistoryId};

use super::frame::{
    Frame, FrameReader, HELLO_MAX_BYTES, Hello, Intent, PROTOCOL_MIN, PROTOCOL_VERSION, PeerState,
    RefusalCode,
};
use super::link_error::{LinkError, Rejection};

/// A connection that has not said hello after this time is closed. A replica says hello at once.
pub const HELLO_MS: u64 = 2_000;

/// What a node has said of itself, with the right token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The protocol that both sides speak.
    pub protocol: u16,
    /// The partition that the link is about.
    pub partition: u32,
    /// The id of the node's copy. A release without copies has the id of its process here.
    pub copy: CopyId,
    /// The highest epoch that the node has heard of.
    pub epoch: u64,
    /// The history of its data.
    pub history: HistoryId,
    /// Where its data ends; version 0: it holds nothing.
    pub position: LogPosition,
    /// The node's state; none with protocol 1.
    pub state: Option<PeerState>,
}

impl PeerHello {
    /// What the node wants of this one.
    pub fn intent(&self) -> Intent {
        self.state
            .as_ref()
            .map_or(Intent::Follow, |state| state.intent)
    }

    fn from_frame(hello: &Hello<'_>, token: Option<&Token>) -> Result<Self, Rejection> {
        if !token.is_none_or(|token| token.matches(hello.token)) {
            let text = "the token is missing or wrong: give both nodes the same --token-file";
            return Err(Rejection::new(RefusalCode::Token, text));
        }
        if hello.protocol_version < PROTOCOL_MIN {
            let text = format!(
                "that node speaks protocol {PROTOCOL_MIN} to {PROTOCOL_VERSION}: upgrade the \
                 older node"
            );
            return Err(Rejection::new(RefusalCode::Protocol, text));
        }
        Ok(Self {
            protocol: hello.protocol_version.min(PROTOCOL_VERSION),
            partition: hello.partition,
            copy: hello.copy,
            epoch: hello.epoch,
            history: hello.history,
            position: hello.position,
            state: None,
        })
    }
}

/// A connection without a whole hello yet.
#[derive(Debug)]
pub struct Handshake {
    reader: FrameReader,
    /// The hello, while the peer's state is still to come.
    hello: Option<PeerHello>,
    /// Where the connection comes from.
    pub(crate) address: String,
    since_ms: u64,
}

impl Handshake {
    /// A connection from an address that was just accepted.
    pub fn new(address: String, now_ms: u64) -> Self {
        Self {
            reader: FrameReader::new(HELLO_MAX_BYTES),
            hello: None,
            address,
            since_ms: now_ms,
        }
    }

    /// When the connection is closed unless the peer has said hello.
    pub fn until_ms(&self) -> u64 {
        self.since_ms + HELLO_MS
    }

    /// Whether the peer still has time to say hello.
    pub fn check_time(&self, now_ms: u64) -> Result<(), LinkError> {
        if self.until_ms() <= now_ms {
            Err(LinkError::NoHello)
        } else {
            Ok(())
        }
    }

    /// Takes in what the peer sends; its hello once that is whole. `config` has the token that it
    /// must present, and the port that an HTTP request is for.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        config: &Config,
    ) -> Result<Option<PeerHello>, LinkError> {
        let token = config.token.as_ref();
        if is_http(input) {
            return Err(LinkError::Http(config.listen.port()));
        }
        while let Some(frame) = self.reader.next(input)? {
            match (frame, self.hello.take()) {
                (Frame::Hello(hello), None) => {
                    let hello =
                        PeerHello::from_frame(&hello, token).map_err(LinkError::Rejected)?;
                    if hello.protocol == PROTOCOL_MIN {
                        return Ok(Some(hello));
                    }
                    self.hello = Some(hello);
                }
                (Frame::PeerState(state), Some(mut hello)) => {
                    let is_same =
                        state.epoch == hello.epoch && state.last_version == hello.position.version;
                    if !is_same {
                        return Err(LinkError::Protocol("a node contradicts its own hello"));
                    }
                    hello.state = Some(state);
                    return Ok(Some(hello));
                }
                _ => return Err(LinkError::Protocol("a stranger did not say hello")),
            }
        }
        Ok(None)
    }
}

/// Whether bytes begin an HTTP request. Taken for a frame, they would be longer than any hello.
fn is_http(bytes: &[u8]) -> bool {
    let methods: [&[u8]; 6] = [
        b"GET /",
        b"HEAD /",
        b"POST /",
        b"PUT /",
        b"DELETE /",
        b"OPTIONS ",
    ];
    methods.iter().any(|method| bytes.starts_with(method))
}

/// The address that a peer told, completed with the peer's host: `:9001` is a port there. Empty:
/// not known.
pub fn whole_address(told: &str, host: &str) -> String {
    match told.strip_prefix(':') {
        Some(port) => format!("http://{host}:{port}"),
        None => told.to_owned(),
    }
}
