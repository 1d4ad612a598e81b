//! What the generator believes to exist. Where it errs, statements fail, and have to fail on both sides.

use super::types::Type;

/// Which database a table is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The catalog `dh`.
    Dh,
    /// The database of the process, `memory`.
    Memory,
    /// Temporary, so of one connection.
    Temp,
}

#[derive(Debug, Clone)]
pub struct Column {
    /// As written in SQL, quoted where needed.
    pub name: String,
    pub data_type: Type,
    /// Computed, so not to be written.
    pub is_generated: bool,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub place: Place,
    /// As written in SQL; `None` for `main`.
    pub schema: Option<String>,
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of its primary key or a UNIQUE constraint.
    pub key: Vec<usize>,
    pub is_view: bool,
    /// Too many rows for joins.
    pub is_big: bool,
}

impl Table {
    pub fn is_remote(&self) -> bool {
        self.place == Place::Dh
    }

    /// Columns that can be written.
    pub fn writable(&self) -> Vec<Column> {
        self.columns
            .iter()
            .filter(|column| !column.is_generated)
            .cloned()
            .collect()
    }
}

/// Something with a name in `dh`: a sequence, a macro, an index.
#[derive(Debug, Clone)]
pub struct Object {
    pub name: String,
    pub schema: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub tables: Vec<Table>,
    pub schemas: Vec<String>,
    pub types: Vec<(String, Type)>,
    pub sequences: Vec<Object>,
    pub macros: Vec<Object>,
    pub table_macros: Vec<Object>,
    pub indexes: Vec<Object>,
}

impl Model {
    pub fn remove(&mut self, name: &str) {
        self.tables.retain(|table| table.name != name);
    }

    pub fn table(&mut self, name: &str) -> Option<&mut Table> {
        self.tables.iter_mut().find(|table| table.name == name)
    }
}
