//! Finds the body of a fuzz target by its name. The bodies and seeds stand beside the code they try (`*/src/fuzzing.rs`).

use std::path::Path;

type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The body named `name`. Its seeds are put into its corpus first, which libFuzzer reads afterwards.
///
/// # Panics
/// When there is no such target, or the corpus cannot be written.
#[must_use]
pub fn begin(name: &str) -> fn(&[u8]) {
    let targets: Vec<Target> = flowtrail_ingest::fuzzing::TARGETS
        .into_iter()
        .chain(flowtrail_enrich::fuzzing::TARGETS)
        .chain(flowtrail_detect::fuzzing::TARGETS)
        .chain(flowtrail_sink::fuzzing::TARGETS)
        .collect();
    let (_, body, seeds) = targets.into_iter().find(|target| target.0 == name).expect("a target of this name");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    std::fs::create_dir_all(&corpus).expect("a corpus");
    for (n, seed) in seeds().into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{n}")), seed).expect("a seed");
    }
    body
}

/// A fuzz target that runs the body of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static BODY: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
        libfuzzer_sys::fuzz_target!(
            init: {
                BODY.get_or_init(|| $crate::begin($name));
            },
            |data: &[u8]| {
                if let Some(body) = BODY.get() {
                    body(data);
                }
            }
        );
    };
}
