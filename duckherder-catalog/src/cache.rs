//! What is known of the remote catalog, as of some epoch.

use std::collections::HashMap;
use std::sync::Arc;

use duckherder_proto::v1::{DefinitionDescription, DefinitionKind, TableDescription};

use crate::name::{SchemaPath, fold};

/// Tables remembered; beyond it, everything is forgotten, which costs look-ups.
const TABLES_MAX: usize = 65_536;

/// Descriptions of remote tables and definitions, all true at one epoch of the server's catalog.
///
/// Of tables only what exists is kept. That a table does not exist is never remembered: the answer would be wrong as soon
/// as somebody else creates it.
#[derive(Debug, Default)]
pub struct SchemaCache {
    epoch: u64,
    tables: HashMap<(SchemaPath, String), Arc<TableDescription>>,
    definitions: Option<Arc<Definitions>>,
}

/// Entries of a catalog that are no tables, by name.
#[derive(Debug, Default)]
pub struct Definitions(HashMap<(DefinitionKind, SchemaPath, String), Arc<DefinitionDescription>>);

impl Definitions {
    /// These.
    #[must_use]
    pub fn new(definitions: Vec<DefinitionDescription>) -> Self {
        let by_name = definitions.into_iter().map(|definition| {
            let schema = SchemaPath::new(&definition.parent_schemas, &definition.schema_name);
            let key = (definition.kind(), schema.fold(), fold(&definition.name));
            (key, Arc::new(definition))
        });
        Self(by_name.collect())
    }

    /// The one of that name, if there is one.
    #[must_use]
    pub fn get(&self, kind: DefinitionKind, schema: &SchemaPath, name: &str) -> Option<Arc<DefinitionDescription>> {
        self.0.get(&(kind, schema.fold(), fold(name))).cloned()
    }
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
            self.clear();
            self.epoch = epoch;
        }
        changed
    }

    /// Keeps a description read at `epoch`. Where the same is known already, that one is returned: whoever compares by
    /// identity then sees no change.
    pub fn insert(&mut self, epoch: u64, table: TableDescription) -> Arc<TableDescription> {
        self.observe(epoch);
        let schema = SchemaPath::new(&table.parent_schemas, &table.schema_name);
        let key = (schema.fold(), fold(&table.table_name));
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
    pub fn get(&self, schema: &SchemaPath, table_name: &str) -> Option<Arc<TableDescription>> {
        self.tables.get(&(schema.fold(), fold(table_name))).cloned()
    }

    /// Keeps all of the catalog's types and macros, read at `epoch`.
    pub fn set_definitions(&mut self, epoch: u64, definitions: Arc<Definitions>) {
        self.observe(epoch);
        self.definitions = Some(definitions);
    }

    /// All of the catalog's types and macros, if known.
    #[must_use]
    pub fn definitions(&self) -> Option<Arc<Definitions>> {
        self.definitions.clone()
    }

    /// Forgets everything: the next look finds out anew.
    pub fn clear(&mut self) {
        self.tables.clear();
        self.definitions = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SchemaPath {
        text.parse().unwrap()
    }

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
        assert_eq!(cache.get(&path("MAIN"), "orders").unwrap().table_name, "Orders");
        assert!(cache.get(&path("a.main"), "orders").is_none());
    }

    #[test]
    fn definitions_are_true_at_their_epoch() {
        let mut cache = SchemaCache::default();
        assert!(cache.definitions().is_none());
        let mood = DefinitionDescription {
            kind: DefinitionKind::Type.into(),
            schema_name: "main".into(),
            name: "Mood".into(),
            ..Default::default()
        };
        cache.set_definitions(1, Arc::new(Definitions::new(vec![mood])));
        cache.observe(1);
        let known = cache.definitions().unwrap();
        assert!(known.get(DefinitionKind::Type, &path("MAIN"), "mood").is_some());
        assert!(known.get(DefinitionKind::Macro, &path("main"), "mood").is_none());
        assert!(known.get(DefinitionKind::Type, &path("s.main"), "mood").is_none());
        cache.observe(2);
        assert!(cache.definitions().is_none());
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
        assert!(cache.get(&path("main"), "a").is_some());
        assert!(cache.observe(2));
        assert!(cache.get(&path("main"), "a").is_none());
        cache.insert(2, table("b"));
        cache.insert(3, table("c"));
        assert!(cache.get(&path("main"), "b").is_none());
        assert!(cache.get(&path("main"), "c").is_some());
    }
}
