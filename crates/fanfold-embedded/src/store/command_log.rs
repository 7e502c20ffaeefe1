//! The command log: groups of accepted commands, in the order of acceptance.
//!
//! A group is appended and synced as one unit, before any of its commands is acknowledged. Groups
//! have positions 1, 2, 3 … Segments are files named after the position of their first group. A
//! segment is dropped once all its commands are processed.
//!
//! A segment is a header and groups of `[length u32][checksum u32][position u64][payload]`, all
//! big-endian. The checksum covers position and payload. Bytes after the last whole group of the
//! last segment are from an append that a crash interrupted: they were never acknowledged, and
//! opening cuts them off.

use fanfold::host::knob::Knob;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::StoreError;
use crate::disk::{Disk, DiskFile, ReadFrom};
use crate::faults;
use crate::interleave::{self, Between};

const MAGIC: &[u8; 8] = b"FFCMDS\x00\x01";
const GROUP_HEADER_BYTES: usize = 16;
/// The size at which a new segment begins. Small, because only whole segments are dropped.
const SEGMENT_BYTES: Knob = Knob::new(16 * 1024 * 1024, 4_000);
/// The size of the read buffer when a log is opened.
const READ_BYTES: usize = 1024 * 1024;
/// The size at which a copy of a log writes what it has read: bounds its memory.
const COPY_BYTES: Knob = Knob::new(1024 * 1024, 100);
/// The largest group. A length beyond it is damage, and must not cause an allocation of that size.
pub(crate) const GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The log, open at its end.
pub(crate) struct CommandLog {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Oldest first. Appends go to the last one.
    segments: VecDeque<Segment>,
    file: Box<dyn DiskFile>,
    /// The length of the last segment that is synced and valid. Bytes after it are ignored.
    synced_bytes: u64,
    /// Whether there may be bytes after `synced_bytes`.
    is_torn: bool,
    next: u64,
    buffer: Vec<u8>,
    segment_bytes: u64,
}

struct Segment {
    first: u64,
    path: PathBuf,
    bytes: u64,
}

impl CommandLog {
    /// Creates an empty log in `folder`.
    pub(crate) fn make(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
        disk.make_folder(folder)?;
        create(disk, folder, 1).map(drop)
    }

