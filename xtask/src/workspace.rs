//! Where this workspace is, and what it is made of.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lockfile::LockFile;
use crate::process;

/// The workspace that xtask works on.
pub struct Workspace {
    /// The repository root.
    pub root: PathBuf,
    /// Cargo's target directory, which may lie outside the repository.
    pub target: PathBuf,
    /// The version that all crates share, without a leading `v`.
    pub version: String,
}

impl Workspace {
    /// Asks cargo about the workspace that holds xtask.
    pub fn locate() -> Result<Self> {
        // Asked when xtask runs and not when it was compiled: clones may share one target directory.
        let start = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let json = process::capture(process::cargo(&start).args(["metadata", "--no-deps", "--format-version", "1"]))?;
        Self::from_metadata(&json)
    }

    fn from_metadata(json: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(json).context("cannot parse the output of `cargo metadata`")?;
        let text = |value: &Value, what: &str| -> Result<String> {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("`cargo metadata` did not say {what}"))
        };
        let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
        let version = packages
            .iter()
            .find(|package| package["name"] == "xtask")
            .map_or(&Value::Null, |p| &p["version"]);
        Ok(Self {
            root: text(&metadata["workspace_root"], "where the workspace is")?.into(),
            target: text(&metadata["target_directory"], "where the target directory is")?.into(),
            version: text(version, "the version of xtask")?,
        })
    }

    /// A cargo command to run in this workspace.
    pub fn cargo(&self) -> Command {
        process::cargo(&self.root)
    }

    /// The file or directory at `relative` in the repository.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Reads the workspace's `Cargo.lock`.
    pub fn lock_file(&self) -> Result<LockFile> {
        let path = self.path("Cargo.lock");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(LockFile::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_metadata() {
        let workspace = Workspace::from_metadata(
            r#"{"workspace_root": "/r", "target_directory": "/t",
                "packages": [{"name": "other", "version": "9.0.0"}, {"name": "xtask", "version": "0.1.0"}]}"#,
        )
        .unwrap();
        assert_eq!(workspace.root, Path::new("/r"));
        assert_eq!(workspace.target, Path::new("/t"));
        assert_eq!(workspace.version, "0.1.0");
    }

    #[test]
    fn says_what_is_missing() {
        let error = Workspace::from_metadata(r#"{"workspace_root": "/r"}"#).err().unwrap();
        assert!(error.to_string().contains("target directory"), "{error}");
    }
}
