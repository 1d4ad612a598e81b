//! What is known of the remote catalog, as of some epoch.

use std::collections::HashMap;
use std::sync::Arc;

use duckherder_proto::v1::TableDescription;

use crate::name::fold;

/// Tables remembered; beyond it, everything is forgotten, which costs look-ups.
const TABLES_MAX: usize = 65_536;

/// Descriptions of remote tables, all true at one epoch of the server's catalog.
///
/// Only what exists is kept. That a table does not exist is never remembered: the answer would be wrong as soon as
/// somebody else creates it.
#[derive(Debug, Default)]
pub struct SchemaCache {
    epoch: u64,
    tables: HashMap<(String, String), Arc<TableDescription>>,
}

impl SchemaCache {
    /// The epoch that everything in here is true at.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes note of the server's epoch; forgets everything if it is another one. Whether it was.
    pub fn observe(&mut self, epoch: u64) -> bool {
        let changed = epoch != self.epoch;
        if changed {
            self.tables.clear();
            self.epoch = epoch;
        }
        changed
    }

    /// Keeps a description read at `epoch`. Where the same is known already, that one is returned: whoever compares by
    /// identity then sees no change.
    pub fn insert(&mut self, epoch: u64, table: TableDescription) -> Arc<TableDescription> {
        self.observe(epoch);
        let key = (fold(&table.schema_name), fold(&table.table_name));
        if let Some(known) = self.tables.get(&key)
            && **known == table
        {
            return Arc::clone(known);
        }
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        let table = Arc::new(table);
        self.tables.insert(key, Arc::clone(&table));
        table
    }

    /// The description of a table, if known.
    #[must_use]
    pub fn get(&self, schema_name: &str, table_name: &str) -> Option<Arc<TableDescription>> {
        self.tables.get(&(fold(schema_name), fold(table_name))).cloned()
    }

    /// Forgets everything: the next look finds out anew.
    pub fn clear(&mut self) {
        self.tables.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableDescription {
        TableDescription {
            schema_name: "main".into(),
            table_name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn names_ignore_case() {
        let mut cache = SchemaCache::default();
        cache.insert(1, table("Orders"));
        assert_eq!(cache.get("MAIN", "orders").unwrap().table_name, "Orders");
    }

    #[test]
    fn what_is_known_keeps_its_identity() {
        let mut cache = SchemaCache::default();
        let first = cache.insert(1, table("a"));
        assert!(Arc::ptr_eq(&first, &cache.insert(1, table("a"))));
        let changed = TableDescription {
            estimated_rows: Some(1),
            ..table("a")
        };
        assert!(!Arc::ptr_eq(&first, &cache.insert(1, changed)));
    }

    #[test]
    fn another_epoch_forgets() {
        let mut cache = SchemaCache::default();
        cache.insert(1, table("a"));
        assert!(!cache.observe(1));
        assert!(cache.get("main", "a").is_some());
        assert!(cache.observe(2));
        assert!(cache.get("main", "a").is_none());
        cache.insert(2, table("b"));
        cache.insert(3, table("c"));
        assert!(cache.get("main", "b").is_none());
        assert!(cache.get("main", "c").is_some());
    }
}
