//! A disk that forgets: a file system in memory (FUSE), whose files and names are kept for certain only
//! from the sync on that covers them. Without its power, bytes that were not synced are there or not, as
//! chance has it, and the names in a directory are as they were at some moment since its last sync: file
//! systems keep changes of names in their order. Its writes can fail, end short, or stand still, and its
//! room can end.

#![allow(dead_code)] // Each test file uses its own part.

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// Nothing of it is cached, since it can be another after a loss of power.
const TTL: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;
/// What it says that it has room for.
const ROOM_BLOCKS: u64 = 4 << 20;

/// What happens to what is written to the segments of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Nothing is written, and that is an error.
    Error,
    /// Half of it is written.
    Short,
    /// It is written, and the sync that is to follow is an error.
    Sync,
    /// It waits until that is over.
    Stall,
}

/// A change that was not synced.
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
    Name(OsString, u64),
    NoName(OsString),
    Rename(OsString, OsString),
}

#[derive(Default)]
struct Inode {
    is_dir: bool,
    /// The bytes of a file.
    seen: Vec<u8>,
    kept: Vec<u8>,
    /// The names in a directory.
    names: BTreeMap<OsString, u64>,
    names_kept: BTreeMap<OsString, u64>,
    changes: Vec<Change>,
    /// How often what is kept of it has changed.
    version: u64,
}

impl Inode {
    fn change(&mut self, change: Change) {
        apply(&change, &mut self.seen, &mut self.names);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in self.changes.drain(..) {
            apply(&change, &mut self.kept, &mut self.names_kept);
        }
        self.version += 1;
    }

    /// Of what was not synced some is there and some is not; how much is not.
    fn lose(&mut self, random: &mut SmallRng) -> usize {
        let (mut lost, names) = (0, random.random_range(0..=self.changes.len()));
        for (place, change) in self.changes.drain(..).enumerate() {
            let is_kept = if self.is_dir { place < names } else { random.random_bool(0.5) };
            if is_kept {
                apply(&change, &mut self.kept, &mut self.names_kept);
            } else {
                lost += 1;
            }
        }
        (self.seen, self.names) = (self.kept.clone(), self.names_kept.clone());
        self.version += 1;
        lost
    }
}

