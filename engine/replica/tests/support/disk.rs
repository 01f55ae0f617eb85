//! A disk of its own for one replica: a file system in a file, which only root can mount.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// See the module. Unmounted, and thawed, when it is dropped: declare it after the cluster, whose
/// processes can only be ended while their disk answers.
pub struct OwnDisk(PathBuf);

impl OwnDisk {
    /// Mounts one of this size at this path, if this machine lets the test do so.
    pub fn mount(path: PathBuf, bytes: u64) -> Option<OwnDisk> {
        let image = path.with_extension("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&path).unwrap();
        let mounted = rustix::process::geteuid().is_root()
            && run(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        mounted.then_some(OwnDisk(path))
    }

    /// Leaves room for so many bytes, about. The file that takes the rest lies where a file system keeps
    /// files of its own, which nobody minds in a data directory.
    pub fn fill(&self, left: u64) -> PathBuf {
        let ballast = self.0.join("lost+found/ballast");
        let mut file = File::create(&ballast).unwrap();
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        file.set_len(file.metadata().unwrap().len().saturating_sub(left)).unwrap();
        ballast
    }

    /// From here on no write of it ends.
    pub fn freeze(&self) {
        assert!(run(Command::new("fsfreeze").arg("--freeze").arg(&self.0)));
    }

    /// What waited goes on.
    pub fn thaw(&self) {
        assert!(run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0)));
    }
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).output();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
