//! JSON and form bodies: cut at every byte, against `serde_json` as an oracle, and a table of what
//! is refused and how.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::api::body::form_body::FormBody;
use crate::api::body::json_body::JsonBody;
use crate::api::body::json_plain::plain_fields;
use crate::api::body::kv_fields::{AllowedFields, KvLimits, KvParts};
use crate::http::Refusal;

const LIMITS: KvLimits = KvLimits {
    key_bytes: 20,
    value_bytes: 30,
};
const WIDE: KvLimits = KvLimits {
    key_bytes: 4096,
    value_bytes: 1 << 20,
};

fn decode_json(
    pieces: &[&[u8]],
    limits: KvLimits,
    allowed: AllowedFields,
) -> Result<KvParts, Refusal> {
    let mut body = JsonBody::new(limits, allowed);
    for piece in pieces {
        body.push(piece)?;
    }
    let mut fields = body.end()?;
    while !fields.step()? {}
    fields.into_parts()
}

fn decode_form(pieces: &[&[u8]], limits: KvLimits) -> Result<KvParts, Refusal> {
    let mut body = FormBody::new(limits, AllowedFields::KeyAndValue);
    for piece in pieces {
        body.push(piece)?;
    }
    let mut fields = body.end()?;
    while !fields.step()? {}
    fields.into_parts()
}

fn parts(key: Option<&str>, value: Option<&str>) -> KvParts {
    let bytes = |text: &str| text.as_bytes().to_vec();
    KvParts {
        key: key.map(bytes),
        value: value.map(bytes),
        ..KvParts::default()
    }
}

fn with_ttl(ttl_ms: u64, parts: KvParts) -> KvParts {
    KvParts {
        ttl_ms: Some(ttl_ms),
        ..parts
    }
}

