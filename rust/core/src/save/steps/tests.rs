//! Losses of power: of the changes since the last [`Step::Sync`], any may have reached the disk.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const FOREIGN_INDEX: &str = "model.safetensors.index.foreign.json";
const WORK: &str = "work";

/// A file: weights of some checkpoint, or an index that names files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum File {
    Weights(String),
    Index(Vec<String>),
}

/// What is on the disk: path within the folder → file.
type World = BTreeMap<String, File>;

/// Weights that a reader finds, `None` where it chooses no checkpoint; an error where a file is
/// missing.
type Seen = Result<Option<BTreeSet<File>>, String>;

fn weights(what: &str, name: &str) -> File {
    File::Weights(format!("{what} {name}"))
}

fn shard_names(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("model-{number}-of-{count}.safetensors")).collect()
}

fn stamp(len: u64) -> Stamp {
    serde_json::from_value(serde_json::json!({"len": len, "seconds": 0, "nanoseconds": 0})).unwrap()
}

/// What there was: perhaps a single file, shards, an index that names these or others.
#[derive(Clone, Debug)]
struct Old {
    single: bool,
    shards: usize,
    index: Option<Vec<String>>,
    foreign_index: Option<Vec<String>>,
}

impl Old {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for single in [false, true] {
            for shards in 0..4 {
                let single_name = || SINGLE.to_owned();
                let indexes = [
                    None,
                    (shards > 0).then(|| shard_names(shards)),
                    single.then(|| vec![single_name()]),
                    (single && shards > 0)
                        .then(|| [vec![single_name()], shard_names(shards)].concat()),
                    Some(["kept/a", "kept/b"].map(str::to_owned).to_vec()),
                ];
                let foreign = indexes[..4].to_vec();
                all.extend(indexes.into_iter().flat_map(|index| {
                    let with = |foreign_index: &Option<Vec<String>>| {
                        let (index, foreign_index) = (index.clone(), foreign_index.clone());
                        Self { single, shards, index, foreign_index }
                    };
                    foreign.iter().map(with).collect::<Vec<_>>()
                }));
            }
        }
        all
    }

    fn existing(&self) -> Existing {
        let is_kept = |names: &Vec<String>| names[0].starts_with("kept/");
        Existing {
            single: self.single.then(|| stamp(1)),
            shards: shard_names(self.shards).into_iter().zip((2..).map(stamp)).collect(),
            index: self.index.as_ref().map(|_| stamp(100)),
            foreign_index: self
                .foreign_index
                .as_ref()
                .map(|_| (FOREIGN_INDEX.to_owned(), stamp(101))),
            index_names_single: [&self.index, &self.foreign_index]
                .into_iter()
                .flatten()
                .flatten()
                .any(|name| name == SINGLE),
            work_folders: self
                .index
                .iter()
                .filter(|names| is_kept(names))
                .map(|_| "kept".into())
                .collect(),
        }
    }

    fn world(&self) -> World {
        let single = self.single.then(|| SINGLE.to_owned());
        let in_index = self.index.iter().flatten().cloned();
        let names = shard_names(self.shards).into_iter().chain(single).chain(in_index);
        let files = names.map(|name| (name.clone(), weights("old", &name)));
        let index = |(name, files): (&str, &Option<Vec<String>>)| {
            Some((name.to_owned(), File::Index(files.clone()?)))
        };
        let indexes = [(INDEX, &self.index), (FOREIGN_INDEX, &self.foreign_index)];
        files.chain(indexes.into_iter().filter_map(index)).collect()
    }
}

/// Puts the new files into the work folder.
fn stage(world: &mut World, names: &[String]) {
    let within = |name: &String| format!("{WORK}/{name}");
    world.extend(names.iter().map(|name| (within(name), weights("new", name))));
    let interim = File::Index(names.iter().map(within).collect());
    world.insert(format!("{WORK}/{INTERIM_INDEX}"), interim);
    world.insert(format!("{WORK}/{LAST_INDEX}"), File::Index(names.to_vec()));
}

fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Move { from, to } => {
            if let Some(file) = world.remove(&format!("{WORK}/{from}")) {
                world.insert(to.clone(), file);
            }
        }
        Step::Link { name, .. } => {
            let file = world[&format!("{WORK}/{name}")].clone();
            world.insert(name.clone(), file);
        }
        Step::Remove { name, .. } | Step::RemoveIndex { name, .. } => {
            world.remove(name);
        }
        Step::RemoveFolder { name } => {
            world.retain(|path, _| !path.starts_with(&format!("{name}/")));
        }
        Step::Sync => {}
    }
}

/// What transformers, the hub and windlass find.
fn all_see(world: &World) -> [Seen; 3] {
    let single = || Ok(world.get(SINGLE).cloned().map(|file| BTreeSet::from([file])));
    let indexed = || follow(world, INDEX);
    let is_weights = |path: &&String| !path.contains('/') && path.ends_with(".safetensors");
    let candidates: Vec<_> = world.keys().filter(is_weights).collect();
    let only = || match candidates[..] {
        [only] => Ok(Some(BTreeSet::from([world[only].clone()]))),
        _ => Ok(None),
    };
    let (has_single, has_index) = (world.contains_key(SINGLE), world.contains_key(INDEX));
    let by_any_index =
        |index| if world.contains_key(index) { follow(world, index) } else { single() };
    [
        if has_single { single() } else { indexed() },
        if has_index { indexed() } else { only() },
        by_any_index(if has_index { INDEX } else { FOREIGN_INDEX }),
    ]
}

/// What transformers finds when it is asked for the variant.
fn foreign_sees(world: &World) -> Seen {
    match world.get(SINGLE) {
        Some(file) => Ok(Some(BTreeSet::from([file.clone()]))),
        None => follow(world, FOREIGN_INDEX),
    }
}

/// The files that an index names.
fn follow(world: &World, index: &str) -> Seen {
    let Some(File::Index(names)) = world.get(index) else {
        return Ok(None);
    };
    let file = |name: &String| world.get(name).cloned().ok_or_else(|| name.clone());
    names.iter().map(file).collect::<Result<_, _>>().map(Some)
}

/// Every state that a loss of power can leave after some of the steps have been begun.
fn states_after_power_loss(start: &World, steps: &[Step]) -> Vec<World> {
    let mut states = Vec::new();
    let mut synced = start.clone();
    for stage in steps.split(|step| *step == Step::Sync) {
        for chosen in 0..1_u32 << stage.len() {
            let mut state = synced.clone();
            let reached = stage.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
            for (_, step) in reached {
                apply(&mut state, step);
            }
            states.push(state);
        }
        for step in stage {
            apply(&mut synced, step);
        }
    }
    states
}

#[test]
fn after_a_loss_of_power_readers_find_the_old_or_the_new_checkpoint_and_recovery_the_new_one() {
    for old in Old::all() {
        for (count, links) in [(1, true), (1, false), (2, true), (2, false), (3, true), (3, false)]
        {
            let files = if count == 1 { vec![SINGLE.to_owned()] } else { shard_names(count) };
            let new = New { single: SINGLE, index: INDEX, files: &files };
            let plan = plan(&new, &old.existing(), Some(stamp(99)), links);
            let mut start = old.world();
            let (before, foreign_before) = (all_see(&start), foreign_sees(&start));
            stage(&mut start, &files);
            let wanted: Seen = Ok(Some(files.iter().map(|name| weights("new", name)).collect()));
            let states = states_after_power_loss(&start, &plan.steps);
            for mut state in states {
                let label = format!("{old:?}, {count}, {links}: {state:?}");
                for (now, before) in all_see(&state).iter().zip(&before) {
                    assert!(now == before || *now == wanted, "{now:?}, {label}");
                }
                let foreign = foreign_sees(&state);
                assert!(
                    foreign == foreign_before || foreign == wanted || foreign == Ok(None),
                    "{foreign:?}, {label}"
                );
                if all_see(&state) != before {
                    for step in &plan.steps {
                        apply(&mut state, step);
                    }
                    assert_eq!(all_see(&state), [(); 3].map(|()| wanted.clone()), "{label}");
                    assert!(!state.contains_key(FOREIGN_INDEX), "{label}");
                }
            }
        }
    }
}
