//! Writing files so that nobody ever sees half of one.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// Puts `content` at `path` in one step, and makes the directories above it.
///
/// A process that has the old file open or mapped (a host with the extension loaded) keeps the old content.
pub fn replace(path: &Path, content: &[u8], permissions: Permissions) -> Result<()> {
    write(path, content, permissions).with_context(|| format!("cannot write {}", path.display()))
}

/// Who may do what with a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Everybody reads, the owner writes.
    Data,
    /// And everybody executes.
    Program,
}

fn write(path: &Path, content: &[u8], permissions: Permissions) -> Result<()> {
    let directory = path.parent().context("it has no parent directory")?;
    fs::create_dir_all(directory)?;
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    set_permissions(file.as_file(), permissions)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(unix)]
fn set_permissions(file: &fs::File, permissions: Permissions) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let mode = match permissions {
        Permissions::Data => 0o644,
        Permissions::Program => 0o755,
    };
    Ok(file.set_permissions(fs::Permissions::from_mode(mode))?)
}

#[cfg(not(unix))]
fn set_permissions(_file: &fs::File, _permissions: Permissions) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn makes_directories_and_leaves_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        replace(&path, b"one", Permissions::Data).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn an_open_file_keeps_its_content() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        replace(&path, b"old", Permissions::Program).unwrap();
        let mut open = fs::File::open(&path).unwrap();
        replace(&path, b"new", Permissions::Program).unwrap();
        let mut content = String::new();
        open.read_to_string(&mut content).unwrap();
        assert_eq!(content, "old");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