    /// Opens the log in `folder`. Calls `group` with each group at or above `done`. Groups below
    /// `done` are processed, and may be missing.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        done: u64,
        mut group: impl FnMut(u64, Bytes) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut segments: VecDeque<Segment> = used_segments(&*disk, folder)?.into();
        let mut next = done.max(1);
        let mut synced_bytes = 0;
        let count = segments.len();
        for (index, segment) in segments.iter_mut().enumerate() {
            let is_last = index + 1 == count;
            let file = disk.open(&segment.path)?;
            let mut groups = Groups::open(&*file)?;
            while let Some((position, payload)) = groups.next()? {
                if position >= done {
                    if position > next {
                        return Err(broken(&segment.path, "groups are missing before this file"));
                    }
                    group(position, payload)?;
                    next = position + 1;
                }
            }
            segment.bytes = groups.valid_bytes;
            if groups.valid_bytes < groups.file_bytes {
                // A group is synced before the next one is written. So a broken group before a
                // whole one is damage, not a torn append.
                if !is_last || groups.is_followed_by_a_group(done)? {
                    return Err(broken(&segment.path, "damaged in the middle of the log"));
                }
                let bytes = groups.file_bytes - groups.valid_bytes;
                tracing::info!(
                    bytes,
                    "the last process crashed while it wrote to the command log: cut off what was never accepted"
                );
            }
            synced_bytes = groups.valid_bytes;
        }
        let last = segments.back().ok_or_else(|| broken(folder, "the command log is missing"))?;
        let file = disk.open(&last.path)?;
        let mut log = Self {
            disk,
            folder: folder.to_owned(),
            segments,
            file,
            synced_bytes,
            // If the header itself is torn, `synced_bytes` is 0 and `cut_torn` writes it again.
            is_torn: true,
            next,
            buffer: Vec::new(),
            segment_bytes: faults::segment_bytes(SEGMENT_BYTES.as_u64()),
        };
        log.cut_torn()?;
        // Damage among processed groups is no error, but cuts the last segment off before `done`.
        // The next group's position would not follow, and reading would stop. So empty it.
        log.trim(done)?;
        Ok(log)
    }

    /// Begins a new segment at `bytes` instead of 16 MiB.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Appends a group, and syncs it. Returns its position. After an error the group is not in the
    /// log, and will not appear in it later.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<u64, StoreError> {
        self.cut_torn()?;
        if self.synced_bytes >= self.segment_bytes {
            self.roll()?;
        }
        let position = self.next;
        self.buffer.clear();
        write_group(&mut self.buffer, position, payload);
        self.is_torn = true;
        self.file.write_at(self.synced_bytes, &self.buffer)?;
        faults::reached("command_log.written");
        self.file.sync()?;
        // The next start would not find a file that was removed, moved or replaced meanwhile.
        if !self.file.is_linked() {
            self.cut_torn()?;
            return Err(StoreError::Gone(self.folder.clone()));
        }
        self.is_torn = false;
        self.synced_bytes += self.buffer.len() as u64;
        self.next += 1;
        if let Some(last) = self.segments.back_mut() {
            last.bytes = self.synced_bytes;
        }
        faults::reached("command_log.synced");
        Ok(position)
    }

    /// Drops the segments whose groups are all below `done`. Empties the last segment if all its
    /// groups are below `done`.
    pub(crate) fn trim(&mut self, done: u64) -> Result<(), StoreError> {
        while self.segments.get(1).is_some_and(|second| second.first <= done) {
            let Some(oldest) = self.segments.pop_front() else { break };
            if let Err(error) = self.disk.remove(&oldest.path)
                && error.kind() != ErrorKind::NotFound
            {
                self.segments.push_front(oldest);
                return Err(error.into());
            }
        }
        if done >= self.next && self.synced_bytes > MAGIC.len() as u64 {
            // These groups may reappear after a crash. They are still below `done` then.
            self.synced_bytes = MAGIC.len() as u64;
            self.is_torn = true;
            if let Some(last) = self.segments.back_mut() {
                last.bytes = self.synced_bytes;
            }
            self.cut_torn()?;
        }
        Ok(())
    }

    /// The segments with what of them is synced: the file, and its bytes.
    pub(crate) fn parts(&self) -> Vec<(PathBuf, u64)> {
        self.segments.iter().map(|segment| (segment.path.clone(), segment.bytes)).collect()
    }

    /// The position that the next group gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Cuts off the bytes that a failed append or a crash has left, and restores a torn header.
    fn cut_torn(&mut self) -> Result<(), StoreError> {
        if !self.is_torn {
            return Ok(());
        }
        if self.synced_bytes < MAGIC.len() as u64 {
            self.file.set_len(0)?;
            self.file.write_at(0, MAGIC)?;
            self.synced_bytes = MAGIC.len() as u64;
        }
        self.file.set_len(self.synced_bytes)?;
        self.file.sync()?;
        self.is_torn = false;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let (segment, file) = create(&*self.disk, &self.folder, self.next)?;
        self.synced_bytes = segment.bytes;
        self.segments.push_back(segment);
        self.file = file;
        Ok(())
    }
}