/// What clients send most is plain, and what is not plainly right is left to the decoder.
#[test]
fn plain_bodies() {
    let with = |key, value| Some((key, value));
    for (text, expected) in [
        (r#"{"key":"k","value":"v"}"#, with("k", Some("v"))),
        (r#"{"value": "", "key": "é"}"#, with("é", Some(""))),
        (" \t\r\n{ \"key\" : \"k\" } \n", with("k", None)),
        (r#"{"value":"v"}"#, None),
        (r#"{"key":"k","key":"k"}"#, None),
        (r#"{"key":"k","ttl":"5"}"#, None),
        (r#"{"key":"a\n"}"#, None),
        (r#"{"key":"k"}}"#, None),
        (r#"{"key":"k","#, None),
        (r#"{"key":"k",}"#, None),
        ("{\"key\":\"a\u{1}\"}", None),
    ] {
        let expected = expected
            .map(|(key, value): (&str, Option<&str>)| (key.as_bytes(), value.map(str::as_bytes)));
        assert_eq!(plain_fields(text.as_bytes()), expected, "{text}");
    }
    assert_eq!(plain_fields(b"{\"key\":\"\xff\"}"), None);
}

/// Accepted bodies, whole and cut at every byte.
#[test]
fn accepted_whatever_the_cut() {
    for (text, expected) in [
        (r#"{"key":"k","value":"v"}"#, parts(Some("k"), Some("v"))),
        (
            " \t\r\n{ \"value\" : \"\" ,\n\"key\":\"k\" } \n",
            parts(Some("k"), Some("")),
        ),
        (
            r#"{"key":"\u00e9\ud83d\ude00é😀\"\\\/\b\f\n\r\t"}"#,
            parts(Some("é😀é😀\"\\/\u{8}\u{c}\n\r\t"), None),
        ),
        (r#"{"k\u0065y":"k"}"#, parts(Some("k"), None)),
        (
            r#"{"key":"k","value":"aGVsbG8=","encoding":"base64"}"#,
            parts(Some("k"), Some("hello")),
        ),
        (
            r#"{"key":"k","encoding":"base64","value":"aGVsbG8"}"#,
            parts(Some("k"), Some("hello")),
        ),
        (
            r#"{"key":"k","encoding":"utf-8","value":"aGVsbG8"}"#,
            parts(Some("k"), Some("aGVsbG8")),
        ),
        ("{}", parts(None, None)),
        (
            r#"{"key":"k","ttl":2.5,"value":"v"}"#,
            with_ttl(2_500, parts(Some("k"), Some("v"))),
        ),
        (
            r#"{"ttl":1E+2 ,"key":"k"}"#,
            with_ttl(100_000, parts(Some("k"), None)),
        ),
        (
            r#"{"key":"k","ttl":60}"#,
            with_ttl(60_000, parts(Some("k"), None)),
        ),
        (
            r#"{"key":"k","ttl":"60"}"#,
            with_ttl(60_000, parts(Some("k"), None)),
        ),
    ] {
        let bytes = text.as_bytes();
        assert_eq!(
            decode_json(&[bytes], LIMITS, AllowedFields::KeyAndValue),
            Ok(expected.clone()),
            "{text}"
        );
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let found = decode_json(&[head, tail], LIMITS, AllowedFields::KeyAndValue);
            assert_eq!(found, Ok(expected.clone()), "{text} cut at {cut}");
        }
    }
}

#[test]
fn refused_with_status_and_code() {
    let long_key = format!(r#"{{"key":"{}"}}"#, "k".repeat(21));
    let long_value = format!(r#"{{"key":"k","value":"{}"}}"#, "v".repeat(31));
    let far_too_long_value = format!(r#"{{"key":"k","value":"{}"#, "v".repeat(100));
    for (text, status, code) in [
        ("", 400, "bad_json"),
        ("{", 400, "bad_json"),
        ("[]", 400, "bad_json"),
        (r#"{"key":"k""#, 400, "bad_json"),
        (r#"{"key":"k"}}"#, 400, "bad_json"),
        (r#"{"key":"k",}"#, 400, "bad_json"),
        (r#"{,"key":"k"}"#, 400, "bad_json"),
        (r#"{"key" "k"}"#, 400, "bad_json"),
        (r"{'key':'k'}", 400, "bad_json"),
        ("{\"key\":\"a\u{1}b\"}", 400, "bad_json"),
        (r#"{"key":"\x"}"#, 400, "bad_json"),
        (r#"{"key":"\u12g4"}"#, 400, "bad_json"),
        (r#"{"key":"\ud800"}"#, 400, "bad_json"),
        (r#"{"key":"\ud800x"}"#, 400, "bad_json"),
        (r#"{"key":"\ud800\n"}"#, 400, "bad_json"),
        (r#"{"key":"\ud800\ud800"}"#, 400, "bad_json"),
        (r#"{"key":"\udc00"}"#, 400, "bad_json"),
        (r#"{"key":5}"#, 400, "bad_request"),
        (r#"{"key":null}"#, 400, "bad_request"),
        (r#"{"key":"k","value":{"a":1}}"#, 400, "bad_request"),
        (r#"{"key":"k","key":"k"}"#, 400, "bad_request"),
        (r#"{"key":"k","vaule":"v"}"#, 400, "bad_request"),
        (r#"{"key":"k","ttl":5x}"#, 400, "bad_json"),
        (r#"{"key":"k","ttl":true}"#, 400, "bad_json"),
        (r#"{"key":"k","ttl":-5}"#, 400, "bad_ttl"),
        (r#"{"key":"k","ttl":1-5}"#, 400, "bad_ttl"),
        (r#"{"key":"k","ttl":5,"ttl":5}"#, 400, "bad_request"),
        (
            r#"{"key":"k","ttl":99999999999999999999999999999999999}"#,
            400,
            "bad_ttl",
        ),
        (
            r#"{"key":"k","value":"v","encoding":"hex"}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"key":"k","value":"a=b=","encoding":"base64"}"#,
            400,
            "bad_base64",
        ),
        (
            r#"{"key":"k","value":"!","encoding":"base64"}"#,
            400,
            "bad_base64",
        ),
        (r#"{"key":""}"#, 400, "key_empty"),
        (&long_key, 414, "key_too_long"),
        (&long_value, 413, "value_too_large"),
        (&far_too_long_value, 413, "value_too_large"),
    ] {
        let found =
            decode_json(&[text.as_bytes()], LIMITS, AllowedFields::KeyAndValue).expect_err(text);
        assert_eq!(
            (found.status, found.code),
            (status, code),
            "{text}: {}",
            found.message
        );
    }
    let not_utf8 =
        decode_json(&[b"{\"key\":\"\xff\"}"], LIMITS, AllowedFields::Key).expect_err("not UTF-8");
    assert_eq!(not_utf8.code, "bad_json");
    let cut_character = decode_json(&[b"{\"key\":\"\xc3\"}"], LIMITS, AllowedFields::Key)
        .expect_err("half a character");
    assert_eq!(cut_character.code, "bad_json");
    let ttl_of_get = decode_json(&[br#"{"key":"k","ttl":5}"#], LIMITS, AllowedFields::Key)
        .expect_err("nothing to expire");
    assert!(
        ttl_of_get.message.contains("\"ttl\": known are \"key\""),
        "{}",
        ttl_of_get.message
    );
}

/// The value in a message that names a key: read past, whatever its length, and nothing of it kept.
#[test]
fn where_only_the_key_counts_a_value_is_read_past() {
    let long = "v".repeat(1000);
    let texts = [
        r#"{"key":"k","value":""}"#.to_owned(),
        r#"{"value":"","key":"k"}"#.to_owned(),
        r#"{"key":"k","value":"\u00e9 \"v\""}"#.to_owned(),
        format!(r#"{{"value":"{long}","key":"k"}}"#),
    ];
    for text in &texts {
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let found = decode_json(&[head, tail], LIMITS, AllowedFields::Key);
            assert_eq!(found, Ok(parts(Some("k"), None)), "{text} cut at {cut}");
        }
    }
    for text in [
        r#"{"key":"k","value":"","value":""}"#,
        r#"{"key":"k","value":"\x"}"#,
        r#"{"key":"k","value":""#,
        r#"{"value":""} "#,
    ] {
        let found = decode_json(&[text.as_bytes()], LIMITS, AllowedFields::Key);
        assert_ne!(found, Ok(parts(Some("k"), None)), "{text}");
    }
}

#[test]
fn the_longest_value_is_accepted_as_text_and_as_base64() {
    let text = "v".repeat(30);
    let body = format!(r#"{{"key":"k","value":"{text}"}}"#);
    assert_eq!(
        decode_json(&[body.as_bytes()], LIMITS, AllowedFields::KeyAndValue),
        Ok(parts(Some("k"), Some(&text)))
    );
    let body = format!(
        r#"{{"key":"k","value":"{}","encoding":"base64"}}"#,
        "dnZ2".repeat(10)
    );
    assert_eq!(
        decode_json(&[body.as_bytes()], LIMITS, AllowedFields::KeyAndValue),
        Ok(parts(Some("k"), Some(&text)))
    );
    let body = format!(
        r#"{{"key":"k","value":"{}dg","encoding":"base64"}}"#,
        "dnZ2".repeat(10)
    );
    let refused = decode_json(&[body.as_bytes()], LIMITS, AllowedFields::KeyAndValue)
        .expect_err("one byte more");
    assert_eq!(refused.status, 413);
}

/// Base64 that takes several steps: padding is for the end only.
#[test]
fn long_base64_is_decoded_in_steps() {
    let body = format!(
        r#"{{"key":"k","value":"{}","encoding":"base64"}}"#,
        "dnZ2".repeat(100_000)
    );
    let mut decoder = JsonBody::new(WIDE, AllowedFields::KeyAndValue);
    decoder.push(body.as_bytes()).expect("JSON");
    let mut fields = decoder.end().expect("whole");
    let mut step_count = 1;
    while !fields.step().expect("base64") {
        step_count += 1;
    }
    assert!(step_count > 5, "{step_count} steps");
    assert_eq!(
        fields.into_parts().expect("parts").value,
        Some(vec![b'v'; 300_000])
    );
    let padded_inside = format!("{}dg=={}", "dnZ2".repeat(64 * 1024 / 4 - 1), "dnZ2");
    let body = format!(r#"{{"key":"k","value":"{padded_inside}","encoding":"base64"}}"#);
    assert!(decode_json(&[body.as_bytes()], WIDE, AllowedFields::KeyAndValue).is_err());
}

/// Random documents, most of them damaged: what we accept, `serde_json` accepts with the same
/// strings; what it accepts as a flat object of known strings, we accept. What is read as plain is
/// read alike.
#[test]
fn agrees_with_serde_json() {
    let seed = 7;
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut accepted_count, mut plain_count) = (0, 0);
    for round in 0..60_000 {
        let mut text = random_document(&mut rng);
        for _ in 0..rng.usize(..3) {
            let at = rng.usize(..text.len());
            match rng.u8(..3) {
                0 => text[at] = rng.u8(..),
                1 => drop(text.remove(at)),
                _ => text.insert(at, b"{}\",:\\u0 \n"[rng.usize(..10)]),
            }
        }
        let cut = rng.usize(..=text.len());
        let (head, tail) = text.split_at(cut);
        let ours = decode_json(&[head, tail], WIDE, AllowedFields::KeyAndValue);
        let theirs = serde_json::from_slice::<BTreeMap<String, String>>(&text);
        let shown = String::from_utf8_lossy(&text);
        if let Some((key, value)) = plain_fields(&text).filter(|(key, _)| !key.is_empty()) {
            plain_count += 1;
            let found = ours
                .as_ref()
                .map(|parts| (parts.key.as_deref(), parts.value.as_deref()));
            assert_eq!(
                found,
                Ok((Some(key), value)),
                "seed {seed}, round {round}: {shown}"
            );
        }
        match (ours, theirs) {
            (Ok(KvParts { key, value, .. }), Ok(map)) => {
                accepted_count += 1;
                assert_eq!(
                    key.as_deref(),
                    map.get("key").map(String::as_bytes),
                    "seed {seed}, round {round}: {shown}"
                );
                assert_eq!(
                    value.as_deref(),
                    map.get("value").map(String::as_bytes),
                    "seed {seed}, round {round}: {shown}"
                );
            }
            (Ok(_), Err(error)) => {
                panic!("seed {seed}, round {round}: serde_json refuses ({error}): {shown}")
            }
            (Err(refusal), Ok(map)) => {
                // serde_json lets the last of two equal fields win, and knows no fields or limits
                // of ours.
                let is_stricter = map.keys().any(|name| name != "key" && name != "value")
                    || map.get("key").is_some_and(String::is_empty)
                    || refusal.message.contains("twice");
                assert!(
                    is_stricter,
                    "seed {seed}, round {round}: refused with {}: {shown}",
                    refusal.message
                );
            }
            (Err(_), Err(_)) => {}
        }
    }
    assert!(
        accepted_count > 5_000,
        "only {accepted_count} documents were accepted"
    );
    assert!(
        plain_count > 5_000,
        "only {plain_count} documents were plain"
    );
}

fn random_document(rng: &mut fastrand::Rng) -> Vec<u8> {
    let string = |rng: &mut fastrand::Rng| {
        let mut text = String::from('"');
        let kinds = if rng.bool() { 0..6 } else { 3..6 };
        for _ in 0..rng.usize(1..12) {
            match rng.u8(kinds.clone()) {
                0 => text.push_str(["\\n", "\\\"", "\\\\", "\\/", "\\t"][rng.usize(..5)]),
                1 => write!(text, "\\u{:04x}", rng.u16(..)).expect("a string takes everything"),
                2 => text.push_str("\\ud83d\\uDE00"),
                3 => text.push(['é', '中', '😀'][rng.usize(..3)]),
                _ => text.push(char::from(rng.u8(b'a'..=b'z'))),
            }
        }
        text + "\""
    };
    let key = string(rng);
    let value = string(rng);
    format!(" {{\"key\" : {key},\n\"value\":{value}}} ").into_bytes()
}

#[test]
fn forms_whatever_the_cut() {
    for (text, expected) in [
        ("key=k&value=v", Ok(parts(Some("k"), Some("v")))),
        (
            "value=dark+blue%26%3D%2B&key=%6b",
            Ok(parts(Some("k"), Some("dark blue&=+"))),
        ),
        ("key=k&value=a=b", Ok(parts(Some("k"), Some("a=b")))),
        ("&&key=k&&", Ok(parts(Some("k"), None))),
        ("k%65y=k&value", Ok(parts(Some("k"), Some("")))),
        (
            "value=aGVsbG8%3D&encoding=base64&key=k",
            Ok(parts(Some("k"), Some("hello"))),
        ),
        (
            "key=k&value=v&ttl=0.5",
            Ok(with_ttl(500, parts(Some("k"), Some("v")))),
        ),
        ("key=k&ttl=soon", Err("bad_ttl")),
        ("key=a&key=b", Err("bad_request")),
        ("colour=red", Err("bad_request")),
        ("key=%4", Err("bad_form")),
        ("key=%zz", Err("bad_form")),
        ("key=%4&value=1", Err("bad_form")),
        ("key=", Err("key_empty")),
        ("key=kkkkkkkkkkkkkkkkkkkkk", Err("key_too_long")),
        (
            "a-very-long-field-name-that-nobody-ever-would-send=1",
            Err("bad_form"),
        ),
    ] {
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let found = decode_form(&[head, tail], LIMITS).map_err(|refusal| refusal.code);
            assert_eq!(found, expected, "{text} cut at {cut}");
        }
    }
}
