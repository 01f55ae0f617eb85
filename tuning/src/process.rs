//! What this process takes of the machine besides CPU time.

use std::fs;

/// The bytes of this process that are in memory; `None` if the kernel does not tell.
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The number of files, sockets and pipes that this process has open; `None` if the kernel does not tell.
pub fn open_files() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The directory that is read is one of them.
    Some(entries - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn files_that_are_opened_are_counted_and_memory_that_is_used() {
        let before = open_files().unwrap();
        let files: Vec<File> = (0..100).map(|_| File::open("/").unwrap()).collect();
        assert!(open_files().unwrap() >= before + 50, "other tests close some meanwhile");
        drop(files);
        let bytes = vec![1_u8; 64 << 20];
        assert!(resident_bytes().unwrap() > bytes.len() as u64);
    }
}