/// Copies the groups from `done` to before `next` of these parts into a new log in `folder`, durably.
/// Calls `written` with the bytes that it has written since the last call. The parts must stay as they
/// are, and only grow, meanwhile.
pub(crate) fn copy(
    disk: &dyn Disk,
    parts: &[(PathBuf, u64)],
    done: u64,
    next: u64,
    folder: &Path,
    written: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), CopyError> {
    let target = |error: StoreError| CopyError::Target(error);
    let mut due = done.max(1);
    disk.make_folder(folder).map_err(|error| target(error.into()))?;
    for (path, bytes) in parts {
        let file = disk.open(path)?;
        let mut groups = Groups::open(&*file)?;
        let mut copy: Option<(Segment, Box<dyn DiskFile>)> = None;
        let mut buffer = Vec::new();
        while groups.valid_bytes < *bytes {
            let Some((position, payload)) = groups.next()? else {
                return Err(broken(path, "it is damaged").into());
            };
            if position < done {
                continue;
            }
            if position != due {
                return Err(broken(path, "groups are missing before this file").into());
            }
            due += 1;
            if copy.is_none() {
                copy = Some(create(disk, folder, position).map_err(target)?);
            }
            write_group(&mut buffer, position, &payload);
            if let Some((segment, file)) = &mut copy
                && buffer.len() >= COPY_BYTES.get()
            {
                write_part(segment, &mut **file, &mut buffer, written)?;
            }
        }
        if let Some((mut segment, mut file)) = copy {
            write_part(&mut segment, &mut *file, &mut buffer, written)?;
            file.sync().map_err(|error| target(error.into()))?;
        }
    }
    if due == done.max(1) {
        create(disk, folder, due).map_err(target)?;
    }
    match due == next {
        true => Ok(()),
        false => Err(broken(folder, "groups are missing at its end").into()),
    }
}

/// Why a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// What is copied cannot be read.
    Source(StoreError),
    /// The copy cannot be written.
    Target(StoreError),
    /// The caller has ended it.
    Ended,
}

impl<E: Into<StoreError>> From<E> for CopyError {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

fn write_part(
    segment: &mut Segment,
    file: &mut dyn DiskFile,
    buffer: &mut Vec<u8>,
    written: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), CopyError> {
    file.write_at(segment.bytes, buffer).map_err(|error| CopyError::Target(error.into()))?;
    segment.bytes += buffer.len() as u64;
    let bytes = buffer.len();
    buffer.clear();
    interleave::reached(Between::Steps);
    match written(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CopyError::Ended),
    }
}

fn write_group(buffer: &mut Vec<u8>, position: u64, payload: &[u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&position.to_be_bytes());
    checksum.update(payload);
    buffer.extend((payload.len() as u32).to_be_bytes());
    buffer.extend(checksum.finalize().to_be_bytes());
    buffer.extend(position.to_be_bytes());
    buffer.extend_from_slice(payload);
}

