//! What can go wrong, with the facts a user needs: what, where, expected, found.
//!
//! [`FormatError`] is about bytes and knows no path; [`enum@Error`] adds the file.

use crate::dtype::Dtype;
use crate::sys::file::FileIdentity;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Result of everything that touches files.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A rule of the safetensors format that a file breaks.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// No bytes at all.
    #[error("the file is empty (0 bytes); an interrupted download or copy leaves such files")]
    Empty,
    /// A git-lfs pointer in place of the weights.
    #[error("this is a git-lfs pointer, not the weights; run `git lfs pull` in its repository")]
    GitLfsPointer,
    /// A file of another kind.
    #[error("this is no safetensors file: it begins as {found} does; {advice}")]
    OtherFormat {
        /// What it seems to be.
        found: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// Not even a header length.
    #[error("expected at least 8 bytes for the header length, found {found}")]
    TooShort {
        /// Size of the file in bytes.
        found: u64,
    },
    /// Header length over the format's limit.
    #[error("header length {found} is over the format's limit of {limit} bytes")]
    HeaderTooLarge {
        /// Length that the file states.
        found: u64,
        /// Largest length allowed.
        limit: u64,
    },
    /// The header runs past the end of the file.
    #[error("the header should end at byte {expected}, the file has {found} bytes")]
    HeaderTruncated {
        /// End of the header.
        expected: u64,
        /// Size of the file.
        found: u64,
    },
    /// Header bytes are not text.
    #[error("the header is not UTF-8 (first bad byte at {offset})")]
    NotUtf8 {
        /// Offset within the header.
        offset: usize,
    },
    /// Header text is not the JSON of the format.
    #[error("the header is not valid: {message}")]
    Json {
        /// The parser's words, with line and column.
        message: String,
    },
    /// Tensors leave a hole or overlap.
    #[error("tensor `{tensor}`: data should start at offset {expected}, header gives {found}")]
    Offset {
        /// Name of the tensor.
        tensor: String,
        /// End of the tensor before it.
        expected: u64,
        /// Start in the header.
        found: u64,
    },
    /// A range that ends before it starts.
    #[error("tensor `{tensor}`: data offsets [{start}, {end}] run backwards")]
    Backwards {
        /// Name of the tensor.
        tensor: String,
        /// Start in the header.
        start: u64,
        /// End in the header.
        end: u64,
    },
    /// Offsets disagree with dtype and shape.
    #[error("tensor `{tensor}`: {dtype} {shape:?} needs {expected} bytes, header gives {found}")]
    Size {
        /// Name of the tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that dtype and shape need.
        expected: u64,
        /// Bytes between the offsets.
        found: u64,
    },
    /// The size of a tensor leaves 64 bits.
    #[error("tensor `{tensor}`: the size of {dtype} {shape:?} overflows 64 bits")]
    Overflow {
        /// Name of the tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A name that may not be written.
    #[error("tensor `{tensor}`: the name {reason}")]
    Name {
        /// The name.
        tensor: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Packed elements that end within a byte.
    #[error("tensor `{tensor}`: {dtype} {shape:?} does not fill whole bytes")]
    PartOfAByte {
        /// Name of the tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Fewer bytes than the header describes.
    #[error("the file is truncated: the header describes {expected} bytes, the file has {found}")]
    Truncated {
        /// Size that the header asks for.
        expected: u64,
        /// Size of the file.
        found: u64,
    },
    /// More bytes than the header describes.
    #[error("bytes after the last tensor: the header describes {expected}, the file has {found}")]
    TrailingBytes {
        /// Size that the header asks for.
        expected: u64,
        /// Size of the file.
        found: u64,
    },
    /// `strict_format`: the header does not begin with `{`.
    #[error("strict_format: the header should begin with `{{`, found {found:?}")]
    StrictStart {
        /// First character of the header.
        found: char,
    },
    /// `strict_format`: a key that stands twice.
    #[error("strict_format: key `{key}` stands twice in the header")]
    StrictDuplicate {
        /// The key.
        key: String,
    },
    /// `strict_format`: a field that the format does not know.
    #[error("strict_format: tensor `{tensor}` has an unknown field `{field}`")]
    StrictUnknownField {
        /// Name of the tensor.
        tensor: String,
        /// The field.
        field: String,
    },
}

/// Why an index file is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexError {
    /// Not JSON, or not of the index's shape.
    #[error("not a checkpoint index: {message}")]
    Json {
        /// The parser's words, with line and column.
        message: String,
    },
    /// A shard name that is no plain path below the folder.
    #[error("tensor `{tensor}`: shard name `{shard}` {reason}")]
    UnsafeShardName {
        /// First tensor that names the shard.
        tensor: String,
        /// The name.
        shard: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The index itself names two shards for one tensor.
    #[error("tensor `{tensor}` is listed twice, in `{first}` and in `{second}`")]
    ListedTwice {
        /// Name of the tensor.
        tensor: String,
        /// Shard of the first entry.
        first: String,
        /// Shard of the second entry.
        second: String,
    },
}

/// Everything that the engine reports.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No file of that name.
    #[error("`{}`: no such file{}", .path.display(), listed_in(.index.as_deref()))]
    NotFound {
        /// The file.
        path: PathBuf,
        /// The index that names it, if one does.
        index: Option<PathBuf>,
        /// The system's error.
        source: io::Error,
    },
    /// The user may not read the file.
    #[error("`{}`: permission denied", .path.display())]
    PermissionDenied {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A folder, FIFO or device. (The system itself refuses to open a socket.)
    #[error("`{}`: expected a regular file, found a {kind}", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Any other error of the system.
    #[error("`{}`{}: {action} failed: {source}", .path.display(), at_tensor(.tensor.as_deref()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The tensor being read, if any.
        tensor: Option<String>,
        /// What was being done.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file breaks the format.
    #[error("`{}`: {source}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: FormatError,
    },
    /// The index file breaks its form.
    #[error("`{}`: {source}", .path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// The rule.
        source: IndexError,
    },
    /// The index lists a tensor that its shard lacks.
    #[error(
        "tensor `{tensor}` is listed in the index as part of `{shard}`, which does not hold it"
    )]
    ListedButAbsent {
        /// Name of the tensor.
        tensor: String,
        /// The shard the index gives.
        shard: String,
    },
    /// Two shards hold a tensor of the same name.
    #[error("tensor `{tensor}` is in two shards, `{first}` and `{second}`")]
    InTwoShards {
        /// Name of the tensor.
        tensor: String,
        /// One shard.
        first: String,
        /// The other.
        second: String,
    },
    /// No tensor of that name.
    #[error("no tensor `{tensor}` in `{}`", .path.display())]
    TensorNotFound {
        /// The name asked for.
        tensor: String,
        /// The checkpoint.
        path: PathBuf,
    },
    /// The file is not the one whose header was read, or its length or time is another.
    #[error("`{}`: the file was replaced or changed, or its time set, since it was opened: expected {expected}, found {found}", .path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
        /// Identity when the header was read.
        expected: String,
        /// Identity now.
        found: String,
    },
    /// Somebody wrote to the file while it was read: what was read may be neither the old bytes nor
    /// the new ones.
    #[error("`{}`: the file was written to, or its time set, while it was read: expected {expected}, found {found}", .path.display())]
    Rewritten {
        /// The file.
        path: PathBuf,
        /// Identity when the header was read.
        expected: FileIdentity,
        /// Identity after the last read.
        found: FileIdentity,
    },
    /// The file ended within a tensor.
    #[error("`{}`: the file shrank while it was read: tensor `{tensor}` should end at byte {expected}, the file has {found}", .path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// The tensor that is cut.
        tensor: String,
        /// End of the tensor within the file.
        expected: u64,
        /// Size of the file now.
        found: u64,
    },
    /// A destination of another size than what goes into it.
    #[error("tensor `{tensor}`: destination should have {expected} bytes, has {found}")]
    DestinationSize {
        /// Name of the tensor.
        tensor: String,
        /// Bytes to be read.
        expected: u64,
        /// Bytes of the destination.
        found: u64,
    },
    /// Part of a tensor that it does not have.
    #[error("tensor `{tensor}`: a cut leaves the shape {shape:?} of {byte_len} bytes")]
    CutOutside {
        /// Name of the tensor.
        tensor: String,
        /// The dimensions that were cut.
        shape: Vec<u64>,
        /// Bytes of the tensor.
        byte_len: u64,
    },
    /// A conversion that there is not.
    #[error("tensor `{tensor}`: {from} cannot be cast to {to} in memory of that kind")]
    NoCast {
        /// Name of the tensor.
        tensor: String,
        /// The dtype of what is read.
        from: Dtype,
        /// The dtype of what is written.
        to: Dtype,
    },
    /// Names, destinations and starts that do not pair up.
    #[error("expected as many destinations (and starts) as names: {names} names, {dests} destinations{}", and_starts(*.starts))]
    UnequalLists {
        /// Number of names.
        names: usize,
        /// Number of destinations.
        dests: usize,
        /// Number of starts, if any were given.
        starts: Option<usize>,
    },
    /// Two destinations in the same memory.
    #[error("the destinations of tensors `{first}` and `{second}` overlap in memory")]
    DestinationsOverlap {
        /// One tensor.
        first: String,
        /// The other.
        second: String,
    },
    /// A byte range outside its tensor.
    #[error("tensor `{tensor}`: bytes {start}..{end} are outside its {byte_len} bytes")]
    RangeOutside {
        /// Name of the tensor.
        tensor: String,
        /// Start of the range.
        start: u64,
        /// End of the range.
        end: u64,
        /// Size of the tensor.
        byte_len: u64,
    },
    /// The system refused part of a save.
    #[error("`{}`{}: {action} failed: {source}", .path.display(), at_tensor(.tensor.as_deref()))]
    Save {
        /// The file or folder.
        path: PathBuf,
        /// The tensor being written, if any.
        tensor: Option<String>,
        /// What was being done.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The system refused what is to be done after readers find the new files.
    #[error("`{}`: what was saved is in place and whole, but not all is done: {source}; \
        the next save there, or `windlass.recover`, does the rest", .path.display())]
    AfterSave {
        /// The file or folder.
        path: PathBuf,
        /// What was refused.
        source: Box<Error>,
    },
    /// The file system has no room for the new files beside the old ones.
    #[error("`{}`: not enough free space to save: expected {needed} bytes, found {found}", .path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes of the new files.
        needed: u64,
        /// Free bytes.
        found: u64,
    },
    /// Another save holds the folder.
    #[error("`{}`: {holder} has been saving into this folder for the {seconds} s that were waited", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it.
        holder: String,
        /// How long was waited.
        seconds: f64,
    },
    /// Some bytes of a file were never written.
    #[error("`{}`: expected {expected} bytes of tensors, {found} were written", .path.display())]
    Incomplete {
        /// The staged file.
        path: PathBuf,
        /// Bytes of all its tensors.
        expected: u64,
        /// Bytes written.
        found: u64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A worker panicked: a bug in the engine, reported without taking the process down.
    #[error("a worker thread panicked (this is a bug in windlass): {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

fn listed_in(index: Option<&Path>) -> String {
    index.map_or_else(String::new, |index| format!(" (listed in `{}`)", index.display()))
}

fn and_starts(starts: Option<usize>) -> String {
    starts.map_or_else(String::new, |starts| format!(", {starts} starts"))
}

fn at_tensor(tensor: Option<&str>) -> String {
    tensor.map_or_else(String::new, |tensor| format!(", tensor `{tensor}`"))
}

impl Error {
    /// A system error in a save.
    pub(crate) fn save(
        path: &Path,
        tensor: Option<&str>,
        action: &'static str,
        source: io::Error,
    ) -> Self {
        Self::Save { path: path.to_owned(), tensor: tensor.map(str::to_owned), action, source }
    }

    /// The same error, met when readers find the new files already.
    pub(crate) fn after_save(self, path: &Path) -> Self {
        Self::AfterSave { path: path.to_owned(), source: Box::new(self) }
    }

    /// Sorts a system error on `path` into the variants that users tell apart.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path, index: None, source },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path, source },
            _ => Self::Io { path, tensor: None, action, source },
        }
    }
}
