//! 20,000 mutated headers, the same in every run: our parser and the reference parser agree.

mod reference;

use windlass_core::Dtype;

const CASES: u64 = 20_000;

#[test]
fn mutated_headers_are_accepted_or_refused_as_by_the_reference() {
    let accepted = (0..CASES).filter(|&seed| reference::agreed(&mutated_file(Rng(seed)))).count();
    // Both outcomes must be common, or the mutations test nothing.
    assert!((4_000..16_000).contains(&accepted), "{accepted} of {CASES} were accepted");
}

#[test]
fn the_dtype_table_has_the_references_names_in_its_order() {
    let unknown = file(r#"{"w":{"dtype":"?","shape":[],"data_offsets":[0,0]}}"#, 0);
    let names: Vec<String> = Dtype::ALL.iter().map(|dtype| format!("`{dtype}`")).collect();
    let message = reference::theirs(&unknown).unwrap_err();
    let expected = format!("unknown variant `?`, expected one of {}", names.join(", "));
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn every_dtype_has_the_references_size() {
    for dtype in Dtype::ALL {
        for elements in 0..=8 {
            let bytes = elements * dtype.bits() / 8;
            let header = entry("\"w\"", dtype.name(), &[elements], 0, bytes);
            assert_eq!(
                reference::agreed(&file(format!("{{{}}}", text(&header)), bytes)),
                (elements * dtype.bits()).is_multiple_of(8),
                "{dtype} [{elements}]"
            );
        }
    }
}

/// splitmix64: a few lines that give the same numbers everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn byte(&mut self, choices: &[u8]) -> u8 {
        choices[self.below(choices.len())]
    }

    fn word(&mut self, choices: &str) -> String {
        let words: Vec<&str> = choices.split_whitespace().collect();
        words[self.below(words.len())].to_owned()
    }
}

/// JSON as text in pieces, so that a piece can be replaced by anything.
#[derive(Clone)]
enum Json {
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

fn text((key, value): &(String, Json)) -> String {
    format!("{key}:{}", value.write())
}

impl Json {
    fn write(&self) -> String {
        match self {
            Json::Text(text) => text.clone(),
            Json::List(items) => {
                format!("[{}]", items.iter().map(Json::write).collect::<Vec<_>>().join(","))
            }
            Json::Map(entries) => {
                format!("{{{}}}", entries.iter().map(text).collect::<Vec<_>>().join(","))
            }
        }
    }

    fn numbers(numbers: &[u64]) -> Self {
        Json::List(numbers.iter().map(|number| Json::Text(number.to_string())).collect())
    }

    fn map<const N: usize>(entries: [(&str, Json); N]) -> Self {
        Json::Map(entries.map(|(key, value)| (format!("\"{key}\""), value)).to_vec())
    }

