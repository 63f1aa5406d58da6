//! Named files, written whole or not at all, in a folder that one process owns.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// Why storage did not do as asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process owns the folder. Nothing was touched; stop it or choose another folder.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The operating system refused. A file that was to be written still has its old contents.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Named files of a node.
///
/// Every call blocks the thread for as long as the disk takes.
pub trait Storage: Send + Sync + 'static {
    /// The contents of `name`; `None` if there is no such file.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Replaces the contents of `name`: once this returns they outlive a power cut, and until then
    /// the old ones are whole.
    fn write(&self, name: &str, contents: &[u8]) -> Result<(), StorageError>;

    /// Begins a new file of this name, piece by piece. It is not synced to the disk.
    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StorageError>;

    /// The contents of `name`, piece by piece; `None` if there is no such file.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, StorageError>;

    /// Removes the file of this name, if there is one.
    fn remove(&self, name: &str) -> Result<(), StorageError>;

    /// Where `name` is, for messages.
    fn describe(&self, name: &str) -> String;
}

/// A file that is being written. The old one of its name stays until it is committed; dropped, it
/// comes to nothing.
pub trait NewFile: Send {
    /// Appends to it.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Puts it in the place of the old one.
    fn commit(self: Box<Self>) -> Result<(), StorageError>;
}

/// A folder of the file system, owned until this is dropped.
#[derive(Debug)]
pub struct DirectoryStorage {
    folder: PathBuf,
    /// Held for its lock, which the system takes back when the process ends, however it ends.
    _lock: File,
}

const LOCK_FILE: &str = "lock";
/// The extension of files that are being written.
const UNFINISHED: &str = "new";

impl DirectoryStorage {
    /// Takes ownership of `folder`, which is made (for this user alone) if it does not exist.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let fault = |what| fault(what, folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fault("cannot make the folder"))?;
        let path = folder.join(LOCK_FILE);
        let lock = private().create(true).truncate(false).open(&path);
        let lock = lock.map_err(fault("cannot write to the folder"))?;
        match lock.try_lock() {
            Ok(()) => {
                let storage = Self { folder: folder.to_owned(), _lock: lock };
                storage.clear_unfinished().map_err(fault("cannot clear the folder"))?;
                Ok(storage)
            }
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse(folder.display().to_string())),
            Err(TryLockError::Error(error)) => Err(fault("cannot lock the folder")(error)),
        }
    }

    /// Removes what a process left that ended while it wrote: it may fill the disk.
    fn clear_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(UNFINISHED);
        let mut file = private().create(true).truncate(true).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable only once the folder is.
        File::open(&self.folder)?.sync_all()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn fault(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StorageError {
    let path = path.display().to_string();
    move |source| StorageError::Io { what, path: path.clone(), source }
}

impl Storage for DirectoryStorage {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("cannot read", &path)(error)),
        }
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<(), StorageError> {
        let path = self.folder.join(name);
        self.replace(&path, contents).map_err(fault("cannot write", &path))
    }

    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StorageError> {
        let path = self.folder.join(name);
        let temporary = path.with_extension(UNFINISHED);
        let file = private().create(true).truncate(true).open(&temporary);
        let file = BufWriter::new(file.map_err(fault("cannot write", &temporary))?);
        Ok(Box::new(NewInFolder { file, temporary, path, committed: false }))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, StorageError> {
        let path = self.folder.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(BufReader::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("cannot read", &path)(error)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(fault("cannot remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn describe(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

struct NewInFolder {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl NewFile for NewInFolder {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(fault("cannot write", &self.temporary))
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let written = self.file.flush().and_then(|()| fs::rename(&self.temporary, &self.path));
        self.committed = written.is_ok();
        written.map_err(fault("cannot write", &self.path))
    }
}

impl Drop for NewInFolder {
    fn drop(&mut self) {
        if !self.committed {
            // It may fill the disk. If it cannot be removed, the next one takes its place.
            let _may_be_gone = fs::remove_file(&self.temporary);
        }
    }
}

/// Files in memory. Clones share them, so that a simulated node finds its files after a crash.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Storage for MemoryStorage {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.files.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<(), StorageError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(name.to_owned(), contents.to_owned());
        Ok(())
    }

    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StorageError> {
        let (storage, name) = (self.clone(), name.to_owned());
        Ok(Box::new(NewInMemory { storage, name, contents: Vec::new() }))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, StorageError> {
        let contents = self.read(name)?;
        Ok(contents.map(|bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>))
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        format!("{name} (in memory)")
    }
}

struct NewInMemory {
    storage: MemoryStorage,
    name: String,
    contents: Vec<u8>,
}

impl NewFile for NewInMemory {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.contents.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.storage.write(&self.name, &self.contents)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What both implementations promise.
    fn contract(storage: &dyn Storage) {
        assert!(storage.read("a").unwrap().is_none());
        storage.write("a", b"one").unwrap();
        storage.write("b", b"other").unwrap();
        storage.write("a", b"").unwrap();
        assert_eq!(storage.read("a").unwrap().unwrap(), b"");
        assert_eq!(storage.read("b").unwrap().unwrap(), b"other");
        assert!(storage.describe("a").contains('a'));
        let mut contents = String::new();
        assert!(storage.open("c").unwrap().is_none());
        let mut file = storage.create("c").unwrap();
        file.append(b"first, ").unwrap();
        file.append(b"second").unwrap();
        assert!(storage.open("c").unwrap().is_none());
        file.commit().unwrap();
        storage.open("c").unwrap().unwrap().read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "first, second");
        storage.remove("c").unwrap();
        storage.remove("c").unwrap();
        assert!(storage.read("c").unwrap().is_none());
    }

    #[test]
    fn files_are_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        contract(&DirectoryStorage::open(&folder.path().join("made/anew")).unwrap());
        contract(&MemoryStorage::default());
    }

    #[test]
    fn a_folder_has_one_owner_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        let owner = DirectoryStorage::open(&inner).unwrap();
        owner.write("a", b"x").unwrap();
        assert!(matches!(DirectoryStorage::open(&inner), Err(StorageError::InUse(_))));
        drop(owner);
        let next = DirectoryStorage::open(&inner).unwrap();
        assert_eq!(next.read("a").unwrap().unwrap(), b"x");
        for (path, mode) in [(inner.clone(), 0o700), (inner.join("a"), 0o600)] {
            let permissions = fs::metadata(path).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_refusal_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), b"").unwrap();
        let error = DirectoryStorage::open(&folder.path().join("plain")).unwrap_err();
        assert!(error.to_string().contains("plain"), "{error}");
    }
}
