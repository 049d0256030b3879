//! A store in memory with the manners of S3 (publishing copies): for simulations and tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Store, StoreError, check_key};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryStore {
    fn objects(&self, key: &str) -> Result<MutexGuard<'_, BTreeMap<String, Vec<u8>>>, StoreError> {
        check_key(key)?;
        Ok(self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.objects(key)?.get(key).cloned())
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.objects(key)?.insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let mut objects = self.objects(key)?;
        if objects.contains_key(key) {
            return Ok(false);
        }
        objects.insert(key.to_owned(), bytes.to_vec());
        Ok(true)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(objects
            .range(prefix.to_owned()..)
            .take_while(|(k, _)| k.starts_with(prefix))
            .map(|(k, v)| (k.clone(), v.len() as u64))
            .collect())
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.objects(key)?.remove(key);
        Ok(())
    }

    fn publish(&self, from: &str, to: &str) -> Result<(), StoreError> {
        check_key(to)?;
        let mut objects = self.objects(from)?;
        match objects.get(from).cloned() {
            Some(bytes) => {
                objects.insert(to.to_owned(), bytes);
                Ok(())
            }
            None if objects.contains_key(to) => Ok(()),
            None => Err(StoreError::Missing { at: format!("{to:?} in {}", self.describe()), hint: format!(", nor does {from:?}") }),
        }
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_keeps_the_laws() {
        super::super::laws::check_store(&super::MemoryStore::default());
    }
}
