//! What ordinary tests do with the body of a fuzz target: the seeds as they are, then seeds damaged in a fixed way. It
//! needs no nightly compiler and finds less than `fuzz/run`. Included by the crates' `fuzzing` modules.

#[test]
fn bodies_hold_on_damaged_seeds() {
    super::TARGETS.into_iter().for_each(|target| batter(target, super::ROUNDS));
}

/// Runs a body on its seeds and on `rounds` damaged ones; says which input it was when the body panics.
fn batter((name, body, seeds): super::Target, rounds: usize) {
    let seeds = seeds();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let run = |input: &[u8]| {
        let told = Told { name, input };
        body(input);
        std::mem::forget(told);
    };
    seeds.iter().for_each(|seed| run(seed));
    let mut random = Random(0x5eed);
    for _ in 0..rounds {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            random.damage(&mut input, &seeds);
        }
        run(&input);
    }
}

/// Printed when dropped, which only a panic of the body does.
struct Told<'a> {
    name: &'static str,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{} stopped at {} bytes: {}", self.name, self.input.len(), self.input.escape_ascii());
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn damage(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        const ODD: &[u8] = b"\"\\{}[],:0 9\n\r-.\x00\x01\x7f\x80\xff";
        let at = self.below(input.len());
        let end = (at + 1 + self.below(24)).min(input.len());
        match self.below(7) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => input.splice(end..end, input[at..end].to_vec()).for_each(drop),
            3 => input.insert(at, ODD[self.below(ODD.len())]),
            4 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                let to = (from + self.below(200)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied()).for_each(drop);
            }
            n => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = if n == 5 { ODD[self.below(ODD.len())] } else { *byte ^ 1 << self.below(8) };
                }
            }
        }
    }
}
