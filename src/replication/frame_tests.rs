//! Frames: golden bytes, cut anywhere, damaged anywhere, made of noise.

use super::frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, Heartbeat, Hello, Intent, PROTOCOL_MIN,
    PeerState, RefusalCode, RefusalFrame, SnapshotStart,
};
use crate::lsm::LogPosition;
use crate::storage::{CopyId, HistoryId, Lineage};

fn frames() -> Vec<Frame<'static>> {
    static DATA: [u8; DATA_MAX_BYTES] = [7; DATA_MAX_BYTES];
    let history = HistoryId([2; 16]);
    let lineage = Lineage::new(HistoryId([1; 16])).begin(history, 8);
    vec![
        Frame::Hello(Hello {
            protocol_version: PROTOCOL_MIN,
            partition: 3,
            copy: CopyId([1; 16]),
            epoch: 4,
            history,
            position: LogPosition {
                version: 5,
                checksum: 0x0a0b_0c0d,
            },
            token: b"secret",
        }),
        Frame::Continue(Continue {
            epoch: 4,
            last_version: 9,
            lineage: lineage.clone(),
        }),
        Frame::SnapshotStart(SnapshotStart {
            epoch: 4,
            version: 9,
            about_bytes: 70_000,
            lineage: lineage.clone(),
        }),
        Frame::SnapshotData(&DATA),
        Frame::Records(b"r"),
        Frame::Ack(Ack {
            applied_version: 9,
            durable_version: 8,
        }),
        Frame::Heartbeat(Heartbeat {
            last_version: 9,
            time_ms: 0x0102,
        }),
        Frame::Refusal(RefusalFrame {
            code: RefusalCode::Busy,
            text: "try again",
        }),
        Frame::Beat(0x0203),
        Frame::Grant(7),
        Frame::PeerState(PeerState {
            intent: Intent::OrderedClaim,
            epoch: 6,
            ordered_epoch: 5,
            data_epoch: 4,
            data_ordered_epoch: 3,
            last_version: 9,
            lineage,
            address: "http://h:1".to_owned(),
        }),
    ]
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// Debug texts of the frames in pieces of a stream, and whether it ended with an error.
fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut reader, mut frames) = (FrameReader::new(DATA_MAX_BYTES), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        loop {
            match reader.next(&mut input) {
                Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(input.is_empty(), "input was left although more was wanted");
    }
    (frames, false)
}

#[test]
fn golden_bytes() {
    let payloads: Vec<Vec<u8>> = frames()
        .iter()
        .map(|frame| encoded(frame)[12..].to_vec())
        .collect();
    let mut hello = b"dbnr\x01\0\x06\0\x03\0\0\0".to_vec();
    hello.extend([1; 16]);
    hello.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    hello.extend([2; 16]);
    hello.extend([5, 0, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
    hello.extend(b"secret");
    assert_eq!(payloads[0], hello);
    let mut lineage = vec![2; 16];
    lineage.extend([1; 16]);
    lineage.extend([8, 0, 0, 0, 0, 0, 0, 0]);
    let numbers = [
        4, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0x70, 0x11, 1, 0, 0, 0, 0, 0,
    ];
    assert_eq!(payloads[1], [&numbers[..16], &lineage].concat());
    assert_eq!(payloads[2], [&numbers[..], &lineage].concat());
    assert_eq!(payloads[3].len(), DATA_MAX_BYTES);
    assert_eq!(payloads[4], b"r");
    assert_eq!(
        payloads[5],
        [9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        payloads[6],
        [9, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(payloads[7], *b"\x06\0try again");
    let state = [
        &[3, 0, 10, 0, 6, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..],
        &[4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[9, 0, 0, 0, 0, 0, 0, 0],
        b"http://h:1",
        &lineage,
    ];
    assert_eq!(payloads[8], [3, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(payloads[9], [7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(payloads[10], state.concat());
    let records = encoded(&Frame::Records(b"r"));
    assert_eq!(records[..8], [1, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(
        records[8..12],
        crc32c::crc32c(b"\x01\0\0\0\x05\0\0\0r").to_le_bytes()
    );
    let types: Vec<u8> = frames().iter().map(|frame| encoded(frame)[4]).collect();
    assert_eq!(types, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
    let expected: Vec<String> = frames().iter().map(|frame| format!("{frame:?}")).collect();
    let mut stream = Vec::new();
    for frame in frames() {
        frame.encode(&mut stream);
    }
    assert_eq!(read(&[&stream]), (expected.clone(), false));
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..50 {
        let mut rest = &stream[..];
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let len = if rng.bool() {
                rng.usize(1..30)
            } else {
                rng.usize(1..50_000)
            };
            let (piece, behind) = rest.split_at(len.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(read(&pieces), (expected.clone(), false));
    }
    // Byte by byte, without the long one.
    let mut short = Vec::new();
    frames()
        .iter()
        .filter(|frame| !matches!(frame, Frame::SnapshotData(_)))
        .for_each(|frame| frame.encode(&mut short));
    let bytes: Vec<&[u8]> = short.chunks(1).collect();
    assert_eq!(read(&bytes).0.len(), expected.len() - 1);
}

#[test]
fn a_flipped_bit_is_an_error_or_waits_for_more() {
    for frame in frames()
        .iter()
        .filter(|frame| !matches!(frame, Frame::SnapshotData(_)))
    {
        let sound = encoded(frame);
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                read(&[&damaged]).0,
                Vec::<String>::new(),
                "bit {bit} of {frame:?}"
            );
        }
    }
}

#[test]
fn noise_is_an_error_and_costs_no_memory() {
    let mut rng = fastrand::Rng::with_seed(2);
    let mut error_count = 0;
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
        if rng.bool() && noise.len() > 12 {
            // With a head that could be and a checksum that holds, so that the payload is looked
            // at.
            let payload_len = u32::try_from(noise.len() - 12).expect("short");
            noise[..4].copy_from_slice(&payload_len.to_le_bytes());
            noise[4..8].copy_from_slice(&[rng.u8(..13), 0, 0, 0]);
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&noise[..8]), &noise[12..]);
            noise[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
        error_count += usize::from(read(&[&noise]).1);
    }
    assert!(error_count > 10_000, "{error_count}");
    let announced = [0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0, 0, 0, 0];
    assert!(
        read(&[&announced]).1,
        "an impossible length is not waited for"
    );
}

#[test]
fn tokens_are_not_shown() {
    assert!(
        !format!("{:?}", frames()[0]).contains("secret")
            && !format!("{:?}", frames()[0]).contains("115, 101")
    );
}