    /// A node below this one, or this one.
    fn random_node(&mut self, rng: &mut Rng) -> &mut Json {
        let count = match self {
            Json::Text(_) => 0,
            Json::List(items) => items.len(),
            Json::Map(entries) => entries.len(),
        };
        if count == 0 || rng.below(4) == 0 {
            return self;
        }
        let i = rng.below(count);
        match self {
            Json::List(items) => items[i].random_node(rng),
            Json::Map(entries) => entries[i].1.random_node(rng),
            Json::Text(_) => unreachable!("a text has no nodes below"),
        }
    }
}

fn entry(key: &str, dtype: &str, shape: &[u64], start: u64, end: u64) -> (String, Json) {
    let fields = [
        ("dtype", Json::Text(format!("\"{dtype}\""))),
        ("shape", Json::numbers(shape)),
        ("data_offsets", Json::numbers(&[start, end])),
    ];
    (key.to_owned(), Json::map(fields))
}

/// A valid header of a few tensors, and the length of its data.
fn valid_header(rng: &mut Rng) -> (Json, u64) {
    let mut entries = Vec::new();
    let mut end = 0;
    for key in &KEYS[..rng.below(KEYS.len() + 1)] {
        let dtype = Dtype::ALL[rng.below(Dtype::ALL.len())];
        let mut shape: Vec<u64> = (0..rng.below(4)).map(|_| [0, 1, 2, 4][rng.below(4)]).collect();
        if dtype.bits() < 8 {
            shape.push(4); // Four elements of 4 or 6 bits fill whole bytes.
        }
        let start = end;
        end += shape.iter().product::<u64>() * dtype.bits() / 8;
        entries.push(entry(key, dtype.name(), &shape, start, end));
    }
    if rng.below(3) == 0 {
        let metadata = Json::map([("format", Json::Text("\"pt\"".to_owned()))]);
        entries.insert(rng.below(entries.len() + 1), ("\"__metadata__\"".to_owned(), metadata));
    }
    (Json::Map(entries), end)
}

const KEYS: [&str; 4] = [r#""a""#, r#""layers.0.weight""#, r#""""#, r#""é\u0000\"\\\ud83d\ude00""#];

/// Values to stand where another is expected.
const ODD_VALUES: &str = r#"
    0 1 4 8 -1 -0 0.0 4.0 1e3 1E0 01 1e999 -1e999 null true [] {} [0] [0,4] [0,4,8]
    9223372036854775808 18446744073709551607 18446744073709551615 18446744073709551616
    "" "F32" "f32" "pt" "\ud800" "\udc00\ud800" "é" ["U8",[],[0,1]] ["U8",[],[0,1],0]
    {"F32":null} {"F32":{}} {"F32":[]} {"F32":{"F32":null}} {"F32":null,"U8":null} {"":null}
"#;

/// Keys to stand where another is expected, or beside it.
const ODD_KEYS: &str = r#"
    "a" "dtype" "shape" "data_offsets" "__metadata__" "\u005f_metadata__" "extra" "sh\u0061pe"
    "\ud800" 7
"#;

fn mutate(json: &mut Json, rng: &mut Rng) {
    let node = json.random_node(rng);
    match node {
        Json::Text(text) => *text = odd_text(text, rng),
        Json::List(items) => match rng.below(4) {
            0 => items.push(Json::Text(rng.word(ODD_VALUES))),
            1 => drop(items.pop()),
            2 => items.reverse(),
            _ => *node = Json::Text(rng.word(ODD_VALUES)),
        },
        Json::Map(entries) if entries.is_empty() => {
            entries.push((rng.word(ODD_KEYS), odd_value(rng)));
        }
        Json::Map(entries) => mutate_entries(entries, rng).unwrap_or_else(|list| *node = list),
    }
}

/// Changes the entries in place, or answers with what should stand in place of the map.
fn mutate_entries(entries: &mut Vec<(String, Json)>, rng: &mut Rng) -> Result<(), Json> {
    let i = rng.below(entries.len());
    match rng.below(8) {
        0 => {
            let copy = entries[i].clone();
            entries.insert(rng.below(entries.len() + 1), copy);
        }
        1 => drop(entries.remove(i)),
        2 => entries.rotate_left(i),
        3 => entries[i].0 = rng.word(ODD_KEYS),
        4 => entries[i].1 = odd_value(rng),
        5 => return Err(Json::List(entries.iter().map(|(_, value)| value.clone()).collect())),
        _ => entries.insert(i, (rng.word(ODD_KEYS), odd_value(rng))),
    }
    Ok(())
}

/// A digit replaced, or something else altogether.
fn odd_text(text: &str, rng: &mut Rng) -> String {
    match (text.parse::<u64>(), rng.below(4)) {
        (Ok(number), 0) => number.wrapping_add(rng.next() % 9).to_string(),
        (Ok(number), 1) => number.to_string().chars().rev().collect(),
        (Err(_), 0 | 1) => format!("{{{text}:null}}"),
        _ => rng.word(ODD_VALUES),
    }
}

fn odd_value(rng: &mut Rng) -> Json {
    let depth = 120 + rng.below(12);
    Json::Text(match rng.below(6) {
        0 => "[".repeat(depth) + &"]".repeat(depth),
        1 => r#"{"k":"#.repeat(depth) + "1" + &"}".repeat(depth),
        _ => rng.word(ODD_VALUES),
    })
}

/// Damage below the level of JSON; every second header has none.
fn damage(text: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(text.len() + 1);
    match rng.below(16) {
        0 => text.truncate(at),
        1 => text.insert(at, rng.next().to_le_bytes()[0]),
        2 if at < text.len() => text[at] = rng.next().to_le_bytes()[0],
        3 => text.insert(0, rng.byte(b" \n\t\xef[")),
        4 => text.push(rng.byte(b" \n\0}x")),
        5 if at < text.len() => drop(text.remove(at)),
        6 => text.insert(at, b' '),
        7 => text.resize(text.len().next_multiple_of(8), b' '),
        _ => {}
    }
}

fn mutated_file(mut rng: Rng) -> Vec<u8> {
    let (mut json, mut data_len) = valid_header(&mut rng);
    for _ in 0..rng.below(4) {
        mutate(&mut json, &mut rng);
    }
    let mut text = json.write().into_bytes();
    damage(&mut text, &mut rng);
    match rng.below(32) {
        0 => data_len += 1,
        1 => data_len = data_len.saturating_sub(1),
        _ => {}
    }
    let mut bytes = file(&text, data_len);
    match rng.below(32) {
        0 => bytes[rng.below(8)] ^= 1 << rng.below(8),
        1 => bytes.truncate(rng.below(bytes.len())),
        _ => {}
    }
    bytes
}

fn file(text: impl AsRef<[u8]>, data_len: u64) -> Vec<u8> {
    let text = text.as_ref();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len() + usize::try_from(data_len).expect("a small file"), 0);
    bytes
}