fn apply(change: &Change, bytes: &mut Vec<u8>, names: &mut BTreeMap<OsString, u64>) {
    match change {
        Change::Write(offset, data) => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Name(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::NoName(name) => drop(names.remove(name)),
        Change::Rename(old, new) => {
            if let Some(inode) = names.remove(old) {
                names.insert(new.clone(), inode);
            }
        }
    }
}

/// Who is shown what a loss of power would leave, whenever that changes.
type Watcher = Box<dyn FnMut(&Leftover<'_>) + Send>;

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    last: u64,
    is_off: bool,
    fault: Fault,
    /// The bytes that all files may have, if that is limited.
    room: Option<usize>,
    watcher: Option<Watcher>,
    /// Writes that stand still.
    stalled: Vec<(u64, usize, Vec<u8>, ReplyWrite)>,
}

impl State {
    fn find(&mut self, inode: INodeNo) -> Result<&mut Inode, Errno> {
        if self.is_off {
            return Err(Errno::EIO);
        }
        self.inodes.get_mut(&inode.0).ok_or(Errno::ENOENT)
    }

    fn child(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.find(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn make(&mut self, parent: INodeNo, name: &OsStr, is_dir: bool) -> Result<u64, Errno> {
        self.find(parent)?;
        self.last += 1;
        let inode = self.last;
        self.inodes.insert(inode, Inode { is_dir, ..Inode::default() });
        self.find(parent)?.change(Change::Name(name.into(), inode));
        self.show();
        Ok(inode)
    }

    fn attr(&mut self, inode: u64) -> Result<FileAttr, Errno> {
        let Inode { is_dir, seen, .. } = self.find(INodeNo(inode))?;
        let (kind, size) =
            (if *is_dir { FileType::Directory } else { FileType::RegularFile }, seen.len() as u64);
        let never = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: never,
            mtime: never,
            ctime: never,
            crtime: never,
            kind,
            perm: if kind == FileType::Directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    /// Whether so many bytes more find room.
    fn has_room(&self, bytes: usize) -> bool {
        let named = self.inodes.values().flat_map(|dir| dir.names.values());
        let held: usize = named.map(|inode| self.inodes[inode].seen.len()).sum();
        self.room.is_none_or(|room| held + bytes <= room)
    }

    /// What a loss of power may leave by now: names of every moment, and without or with all the bytes
    /// that were not synced.
    fn show(&mut self) {
        let Some(mut watcher) = self.watcher.take() else { return };
        let unsynced = |is_dir| {
            let those = self.inodes.values().filter(move |inode| inode.is_dir == is_dir);
            those.map(|inode| inode.changes.len()).max().unwrap_or(0)
        };
        for names in 0..=unsynced(true) {
            for bytes in [false, true].into_iter().take(1 + unsynced(false).min(1)) {
                watcher(&Leftover { state: self, names, bytes });
            }
        }
        self.watcher = Some(watcher);
    }

    /// Whether an inode is a segment of a log.
    fn is_log(&self, inode: INodeNo) -> bool {
        let is_it = |(name, found): (&OsString, &u64)| {
            *found == inode.0 && name.as_encoded_bytes().ends_with(b".log")
        };
        self.inodes.values().any(|dir| dir.names.iter().any(is_it))
    }
}

/// What is left without power: so many of the changes of each directory that were not synced, and all
/// changes of files or none.
pub(crate) struct Leftover<'a> {
    state: &'a State,
    names: usize,
    bytes: bool,
}

impl Leftover<'_> {
    /// Makes files of it in a directory.
    pub(crate) fn write_to(&self, path: &Path) -> std::io::Result<()> {
        self.write_dir(INodeNo::ROOT.0, path)
    }

    /// A number that is another one for whatever differs.
    pub(crate) fn signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (dir, _) in self.state.inodes.iter().filter(|(_, inode)| inode.is_dir) {
            for (name, inode) in self.names_in(*dir) {
                let Inode { version, changes, .. } = &self.state.inodes[&inode];
                (dir, name, inode, version, self.bytes.then_some(changes.len())).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn write_dir(&self, dir: u64, path: &Path) -> std::io::Result<()> {
        for (name, inode) in self.names_in(dir) {
            let (path, Inode { is_dir, seen, kept, .. }) = (path.join(name), &self.state.inodes[&inode]);
            if *is_dir {
                std::fs::create_dir(&path)?;
                self.write_dir(inode, &path)?;
            } else {
                write_sparse(&path, if self.bytes { seen } else { kept })?;
            }
        }
        Ok(())
    }

    /// The names that are left in a directory.
    fn names_in(&self, dir: u64) -> BTreeMap<OsString, u64> {
        let Inode { names_kept, changes, .. } = &self.state.inodes[&dir];
        let mut names = names_kept.clone();
        for change in changes.iter().take(self.names) {
            apply(change, &mut Vec::new(), &mut names);
        }
        names
    }
}

/// Writes a file, and of its zeros none.
fn write_sparse(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    let file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (place, block) in bytes.chunks(ZEROS.len()).enumerate() {
        if *block != ZEROS[..block.len()] {
            file.write_all_at(block, (place * ZEROS.len()) as u64)?;
        }
    }
    Ok(())
}

/// See the module. Declare it after the cluster whose replicas use it.
pub(crate) struct VolatileDisk {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    _session: BackgroundSession,
}

impl VolatileDisk {
    /// Mounts one at this path, if this machine lets the test do so.
    pub(crate) fn mount(path: PathBuf) -> Option<VolatileDisk> {
        std::fs::create_dir(&path).unwrap();
        let root = Inode { is_dir: true, ..Inode::default() };
        let state = State { inodes: BTreeMap::from([(INodeNo::ROOT.0, root)]), last: 1, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("volatile".into()), MountOption::NoAtime];
        let mounted = fuser::spawn_mount(Files(state.clone()), &path, &config);
        Some(VolatileDisk { path, state, _session: mounted.ok()? })
    }

    /// From here on all is refused, and nothing more is kept.
    pub(crate) fn power_off(&self) {
        self.state.lock().unwrap().is_off = true;
    }

    /// It works again, with what was kept; how many changes were lost.
    pub(crate) fn power_on(&self, random: &mut SmallRng) -> usize {
        let mut state = self.state.lock().unwrap();
        state.is_off = false;
        state.inodes.values_mut().map(|inode| inode.lose(random)).sum()
    }

    /// What happens to writes of the log from here on.
    pub(crate) fn set_fault(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = fault;
        for (inode, offset, data, reply) in std::mem::take(&mut state.stalled) {
            let length = data.len();
            if let Some(inode) = state.inodes.get_mut(&inode) {
                inode.change(Change::Write(offset, data));
            }
            reply.written(length as u32);
        }
    }

    /// How many bytes all files may have from here on.
    pub(crate) fn set_room(&self, bytes: Option<usize>) {
        self.state.lock().unwrap().room = bytes;
    }

    /// From here on this is called with all that a loss of power may leave, at each change of a name and at
    /// each sync, before whoever waits for that goes on. It must not panic.
    pub(crate) fn watch(&self, watcher: impl FnMut(&Leftover<'_>) + Send + 'static) {
        self.state.lock().unwrap().watcher = Some(Box::new(watcher));
    }

    /// How many writes of the log stand still.
    pub(crate) fn stalled(&self) -> usize {
        self.state.lock().unwrap().stalled.len()
    }
}

/// Whoever waits for it is given an answer, or could not even be killed.
impl Drop for VolatileDisk {
    fn drop(&mut self) {
        self.set_fault(Fault::None);
        self.power_off();
        // Who holds a file of it open and ends would wait for an answer that nobody gives.
        let _ = Command::new("umount").args(["--force", "--lazy"]).arg(&self.path).output();
    }
}

struct Files(Arc<Mutex<State>>);

impl Files {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// Ends a method with the value, or the reply with the error.
macro_rules! give {
    ($reply:ident, $value:expr) => {
        match $value {
            Ok(value) => value,
            Err(error) => return $reply.error(error),
        }
    };
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let inode = give!(reply, state.child(parent, name));
        let attr = give!(reply, state.attr(inode));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = give!(reply, self.state().attr(inode.0));
        reply.attr(&TTL, &attr);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let Some(size) = size {
            give!(reply, state.find(inode)).change(Change::Length(size as usize));
        }
        let attr = give!(reply, state.attr(inode.0));
        reply.attr(&TTL, &attr);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut state = self.state();
        let inode = give!(reply, state.make(parent, name, true));
        let attr = give!(reply, state.attr(inode));
        reply.entry(&TTL, &attr, Generation(0));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.state();
        let inode = give!(reply, state.make(parent, name, false));
        let attr = give!(reply, state.attr(inode));
        reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        give!(reply, state.find(parent)).change(Change::NoName(name.into()));
        state.show();
        reply.ok();
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != to {
            return reply.error(Errno::EXDEV);
        }
        let mut state = self.state();
        give!(reply, state.find(parent)).change(Change::Rename(name.into(), new.into()));
        state.show();
        reply.ok();
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        give!(reply, self.state().find(inode));
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        let bytes = &give!(reply, state.find(inode)).seen;
        let start = bytes.len().min(offset as usize);
        reply.data(&bytes[start..bytes.len().min(start + size as usize)]);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let fault = if state.fault != Fault::None && state.is_log(inode) { state.fault } else { Fault::None };
        let before = give!(reply, state.find(inode)).seen.len();
        let (offset, mut data) = (offset as usize, data.to_vec());
        match fault {
            Fault::Error => return reply.error(Errno::EIO),
            Fault::Stall => return state.stalled.push((inode.0, offset, data, reply)),
            Fault::Short => data.truncate(data.len() / 2),
            Fault::Sync | Fault::None => {}
        }
        let length = data.len() as u32;
        if !state.has_room((offset + data.len()).saturating_sub(before)) {
            return reply.error(Errno::ENOSPC);
        }
        give!(reply, state.find(inode)).change(Change::Write(offset, data));
        reply.written(length);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        if state.fault == Fault::Sync && state.is_log(inode) {
            return reply.error(Errno::EIO);
        }
        give!(reply, state.find(inode)).sync();
        state.show();
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        self.fsync(request, inode, handle, data, reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.state();
        let names = give!(reply, state.find(inode)).names.clone();
        let own = [(OsString::from("."), inode.0), (OsString::from(".."), INodeNo::ROOT.0)];
        for (place, (name, found)) in own.into_iter().chain(names).enumerate().skip(offset as usize) {
            let kind = give!(reply, state.attr(found)).kind;
            if reply.add(INodeNo(found), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(ROOM_BLOCKS, ROOM_BLOCKS, ROOM_BLOCKS, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
