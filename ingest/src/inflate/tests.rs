use std::io::Write;

use proptest::prelude::*;

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn inflate(raw: &[u8], limits: Limits) -> Result<(Inflated, Vec<u8>), InflateError> {
    let mut out = b"left over".to_vec();
    Inflater::default().inflate(raw, &mut out, limits).map(|done| (done, out))
}

fn streamed(raw: &[u8], limits: Limits) -> Result<(Inflated, Vec<u8>, usize), InflateError> {
    let (mut out, mut pieces) = (Vec::new(), 0);
    let done = Inflater::default().stream(raw, limits, &mut |piece| {
        out.extend_from_slice(piece);
        pieces += 1;
    })?;
    Ok((done, out, pieces))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn all_members_are_read(members in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6), padding in 0usize..600) {
        let mut raw: Vec<u8> = members.iter().flat_map(|m| gzip(m)).collect();
        raw.resize(raw.len() + padding, 0);
        let wanted = Inflated { members: members.len() as u32, broken: None, trailing: padding };
        let (done, out) = inflate(&raw, Limits::default()).unwrap();
        prop_assert_eq!((&done, &out), (&wanted, &members.concat()));
        let (done, out, _) = streamed(&raw, Limits::default()).unwrap();
        prop_assert_eq!((&done, &out), (&wanted, &members.concat()));
    }

    #[test]
    fn a_cut_keeps_what_came_before_it(first: Vec<u8>, seed in 1u32.., cut in 0usize..100_000) {
        let mut state = seed;
        let text: Vec<u8> = (0..60_000).map(|_| { state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); b"0123456789abcdef "[(state >> 24) as usize % 17] }).collect();
        let mut raw = gzip(&first);
        raw.extend(gzip(&text));
        let whole = [first.as_slice(), &text].concat();
        raw.truncate(cut % raw.len());
        let (done, out) = inflate(&raw, Limits::default()).unwrap();
        prop_assert!(whole.starts_with(&out));
        prop_assert!(done.broken.is_some() || raw.len() < 2 || out == first);
        // Most of what was there is saved: all but the last block.
        prop_assert!(raw.len() < 30_000 || out.len() > 20_000, "{} of {}", out.len(), raw.len());
    }

    #[test]
    fn any_bytes_are_survived(mut raw: Vec<u8>, content: Vec<u8>, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
        raw.splice(0..0, [0x1f, 0x8b, 8, 0]);
        let _ = inflate(&raw, Limits::default());
        let mut damaged = gzip(&content);
        for (at, byte) in flips {
            let at = usize::from(at) % damaged.len();
            damaged[at] = byte;
        }
        let _ = inflate(&damaged, Limits::default());
        let _ = streamed(&damaged, Limits::default());
    }
}

#[test]
fn what_is_no_gzip_has_no_member() {
    assert_eq!(inflate(b"plain", Limits::default()).unwrap(), (Inflated::default(), Vec::new()));
    let (done, out) = inflate(&[0x1f, 0x8b], Limits::default()).unwrap();
    assert!(done.broken.is_some() && out.is_empty());
    let mut garbage = vec![0x1f, 0x8b, 8, 0];
    garbage.extend((0..20u8).flat_map(|_| 0..=255));
    assert!(inflate(&garbage, Limits::default()).unwrap().0.broken.is_some());
}

#[test]
fn a_wrong_checksum_is_said_and_the_content_kept() {
    let mut raw = gzip(b"content");
    let at = raw.len() - 8;
    raw[at] ^= 1;
    let (done, out) = inflate(&raw, Limits::default()).unwrap();
    assert!(done.broken.is_some());
    assert_eq!(out, b"content");
}

#[test]
fn large_content_is_streamed_in_lines_and_too_large_refused() {
    let text = b"0123456789 line\n".repeat(2_000_000);
    let raw = gzip(&text);
    let small = Limits { whole: 1 << 20, total: 100 << 20 };
    assert_eq!(inflate(&raw, small), Err(InflateError::OverWhole(1 << 20)));
    let (mut pieces, mut all) = (0, Vec::new());
    let done = Inflater::default().stream(&raw, small, &mut |piece| {
        assert!(piece.ends_with(b"\n"));
        pieces += 1;
        all.extend_from_slice(piece);
    });
    assert_eq!(done, Ok(Inflated { members: 1, broken: None, trailing: 0 }));
    assert!(all == text && pieces > 2);
    assert_eq!(Inflater::default().head(&raw, 20), &text[..20]);
    assert_eq!(streamed(&raw, Limits { whole: 1 << 20, total: 2 << 20 }), Err(InflateError::TooLarge(2 << 20)));
    // Many small members, each of them small enough.
    let many = gzip(&text[..16 * 1000]).repeat(200);
    assert_eq!(inflate(&many, small), Err(InflateError::OverWhole(1 << 20)));
    assert_eq!(inflate(&many, Limits::default()).unwrap().0.members, 200);
}

#[test]
fn a_bomb_is_known_before_it_goes_off() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..300 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let mut raw = encoder.finish().unwrap();
    assert!(matches!(inflate(&raw, Limits::default()), Err(InflateError::OverWhole(_))));
    assert!(matches!(streamed(&raw, Limits::default()), Err(InflateError::Bomb { .. })));
    // A length at the end that lies asks for no memory.
    raw.extend(u32::MAX.to_le_bytes());
    assert!(inflate(&raw, Limits::default()).is_err());
}

#[test]
fn a_break_is_placed_in_the_object_and_measured_by_all_of_it() {
    let first = gzip(b"first member\n");
    let mut raw = [first.clone(), gzip(b"second member\n")].concat();
    raw.truncate(raw.len() - 8);
    let (whole, whole_text) = inflate(&raw, Limits::default()).unwrap();
    let (streamed, streamed_text, _) = streamed(&raw, Limits::default()).unwrap();
    assert_eq!((&whole, &whole_text), (&streamed, &streamed_text));
    let said = whole.broken.unwrap();
    let at: usize = said.split(' ').nth(4).and_then(|n| n.parse().ok()).unwrap();
    assert!(at > first.len() && said.contains(&format!("of {}", raw.len())), "{said}");

    // An honest log of 80 MB before a short member that breaks: no bomb, though little of the object is left.
    let mut state = 1u32;
    let mut line = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("2 123456789012 eni-0a 10.0.0.5 10.0.0.6 443 40000 6 1 40 {state} {state} ACCEPT OK\n")
    };
    let text: String = (0..1_000_000).map(|_| line()).collect();
    assert!(text.len() as u64 > RATIO_FROM);
    let mut raw = [gzip(text.as_bytes()), gzip(b"tail\n")].concat();
    raw.truncate(raw.len() - 8);
    let (done, out) = inflate(&raw, Limits::default()).unwrap();
    assert!(done.broken.is_some() && out.len() >= text.len());
}
