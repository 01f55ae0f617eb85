//! File systems: their kinds, and the room in them.

use rustix::fs::{statfs, statvfs};
use std::fmt;
use std::io::Result;
use std::path::Path;

/// The kind of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// ext2, ext3 or ext4
    Ext4,
    /// XFS
    Xfs,
    /// Btrfs
    Btrfs,
    /// ZFS
    Zfs,
    /// OverlayFS, as containers have it
    Overlay,
    /// Memory that may be swapped out
    Tmpfs,
    /// Memory
    Ramfs,
    /// Another, by the number that statfs has for it
    Other(u32),
}

impl FileSystem {
    /// The kind of the file system that a directory is on.
    ///
    /// # Errors
    /// The directory does not exist, or may not be looked at.
    pub fn of(dir: &Path) -> Result<FileSystem> {
        Ok(match statfs(dir)?.f_type as u32 {
            0xef53 => FileSystem::Ext4,
            0x5846_5342 => FileSystem::Xfs,
            0x9123_683e => FileSystem::Btrfs,
            0x2fc1_2fc1 => FileSystem::Zfs,
            0x794c_7630 => FileSystem::Overlay,
            0x0102_1994 => FileSystem::Tmpfs,
            0x8584_58f6 => FileSystem::Ramfs,
            other => FileSystem::Other(other),
        })
    }

    /// Whether written data is lost with the power of the host, synced or not.
    pub fn is_in_memory(self) -> bool {
        matches!(self, FileSystem::Tmpfs | FileSystem::Ramfs)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Zfs => "zfs",
            FileSystem::Overlay => "overlay",
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Ramfs => "ramfs",
            FileSystem::Other(number) => return write!(f, "{number:#x}"),
        })
    }
}

/// The bytes that this user may still write in the file system of a directory.
///
/// # Errors
/// The directory does not exist, or may not be looked at.
pub fn free_bytes(dir: &Path) -> Result<u64> {
    Ok(room(dir)?.free_bytes)
}

/// The room in a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSystemRoom {
    /// The bytes that this user may still write.
    pub free_bytes: u64,
    /// The bytes that the file system has.
    pub size_bytes: u64,
}

/// The room in the file system of a directory.
///
/// # Errors
/// The directory does not exist, or may not be looked at.
pub fn room(dir: &Path) -> Result<FileSystemRoom> {
    let room = statvfs(dir)?;
    let (free_bytes, size_bytes) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
    Ok(FileSystemRoom { free_bytes, size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_name_or_number() {
        let proc = FileSystem::of(Path::new("/proc")).unwrap();
        assert_eq!((proc, proc.to_string().as_str()), (FileSystem::Other(0x9fa0), "0x9fa0"));
        assert!(!proc.is_in_memory() && FileSystem::Ramfs.is_in_memory());
        assert!(FileSystem::of(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn what_is_free_is_a_part_of_the_file_system() {
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), 0);
        let whole = room(Path::new("/")).unwrap();
        assert!((1..whole.size_bytes).contains(&free_bytes(Path::new("/")).unwrap()));
    }
}