/// Whether this folder has no log, or one without groups.
pub(super) fn is_empty(disk: &dyn Disk, folder: &Path) -> io::Result<bool> {
    match segments(disk, folder) {
        Ok(segments) => Ok(segments.iter().all(|segment| segment.bytes <= MAGIC.len() as u64)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The segments that have groups. Removes segments without groups, which a full disk or a crash has
/// left: the log may have continued in the segment before. Keeps one segment in any case.
fn used_segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<Segment>, StoreError> {
    let mut used = match segments(disk, folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        used => used?,
    };
    let mut at = used.len();
    while at > 0 && used.len() > 1 {
        at -= 1;
        if used[at].bytes <= MAGIC.len() as u64 {
            disk.remove(&used.remove(at).path)?;
        }
    }
    Ok(used)
}

fn create(
    disk: &dyn Disk,
    folder: &Path,
    first: u64,
) -> Result<(Segment, Box<dyn DiskFile>), StoreError> {
    let path = folder.join(format!("{first:020}.log"));
    let created = create_at(disk, folder, &path);
    if created.is_err() {
        // The log continues in the segment before. If this fails, the next opening removes it.
        let _ = disk.remove(&path);
    }
    Ok((Segment { first, path, bytes: MAGIC.len() as u64 }, created?))
}

fn create_at(disk: &dyn Disk, folder: &Path, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    // An existing file of this name has no acknowledged group: otherwise `first` would be higher.
    let mut file = disk.create(path)?;
    file.write_at(0, MAGIC)?;
    file.sync()?;
    disk.sync_folder(folder)?;
    Ok(file)
}

fn segments(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<Segment>> {
    let segment = |(name, bytes): (String, u64)| {
        let first = name.strip_suffix(".log")?.parse().ok()?;
        Some(Segment { first, path: folder.join(&name), bytes })
    };
    let mut segments: Vec<Segment> = disk.list(folder)?.into_iter().filter_map(segment).collect();
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

fn broken(path: &Path, what: &str) -> StoreError {
    StoreError::damaged(format!("{}: {what}", path.display()))
}

/// Reads the groups of a segment, up to the first that is not whole.
struct Groups<'a> {
    file: &'a dyn DiskFile,
    reader: io::BufReader<ReadFrom<'a>>,
    file_bytes: u64,
    valid_bytes: u64,
    has_header: bool,
    expected: Option<u64>,
}

impl<'a> Groups<'a> {
    fn open(file: &'a dyn DiskFile) -> Result<Self, StoreError> {
        let file_bytes = file.bytes()?;
        let buffer_bytes = READ_BYTES.min(file_bytes as usize);
        let mut reader = io::BufReader::with_capacity(buffer_bytes, ReadFrom { file, at: 0 });
        let mut magic = [0; MAGIC.len()];
        let has_header = read_whole(&mut reader, &mut magic)? && magic == *MAGIC;
        let valid_bytes = if has_header { MAGIC.len() as u64 } else { 0 };
        Ok(Self { file, reader, file_bytes, valid_bytes, has_header, expected: None })
    }

    fn next(&mut self) -> Result<Option<(u64, Bytes)>, StoreError> {
        let mut header = [0; GROUP_HEADER_BYTES];
        if !self.has_header || !read_whole(&mut self.reader, &mut header)? {
            return Ok(None);
        }
        let number = |range: std::ops::Range<usize>| {
            header[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let (length, checksum, position) = (number(0..4) as usize, number(4..8), number(8..16));
        if length > GROUP_BYTES_MAX || self.expected.is_some_and(|expected| expected != position) {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        if !read_whole(&mut self.reader, &mut payload)? {
            return Ok(None);
        }
        let mut found = crc32fast::Hasher::new();
        found.update(&position.to_be_bytes());
        found.update(&payload);
        if u64::from(found.finalize()) != checksum {
            return Ok(None);
        }
        self.valid_bytes += (GROUP_HEADER_BYTES + length) as u64;
        self.expected = Some(position + 1);
        Ok(Some((position, payload.into())))
    }

    /// Whether a whole group, later than those that were read, follows the broken one.
    fn is_followed_by_a_group(&self, done: u64) -> Result<bool, StoreError> {
        let mut rest = Vec::new();
        let reader = ReadFrom { file: self.file, at: self.valid_bytes };
        reader.take(SEGMENT_BYTES.as_u64() + GROUP_BYTES_MAX as u64).read_to_end(&mut rest)?;
        // Trimmed groups may still be in the file. They are processed, so they do not count.
        let last = self.expected.unwrap_or(0).max(done);
        Ok((1..rest.len()).any(|at| group_at(&rest[at..]).is_some_and(|position| position > last)))
    }
}

/// The position of the whole group at the start of these bytes, if there is one.
fn group_at(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..u32::from_be_bytes(*length) as usize)?;
    let mut found = crc32fast::Hasher::new();
    found.update(position);
    found.update(payload);
    let is_whole = found.finalize() == u32::from_be_bytes(*checksum);
    // No real group is empty.
    (is_whole && !payload.is_empty()).then_some(u64::from_be_bytes(*position))
}

/// Fills the buffer. `false`: the file ends before that.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> Result<bool, StoreError> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}
