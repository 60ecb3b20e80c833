//! Whatever the bytes, parsing an index does not panic, and what it accepts is safe and complete.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::path::{Component, Path};
use windlass_core::Index;

fuzz_target!(|text: &[u8]| {
    let Ok(index) = Index::parse(text) else { return };
    for shard in &index.shards {
        assert!(stays_in_folder(shard), "{shard:?}");
    }
    assert!(index.weight_map.values().all(|&shard| shard < index.shards.len()));
    // `Value` looks into `metadata`, which `Index` hands on as text: it may refuse what we accept.
    if let Ok(value) = serde_json::from_slice::<Value>(text) {
        let expected = value["weight_map"].as_object().expect("accepted, so an object");
        assert_eq!(index.weight_map.len(), expected.len());
        for (tensor, &shard) in &index.weight_map {
            assert_eq!(expected[tensor], index.shards[shard].as_str());
        }
    }
});

fn stays_in_folder(shard: &str) -> bool {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    !shard.is_empty()
        && !shard.contains(['\0', '\\'])
        && shard.as_bytes().get(1) != Some(&b':')
        && Path::new(shard).components().all(plain)
}
