//! [`Family`]: which file names belong to one checkpoint. Pure.
//!
//! A folder can hold several checkpoints: other stems (`adapter_model`), other variants
//! (`model.fp16`), other formats (`pytorch_model`). A save touches its own family only.

use std::fmt::Write as _;

/// What stands between the stem and the token in the name of a work folder.
const WORK_MARK: &str = ".windlass-";

/// Hexadecimal digits of a token.
const TOKEN_LEN: usize = 16;

/// Fewest digits of a shard's number.
const SHARD_DIGITS: usize = 5;

/// Longest name of a file (`NAME_MAX` of Linux and macOS).
pub(super) const MAX_NAME_BYTES: usize = 255;

/// The file names of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// What every weights file begins with: the stem, and the variant if there is one.
    pub prefix: String,
    /// What every weights file ends with.
    pub suffix: String,
    /// Name of the index.
    pub index: String,
    /// Name of an index of the same files that others write and read. A save does not write it: it
    /// removes it before it gives one of these files another content.
    pub foreign_index: Option<String>,
}

impl Family {
    /// Name of the file that holds everything.
    ///
    /// ```
    /// use windlass_core::save::Family;
    /// let family = Family {
    ///     prefix: "model".into(),
    ///     suffix: ".safetensors".into(),
    ///     index: "model.safetensors.index.json".into(),
    ///     foreign_index: None,
    /// };
    /// assert_eq!(family.single(), "model.safetensors");
    /// assert!(family.owns_shard("model-00001-of-00002.safetensors"));
    /// assert!(!family.owns_shard("model.fp16-00001-of-00002.safetensors"));
    /// ```
    #[must_use]
    pub fn single(&self) -> String {
        format!("{}{}", self.prefix, self.suffix)
    }

    /// Whether a file name is that of a shard: `{prefix}-{number}-of-{count}{suffix}`, numbers of
    /// five digits or more.
    #[must_use]
    pub fn owns_shard(&self, name: &str) -> bool {
        let middle = name.strip_prefix(&*self.prefix).and_then(|n| n.strip_suffix(&*self.suffix));
        let numbers = middle.and_then(|m| m.strip_prefix('-')).and_then(|m| m.split_once("-of-"));
        let is_number =
            |text: &str| text.len() >= SHARD_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
        numbers.is_some_and(|(number, count)| is_number(number) && is_number(count))
    }

    /// Name of a folder for the files of one save.
    #[must_use]
    pub fn work_folder(&self, token: u64) -> String {
        marked(&self.prefix, token)
    }
}

/// `{name}.windlass-{token}`: what a save calls what it has not finished. A long name loses its end.
pub(super) fn marked(name: &str, token: u64) -> String {
    let mut marked = name.to_owned();
    while marked.len() > MAX_NAME_BYTES - WORK_MARK.len() - TOKEN_LEN {
        marked.pop();
    }
    marked.push_str(WORK_MARK);
    write!(marked, "{token:0TOKEN_LEN$x}").expect("writing to a String never fails");
    marked
}

/// The name before the mark, if there is one.
pub(super) fn unmarked(name: &str) -> Option<&str> {
    let (before, token) = name.rsplit_once(WORK_MARK)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (token.len() == TOKEN_LEN && token.bytes().all(is_digit)).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family() -> Family {
        let (prefix, suffix) = ("model".to_owned(), ".safetensors".to_owned());
        let index = "model.safetensors.index.json".to_owned();
        Family { prefix, suffix, index, foreign_index: None }
    }

    #[test]
    fn shards_are_told_by_exact_rule() {
        for name in ["model-00001-of-00003.safetensors", "model-100000-of-100001.safetensors"] {
            assert!(family().owns_shard(name), "{name}");
        }
        for name in [
            "model.safetensors",
            "model.fp16-00001-of-00003.safetensors",
            "model_extra-00001-of-00002.safetensors",
            "modelX-12345-of-12345.safetensors",
            "model-00001-of-00003.bin",
            "model-00001-of-00003",
            "model-00001-of-00003.safetensors.bak",
            "model-0001-of-00003.safetensors",
            "model-0000a-of-00003.safetensors",
            "model-00001-of-00003-of-00004.safetensors",
            "pytorch_model-00001-of-00003.safetensors",
        ] {
            assert!(!family().owns_shard(name), "{name}");
        }
    }

    #[test]
    fn work_folders_are_told_by_exact_rule() {
        assert_eq!(unmarked(&family().work_folder(7)), Some("model"));
        let long = marked(&"ä".repeat(120), 7);
        assert_eq!((long.len(), unmarked(&long)), (254, Some(&*"ä".repeat(114))));
        for name in ["model.windlass-", "model.windlass-123", "model.windlass-000000000000000G"] {
            assert_eq!(unmarked(name), None, "{name}");
        }
    }
}
