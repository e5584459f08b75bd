//! Messages to the service manager (`sd_notify`): ready, progress of loading, stopping, and the
//! watchdog.
//!
//! Invariants:
//! 1. The loop never waits for it: if the socket is full, the newest message of each name is kept
//!    and sent later.
//! 2. `READY=1` is sent once: when the data is loaded and the listener bound. A replica that is not
//!    in sync is ready, too: its leader may be the next unit to start.
//! 3. Without `NOTIFY_SOCKET` it costs a check of an `Option` in each turn.
//!
//! Why no crate: `sd-notify` blocks on a full socket, opens a descriptor for each message, and has
//! no abstract addresses. The protocol is that of `sd_notify(3)`: lines of `NAME=value` in a
//! datagram.
//!
//! Not here: what the states mean, which is the node's.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::node::Node;
use crate::storage::{RecoveryProgress, StorageError};

use super::timers::Millis;

/// Pause after a full socket.
const RETRY_MS: Millis = 100;

/// Time between two messages about progress.
const PROGRESS_INTERVAL_MS: Millis = 1_000;

/// Each step of loading extends the start time-out to this: longer than any disk takes for the next
/// step.
const LOADING_EXTENSION_US: u32 = 120_000_000;

/// The state of the node in the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotifyStage {
    Loading,
    Serving,
    Stopping,
}

/// The service manager that started this process, if there is one.
#[derive(Debug)]
pub(super) struct SdNotify(Option<Manager>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    stage: NotifyStage,
    /// Where requests are served.
    serving: String,
    progress: Option<RecoveryProgress>,
    progress_at: Millis,
    watchdog: Option<Watchdog>,
    /// Messages that could not be sent yet.
    unsent: Vec<(&'static str, String)>,
    /// When to send again.
    send_at: Option<Millis>,
}

/// The watchdog, if the manager has one.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    interval_ms: Millis,
    at: Millis,
}

impl SdNotify {
    /// The service manager named in the environment, if there is one. `serving` says where requests
    /// are served.
    pub(super) fn from_environment(
        environment: impl Fn(&str) -> Option<OsString>,
        serving: String,
    ) -> Self {
        let Some(name) = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let watchdog = watchdog(&environment);
        let manager = open(&name).map(|(socket, address)| Manager {
            socket,
            address,
            stage: NotifyStage::Loading,
            serving,
            progress: None,
            progress_at: 0,
            watchdog,
            unsent: Vec::new(),
            // A node with nothing to load is ready in its first turn, which is to come without an
            // event.
            send_at: Some(0),
        });
        if let Err(error) = &manager {
            let name = name.to_string_lossy();
            log::warn!(
                "the service manager will not hear of this node: NOTIFY_SOCKET {name}: {error}"
            );
        }
        Self(manager.ok())
    }

    /// Sends what has changed since the turn before.
    #[inline]
    pub(super) fn report(&mut self, node: &Node, now: Millis) {
        if let Some(manager) = &mut self.0 {
            manager.report_stage(node, now);
            manager.heartbeat(now);
            manager.send(now);
        }
    }

    /// The disk has failed; the node goes on without writes.
    pub(super) fn on_disk_failed(&mut self, error: &StorageError) {
        if let Some(manager) = &mut self.0 {
            manager.say(
                "STATUS",
                &format!("storage failed, writes are off: {error}"),
            );
        }
    }

    /// When the next turn is due for it.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        let manager = self.0.as_ref()?;
        let watchdog_at = manager.watchdog.map(|watchdog| watchdog.at);
        watchdog_at.into_iter().chain(manager.send_at).min()
    }
}

impl Manager {
    fn report_stage(&mut self, node: &Node, now: Millis) {
        if node.is_draining() {
            if self.stage != NotifyStage::Stopping {
                self.stage = NotifyStage::Stopping;
                self.say("STOPPING", "1");
                self.say("STATUS", "stopping: finishing what is in flight");
            }
        } else if let Some(progress) = node.loading() {
            if now >= self.progress_at {
                self.progress_at = now + PROGRESS_INTERVAL_MS;
                self.report_progress(progress);
            }
        } else if self.stage == NotifyStage::Loading {
            self.stage = NotifyStage::Serving;
            self.say("READY", "1");
            let serving = std::mem::take(&mut self.serving);
            self.say("STATUS", &serving);
        }
    }

    /// Extends the start time-out while loading makes progress.
    fn report_progress(&mut self, progress: RecoveryProgress) {
        if self.progress != Some(progress) {
            self.say("EXTEND_TIMEOUT_USEC", &LOADING_EXTENSION_US.to_string());
            self.say("STATUS", &format!("loading: {progress}"));
            self.progress = Some(progress);
        }
    }

