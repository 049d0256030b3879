//! Gzip under fuzzing: libdeflate, member by member, against flate2's reader of many members.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};

use super::{Inflated, Inflater, Limits};

/// Members made from the input, damaged as it says, and the input itself as it is.
pub(crate) fn members(data: &[u8]) {
    same_as_flate2(data);
    let [choices, content @ ..] = data else { return };
    let mut raw = Vec::new();
    let mut rest = content;
    for n in 0..1 + (choices & 3) {
        let (member, after) = rest.split_at(rest.len() / usize::from(4 - n).max(1));
        raw.extend(gzip(&member.repeat(if choices & 0x80 == 0 || content.len() > 2000 { 1 } else { 300 })));
        rest = after;
    }
    let at = content.iter().fold(usize::from(*choices), |sum, byte| sum * 31 % 65_521 + usize::from(*byte)) % raw.len();
    match choices >> 2 & 7 {
        0 | 1 => {}
        2 => raw.truncate(at),
        3 => raw[at] ^= 1 << (choices & 7),
        4 => raw.extend_from_slice(content),
        5 => raw.resize(raw.len() + 100, 0),
        6 => drop(raw.drain(at..(at + 4).min(raw.len()))),
        _ => raw[at] = choices.wrapping_mul(97),
    }
    same_as_flate2(&raw);
}

fn same_as_flate2(raw: &[u8]) {
    let limits = Limits { whole: 1 << 18, total: 1 << 18 };
    let mut inflater = Inflater::default();
    let mut content = b"left over".to_vec();
    let whole = inflater.inflate(raw, &mut content, limits);
    let mut streamed = Vec::new();
    let stream = inflater.stream(raw, limits, &mut |piece| streamed.extend_from_slice(piece));
    // libdeflate takes codes that zlib refuses (incomplete ones), if length and checksum of the member are right. So reading
    // as a stream may stop before reading whole does, and nothing else.
    let early = stream.as_ref().is_ok_and(|s| s.broken.is_some());
    let Ok(done) = whole else {
        // Both refuse what is too large.
        return assert!(stream.is_err() || early, "{whole:?} whole, {stream:?} streamed");
    };
    let mut plain = Vec::new();
    let members = raw.len() - done.trailing;
    let result = flate2::bufread::MultiGzDecoder::new(&raw[..members]).read_to_end(&mut plain);
    if stream.as_ref() != Ok(&done) {
        assert!(early && content.starts_with(&streamed), "{done:?} whole, {stream:?} streamed");
        return assert!(result.is_err() && (content.starts_with(&plain) || plain.starts_with(&content)), "{done:?}, {result:?}");
    }
    assert!(content == streamed, "{} bytes whole, {} streamed", content.len(), streamed.len());
    if done.members == 0 && done.broken.is_none() {
        assert!(content.is_empty() && !super::is_gzip(raw));
    } else if done.broken.is_none() {
        assert!(result.is_ok() && plain == content, "{result:?}, {} and {} bytes", content.len(), plain.len());
    } else {
        // Where a stream breaks it depends on the buffer how much of the last block comes out.
        assert!(result.is_err() && (plain.starts_with(&content) || content.starts_with(&plain)), "{result:?}");
    }
    assert!(content.starts_with(&inflater.head(raw, 100)) || early);
    let Inflated { members, trailing, .. } = done;
    assert!(members as usize * 18 + trailing <= raw.len() || members == 0);
}

/// One member.
pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn member_seeds() -> Vec<Vec<u8>> {
    let text = b"version account-id\n2 123456789012 eni-0a 10.0.0.1 10.0.0.2 443 40000 6 1 40 1700000000 1700000060 ACCEPT OK\n";
    let mut seeds: Vec<Vec<u8>> =
        (0..=255u8).step_by(5).map(|choices| [&[choices], &text[..usize::from(choices) % text.len()]].concat()).collect();
    let mut named = flate2::GzBuilder::new().filename("a.log").comment("c").extra([1, 2, 3]).write(Vec::new(), flate2::Compression::best());
    named.write_all(text).unwrap();
    let named = named.finish().unwrap();
    seeds.extend([gzip(text), [gzip(text), gzip(b""), named.clone()].concat(), named, [gzip(b"a"), b"\x1f\x8b".to_vec()].concat()]);
    seeds
}