    fn heartbeat(&mut self, now: Millis) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.at <= now) {
            watchdog.at = now + watchdog.interval_ms;
            self.say("WATCHDOG", "1");
        }
    }

    fn say(&mut self, name: &'static str, value: &str) {
        self.unsent.retain(|(said, _)| *said != name);
        self.unsent.push((name, value.replace(['\n', '\r'], " ")));
    }

    fn send(&mut self, now: Millis) {
        if self.send_at.is_some_and(|at| at > now) {
            return;
        }
        self.send_at = None;
        if self.unsent.is_empty() {
            return;
        }
        let lines = self
            .unsent
            .iter()
            .fold(String::new(), |lines, (name, value)| {
                lines + name + "=" + value + "\n"
            });
        match self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.send_at = Some(now + RETRY_MS);
                return;
            }
            Err(error) => log::warn!("the service manager did not take a message: {error}"),
            Ok(_) => {}
        }
        self.unsent.clear();
    }
}

/// A socket of our own, and the address of the manager's: a path, or a name without one after an
/// `@`.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only paths and @names are known",
            ));
        }
    };
    // Not connected, so that a restarted manager is found at the same address.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The interval of watchdog messages: half of the manager's time-out.
fn watchdog(environment: &impl Fn(&str) -> Option<OsString>) -> Option<Watchdog> {
    let number =
        |name: &str| environment(name).and_then(|value| value.to_str().map(str::parse::<u64>));
    let is_for_another =
        number("WATCHDOG_PID").is_some_and(|pid| pid != Ok(u64::from(std::process::id())));
    let patience_us = number("WATCHDOG_USEC")?
        .ok()
        .filter(|&patience_us| patience_us > 0 && !is_for_another)?;
    Some(Watchdog {
        interval_ms: (patience_us / 2_000).max(1),
        at: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens at an abstract address, and the supervisor that speaks to it.
    fn pair(test: &str, settings: &[(&str, &str)]) -> (UnixDatagram, SdNotify) {
        let name = format!("db-node-{test}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let listening = UnixDatagram::bind_addr(&address).expect("bind");
        listening.set_nonblocking(true).expect("set");
        let environment = |wanted: &str| match wanted {
            "NOTIFY_SOCKET" => Some(OsString::from(format!("@{name}"))),
            _ => settings
                .iter()
                .find(|(known, _)| *known == wanted)
                .map(|(_, value)| value.into()),
        };
        (
            listening,
            SdNotify::from_environment(environment, "serving".to_owned()),
        )
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_patience() {
        let (listening, mut supervisor) = pair("watchdog", &[("WATCHDOG_USEC", "3000000")]);
        let manager = supervisor.0.as_mut().expect("named");
        for (now, is_fed) in [
            (0, true),
            (1_499, false),
            (1_500, true),
            (10_000, true),
            (10_001, false),
        ] {
            manager.heartbeat(now);
            manager.send(now);
            assert_eq!(
                received(&listening),
                is_fed.then(|| "WATCHDOG=1\n".to_owned()),
                "at {now}"
            );
        }
        assert_eq!(supervisor.wake_at(), Some(11_500));
    }

    #[test]
    fn a_full_socket_is_not_waited_for_and_the_newest_word_counts() {
        let (listening, mut supervisor) = pair("full", &[]);
        let manager = supervisor.0.as_mut().expect("named");
        manager.send(0);
        let mut sent_count = 0;
        while manager.send_at.is_none() {
            manager.say("STATUS", &format!("message {sent_count}"));
            manager.send(0);
            sent_count += 1;
        }
        manager.say("READY", "1");
        manager.say("STATUS", "the\nlast");
        for expected in 0..sent_count - 1 {
            assert_eq!(
                received(&listening),
                Some(format!("STATUS=message {expected}\n"))
            );
        }
        manager.send(RETRY_MS - 1);
        assert_eq!(received(&listening), None, "it rests");
        manager.send(RETRY_MS);
        assert_eq!(
            received(&listening).as_deref(),
            Some("READY=1\nSTATUS=the last\n")
        );
        assert_eq!(supervisor.wake_at(), None);
    }

    #[test]
    fn who_is_not_asked_says_nothing() {
        let without = |name: &str| (name == "WATCHDOG_USEC").then(|| "1000".into());
        assert!(
            SdNotify::from_environment(without, String::new())
                .0
                .is_none()
        );
        let unknown = |name: &str| (name == "NOTIFY_SOCKET").then(|| "vsock:2:1234".into());
        assert!(
            SdNotify::from_environment(unknown, String::new())
                .0
                .is_none()
        );
        let (_, of_another) = pair(
            "other",
            &[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")],
        );
        assert_eq!(of_another.wake_at(), Some(0), "the first turn, no watchdog");
        let (_, unreadable) = pair("unreadable", &[("WATCHDOG_USEC", "soon")]);
        assert_eq!(unreadable.wake_at(), Some(0));
    }
}
